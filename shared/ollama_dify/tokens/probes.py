"""Test conversations whose texts are marks, for the server to render: the rest comes from the template."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from ..wire.messages import Message, TextPart, Tool, ToolCall

__all__ = ["MARK", "PROBES", "PROBES_NAME", "Probe", "kind_of"]

MARK = re.compile(r"zq(\d{3})mark", re.IGNORECASE)
"""Nine letters and digits: some templates refuse other call ids, and some change the case."""

_ROLES = {"S": "system", "U": "user", "T": "tool"}  # all other kinds are assistant messages


def kind_of(message: Message) -> str:
    """The letter for a message's role; for an assistant also by text, calls and thinking."""
    for kind, role in _ROLES.items():
        if message.role == role:
            return kind
    held = bool(message.text) + 2 * bool(message.tool_calls) + 4 * bool(message.thinking)
    return "AACBKKDX"[held]


_BIG_ARGUMENTS = {"city": "Oslo", "when": {"day": 3, "hours": [1, 2]}, "note": "a few words more"}
_BIG_SCHEMA = {
    "type": "object",
    "required": ["city", "units"],
    "properties": {
        "city": {"type": "string", "description": "Name of the city to look for"},
        "units": {"type": "string", "enum": ["metric", "imperial"], "description": "Which units to use"},
        "days": {"type": "array", "items": {"type": "integer"}},
        "place": {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}}},
    },
}


@dataclass(frozen=True, slots=True)
class Probe:
    """A conversation to be rendered. kinds: letters of `kind_of`, and Q: a C with three calls."""

    kinds: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    places: tuple[tuple[int, str], ...]
    """What each mark means: index of the message (-1: the tools) and part."""


def _probe(kinds: str, *, tools: bool) -> Probe:
    places: list[tuple[int, str]] = []

    def mark(index: int, part: str) -> str:
        places.append((index, part))
        return f"Zq{len(places) - 1:03d}mark"

    def call(index: int, number: int) -> ToolCall:
        # The length of the first of three calls is measured; marks at both ends enclose the calls.
        name = mark(index, f"call{number}")
        big = kinds[index] == "Q" and number == 0
        arguments = _BIG_ARGUMENTS if big else {"city": mark(index, "argument")}
        return ToolCall(name, arguments, mark(index, "id"))

    def tool(number: int) -> Tool:
        name = mark(-1, f"tool{number}")
        city = {"type": "string", "description": mark(-1, "argument")}
        small = {"type": "object", "required": ["city"], "properties": {"city": city}}
        return Tool(name, "Looks up the weather", small if number else _BIG_SCHEMA)

    def message(index: int, kind: str) -> Message:
        role: Any = _ROLES.get(kind, "assistant")
        text = () if kind in "CDQ" else (TextPart(mark(index, "content")),)
        thinking = mark(index, "thinking") if kind in "KDX" else None
        size = 3 if kind == "Q" else int(kind in "CDBX")
        calls = tuple(call(index, number) for number in range(size))
        if kind != "T":
            return Message(role, text, thinking=thinking, tool_calls=calls)
        name, id = (mark(index, part) for part in ("tool_name", "tool_call_id"))
        return Message(role, text, tool_name=name, tool_call_id=id)

    messages = tuple(message(index, kind) for index, kind in enumerate(kinds))
    given = tuple(tool(number) for number in range(3 if tools else 0))
    return Probe(kinds, messages, given, tuple(places))


_SHAPES = (
    "UAU SUAUAUA UAUU SUKUK SUSUSAASSU USUASAUSAU UBUXUCU UCTAUCTAU SUCTCTT UBTXTAUDTK AUDTD UQTTAU TUBTX"
)
_SHAPES_WITH_TOOLS = "U SU SUAUAU SUCTAUCTCTT UAUKUDTDTKA UQTTAUBTX USAAUUC UCTSAU AUC"
PROBES = (
    *(_probe(kinds, tools=False) for kinds in _SHAPES.split()),
    *(_probe(kinds, tools=True) for kinds in _SHAPES_WITH_TOOLS.split()),
)
"""All probes, the same in every process: the cache stores their renderings in this order."""
PROBES_NAME = hashlib.sha256(repr(PROBES).encode()).hexdigest()[:16]
"""Changes with the probes, so that cached renderings of other probes are not used."""
