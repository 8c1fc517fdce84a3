"""An upper bound for a conversation's prompt, learned from test conversations that the server rendered.

The probes are conversations whose texts are marks. The text between two marks comes from the chat template.
For example, the text between a user's and an assistant's mark is the same in every conversation. A new
conversation is built from these literals and tokenised once. No template language is interpreted.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from ..wire.messages import Message, TextPart, Tool, ToolCall, user
from ..wire.requests import wire_message, wire_tool
from .probes import MARK, Probe, kind_of
from .tokenizer import ModelTokenizer, TokenEstimator

__all__ = ["Template", "estimate"]

_GUARD = 7
"""Tokens added to every bound, because servers differ in some blanks."""
_TOOL_TOKENS, _JSON_SHARE = 32.0, 2.0
"""Assumed for a tool or a call that no probe shows: tokens around it, and tokens per token of its JSON."""
_UNSEEN_TOOLS = 640
"""Bytes assumed around tools if no probe shows them."""
_MESSAGE_BYTES, _PROMPT_BYTES = 64, 128
"""Assumed around each message and around the prompt if the server renders nothing."""


def estimate(messages: Sequence[Message], tools: Sequence[Tool]) -> int:
    """Estimated tokens of a conversation with an unknown template, rarely too low: its bytes, and a constant
    for each message."""
    wire = [{**wire_message(message, with_images=False), "images": ()} for message in messages]
    given = [wire_tool(tool) for tool in tools]
    size = len(json.dumps([wire, given], ensure_ascii=False, default=str).encode(errors="replace"))
    return size + _MESSAGE_BYTES * len(messages) + _PROMPT_BYTES + _UNSEEN_TOOLS * bool(tools)


Place = tuple[str, int, bool]
"""What determines how a template writes a message: its kind; -1, 0, 1 for before, at and after the last user
message; whether it is the last message."""
Node = tuple[Place, str]
"""A message's place, and the part of it that is written: "content", "thinking", "calls"; "" for none."""
_START, _END = (("start", 0, False), ""), (("end", 0, False), "")
Mark = tuple[int, int, int, str]
"""Start and end of a mark, the index of its message (-1: the tools), and the part."""


def _places(kinds: Sequence[str], *, system_first: bool) -> list[Place]:
    """system_first: the template moves all system messages to the front."""
    size = len(kinds)
    # Templates join consecutive messages of one role, so they share a place: that of the last one.
    ends = list(range(size))
    for index in reversed(range(size - 1)):
        if _role(kinds[index]) == _role(kinds[index + 1]) != "T":
            ends[index] = ends[index + 1]
    last_user = max((ends[index] for index, kind in enumerate(kinds) if kind == "U"), default=-1)
    # Some templates show a system text only as the first message, others only after another message.
    names = {"Q": "C", "S": "S" if kinds[0] == "S" else "M"}
    return [
        (names[kind], 0, False)
        if kind == "S" and system_first
        else (names.get(kind, kind), (end > last_user) - (end < last_user), end == size - 1)
        for kind, end in zip(kinds, ends, strict=True)
    ]


def _role(kind: str) -> str:
    return kind if kind in ("S", "M", "U", "T", "start", "end") else "A"


