"""Cutting a text at its special tokens, before any model sees the rest."""

from __future__ import annotations

from .vocabulary import CONTROL, UNKNOWN, USER_DEFINED, Vocabulary

_ASCII_SPACE = " \t\n\v\f\r"
_PREFIX_LENGTH = 4


class SpecialTokens:
    """Finds control, unknown and user-defined tokens as the server does: longest in bytes first.

    A token found cuts the text for good, so a shorter token never matches across it. This order differs
    from the leftmost-longest matching of the `tokenizers` library, hence code of our own.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._strips_left, self._strips_right = vocabulary.strips_left, vocabulary.strips_right
        kept = (UNKNOWN, CONTROL, USER_DEFINED)
        tokens = vocabulary.tokens
        ids = [id for id, type in enumerate(vocabulary.types[: len(tokens)]) if type in kept]
        ids.sort(key=lambda token: -len(tokens[token].encode()))
        self._ordered = [(tokens[id], id) for id in ids]
        # Thousands of reserved tokens share few beginnings; most texts contain none of them.
        self._by_prefix: dict[str, list[int]] = {}
        for place, (text, _) in enumerate(self._ordered):
            self._by_prefix.setdefault(text[:_PREFIX_LENGTH], []).append(place)

    def cut(self, text: str) -> list[str | int]:
        """Non-empty texts and token ids, in order."""
        places = sorted(
            place
            for prefix, group in self._by_prefix.items()
            if prefix in text
            for place in group
            if self._ordered[place][0] in text
        )
        parts: list[str | int] = [text] if text else []
        for place in places:
            special, id = self._ordered[place]
            parts = [
                piece
                for part in parts
                for piece in ([part] if isinstance(part, int) else self._split(part, special, id))
            ]
        return parts

    def _split(self, text: str, special: str, id: int) -> list[str | int]:
        pieces = text.split(special)
        if len(pieces) == 1:
            return [text]
        result: list[str | int] = []
        for index, piece in enumerate(pieces):
            if index > 0:
                result.append(id)
                if id in self._strips_right:
                    piece = piece.lstrip(_ASCII_SPACE)
            if index < len(pieces) - 1 and id in self._strips_left:
                piece = piece.rstrip(_ASCII_SPACE)
            if piece:
                result.append(piece)
        return result
