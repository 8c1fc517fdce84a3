"""Lists of texts, checked, and long texts cut into pieces at their natural boundaries. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import ConfigurationError

__all__ = ["checked_texts", "split_text"]

# Strongest first. A match ends where the next piece may begin.
_BOUNDARIES = (
    re.compile(r"\n[^\S\n]*\n\s*"),  # paragraph
    re.compile(r"[.!?…]+[\"'”’)\]]*\s+|[。！？]+[」』”’）]*\s*|\n+"),  # sentence, or line
    re.compile(r"\s+|(?<=[、，；：])"),  # word, or clause where words are not spaced
)


def checked_texts(call: str, noun: str, texts: object) -> list[str]:
    """The texts that a call was given. Raises ConfigurationError for anything else."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise ConfigurationError(
            f"{call}() takes a list of {noun}s, not {type(texts).__name__}; for one text pass [text]."
        )
    listed: list[Any] = list(texts)
    for index, text in enumerate(listed):
        if not isinstance(text, str):
            found = f"{noun.capitalize()} {index} is of type {type(text).__name__}"
            raise ConfigurationError(f"{found}; {call}() takes texts (str) only.")
    return listed


def split_text(text: str, size: int) -> Iterator[str]:
    """Pieces of at most `size` characters, in order; joined they are the text again.

    A piece ends at the last paragraph in its second half, else sentence, else word, else at the character.
    """
    start = 0
    while len(text) - start > size:
        end = _cut(text, start, start + size)
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def _cut(text: str, start: int, limit: int) -> int:
    """Where the piece that begins at `start` ends: at most at `limit`."""
    middle = start + (limit - start + 1) // 2
    for boundary in _BOUNDARIES:
        end = None
        for found in boundary.finditer(text, middle, limit):
            end = found.end()
        if end is not None:
            return end
    return limit
