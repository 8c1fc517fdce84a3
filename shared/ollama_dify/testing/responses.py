"""What a route answers: a status, a head, and a body at once or chunk by chunk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from . import wire

JSON = "application/json; charset=utf-8"
BARE_JSON = "application/json"
NDJSON = "application/x-ndjson"
TEXT = "text/plain"
# Go's server switches from Content-Length to chunks once a handler has written more than this.
BUFFERED = 2048


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` bytes are sent with Content-Length (or as one chunk if long); an iterator is streamed.

    `release` is called once the answer is out or has broken off.
    """

    status: int = 200
    content_type: str | None = JSON
    body: bytes | AsyncIterator[bytes] = b""
    headers: tuple[tuple[str, str], ...] = field(default=())
    chunked: bool | None = None
    release: Callable[[], None] | None = None

    @property
    def is_chunked(self) -> bool:
        """Whether the body goes out with chunked framing."""
        if self.chunked is not None:
            return self.chunked
        return not isinstance(self.body, bytes) or len(self.body) > BUFFERED


class Refused(Exception):
    """Ends a handler with an answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def ok(value: Any) -> Answer:
    """200 with JSON."""
    return Answer(200, JSON, wire.dumps(value))


def refuse(status: int, message: str, *, late_stream: bool = False) -> Refused:
    """`{"error": message}`; errors of the runner before the first chunk of a stream differ in their head."""
    body = wire.dumps({"error": message})
    if late_stream:
        return Refused(Answer(status, BARE_JSON, body, chunked=True))
    return Refused(Answer(status, JSON, body, chunked=False))


def nested(code: int, message: str, kind: str, **more: Any) -> str:
    """llama-server's error object as text, which newer servers put inside their own error string."""
    return orjson.dumps({"error": {"code": code, "message": message, "type": kind, **more}}).decode()
