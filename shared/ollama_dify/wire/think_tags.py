"""Older models write their reasoning into the text, between `<think>` tags: kept apart here."""

from __future__ import annotations

from dataclasses import replace

from .messages import Message, TextPart
from .responses import ChatChunk

__all__ = ["ThinkTags", "thinking_apart"]

_OPEN = "<think>"
_CLOSE = "</think>"


def thinking_apart(message: Message) -> Message:
    """An assistant turn whose text begins with `<think>…</think>`, as other programs' histories hold it, with
    that part as `thinking`."""
    first = message.content[0] if message.content and message.role == "assistant" else None
    if not isinstance(first, TextPart) or message.thinking or not first.text.lstrip().startswith(_OPEN):
        return message
    thought, closed, said = first.text.lstrip().removeprefix(_OPEN).partition(_CLOSE)
    if not closed:
        return message
    rest = (TextPart(said.lstrip("\n")), *message.content[1:])
    return replace(message, content=rest, thinking=thought.strip("\n") or None)


class ThinkTags:
    """A chunk filter that moves a `<think>…</think>` at the very start of an answer into `thinking`.

    Text is held back only while it may still be part of a tag. `done` once nothing is left to do: the
    answer does not start with the tag, the server keeps thinking apart itself, or the tag was closed.
    """

    def __init__(self) -> None:
        self.done = False
        self._held = ""
        self._inside = False
        self._thought = False
        self._after = False

    @property
    def held(self) -> str:
        return self._held

    def feed(self, chunk: ChatChunk) -> ChatChunk:
        """The chunk with its text divided into text and thinking."""
        text, thinking, calls, _, finish = chunk
        if thinking or calls:
            self.done = True
            held, self._held = self._held, ""
            return chunk._replace(text=held + text)
        said, thought = self._split(self._held + text)
        if finish is not None:
            said, thought = (said, thought + self._held) if self._inside else (said + self._held, thought)
            self._held = ""
            self.done = True
        return chunk._replace(text=said, thinking=thought)

    def _split(self, text: str) -> tuple[str, str]:
        self._held = ""
        if not self._inside and not self._after:
            start = text.lstrip()
            if len(start) < len(_OPEN) and _OPEN.startswith(start):
                self._held = text
                return "", ""
            if not start.startswith(_OPEN):
                self.done = True
                return text, ""
            self._inside = True
            text = start[len(_OPEN) :]
        if self._inside:
            if not self._thought:
                # The line breaks behind the tag are no part of the reasoning.
                text = text.lstrip("\n")
            thought, closed, said = text.partition(_CLOSE)
            self._thought = self._thought or bool(text)
            if not closed:
                keep = next((n for n in range(len(_CLOSE) - 1, 0, -1) if text.endswith(_CLOSE[:n])), 0)
                self._held = text[len(text) - keep :] if keep else ""
                return "", text[: len(text) - keep]
            self._inside, self._after = False, True
            return self._trimmed(said), thought
        return self._trimmed(text), ""

    def _trimmed(self, text: str) -> str:
        """The line breaks between the tag and the answer belong to neither."""
        text = text.lstrip("\n")
        self.done = self.done or bool(text)
        return text
