"""Convert the core's answers to LangChain's messages and content blocks. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages import content as blocks
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.block_translators import register_translator
from langchain_core.messages.tool import ToolCall as LangChainCall
from langchain_core.messages.tool import ToolCallChunk, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk

from ollama_dify import ChatChunk, ChatResult, Finish, ToolCall
from ollama_dify.adapter import quick_constructor

__all__ = ["PROVIDER", "StreamedAnswer", "answer", "facts", "text_chunk", "text_generation", "usage"]

PROVIDER = "ollama"


def answer(result: ChatResult) -> AIMessage:
    """A whole answer as a message."""
    return AIMessage(
        content=result.text,
        additional_kwargs=_thinking(result.thinking),
        tool_calls=[_call(call) for call in result.tool_calls],
        usage_metadata=None if result.finish is None else usage(result.finish),
        response_metadata=facts(result.finish, result.logprobs),
    )


def _validated_chunk(content: str) -> AIMessageChunk:
    return AIMessageChunk(content=content, response_metadata={"model_provider": PROVIDER})


def _validated_generation(message: AIMessageChunk, text: str) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=message)


# These two run once per token, so they make the same objects as validation, but without it.
text_chunk = quick_constructor(_validated_chunk, {"content": "a"}, {"content": ""})
text_generation = quick_constructor(
    _validated_generation,
    {"message": _validated_chunk("a"), "text": _validated_chunk("a").text},
    {"message": _validated_chunk(""), "text": _validated_chunk("").text},
)


class StreamedAnswer:
    """Turns the chunks of one answer into message chunks; counts its tool calls."""

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls = 0

    def chunk(self, chunk: ChatChunk) -> ChatGenerationChunk:
        """The chunk; the last one has the usage, the metadata and `chunk_position="last"`."""
        text, thinking, calls, logprobs, finish = chunk
        if not (thinking or calls or logprobs or finish):
            message = text_chunk(content=text)
            return text_generation(message=message, text=message.text)
        message = AIMessageChunk(
            content=text,
            additional_kwargs=_thinking(thinking),
            tool_call_chunks=[self._call(call) for call in calls],
            usage_metadata=None if finish is None else usage(finish),
            response_metadata=facts(finish, logprobs),
            chunk_position=None if finish is None else "last",
        )
        return ChatGenerationChunk(message=message)

    def _call(self, call: ToolCall) -> ToolCallChunk:
        arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
        index, self._calls = self._calls, self._calls + 1
        return tool_call_chunk(name=call.name, args=arguments, id=call.id, index=index)


def facts(finish: Finish | None, logprobs: Sequence[Any] = ()) -> dict[str, Any]:
    """An answer's `response_metadata`: the server's metadata and log probabilities."""
    told = {"model_provider": PROVIDER} if finish is None else finish.metadata()
    return {**told, "logprobs": list(logprobs)} if logprobs else told


def _call(call: ToolCall) -> LangChainCall:
    return tool_call(name=call.name, args=dict(call.arguments), id=call.id)


def _thinking(text: str) -> dict[str, Any]:
    return {"reasoning_content": text} if text else {}


def usage(finish: Finish) -> UsageMetadata:
    """The tokens of an answer as LangChain's UsageMetadata."""
    used = finish.usage
    told = UsageMetadata(
        input_tokens=used.input_tokens, output_tokens=used.output_tokens, total_tokens=used.total_tokens
    )
    if used.cached_tokens is not None:
        told["input_token_details"] = {"cache_read": used.cached_tokens}
    return told


def _numbered_calls(message: AIMessage) -> list[blocks.ContentBlock]:
    """The blocks of a chunk with calls; for other chunks LangChain's own reading is correct.

    A call's index must differ from the indexes that LangChain gives to blocks of text or reasoning.
    """
    if not isinstance(message, AIMessageChunk) or message.chunk_position == "last":
        raise NotImplementedError
    if not message.tool_call_chunks or not isinstance(message.content, str):
        raise NotImplementedError
    rest = message.model_copy(update={"tool_call_chunks": [], "tool_calls": []}).content_blocks
    return [*rest, *map(_numbered, message.tool_call_chunks)]


def _numbered(call: ToolCallChunk) -> blocks.ToolCallChunk:
    return blocks.ToolCallChunk(
        type="tool_call_chunk",
        id=call["id"],
        name=call["name"],
        args=call["args"],
        index=f"lc_call_{call['index']}",
    )


register_translator(PROVIDER, _numbered_calls, _numbered_calls)
