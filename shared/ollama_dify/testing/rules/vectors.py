"""Embedding vectors by rule: hashed features, so that similar texts get near vectors."""

from __future__ import annotations

import functools
import math
import zlib

from . import reading


def shortened(vector: list[float], dimensions: int | None) -> list[float]:
    """The first `dimensions` numbers, normalised again; a size that does not apply is ignored."""
    if dimensions is None or not 0 < dimensions < len(vector):
        return vector
    return _unit(vector[: int(dimensions)])


def embed_text(text: str, size: int) -> list[float]:
    """A unit vector of words and their character trigrams, hashed to signed places."""
    vector = [0.0] * size
    # Punctuation or nothing at all still has a vector on a real server.
    for word in reading.words(text) or [f"\0{text.strip()}"]:
        for place, weight in _features(word, size):
            vector[place] += weight
    return _unit(vector)


@functools.lru_cache(maxsize=65_536)
def _features(word: str, size: int) -> tuple[tuple[int, float], ...]:
    edged = f"<{word}>"
    grams = [edged[i : i + 3] for i in range(len(edged) - 2)]
    weight = 0.8 / math.sqrt(len(grams))
    return (_place(word, size, 1.0), *(_place(gram, size, weight) for gram in grams))


def _place(feature: str, size: int, weight: float) -> tuple[int, float]:
    code = zlib.crc32(feature.encode("utf-8", "replace"))
    return code % size, weight if code & 0x8000_0000 else -weight


def _unit(vector: list[float]) -> list[float]:
    norm = math.sqrt(sum(value * value for value in vector))
    if norm == 0.0:
        return [1.0, *vector[1:]]
    return [round(value / norm, 8) for value in vector]
