"""Embedding vectors by rule: hashed features, so that similar texts get near vectors."""

from __future__ import annotations

import functools
import math
import re
import zlib

_WORD = re.compile(r"[^\W_]+")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_COMMON_WORDS = """
a an and are as at be by can do does for from had has have how i in is it its me my no not of on or
our so that the their them there these they this to was we were what when where which who why will
with you your are did if than then about into over
"""
_COMMON = frozenset(_COMMON_WORDS.split())


def shortened(vector: list[float], dimensions: int | None) -> list[float]:
    """The first `dimensions` numbers, normalised again; a size that does not apply is ignored."""
    if dimensions is None or not 0 < dimensions < len(vector):
        return vector
    return _unit(vector[: int(dimensions)])


def embed_text(text: str, size: int) -> list[float]:
    """A unit vector of words, their beginnings and their character trigrams, hashed to signed places."""
    vector = [0.0] * size
    words = _WORD.findall(text.lower())
    for word in words:
        for place, weight in _features(word, size):
            vector[place] += weight
    if not words:
        # Punctuation or nothing at all still has a vector on a real server.
        for place, weight in _features(f"\0{text.strip()}", size):
            vector[place] += weight
    return _unit(vector)


@functools.lru_cache(maxsize=65_536)
def _features(word: str, size: int) -> tuple[tuple[int, float], ...]:
    if word in _COMMON:
        return (_place(word, size, 0.15),)
    if _WIDE.search(word):
        pairs = [word[i : i + 2] for i in range(len(word) - 1)]
        return tuple(_place(part, size, 0.7) for part in (*word, *pairs))
    edged = f"<{word}>"
    grams = [edged[i : i + 3] for i in range(len(edged) - 2)]
    weight = 0.8 / math.sqrt(len(grams))
    stem = [_place(f"^{word[:5]}", size, 0.6)] if len(word) > 4 else []
    return (_place(word, size, 1.0), *stem, *(_place(gram, size, weight) for gram in grams))


def _place(feature: str, size: int, weight: float) -> tuple[int, float]:
    code = zlib.crc32(feature.encode("utf-8", "replace"))
    return code % size, weight if code & 0x8000_0000 else -weight


def _unit(vector: list[float]) -> list[float]:
    norm = math.sqrt(sum(value * value for value in vector))
    if norm == 0.0:
        return [1.0, *vector[1:]]
    return [round(value / norm, 8) for value in vector]
