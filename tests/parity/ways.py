"""Every way to ask a model of either framework, each giving the metadata of the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import reduce
from operator import add
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import LLMResult
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


async def ended(made: Any) -> Any:
    """What a call gives, awaited if it must be; of a stream, all of it in a list."""
    made = await made if isinstance(made, Awaitable) else made
    if isinstance(made, AsyncIterator):
        return [part async for part in made]
    return list(made) if isinstance(made, Iterator) else made


def metadata(found: Any) -> Metadata:
    """Of a message, a generation or a response, of the chunks of one, or of a list with one."""
    if isinstance(found, list):
        found = reduce(add, found) if isinstance(found[0], AIMessageChunk) else found[-1]
    if isinstance(found, LLMResult):
        found = found.generations[0][0]
    places = ("response_metadata", "generation_info", "additional_kwargs")
    return dict(next(getattr(found, name) for name in places if hasattr(found, name)))


def way(name: str) -> Way:
    """Ask by a method, and give the metadata of the answer."""

    async def ask(model: Any, asked: Any) -> Metadata:
        listed = name in ("batch", "abatch", "generate", "agenerate")
        return metadata(await ended(getattr(model, name)([asked] if listed else asked)))

    return ask


CHAT: dict[str, tuple[type[Any], Way]] = {
    "langchain invoke": (ChatOllamaDify, way("invoke")),
    "langchain ainvoke": (ChatOllamaDify, way("ainvoke")),
    "langchain stream": (ChatOllamaDify, way("stream")),
    "langchain astream": (ChatOllamaDify, way("astream")),
    "langchain batch": (ChatOllamaDify, way("batch")),
    "langchain abatch": (ChatOllamaDify, way("abatch")),
    "llamaindex chat": (OllamaDify, way("chat")),
    "llamaindex achat": (OllamaDify, way("achat")),
    "llamaindex stream_chat": (OllamaDify, way("stream_chat")),
    "llamaindex astream_chat": (OllamaDify, way("astream_chat")),
}
TEXT: dict[str, tuple[type[Any], Way]] = {
    "langchain llm generate": (OllamaDifyLLM, way("generate")),
    "langchain llm agenerate": (OllamaDifyLLM, way("agenerate")),
    "langchain llm stream": (OllamaDifyLLM, way("_stream")),
    "langchain llm astream": (OllamaDifyLLM, way("_astream")),
    "llamaindex complete": (OllamaDify, way("complete")),
    "llamaindex acomplete": (OllamaDify, way("acomplete")),
    "llamaindex stream_complete": (OllamaDify, way("stream_complete")),
    "llamaindex astream_complete": (OllamaDify, way("astream_complete")),
}


def in_its_words(kind: type[Any], messages: list[Message]) -> Any:
    """The conversation as the model of this class takes it."""
    return llamaindex_messages(messages) if kind is OllamaDify else langchain_messages(messages)
