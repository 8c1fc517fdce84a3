"""An upper bound for a conversation's prompt, from what the server rendered of made-up conversations.

The probes are conversations whose texts are marks. The literal text between two marks is the chat template's,
and what stands between a user's and an assistant's text there stands between theirs in any conversation. A
new conversation is put together from these literals and tokenised once. No template language is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from typing import Any

from ..wire.messages import Message, TextPart, Tool, ToolCall, user
from ..wire.requests import wire_message, wire_tool
from .probes import MARK, PROBES, Probe, kind_of
from .tokenizer import ModelTokenizer, TokenEstimator

__all__ = ["ProbedPrompt", "estimate"]

_GUARD = 6
"""Tokens added to every bound: servers differ in a blank here and there."""
_TOOL_TOKENS, _JSON_SHARE = 32, 2.0
"""Assumed of a tool or a call that no probe shows: tokens around it, and tokens per token of its JSON."""
_UNSEEN_TOOLS = 640
"""Bytes assumed around tools where no probe shows it."""
_MESSAGE_BYTES, _PROMPT_BYTES = 64, 128
"""Assumed around each message and around the prompt where the server renders nothing."""
_IMAGE_SLACK = 4
"""Tokens that a text may gain where an image cuts it."""


def estimate(messages: Sequence[Message], tools: Sequence[Tool]) -> int:
    """Tokens that a conversation hardly exceeds where nothing is known of its template: its bytes, and a
    constant for each message."""
    wire = [{**wire_message(message, with_images=False), "images": ()} for message in messages]
    given = [wire_tool(tool) for tool in tools]
    size = len(json.dumps([wire, given], ensure_ascii=False, default=str).encode(errors="replace"))
    return size + _MESSAGE_BYTES * len(messages) + _PROMPT_BYTES + _UNSEEN_TOOLS * bool(tools)


@dataclass(frozen=True, slots=True)
class _Symbol:
    """What decides how a template writes a message: its kind, and where it stands."""

    kind: str
    place: int
    """-1, 0, 1: before, at and after the last user message."""
    last: bool


_START, _END = _Symbol("start", 0, False), _Symbol("end", 0, False)


def _symbols(kinds: Sequence[str], *, system_first: bool) -> list[_Symbol]:
    """system_first: the template moves all system messages to the front."""
    size = len(kinds)
    # Templates join neighbours of one role, so they share a place: that of the last of them.
    ends = list(range(size))
    for index in reversed(range(size - 1)):
        if _role(kinds[index]) == _role(kinds[index + 1]) != "T":
            ends[index] = ends[index + 1]
    last_user = max((ends[index] for index, kind in enumerate(kinds) if kind == "U"), default=-1)
    # Some templates show a system text only where no message stands before it, others only where one does.
    names = {"Q": "C", "S": "S" if kinds[0] == "S" else "M"}
    return [
        _Symbol(names[kind], 0, False)
        if kind == "S" and system_first
        else _Symbol(names.get(kind, kind), (end > last_user) - (end < last_user), end == size - 1)
        for kind, end in zip(kinds, ends, strict=True)
    ]


def _role(kind: str) -> str:
    return kind if kind in "SMUT" else "A"


Frame = tuple[str, ...]
"""Parts of a message and the literals between them: part, literal, part, literal, …, part."""


@dataclass(slots=True)
class _Items:
    """What tools or calls cost: so many tokens for each, and so many per token of its JSON."""

    each: float = _TOOL_TOKENS
    share: float = _JSON_SHARE

    def learn(self, written: tuple[int, int], sizes: tuple[int, int]) -> None:
        """written: tokens that the server made of a large and a small one; sizes: tokens of their JSON."""
        self.each = float(max(0, written[1] - sizes[1]))
        self.share = max(1.0, (written[0] - self.each) / sizes[0])

    def tokens(self, sizes: Sequence[int]) -> float:
        return sum(self.each + self.share * size for size in sizes)


class _Frames:
    """The literals of a template, with or without tools."""

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count
        self.seen = False
        self.system_first = False
        self.shows_ids = False
        self.tools = _Items()
        self.calls = _Items()
        self._joints: dict[Any, str] = {}
        self._frames: dict[Any, Frame] = {}
        self._sizes: dict[str, int] = {}

    def learn_order(self, probe: Probe, rendered: str) -> None:
        """See whether system messages from the middle come first."""
        systems = [index for index, kind in enumerate(probe.kinds) if kind == "S"]
        order = [index for _, _, index, _ in _marks(probe, rendered) if index >= 0]
        if systems and systems[-1] >= len(systems) and order[: len(systems)] == systems:
            self.system_first = True

    def learn(self, probe: Probe, rendered: str) -> None:
        """Take one rendering apart."""
        marks = _marks(probe, rendered)
        self._learn_items(probe, rendered, marks)
        self.seen = True
        symbols = _symbols(probe.kinds, system_first=self.system_first)
        self.shows_ids |= any(part == "id" for *_, part in marks)
        literal, at = "", 0
        frames: dict[int, list[str]] = {}
        shown = {index for _, _, index, _ in marks}
        previous = -1
        for start, end, index, part in _blocks(marks):
            literal += rendered[at:start]
            at = end
            if index < 0:
                continue  # the tools are counted apart
            if index == previous:
                frames[index] += [literal, part]
            else:
                self._keep_joints(symbols, (previous, index), shown, literal)
                frames.setdefault(index, [])
                frames[index] += ["", part] if frames[index] else [part]
            literal, previous = "", index
        self._keep_joints(symbols, (previous, len(symbols)), shown, literal + rendered[at:])
        for index, symbol in enumerate(symbols):
            self._keep_frame(symbol, tuple(frames.get(index, ())))

    def _learn_items(self, probe: Probe, rendered: str, marks: Sequence[tuple[int, int, int, str]]) -> None:
        """From the distances between three tools, or three calls of one message."""
        for name, items in (("tool", self.tools), ("call", self.calls)):
            starts: dict[tuple[int, str], int] = {}
            for start, _, index, part in marks:
                starts.setdefault((index, part), start)
            for index in {index for index, _ in starts}:
                first, second, third = (starts.get((index, f"{name}{number}"), -1) for number in range(3))
                if not 0 <= first < second < third:
                    continue
                given = probe.tools if name == "tool" else probe.messages[index].tool_calls
                large, small = (
                    _json_tokens(self._count, _bare(item, ids=self.shows_ids)) for item in given[:2]
                )
                written = self._count(rendered[first:second]), self._count(rendered[second:third])
                items.learn(written, (large, small))

    def _tokens(self, literal: str) -> int:
        if literal not in self._sizes:
            self._sizes[literal] = self._count(literal)
        return self._sizes[literal]

    def _keep_joints(
        self, symbols: Sequence[_Symbol], between: tuple[int, int], shown: set[int], literal: str
    ) -> None:
        """What stands between two messages; those between them that are not shown have part in it."""
        first, last = between
        hidden = [index for index in range(first + 1, last) if index not in shown]
        path = [_START, *symbols, _END]
        for before, after in pairwise([first, *hidden, last]):
            self._keep_joint(path[before + 1], path[after + 1], literal)
            literal = ""

    def _keep_joint(self, before: _Symbol, after: _Symbol, literal: str) -> None:
        for key in _joint_keys(before, after):
            if key not in self._joints or self._tokens(self._joints[key]) < self._tokens(literal):
                self._joints[key] = literal

    def _keep_frame(self, symbol: _Symbol, frame: Frame) -> None:
        for key in (symbol, symbol.kind):
            if len(self._frames.get(key, ())) <= len(frame):
                self._frames[key] = frame

    def joint(self, before: _Symbol, after: _Symbol) -> str:
        """What stood between such messages, or the longest between similar ones."""
        exact, *similar = _joint_keys(before, after)
        if exact in self._joints:
            return self._joints[exact]
        found = [self._joints[key] for key in similar[:-2] if key in self._joints]
        if found:
            return max(found, key=self._tokens)
        return "".join(self._joints.get(key, "") for key in similar[-2:])

    def frame(self, symbol: _Symbol) -> Frame:
        """What is shown of such a message; its text where any message of its kind shows it."""
        widest = self._frames.get(symbol.kind, ("content", "", "thinking", "", "calls"))
        frame = self._frames.get(symbol, ())
        return frame if frame and ("content" in frame or "content" not in widest) else widest


def _joint_keys(before: _Symbol, after: _Symbol) -> list[Any]:
    """The pair itself, pairs like it, and at last what stands behind the one and before the other."""
    ends = tuple(
        symbol.kind if symbol in (_START, _END) else _role(symbol.kind) for symbol in (before, after)
    )
    return [
        (before, after),
        (ends[0], after),
        (before, ends[1]),
        (before.kind, after.kind),
        ("behind", ends[0], after == _END),
        ("ahead", before == _START, ends[1]),
    ]


def _marks(probe: Probe, rendered: str) -> list[tuple[int, int, int, str]]:
    """Where each mark begins and ends, and what it stands for."""
    return [
        (found.start(), found.end(), *probe.places[int(found.group(1))])
        for found in MARK.finditer(rendered)
        if int(found.group(1)) < len(probe.places)
    ]


def _blocks(marks: Sequence[tuple[int, int, int, str]]) -> list[tuple[int, int, int, str]]:
    """The marks, with those of one message's calls or of all tools joined to one each."""
    blocks: list[tuple[int, int, int, str]] = []
    for start, end, index, part in marks:
        part = "calls" if part in ("id", "argument") or part.startswith("call") else part
        part = "tools" if index < 0 else part
        if part in ("calls", "tools") and blocks and blocks[-1][2:] == (index, part):
            blocks[-1] = (blocks[-1][0], end, index, part)
        else:
            blocks.append((start, end, index, part))
    return blocks


