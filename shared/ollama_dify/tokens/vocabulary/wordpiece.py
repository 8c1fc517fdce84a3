"""WordPiece: greedy longest match inside each word, on text stripped of case, accents and control characters.

Our own code, because the server differs from the `tokenizers` library's BertNormalizer (only the first
character of a decomposition is kept, all kinds of marks are removed, words of any length are split), and the
library's greedy search is quadratic in the length of a word.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache, partial

from .vocabulary import Encode, Vocabulary

_HAN = re.compile(
    "[\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f"
    "\U0002b920-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f]"
)
_SPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
_REMEMBERED = 50_000


def wordpiece_encoder(vocabulary: Vocabulary) -> Encode:
    """Normalise, cut at spaces, and take the longest token again and again."""
    ids, unknown = vocabulary.ids, vocabulary.unknown
    longest = max(map(len, vocabulary.tokens)) + 1
    strip_accents = vocabulary.lowercase if vocabulary.strip_accents is None else vocabulary.strip_accents
    normalise = lru_cache(_REMEMBERED)(
        partial(_normalise, lowercase=vocabulary.lowercase, strip_accents=strip_accents)
    )

    @lru_cache(_REMEMBERED)
    def encode_word(word: str) -> list[int]:
        text, start = f"▁{word}", 0
        found: list[int] = []
        while start < len(text):
            for end in range(min(len(text), start + longest), start, -1):
                id = ids.get(text[start:end])
                if id is not None:
                    found.append(id)
                    start = end
                    break
            else:
                return [unknown]
        return found

    def encode(text: str) -> list[int]:
        return [id for word in "".join(map(normalise, text)).split() for id in encode_word(word)]

    return encode


def _normalise(character: str, *, lowercase: bool, strip_accents: bool) -> str:
    """A character as the server normalises it, with spaces around a character that is a word by itself."""
    if strip_accents:
        character = unicodedata.normalize("NFD", character)[0]
    if _SPACE.match(character):
        return " "
    category = unicodedata.category(character)
    if character in "\0\ufffd" or (category[0] == "C" and category != "Cn"):
        return ""
    if strip_accents and category[0] == "M":
        return ""
    text = character.lower()[0] if lowercase else character
    apart = category[0] == "P" or (category[0] == "S" and character < "\x7f") or _HAN.match(character)
    return f" {text} " if apart else text
