"""The server's JSON, checked and converted to our types. Anything Ollama does not send is a ProtocolError."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, TypeVar

import orjson

from ..errors import EmptyResponseError, ProtocolError
from .messages import ToolCall

_T = TypeVar("_T")
_NOT_OLLAMA = "Is this an Ollama server? A proxy or another program may be answering."
CutBy = Literal["max_tokens", "context_size"]
# Most tool calls in one answer: far more than a model needs, far fewer than would fill the memory.
MAX_TOOL_CALLS = 1000


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one exchange. The server omits zero counts, so a missing count is zero.

    cached_tokens: input tokens that the server took from its cache; None if it does not say.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int | None = None

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Finish:
    """The metadata of the last chunk. Durations are in nanoseconds, as the server sends them.

    reason: "stop", "length", "load", "unload", "" or a value of a newer server.
    truncated: whether the server cut the prompt; None if unknown.
    dropped: positions of the messages that `context_overflow="trim"` left out.
    remote_model, remote_host: for cloud models, the model and host that answered.
    cut_by: the limit behind reason "length"; None if unknown.
    """

    reason: str
    model: str
    created_at: str = ""
    usage: Usage = field(default_factory=Usage)
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_duration: int | None = None
    eval_duration: int | None = None
    truncated: bool | None = None
    dropped: tuple[int, ...] = ()
    remote_model: str | None = None
    remote_host: str | None = None
    cut_by: CutBy | None = None

    def metadata(self) -> dict[str, Any]:
        """The same keys for both frameworks: Ollama's names, without unknown values."""
        values: dict[str, Any] = {
            "model_name": self.model,
            "model_provider": "ollama",
            "done": True,
            "done_reason": self.reason,
            "prompt_eval_count": self.usage.input_tokens,
            "eval_count": self.usage.output_tokens,
            "prompt_eval_cached_count": self.usage.cached_tokens,
            "dropped_messages": list(self.dropped) or None,
            **{name: getattr(self, name) for name in _UNCHANGED},
        }
        told = {key: value for key, value in values.items() if value is not None}
        return {**told, "cut_by": self.cut_by} if self.reason == "length" else told


# Fields whose names are their keys in the metadata.
_UNCHANGED = [one.name for one in fields(Finish) if one.name not in ("reason", "usage", "dropped", "cut_by")]


class ChatChunk(NamedTuple):
    """A piece of an answer; `finish` only on the last one. A tuple, since one is made per token."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: Sequence[Mapping[str, Any]] = ()
    finish: Finish | None = None


@dataclass(frozen=True, slots=True)
class ChatResult:
    """A whole answer of chat or generate; in an error's `partial` its received part (without `finish`)."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[Mapping[str, Any], ...] = ()
    finish: Finish | None = None

    @property
    def usage(self) -> Usage:
        return self.finish.usage if self.finish else Usage()


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """Vectors in the order of the texts; None for a text without a vector (`skip_failed=True` only).

    input_tokens: tokens of all texts, without what the server cut off. Durations: nanoseconds, the sum of all
    requests. truncated: positions of texts that the server cut. split: those split and averaged. failed:
    those without a vector; `reasons` says why.
    """

    vectors: list[list[float] | None]
    model: str = ""
    input_tokens: int = 0
    total_duration: int | None = None
    load_duration: int | None = None
    truncated: tuple[int, ...] = ()
    split: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    reasons: Mapping[int, str] = field(default_factory=dict)

    @property
    def dimension(self) -> int | None:
        """Numbers in each vector; None where there is no vector."""
        return next((len(vector) for vector in self.vectors if vector is not None), None)


@dataclass(frozen=True, slots=True)
class RerankResult:
    """The relevance of each document, from 0 to 1, in the given order of the documents.

    order: positions, the most relevant first, equal ones in the given order; at most `top_n`.
    failed: positions of documents for which the model said neither yes nor no: score 0.0, last in the order.
    usage: tokens of all requests.
    """

    scores: tuple[float, ...] = ()
    order: tuple[int, ...] = ()
    usage: Usage = field(default_factory=Usage)
    failed: tuple[int, ...] = ()


