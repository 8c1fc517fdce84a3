"""WordPiece: greedy longest match inside each word, on text stripped of case, accents and control characters.

The server's tables differ from the `tokenizers` library's BertNormalizer (only the first character of a
decomposition stays, all kinds of marks go, a word of any length is split), and the library's greedy search is
quadratic in the length of a word. Hence code of our own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from .vocabulary import Vocabulary

_HAN = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
_SPACES = frozenset(
    (*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F)
)
_IDEOGRAPHIC_SPACE = 0x3000
_REMEMBERED = 50_000


class _Normalised(dict[int, str]):
    """A `str.translate` table, filled as characters come: words end up apart by single spaces."""

    def __init__(self, lowercase: bool, strip_accents: bool) -> None:
        super().__init__()
        self._lowercase, self._strip_accents = lowercase, strip_accents

    def __missing__(self, code: int) -> str:
        text = self[code] = self._normalise(code)
        return text

    def _normalise(self, code: int) -> str:
        if self._strip_accents:
            code = ord(unicodedata.normalize("NFD", chr(code))[0])
        if code in _SPACES or code == _IDEOGRAPHIC_SPACE:
            return " "
        category = unicodedata.category(chr(code))
        if code in (0, 0xFFFD) or (category[0] == "C" and category != "Cn"):
            return ""
        if self._strip_accents and category[0] == "M":
            return ""
        text = chr(code).lower()[0] if self._lowercase else chr(code)
        apart = category[0] == "P" or (code < 0x7F and category[0] == "S")
        return f" {text} " if apart or any(first <= code <= last for first, last in _HAN) else text


class WordPieceModel:
    """Token ids of plain texts; texts and ids of special tokens come in order in `parts`."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ids = {text: id for id, text in enumerate(vocabulary.tokens)}
        self._unknown = vocabulary.unknown if vocabulary.unknown is not None else 0
        self._longest = max(map(len, vocabulary.tokens)) + 1
        self._table = _Normalised(vocabulary.lowercase, vocabulary.strip_accents)
        self._remembered: dict[str, tuple[int, ...]] = {}

    def encode(self, parts: Iterable[str | int]) -> list[int]:
        ids: list[int] = []
        for part in parts:
            if isinstance(part, int):
                ids.append(part)
                continue
            for word in part.translate(self._table).split(" "):
                if word:
                    ids.extend(self._remembered.get(word) or self._word(word))
        return ids

    def _word(self, word: str) -> tuple[int, ...]:
        text = f"▁{word}"
        ids: list[int] = []
        start = 0
        while start < len(text):
            for end in range(min(len(text), start + self._longest), start, -1):
                id = self._ids.get(text[start:end])
                if id is not None:
                    ids.append(id)
                    start = end
                    break
            else:
                ids = [self._unknown]
                break
        result = tuple(ids)
        if len(self._remembered) >= _REMEMBERED:
            self._remembered.clear()
        self._remembered[word] = result
        return result
