"""Older models write their reasoning into the text, between `<think>` tags; it is separated here."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from .messages import Message, TextPart
from .responses import ChatChunk

_OPEN = "<think>"
_CLOSE = "</think>"


def thinking_apart(message: Message) -> Message:
    """An assistant turn with a leading `<think>…</think>` moved from its text to `thinking`; histories of
    other programs have such texts."""
    first = message.content[0] if message.content and message.role == "assistant" else None
    if not isinstance(first, TextPart) or message.thinking or not first.text.lstrip().startswith(_OPEN):
        return message
    thought, closed, said = first.text.lstrip().removeprefix(_OPEN).partition(_CLOSE)
    if not closed:
        return message
    rest = (TextPart(said.lstrip("\n")), *message.content[1:])
    return replace(message, content=rest, thinking=thought.strip("\n") or None)


class ThinkTags:
    """A chunk filter that moves a `<think>…</think>` at the start of an answer into `thinking`.

    held: text that may still be part of a tag. `done`: nothing is left to do, because the answer does not
    start with the tag, the server separates the thinking itself, or the tag was closed.
    """

    def __init__(self) -> None:
        self.done = False
        self.held = ""
        self._stage: Literal["start", "opened", "thought", "answer"] = "start"

    def feed(self, chunk: ChatChunk) -> ChatChunk:
        """The chunk with its text divided into text and thinking."""
        text, self.held, thought, last = self.held + chunk.text, "", "", chunk.finish is not None
        if chunk.thinking or chunk.tool_calls:
            self.done = True
            return chunk._replace(text=text)
        if self._stage == "start":
            begun = text.lstrip()
            if begun.startswith(_OPEN):
                self._stage, text = "opened", begun[len(_OPEN) :]
            elif last or not _OPEN.startswith(begun):
                self.done = True
            else:
                self.held, text = text, ""
        # Line breaks after a tag belong neither to the reasoning nor to the answer.
        if self._stage == "opened" and (text := text.lstrip("\n")):
            self._stage = "thought"
        if self._stage == "thought":
            thought, closed, text = text.partition(_CLOSE)
            if closed:
                self._stage = "answer"
            elif not last:
                kept = next((n for n in range(len(_CLOSE) - 1, 0, -1) if thought.endswith(_CLOSE[:n])), 0)
                thought, self.held = thought[: len(thought) - kept], thought[len(thought) - kept :]
        if self._stage == "answer":
            text = text.lstrip("\n")
            self.done = bool(text)
        return chunk._replace(text=text, thinking=thought)
