"""The server's JSON, checked and made into values. Whatever is not what Ollama sends is a ProtocolError."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from ..errors import EmptyResponseError, IncompleteResponseError, ProtocolError
from .messages import ToolCall

__all__ = [
    "ChatChunk",
    "ChatResult",
    "EmbedResult",
    "Finish",
    "LocalModel",
    "ModelInfo",
    "RunningModel",
    "Usage",
    "load_json",
    "read_chunk",
    "read_embed_answer",
    "read_local_models",
    "read_model_info",
    "read_running_models",
    "read_version",
]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one exchange. The server omits a count that is zero; what is missing counts as zero."""

    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Finish:
    """What the last chunk says. Durations are in nanoseconds, as the server sends them.

    reason: "stop", "length", "load", "unload", "" or what a newer server says.
    truncated: whether the server cut the prompt; None when that cannot be known.
    dropped: positions of the messages that `context_overflow="trim"` left out.
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

    def metadata(self) -> dict[str, Any]:
        """The same keys for both frameworks: Ollama's names, what is unknown left out."""
        values: dict[str, Any] = {
            "model": self.model,
            "model_name": self.model,
            "model_provider": "ollama",
            "created_at": self.created_at,
            "done": True,
            "done_reason": self.reason,
            "total_duration": self.total_duration,
            "load_duration": self.load_duration,
            "prompt_eval_count": self.usage.input_tokens,
            "prompt_eval_duration": self.prompt_eval_duration,
            "eval_count": self.usage.output_tokens,
            "eval_duration": self.eval_duration,
        }
        if self.truncated is not None:
            values["truncated"] = self.truncated
        if self.dropped:
            values["dropped_messages"] = list(self.dropped)
        return {key: value for key, value in values.items() if value is not None}


class ChatChunk(NamedTuple):
    """A piece of an answer; `finish` only on the last one. A tuple, since one is made per token."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: Sequence[Mapping[str, Any]] = ()
    finish: Finish | None = None


@dataclass(frozen=True, slots=True)
class ChatResult:
    """A whole answer of chat or generate; on an error's `partial`, what of it had arrived (no `finish`)."""

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
    """Vectors in the order of the texts; None in the place of a text without one (`skip_failed=True` only).

    input_tokens: tokens of all texts, as far as the server cut none. Durations: nanoseconds, of all requests
    added up. truncated: positions of the texts the server cut. split: those split and averaged. failed: those
    without a vector, and `reasons` why.
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
class ModelInfo:
    """What /api/show says of a model. `capabilities` is None on servers that do not tell."""

    name: str
    capabilities: frozenset[str] | None
    context_length: int | None
    embedding_length: int | None
    family: str
    template: str
    digest: str | None
    raw: Mapping[str, Any] = field(repr=False)

    def can(self, capability: str) -> bool | None:
        """Whether the model can do this ("vision", "tools" …); None when the server does not say."""
        return None if self.capabilities is None else capability in self.capabilities


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A row of /api/tags. size: bytes."""

    name: str
    digest: str
    size: int
    family: str


@dataclass(frozen=True, slots=True)
class RunningModel:
    """A row of /api/ps. size, size_vram: bytes; context_length: tokens the model was loaded with."""

    name: str
    digest: str
    size: int
    size_vram: int
    context_length: int | None
    expires_at: str


def load_json(data: bytes, what: str = "answer") -> Any:
    """Parse JSON bytes; text that is no JSON is a ProtocolError that shows its beginning, none at all an
    EmptyResponseError."""
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
            hint="Is this an Ollama server? A proxy or another program may be answering.",
        ) from error


def printable(text: str, limit: int = 500) -> str:
    """Text of the server for a message: no control characters, at most `limit` characters."""
    clean = "".join(char if char.isprintable() else " " for char in text[: 4 * limit])
    clean = " ".join(clean.split())
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def _wrong(what: str, value: Any) -> ProtocolError:
    return ProtocolError(
        f"The server's answer has {what} of type {type(value).__name__}.",
        hint="Is this an Ollama server? A proxy or another program may be changing the answer.",
    )


def read_chunk(data: Any, *, generated: bool = False) -> ChatChunk:
    """One JSON object of /api/chat, or with `generated` of /api/generate. An `error` is not read here."""
    try:
        source = data if generated else data["message"]
        text = source["response" if generated else "content"]
        done = data["done"]
    except (KeyError, TypeError, IndexError) as error:
        raise ProtocolError(
            f"The server's answer lacks a part that Ollama always sends ({error}).",
            hint="Is this an Ollama server? A proxy or another program may be answering.",
        ) from error
    if type(text) is not str:
        raise _wrong("content", text)
    if done is False and len(source) == 2 and "role" in source and not generated and "logprobs" not in data:
        # Nearly every chunk of an answer: a role and a text.
        return ChatChunk(text)
    if type(done) is not bool:
        raise _wrong("`done`", done)
    thinking = source.get("thinking")
    if thinking is not None and type(thinking) is not str:
        raise _wrong("`thinking`", thinking)
    return ChatChunk(
        text,
        thinking or "",
        _tool_calls(source.get("tool_calls")),
        _objects(data.get("logprobs"), "`logprobs`"),
        _finish(data) if done else None,
    )


