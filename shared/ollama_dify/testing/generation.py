"""A reply → the tokens a model would have spent on it, cut where the request says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from . import vocabulary, wire
from .faults import Reply

Channel = Literal["content", "thinking", "call", "silent"]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one step of the model adds: characters of a channel, or a finished tool call."""

    channel: Channel
    text: str
    tokens: int
    call: Mapping[str, Any] | None = None
    likely: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Output:
    """What a generation yields: pieces, how it ended, tokens spent, the text as the model wrote it."""

    pieces: tuple[Piece, ...]
    done_reason: Literal["stop", "length"]
    tokens: int
    raw_text: str

    def joined(self, channel: Channel) -> str:
        """All text of one channel."""
        return "".join(piece.text for piece in self.pieces if piece.channel == channel)

    @property
    def calls(self) -> list[Mapping[str, Any]]:
        """The finished tool calls."""
        return [piece.call for piece in self.pieces if piece.call is not None]


def generate(reply: Reply, *, limit: int | None, stop: Sequence[str]) -> Output:
    """Spend tokens on the reply until it is complete, `limit` tokens are spent, or a stop word appears."""
    kept: list[Piece] = []
    spent, raw, said, channel = 0, "", "", ""
    longest = max(map(len, stop), default=0)
    for piece in _steps(reply):
        if limit is not None and spent + piece.tokens > limit:
            return Output(tuple(kept), "length", max(limit, 1), raw)
        spent += piece.tokens
        raw += piece.text
        said = said + piece.text if piece.channel == channel else piece.text
        channel = piece.channel
        if piece.text or not stop:
            kept.append(piece)
        end = said[-longest - len(piece.text) :]
        if channel in ("content", "thinking") and any(word and word in end for word in stop):
            return Output(_without_end(kept, said, stop), "stop", spent, raw)
    if limit is not None and spent >= limit:
        return Output(tuple(kept), "length", spent, raw)
    return Output(tuple(kept), "stop", spent + 1, raw)


def _without_end(pieces: list[Piece], said: str, stop: Sequence[str]) -> tuple[Piece, ...]:
    """The pieces without the stop word that `said`, what was said last, ends with."""
    surplus = len(said) - min(said.find(word) for word in stop if word and word in said)
    while pieces and surplus >= len(pieces[-1].text):
        surplus -= len(pieces.pop().text)
    if pieces and surplus:
        pieces.append(replace(pieces[-1], text=pieces.pop().text[:-surplus]))
    return tuple(pieces)


def _steps(reply: Reply) -> Iterator[Piece]:
    if reply.thinking is not None:
        yield from _spell("<think>\n", "silent")
        yield from _spell(reply.thinking, "thinking")
        yield from _after_thought(reply)
    else:
        yield from _with_probabilities(reply)
    for number, call in enumerate(reply.tool_calls):
        written = call_text(call)
        spelled = list(_spell(f"\n{written}" if number else written, "silent"))
        yield from spelled[:-1]
        last = spelled[-1]
        yield Piece("call", last.text, last.tokens, call)


def _with_probabilities(reply: Reply) -> Iterator[Piece]:
    likely = iter(reply.logprobs)
    spoken = _spell(reply.text, "content")
    for piece in spoken if reply.pieces is None else (Piece("content", text, 1) for text in reply.pieces):
        yield replace(piece, likely=next(likely, {}))


def _after_thought(reply: Reply) -> Iterator[Piece]:
    """The blank line after a thought is split into tokens together with what follows it."""
    gap = "\n\n"
    yield from _spell("</think>", "silent")
    text = reply.text if reply.pieces is None else ""
    if not text:
        yield from _spell(gap, "silent")
    for piece in _spell(gap + text, "content") if text else ():
        hidden = min(len(gap), len(piece.text))
        gap = gap[hidden:]
        yield Piece(
            "content" if piece.text[hidden:] else "silent", piece.text[hidden:] or piece.text, piece.tokens
        )
    yield from (Piece("content", one, 1) for one in reply.pieces or ())


def _spell(text: str, channel: Channel) -> Iterator[Piece]:
    for piece, tokens in vocabulary.pieces_of(text):
        yield Piece(channel, piece, tokens)


def call_text(call: Mapping[str, Any]) -> str:
    """A tool call as the model writes it."""
    arguments = wire.dumps(call.get("arguments") or {}).decode()
    return f'<tool_call>\n{{"name": "{call.get("name", "")}", "arguments": {arguments}}}\n</tool_call>'
