"""Convert the core's answers to LlamaIndex's responses. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ContentBlock,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import ToolSelection

from ollama_dify import ChatChunk, ChatResult, Finish, ToolCall
from ollama_dify.adapter import quick_constructor, read_arguments

__all__ = ["GrowingAnswer", "chat_response", "completion_response", "log_probs", "tool_selections"]


_R = TypeVar("_R", ChatResponse, CompletionResponse)


def _validated_message(blocks: list[ContentBlock]) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)


# These run once per token, so they make the same objects as validation, but without it.
_text_block = quick_constructor(TextBlock, {"text": "a"}, {"text": ""})
_plain_message = quick_constructor(
    _validated_message,
    {"blocks": [TextBlock(text="a")]},
    {"blocks": [ThinkingBlock(content="a"), TextBlock(text="")]},
)
_growing_response = quick_constructor(
    ChatResponse,
    {"message": _validated_message([TextBlock(text="a")]), "delta": "a"},
    {"message": _validated_message([ThinkingBlock(content="a"), TextBlock(text="")]), "delta": ""},
)
_growing_completion = quick_constructor(
    CompletionResponse, {"text": "ab", "delta": "b"}, {"text": "", "delta": ""}
)


class GrowingAnswer:
    """A streamed answer: LlamaIndex wants each response to hold the whole answer so far.

    single_call: whether calls after the first are left out, as `allow_parallel_tool_calls=False` asks.
    """

    __slots__ = ("_calls", "_single_call", "_text", "_thinking")

    def __init__(self, *, single_call: bool = False) -> None:
        self._text = ""
        self._thinking = ""
        self._calls: tuple[ToolCall, ...] = ()
        self._single_call = single_call

    def chat(self, chunk: ChatChunk) -> ChatResponse:
        """The response for one more chunk; runs once per token."""
        text, thinking, calls, logprobs, finish = chunk
        self._text += text
        if thinking or calls:
            self._add(thinking, calls)
        message = _message(self._text, self._thinking, self._calls)
        response = _growing_response(message=message, delta=text)
        if thinking or logprobs or finish:
            _add_rest(response, logprobs, finish, thinking_delta=thinking)
        return response

    def completion(self, chunk: ChatChunk) -> CompletionResponse:
        """The same for a completion."""
        text, thinking, calls, logprobs, finish = chunk
        self._text += text
        if thinking or calls:
            self._add(thinking, calls)
        response = _growing_completion(text=self._text, delta=text)
        if thinking or logprobs or finish:
            beside = {} if finish is None else _beside_text(self._thinking, self._calls)
            _add_rest(response, logprobs, finish, thinking_delta=thinking, **beside)
        return response

    def _add(self, thinking: str, calls: tuple[ToolCall, ...]) -> None:
        self._thinking += thinking
        self._calls = _kept(self._calls + calls, self._single_call)


def chat_response(result: ChatResult, *, single_call: bool = False) -> ChatResponse:
    """A whole answer as a chat response."""
    calls = _kept(result.tool_calls, single_call)
    response = ChatResponse(message=_message(result.text, result.thinking, calls))
    return _add_rest(response, result.logprobs, result.finish)


def completion_response(result: ChatResult, *, single_call: bool = False) -> CompletionResponse:
    """A whole answer as a completion; reasoning and calls are in `additional_kwargs`."""
    beside = _beside_text(result.thinking, _kept(result.tool_calls, single_call))
    return _add_rest(CompletionResponse(text=result.text), result.logprobs, result.finish, **beside)


def log_probs(rows: Sequence[Mapping[str, Any]]) -> list[list[LogProb]]:
    """For each token of the answer: the token itself, then the requested alternatives."""
    return [
        [
            _log_prob(row),
            *(_log_prob(other) for other in row.get("top_logprobs") or () if other["token"] != row["token"]),
        ]
        for row in rows
    ]


def _log_prob(row: Mapping[str, Any]) -> LogProb:
    return LogProb(token=row["token"], logprob=row["logprob"], bytes=row.get("bytes") or [])


def tool_selections(response: ChatResponse) -> list[ToolSelection]:
    """The calls of a response as LlamaIndex's agents take them."""
    return [
        ToolSelection(
            tool_id=block.tool_call_id or block.tool_name,
            tool_name=block.tool_name,
            tool_kwargs=dict(read_arguments(block.tool_kwargs, f"tool call {block.tool_name!r}")),
        )
        for block in response.message.blocks
        if isinstance(block, ToolCallBlock)
    ]


def _kept(calls: tuple[ToolCall, ...], single_call: bool) -> tuple[ToolCall, ...]:
    return calls[:1] if single_call else calls


def _message(text: str, thinking: str, calls: Sequence[ToolCall]) -> ChatMessage:
    blocks: list[ContentBlock] = [_text_block(text=text)]
    if thinking:
        blocks.insert(0, ThinkingBlock(content=thinking))
    if not calls:
        return _plain_message(blocks=blocks)
    blocks += [
        ToolCallBlock(tool_call_id=call.id, tool_name=call.name, tool_kwargs=dict(call.arguments))
        for call in calls
    ]
    # Chat engines and programs look here to distinguish a call from a text.
    return ChatMessage(
        role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs={"tool_calls": _call_dicts(calls)}
    )


def _call_dicts(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": dict(call.arguments)},
        }
        for call in calls
    ]


def _beside_text(thinking: str, calls: Sequence[ToolCall]) -> dict[str, Any]:
    """The parts of an answer for which a completion has no field."""
    return {"thinking": thinking, "tool_calls": _call_dicts(calls)}


def _add_rest(
    response: _R, logprobs: Sequence[Mapping[str, Any]], finish: Finish | None, **beside: Any
) -> _R:
    """Put log probabilities, usage and metadata into a response, and the values of `beside` if not empty."""
    if logprobs:
        response.logprobs = log_probs(logprobs)
    response.additional_kwargs |= {name: value for name, value in beside.items() if value}
    if finish is None:
        return response
    metadata = finish.metadata()
    usage = {
        "prompt_tokens": finish.usage.input_tokens,
        "completion_tokens": finish.usage.output_tokens,
        "total_tokens": finish.usage.total_tokens,
    }
    if finish.usage.cached_tokens is not None:
        usage["cached_tokens"] = finish.usage.cached_tokens
    # LlamaIndex's token counter reads `usage` in `raw`; users read `additional_kwargs`.
    response.raw = {**metadata, "usage": usage}
    response.additional_kwargs |= {**usage, **metadata}
    return response
