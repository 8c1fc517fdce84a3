"""JSON, times and durations written as Ollama's Go code writes them."""

from __future__ import annotations

import functools
import time
from typing import Any

import orjson

_ESCAPED = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


def dumps(value: Any, *, sort_keys: bool = False) -> bytes:
    """Compact JSON with `<`, `>`, `&`, U+2028 and U+2029 escaped, as Go's encoder does."""
    data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else 0)
    for plain, escaped in _ESCAPED:
        if plain in data:
            data = data.replace(plain, escaped)
    return data


def timestamp(at_ns: int | None = None) -> str:
    """RFC 3339 in UTC with nanoseconds, trailing zeros cut, as Go's time.RFC3339Nano."""
    now = time.time_ns() if at_ns is None else at_ns
    seconds, nanos = divmod(now, 1_000_000_000)
    fraction = f".{nanos:09d}".rstrip("0").rstrip(".")
    return f"{_to_the_second(seconds)}{fraction}Z"


@functools.lru_cache(maxsize=8)
def _to_the_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def go_kind(value: Any) -> str:
    """The JSON kind in the words of Go's decoder errors."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def quoted(text: str) -> str:
    """The text as Go's %q prints it."""
    return orjson.dumps(text).decode()
