"""Cutting a text into pieces at its natural boundaries. Pure; nothing of the text is lost."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["split_text"]

# Strongest first. A match ends where the next piece may begin.
_BOUNDARIES = (
    re.compile(r"\n[^\S\n]*\n\s*"),  # paragraph
    re.compile(r"[.!?…]+[\"'”’)\]]*\s+|[。！？]+[」』”’）]*\s*|\n+"),  # sentence, or line
    re.compile(r"\s+|(?<=[、，；：])"),  # word, or clause where words are not spaced
)


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