class Template:
    """What the server's template writes around the texts of a conversation, with tools or without."""

    def __init__(
        self, rendered: Sequence[tuple[Probe, str]], tokenizer: ModelTokenizer | TokenEstimator
    ) -> None:
        """rendered: the server's renderings of the probes, at least one."""
        self._tokenizer = tokenizer
        self._literals: dict[Any, str] = {}
        self._parts: dict[Any, tuple[str, ...]] = {}
        self._items = {"tool": (_TOOL_TOKENS, _JSON_SHARE), "call": (_TOOL_TOKENS, _JSON_SHARE)}
        self._shows_tools = any(probe.tools for probe, _ in rendered)
        given = [(probe, text, _marks(probe, text)) for probe, text in rendered]
        self._system_first = any(_puts_system_first(probe.kinds, marks) for probe, _, marks in given)
        self._shows_ids = any(part == "id" for _, _, marks in given for *_, part in marks)
        for probe, text, marks in given:
            self._learn_items(probe, text, marks)
            self._learn_literals(probe, text, _blocks(marks))

    def _learn_literals(self, probe: Probe, text: str, blocks: Sequence[Mark]) -> None:
        places = _places(probe.kinds, system_first=self._system_first)
        shown = {index for _, _, index, _ in blocks}
        parts: dict[int, tuple[str, ...]] = {}
        node, previous, literal, at = _START, -1, "", 0
        for start, end, index, part in [*blocks, (len(text), len(text), len(places), "")]:
            literal += text[at:start]
            at = end
            if index < 0:
                continue  # the tools are counted apart
            # Parts between the two that are not shown belong to the literal.
            hidden = [(places[other], "") for other in range(previous + 1, index) if other not in shown]
            last = _END if index == len(places) else (places[index], part)
            for before, after in pairwise([node, *hidden, last]):
                for key in _keys(before, after):
                    if len(self._literals.get(key, "")) <= len(literal):
                        self._literals[key] = literal
                literal = ""
            parts[index] = (*parts.get(index, ()), part)
            node, previous = last, index
        for index, place in enumerate(places):
            for key in (place, place[0]):
                found = parts.get(index, ("",))
                # "" is no part: what one probe hides, another may show.
                if sum(map(bool, self._parts.get(key, ()))) <= sum(map(bool, found)):
                    self._parts[key] = found

    def _learn_items(self, probe: Probe, text: str, marks: Sequence[Mark]) -> None:
        """Measure the cost of tools and calls, from the distances between three of them."""
        starts: dict[tuple[int, str], int] = {}
        for start, _, index, part in marks:
            starts.setdefault((index, part), start)
        for index, part in list(starts):
            name = part[:-1]
            first, second, third = (starts.get((index, f"{name}{number}"), -1) for number in range(3))
            if name not in self._items or not 0 <= first < second < third:
                continue
            large, small = (probe.tools if index < 0 else probe.messages[index].tool_calls)[:2]
            count = self._tokenizer.count_text
            written = count(text[first:second]), count(text[second:third])
            each = float(max(0, written[1] - self._json_tokens(small)))
            self._items[name] = (each, max(1.0, (written[0] - each) / self._json_tokens(large)))

    def _json_tokens(self, item: Tool | ToolCall) -> int:
        """Tokens of the longer of two ways to write JSON, with the escapes of Go."""
        value: Any = (
            wire_tool(item) if isinstance(item, Tool) else {"name": item.name, "arguments": item.arguments}
        )
        if isinstance(item, ToolCall) and self._shows_ids and item.id:
            value["id"] = item.id
        texts = (
            json.dumps(value, ensure_ascii=False, separators=pair, default=str)
            for pair in ((",", ":"), (", ", ": "))
        )
        escaped = (re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text) for text in texts)
        return max(map(self._tokenizer.count_text, escaped))

    def _cost(self, name: str, items: Iterable[Tool | ToolCall]) -> float:
        each, share = self._items[name]
        return sum(each + share * self._json_tokens(item) for item in items)

    def _literal(self, before: Node, after: Node) -> str:
        """The literal between these parts, else the longest one between parts of these roles."""
        exact, similar, behind, ahead = _keys(before, after)
        known = self._literals
        return known.get(exact, known.get(similar, known.get(behind, "") + known.get(ahead, "")))

    def _parts_of(self, place: Place) -> tuple[str, ...]:
        """The parts that are shown of a message at this place; its text if any of its kind shows it."""
        widest = self._parts.get(place[0], ("content", "thinking", "calls"))
        parts = self._parts.get(place, ())
        return parts if parts and ("content" in parts or "content" not in widest) else widest

    def bound(self, messages: Sequence[Message], tools: Sequence[Tool]) -> int:
        """An upper bound of the prompt's tokens, without those of images."""
        extra = float(_GUARD) + self._cost("tool", tools)
        only_system = all(message.role == "system" for message in messages)
        if tools and (only_system or not self._shows_tools):
            extra += _UNSEEN_TOOLS
        if only_system:
            # All probes have a user message, and templates may write tools next to the first one.
            messages = [*messages, user("")]
        places = _places([kind_of(message) for message in messages], system_first=self._system_first)
        given = list(zip(messages, places, strict=True))
        if self._system_first:
            given.sort(key=lambda pair: pair[0].role != "system")
        with_images = any(not isinstance(part, TextPart) for message in messages for part in message.content)
        node, pieces = _START, []
        for message, place in given:
            wire, parts = wire_message(message, with_images=with_images), self._parts_of(place)
            for part in parts:
                pieces += [self._literal(node, (place, part)), wire.get(part, "")]
                node = (place, part)
            if "calls" in parts:
                extra += self._cost("call", message.tool_calls)
        pieces.append(self._literal(node, _END))
        return math.ceil(self._tokenizer.count("".join(pieces)) + extra)


def _keys(before: Node, after: Node) -> list[Any]:
    """Keys to look up, in order: the pair, their roles, then only the first and only the second."""
    role, next_role = ((_role(place[0]), part) for place, part in (before, after))
    return [
        (before, after),
        (role, next_role),
        ("behind", role, after == _END),
        ("ahead", before == _START, next_role),
    ]


def _marks(probe: Probe, rendered: str) -> list[Mark]:
    return [
        (found.start(), found.end(), *probe.places[int(found.group(1))])
        for found in MARK.finditer(rendered)
        if int(found.group(1)) < len(probe.places)
    ]


def _puts_system_first(kinds: str, marks: Sequence[Mark]) -> bool:
    """Whether a system message from the middle was rendered first."""
    systems = [index for index, kind in enumerate(kinds) if kind == "S"]
    order = [index for _, _, index, _ in marks if index >= 0]
    return bool(systems) and systems[-1] >= len(systems) and order[: len(systems)] == systems


def _blocks(marks: Sequence[Mark]) -> list[Mark]:
    """The marks; those of one message's calls are joined into one, and so are those of all tools."""
    blocks: list[Mark] = []
    for start, end, index, part in marks:
        part = "calls" if part in ("id", "argument") or part.startswith("call") else part
        part = "tools" if index < 0 else part
        if part in ("calls", "tools") and blocks and blocks[-1][2:] == (index, part):
            blocks[-1] = (blocks[-1][0], end, index, part)
        else:
            blocks.append((start, end, index, part))
    return blocks