def _objects(value: Any, what: str) -> Sequence[Mapping[str, Any]]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _wrong(what, value)
    return value


def _tool_calls(value: Any) -> tuple[ToolCall, ...]:
    calls = []
    for item in _objects(value, "`tool_calls`"):
        function = item.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str):
            raise _wrong("a tool call's `function`", function)
        arguments = function.get("arguments")
        if not isinstance(arguments, dict | None):
            raise _wrong("a tool call's `arguments`", arguments)
        call_id = item.get("id")
        if not isinstance(call_id, str) or not call_id:
            call_id = f"call_{uuid.uuid4().hex[:12]}"
        calls.append(ToolCall(name, {} if arguments is None else arguments, call_id))
    return tuple(calls)


def _finish(data: Mapping[str, Any]) -> Finish:
    def text(name: str) -> str:
        value = data.get(name)
        if not isinstance(value, str | None):
            raise _wrong(f"`{name}`", value)
        return value or ""

    def count(name: str) -> int | None:
        value = data.get(name)
        if value is not None and type(value) is not int:
            raise _wrong(f"`{name}`", value)
        return value

    return Finish(
        reason=text("done_reason"),
        model=text("model"),
        created_at=text("created_at"),
        usage=Usage(count("prompt_eval_count") or 0, count("eval_count") or 0),
        total_duration=count("total_duration"),
        load_duration=count("load_duration"),
        prompt_eval_duration=count("prompt_eval_duration"),
        eval_duration=count("eval_duration"),
    )


def incomplete(partial: ChatResult) -> IncompleteResponseError:
    """The error for an answer without `done:true`."""
    return IncompleteResponseError(
        f"The answer ended before the server said it was done; {len(partial.text)} characters had arrived.",
        partial=partial,
        hint="The model may repeat itself, run out of memory or have been stopped: see the server's log. "
        "What had arrived is in the error's `partial`.",
    )


def check_answered(result: ChatResult) -> None:
    """Raise EmptyResponseError for an answer that only says the model was loaded or unloaded."""
    finish = result.finish
    empty = not (result.text or result.thinking or result.tool_calls)
    if finish and empty and finish.reason in ("load", "unload"):
        raise EmptyResponseError(
            f"The server {finish.reason}ed the model {finish.model!r} and answered nothing.",
            retryable=finish.reason == "load",
            retry_once=True,
            hint="The conversation may lack a user message, or the server restarted the model; try again.",
        )


def read_embed_answer(data: Any) -> EmbedResult:
    """/api/embed, with its vectors as they came: `embedding_vectors` checks them."""
    vectors = data.get("embeddings") if isinstance(data, dict) else None
    if not isinstance(vectors, list):
        raise _wrong("`embeddings`", vectors)
    finish = _finish(data)
    return EmbedResult(
        vectors, finish.model, finish.usage.input_tokens, finish.total_duration, finish.load_duration
    )


def read_model_info(data: Any, name: str, digest: str | None = None) -> ModelInfo:
    """What /api/show says; a server that tells no capabilities leaves them None."""
    if not isinstance(data, dict):
        raise _wrong("a model description", data)
    facts = data.get("model_info")
    facts = facts if isinstance(facts, dict) else {}
    details = data.get("details")
    details = details if isinstance(details, dict) else {}
    architecture = str(facts.get("general.architecture", ""))
    capabilities = data.get("capabilities")

    def number(key: str) -> int | None:
        value = facts.get(f"{architecture}.{key}")
        return value if type(value) is int and value > 0 else None

    return ModelInfo(
        name=name,
        capabilities=frozenset(map(str, capabilities)) if isinstance(capabilities, list) else None,
        context_length=number("context_length"),
        embedding_length=number("embedding_length"),
        family=str(details.get("family") or architecture),
        template=str(data.get("template") or ""),
        digest=digest,
        raw=data,
    )


def _rows(data: Any) -> Sequence[Mapping[str, Any]]:
    if not isinstance(data, dict):
        raise _wrong("a list of models", data)
    return _objects(data.get("models"), "`models`")


def _number(row: Mapping[str, Any], key: str) -> int:
    value = row.get(key)
    return value if type(value) is int else 0


def _family(details: Any) -> str:
    return str(details.get("family") or "") if isinstance(details, dict) else ""


def read_local_models(data: Any) -> list[LocalModel]:
    """The rows of /api/tags."""
    return [
        LocalModel(
            str(row.get("name", "")),
            str(row.get("digest", "")),
            _number(row, "size"),
            _family(row.get("details")),
        )
        for row in _rows(data)
    ]


def read_running_models(data: Any) -> list[RunningModel]:
    """The rows of /api/ps."""
    return [
        RunningModel(
            str(row.get("name", "")),
            str(row.get("digest", "")),
            _number(row, "size"),
            _number(row, "size_vram"),
            _number(row, "context_length") or None,
            str(row.get("expires_at", "")),
        )
        for row in _rows(data)
    ]


def read_version(data: Any) -> str:
    """The version text of /api/version."""
    version = data.get("version") if isinstance(data, dict) else None
    if not isinstance(version, str):
        raise _wrong("`version`", version)
    return version
