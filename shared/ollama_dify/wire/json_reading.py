"""JSON of the server, parsed; what is not what Ollama sends is a ProtocolError. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ..errors import EmptyResponseError, ProtocolError

NOT_OLLAMA = "Is this an Ollama server? A proxy or another program may be answering."


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
            hint=NOT_OLLAMA,
        ) from error


def printable(text: str, limit: int = 500) -> str:
    """Text of the server for a message: no control characters, at most `limit` characters."""
    clean = "".join(char if char.isprintable() else " " for char in text[: 4 * limit])
    clean = " ".join(clean.split())
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def wrong(what: str, value: Any) -> ProtocolError:
    """The error for a value of the answer that is of another type than Ollama's."""
    return ProtocolError(f"The server's answer has {what} of type {type(value).__name__}.", hint=NOT_OLLAMA)


def objects(value: Any, what: str) -> Sequence[Mapping[str, Any]]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise wrong(what, value)
    return value
