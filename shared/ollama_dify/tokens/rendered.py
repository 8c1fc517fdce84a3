"""Tokens of a prompt that the server rendered (`_debug_render_only`)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .tokenizer import TokenCount, TokenizerLike

__all__ = ["count_rendered"]

_IMAGE_TAG = re.compile(r"\[img-(\d+)\]")


def count_rendered(tokenizer: TokenizerLike, rendered: str, image_costs: Sequence[int] = ()) -> TokenCount:
    """Tokens of the prompt; exact where no image is in it.

    The server puts `[img-N]` for each image and reads the texts between them apart. An empty prompt costs
    what the server puts around any.
    """
    texts, images = [""], 0
    at = 0
    for tag in _IMAGE_TAG.finditer(rendered):
        number = int(tag.group(1))
        if number < len(image_costs):
            texts[-1] += rendered[at : tag.start()]
            texts.append("")
            images += image_costs[number]
            at = tag.end()
    texts[-1] += rendered[at:]
    if len(texts) == 1 and rendered:
        return TokenCount(tokenizer.count(rendered), tokenizer.exact)
    around = max(0, tokenizer.count_embedding("a") - tokenizer.count_text("a"))
    exact = tokenizer.exact and len(texts) == 1
    return TokenCount(around + sum(map(tokenizer.count_text, texts)) + images, exact)
