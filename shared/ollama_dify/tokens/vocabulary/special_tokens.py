"""Cutting a text at its special tokens, before any model sees the rest."""

from __future__ import annotations

from collections.abc import Callable

from .vocabulary import Vocabulary

_ASCII_SPACE = " \t\n\v\f\r"
_PREFIX_LENGTH = 4


def special_token_cutter(vocabulary: Vocabulary) -> Callable[[str], list[str | int]]:
    """A function that returns non-empty texts and token ids in order.

    Control, unknown and user-defined tokens are searched as on the server: longest in bytes first. Each match
    splits the text, so a shorter token never matches across it. Our own code, because the `tokenizers`
    library takes the leftmost match first, then the longest.
    """
    texts = vocabulary.texts
    ordered = sorted(vocabulary.special, key=lambda token: -len(texts[token].encode()))
    # Thousands of reserved tokens share a few prefixes; most texts contain none of them.
    by_prefix: dict[str, list[int]] = {}
    for place, id in enumerate(ordered):
        by_prefix.setdefault(texts[id][:_PREFIX_LENGTH], []).append(place)
    strips_left, strips_right = vocabulary.strips

    def cut(text: str) -> list[str | int]:
        places = [place for prefix, group in by_prefix.items() if prefix in text for place in group]
        parts: list[str | int] = [text] if text else []
        for place in sorted(place for place in places if texts[ordered[place]] in text):
            parts = [piece for part in parts for piece in split(part, ordered[place])]
        return parts

    def split(part: str | int, id: int) -> list[str | int]:
        if isinstance(part, int) or texts[id] not in part:
            return [part]
        result: list[str | int] = []
        pieces = part.split(texts[id])
        for index, piece in enumerate(pieces):
            if index > 0:
                result.append(id)
                if id in strips_right:
                    piece = piece.lstrip(_ASCII_SPACE)
            if index < len(pieces) - 1 and id in strips_left:
                piece = piece.rstrip(_ASCII_SPACE)
            if piece:
                result.append(piece)
        return result

    return cut
