"""Every way to ask a model of either framework, each giving the metadata of the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from llama_index.core.base.llms.types import ChatMessage, TextBlock, ToolCallBlock

from langchain_ollama_dify import ChatOllamaDify, OllamaDifyLLM
from llamaindex_ollama_dify import OllamaDify
from ollama_dify import Message

Metadata = dict[str, Any]
Way = Callable[[Any, Any], Awaitable[Metadata]]


def langchain_messages(messages: list[Message]) -> list[BaseMessage]:
    """The conversation in LangChain's words."""
    made: list[BaseMessage] = []
    for turn in messages:
        if turn.role == "system":
            made.append(SystemMessage(turn.text))
        elif turn.role == "user":
            made.append(HumanMessage(turn.text))
        elif turn.role == "tool":
            made.append(ToolMessage(turn.text, tool_call_id=turn.tool_call_id, name=turn.tool_name))
        else:
            calls = [{"id": c.id, "name": c.name, "args": dict(c.arguments)} for c in turn.tool_calls]
            made.append(AIMessage(turn.text, tool_calls=calls))
    return made


def llamaindex_messages(messages: list[Message]) -> list[ChatMessage]:
    """The conversation in LlamaIndex's words."""
    made = []
    for turn in messages:
        blocks: list[Any] = [TextBlock(text=turn.text)] if turn.text else []
        blocks += [
            ToolCallBlock(tool_call_id=c.id, tool_name=c.name, tool_kwargs=dict(c.arguments))
            for c in turn.tool_calls
        ]
        extra = {"tool_call_id": turn.tool_call_id, "name": turn.tool_name} if turn.role == "tool" else {}
        made.append(ChatMessage(role=turn.role, blocks=blocks, additional_kwargs=extra))
    return made


async def _invoke(model: Any, asked: Any) -> Metadata:
    return dict(model.invoke(asked).response_metadata)


async def _ainvoke(model: Any, asked: Any) -> Metadata:
    return dict((await model.ainvoke(asked)).response_metadata)


async def _stream(model: Any, asked: Any) -> Metadata:
    whole: Any = None
    for chunk in model.stream(asked):
        whole = chunk if whole is None else whole + chunk
    return dict(whole.response_metadata)


async def _astream(model: Any, asked: Any) -> Metadata:
    whole: Any = None
    async for chunk in model.astream(asked):
        whole = chunk if whole is None else whole + chunk
    return dict(whole.response_metadata)


async def _batch(model: Any, asked: Any) -> Metadata:
    return dict(model.batch([asked])[0].response_metadata)


async def _abatch(model: Any, asked: Any) -> Metadata:
    return dict((await model.abatch([asked]))[0].response_metadata)


def _generation(result: Any) -> Metadata:
    return dict(result.generations[0][0].generation_info)


async def _generate(model: Any, asked: Any) -> Metadata:
    return _generation(model.generate([asked]))


async def _agenerate(model: Any, asked: Any) -> Metadata:
    return _generation(await model.agenerate([asked]))


async def _text_stream(model: Any, asked: Any) -> Metadata:
    return dict([chunk async for chunk in _as_async(model._stream(asked))][-1].generation_info)


async def _text_astream(model: Any, asked: Any) -> Metadata:
    return dict([chunk async for chunk in model._astream(asked)][-1].generation_info)


async def _as_async(items: Any) -> Any:
    for item in items:
        yield item


def _whole(name: str) -> Way:
    async def ask(model: Any, asked: Any) -> Metadata:
        return dict(getattr(model, name)(asked).additional_kwargs)

    return ask


def _awaited(name: str) -> Way:
    async def ask(model: Any, asked: Any) -> Metadata:
        return dict((await getattr(model, name)(asked)).additional_kwargs)

    return ask


def _streamed(name: str) -> Way:
    async def ask(model: Any, asked: Any) -> Metadata:
        return dict(list(getattr(model, name)(asked))[-1].additional_kwargs)

    return ask


def _astreamed(name: str) -> Way:
    async def ask(model: Any, asked: Any) -> Metadata:
        return dict([part async for part in await getattr(model, name)(asked)][-1].additional_kwargs)

    return ask


CHAT: dict[str, tuple[type[Any], Way]] = {
    "langchain invoke": (ChatOllamaDify, _invoke),
    "langchain ainvoke": (ChatOllamaDify, _ainvoke),
    "langchain stream": (ChatOllamaDify, _stream),
    "langchain astream": (ChatOllamaDify, _astream),
    "langchain batch": (ChatOllamaDify, _batch),
    "langchain abatch": (ChatOllamaDify, _abatch),
    "llamaindex chat": (OllamaDify, _whole("chat")),
    "llamaindex achat": (OllamaDify, _awaited("achat")),
    "llamaindex stream_chat": (OllamaDify, _streamed("stream_chat")),
    "llamaindex astream_chat": (OllamaDify, _astreamed("astream_chat")),
}
TEXT: dict[str, tuple[type[Any], Way]] = {
    "langchain llm generate": (OllamaDifyLLM, _generate),
    "langchain llm agenerate": (OllamaDifyLLM, _agenerate),
    "langchain llm stream": (OllamaDifyLLM, _text_stream),
    "langchain llm astream": (OllamaDifyLLM, _text_astream),
    "llamaindex complete": (OllamaDify, _whole("complete")),
    "llamaindex acomplete": (OllamaDify, _awaited("acomplete")),
    "llamaindex stream_complete": (OllamaDify, _streamed("stream_complete")),
    "llamaindex astream_complete": (OllamaDify, _astreamed("astream_complete")),
}


def in_its_words(kind: type[Any], messages: list[Message]) -> Any:
    """The conversation as the model of this class takes it."""
    return llamaindex_messages(messages) if kind is OllamaDify else langchain_messages(messages)
