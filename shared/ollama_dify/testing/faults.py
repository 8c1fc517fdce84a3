"""Scripted replies and faults: what a test tells the simulated server to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

_A = TypeVar("_A")
FaultKind = Literal["cut", "reset", "end", "stall", "garbage", "drip", "status"]


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request as it arrived; `body` is the parsed JSON, None where there is none or it does not parse.

    `connection` numbers the TCP connections from 1, so that reuse can be seen. `headers` keep their order,
    names in lower case.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    raw: bytes
    body: Any
    connection: int

    def header(self, name: str) -> str | None:
        """The last value of a header, None if it was not sent."""
        wanted = name.lower()
        return next((value for key, value in reversed(self.headers) if key == wanted), None)


Predicate = Callable[[RecordedRequest], bool]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says to one chat or generate request.

    `text`, `thinking` and `tool_calls` (`{"name": …, "arguments": {…}}`) are tokenised, streamed and counted
    like an answer of the model; `pieces` are streamed as they are, one token each, in place of `text`.
    `logprobs` has for each token of the text what the model could have said instead, the token itself
    included. `cached_tokens` is the answer's `prompt_eval_cached_count`.
    `status` with `error` is an error answer. `raw` is sent as the body without further ado: bytes at once, or
    a sequence of bytes chunk by chunk. `done` False ends without the final chunk, `error_at_end` ends with an
    error line inside the stream. `delay_s` passes before the first byte.
    """

    text: str = ""
    thinking: str | None = None
    tool_calls: Sequence[Mapping[str, Any]] = ()
    pieces: Sequence[str] | None = None
    status: int = 200
    error: str | None = None
    raw: bytes | Sequence[bytes] | None = None
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    logprobs: Sequence[Mapping[str, float]] = ()
    cached_tokens: int | None = None
    done: bool = True
    done_reason: str | None = None
    error_at_end: str | None = None
    delay_s: float = 0.0

    @property
    def is_raw(self) -> bool:
        """Whether the body is given instead of generated."""
        return self.raw is not None or self.status != 200 or self.error is not None


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong on the wire after `after` bytes of the answer.

    `part` "body" counts from the first byte after the head, framing included, "response" from the status
    line; `chunks` counts whole stream chunks instead. cut closes the connection, reset resets it (RST), end
    finishes the body properly though the answer is incomplete, stall is silent for `seconds` (None: until the
    client leaves), garbage inserts `data`, drip sends the rest `size` bytes at a time, `seconds` apart,
    status answers `status` with `data` instead of doing the work.
    """

    kind: FaultKind
    after: int = 0
    part: Literal["body", "response"] = "body"
    chunks: int | None = None
    seconds: float | None = None
    data: bytes = b"\xff\x00garbage\r\n"
    size: int = 1
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Rule(Generic[_A]):
    """Something to do to the next requests that match; `left` None means for ever."""

    action: _A
    when: Predicate
    left: int | None

    def take(self, request: RecordedRequest) -> bool:
        """Use the rule up by one if it applies."""
        if self.left == 0 or not self.when(request):
            return False
        if self.left is not None:
            self.left -= 1
        return True


def matches(path: str | None, when: Predicate | None, default: Sequence[str]) -> Predicate:
    """A predicate over one path, or the default paths (none: every path), and a further condition."""

    def check(request: RecordedRequest) -> bool:
        bare = request.path.partition("?")[0]
        if path is not None:
            return bare == path and (when is None or when(request))
        return (not default or bare in default) and (when is None or when(request))

    return check
