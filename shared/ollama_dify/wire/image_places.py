"""Where the images of a message stand in its text, as Ollama reads it. Pure.

Ollama's message has one text and a list of images. The server puts the images in the places of `[img]`
in the text, one after the other, and those without a place before it; then it reads `[img-0]` as the first
image of the conversation. Models with a renderer inside the server have their images before the text in
any case.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .messages import Content, TextPart

__all__ = ["placed_text"]

_PLACE = "[img]"
_LOOKS_LIKE_A_PLACE = re.compile(r"\[(?=img(?:-\d+)?\])")
_WORD_JOINER = "\u2060"


def placed_text(content: Sequence[Content]) -> str:
    """The texts of a content, each on its own line, with the places of its images where they are several.

    An image alone needs no place. Two of them side by side make servers since 0.30 fail with "Chunk not
    found" once an earlier prompt shared the first and not the second, so a line break stands between them.
    What looks like a place in a text of the caller gets an invisible character, and no image goes there.
    """
    texts = [
        _LOOKS_LIKE_A_PLACE.sub(f"[{_WORD_JOINER}", part.text)
        for part in content
        if isinstance(part, TextPart)
    ]
    if len(content) - len(texts) < 2:
        return "\n".join(texts)
    left = iter(texts)
    return "\n".join(next(left) if isinstance(part, TextPart) else _PLACE for part in content)