def _bare(item: Tool | ToolCall, *, ids: bool) -> Any:
    if isinstance(item, Tool):
        return wire_tool(item)
    return {"name": item.name, "arguments": item.arguments, **({"id": item.id} if ids and item.id else {})}


def _json_tokens(count: Callable[[str], int], value: Any) -> int:
    """Tokens of the longer of two ways to write JSON, with the escapes of Go."""
    texts = (
        json.dumps(value, ensure_ascii=False, separators=pair, default=str)
        for pair in ((",", ":"), (", ", ": "))
    )
    return max(count(re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text)) for text in texts)


class ProbedPrompt:
    """Bounds prompts by what a server rendered of `PROBES`, for one model and one value of `think`."""

    def __init__(self, renderings: Sequence[str | None], tokenizer: ModelTokenizer | TokenEstimator) -> None:
        """renderings: one for each of `PROBES`, None for those that the server refused."""
        self._tokenizer = tokenizer
        self._frames = {tools: _Frames(tokenizer.count_text) for tools in (False, True)}
        shown = [(probe, text) for probe, text in zip(PROBES, renderings, strict=False) if text is not None]
        for probe, text in shown:
            self._frames[bool(probe.tools)].learn_order(probe, text)
        for probe, text in shown:
            self._frames[bool(probe.tools)].learn(probe, text)

    def bound(
        self, messages: Sequence[Message], tools: Sequence[Tool], image_costs: Sequence[int]
    ) -> int | None:
        """At least the prompt's tokens; None where no probe was rendered."""
        frames = self._frames[bool(tools)]
        extra = float(_GUARD)
        if not frames.seen:
            frames = self._frames[False]
            extra += _UNSEEN_TOOLS
        if not frames.seen or not messages:
            return None
        if all(message.role == "system" for message in messages):
            # No probe is without a user, and templates may write tools where the first user's text stands.
            messages = [*messages, user("")]
            extra += _UNSEEN_TOOLS * bool(tools)
        count = self._tokenizer.count_text
        symbols = _symbols([kind_of(message) for message in messages], system_first=frames.system_first)
        given = list(zip(messages, symbols, strict=True))
        if frames.system_first:
            given.sort(key=lambda pair: pair[0].role != "system")
        pieces: list[str] = []
        before = _START
        with_images = any(not isinstance(part, TextPart) for message in messages for part in message.content)
        for message, symbol in given:
            frame = frames.frame(symbol)
            pieces.append(frames.joint(before, symbol))
            wire = wire_message(message, with_images=with_images)
            places = zip(frame, cycle((True, False)), strict=False)
            pieces += [wire.get(piece, "") if is_part else piece for piece, is_part in places]
            if "calls" in frame:
                extra += frames.calls.tokens(
                    [_json_tokens(count, _bare(call, ids=frames.shows_ids)) for call in message.tool_calls]
                )
            before = symbol
        pieces.append(frames.joint(before, _END))
        if tools:
            extra += frames.tools.tokens([_json_tokens(count, wire_tool(tool)) for tool in tools])
        total = self._tokenizer.count("".join(pieces)) + extra
        return round(total + 0.5) + sum(image_costs) + _IMAGE_SLACK * len(image_costs)