def load_json(data: bytes, what: str = "answer") -> Any:
    """Parse JSON bytes. Raises ProtocolError with the beginning of a text that is not JSON,
    EmptyResponseError for no bytes."""
    if not data or data.isspace():
        raise EmptyResponseError(
            f"The server said 200, but its {what} is empty.",
            hint="A proxy may have swallowed it, or the model failed to start: see the server's log.",
        )
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        start = printable(data[:80].decode("utf-8", "replace"))
        raise ProtocolError(
            f"The server's {what} is not JSON: {start!r} ({error.msg}).",
            hint=_NOT_OLLAMA,
        ) from error


def printable(text: str, limit: int = 500) -> str:
    """Text of the server, safe for a message: no control characters, at most `limit` characters."""
    clean = "".join(char if char.isprintable() else " " for char in text[: 4 * limit])
    clean = " ".join(clean.split())
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def wrong(what: str, value: Any) -> ProtocolError:
    """The error for a value of the answer that has the wrong type."""
    return ProtocolError(f"The server's answer has {what} of type {type(value).__name__}.", hint=_NOT_OLLAMA)


def objects(value: Any, what: str) -> Sequence[Mapping[str, Any]]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise wrong(what, value)
    return value


def read_chunk(data: Any, *, generated: bool = False) -> ChatChunk:
    """One JSON object of /api/chat, or with `generated` of /api/generate. An `error` is handled elsewhere."""
    try:
        source = data if generated else data["message"]
        text = source["response" if generated else "content"]
        done = data["done"]
    except (KeyError, TypeError, IndexError) as error:
        raise ProtocolError(
            f"The server's answer lacks a part that Ollama always sends ({error}).",
            hint=_NOT_OLLAMA,
        ) from error
    if type(text) is not str:
        raise wrong("content", text)
    if done is False and len(source) == 2 and "role" in source and not generated and "logprobs" not in data:
        # Fast path for nearly every chunk: a role and a text.
        return ChatChunk(text)
    if type(done) is not bool:
        raise wrong("`done`", done)
    thinking = source.get("thinking")
    if thinking is not None and type(thinking) is not str:
        raise wrong("`thinking`", thinking)
    return ChatChunk(
        text,
        thinking or "",
        _tool_calls(source.get("tool_calls")),
        objects(data.get("logprobs"), "`logprobs`"),
        read_finish(data) if done else None,
    )


def check_call_count(count: int) -> None:
    """Raise ProtocolError for more than MAX_TOOL_CALLS calls in one answer."""
    if count > MAX_TOOL_CALLS:
        raise ProtocolError(
            f"The answer holds over {MAX_TOOL_CALLS} tool calls.",
            hint="The model repeats itself; lower num_predict, or choose another model.",
        )


def new_call_id() -> str:
    """A unique id for a call that came without one."""
    return f"call_{uuid.uuid4().hex[:12]}"


def _tool_calls(value: Any) -> tuple[ToolCall, ...]:
    calls, items = [], objects(value, "`tool_calls`")
    check_call_count(len(items))
    for item in items:
        function = item.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str):
            raise wrong("a tool call's `function`", function)
        arguments = function.get("arguments")
        if not isinstance(arguments, dict | None):
            raise wrong("a tool call's `arguments`", arguments)
        call_id = item.get("id")
        known = isinstance(call_id, str) and call_id
        calls.append(
            ToolCall(name, {} if arguments is None else arguments, call_id if known else new_call_id())
        )
    return tuple(calls)


def read_finish(data: Mapping[str, Any]) -> Finish:
    """The metadata of the last chunk, or of an answer of /api/embed."""

    def read(name: str, kind: type[_T]) -> _T | None:
        value = data.get(name)
        if value is not None and type(value) is not kind:
            raise wrong(f"`{name}`", value)
        return value

    return Finish(
        reason=read("done_reason", str) or "",
        model=read("model", str) or "",
        created_at=read("created_at", str) or "",
        usage=Usage(
            read("prompt_eval_count", int) or 0,
            read("eval_count", int) or 0,
            read("prompt_eval_cached_count", int),
        ),
        total_duration=read("total_duration", int),
        load_duration=read("load_duration", int),
        prompt_eval_duration=read("prompt_eval_duration", int),
        eval_duration=read("eval_duration", int),
        remote_model=read("remote_model", str) or None,
        remote_host=read("remote_host", str) or None,
    )
