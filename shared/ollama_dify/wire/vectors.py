"""The vectors of one /api/embed answer, checked; and several made into one. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from operator import mul
from typing import Any

from ..errors import EmbeddingError, ProtocolError
from .responses import EmbedResult, load_json, read_embed_answer

__all__ = ["mean_vector", "parse_answer", "read_vectors"]

# What other servers write for a number that is none, and numbers too large for one: no JSON, or none that
# can be read.
_NO_NUMBER = re.compile(rb"-?\b(?:NaN|Infinity|\d+(?:\.\d+)?[eE]\+?\d{3,})\b")


def parse_answer(body: bytes) -> Any:
    """The JSON of an /api/embed answer; what is no finite number is None, so that its text is found."""
    try:
        data = load_json(body)
    except ProtocolError:
        repaired = _NO_NUMBER.sub(b"null", body)
        if repaired == body:
            raise
        data = load_json(repaired)
    # Booleans count as numbers in Python. To look for the words first costs less than to look at each number.
    if b"true" in body or b"false" in body:
        _without_booleans(data)
    return data


def _without_booleans(data: Any) -> None:
    vectors = data.get("embeddings") if isinstance(data, dict) else None
    for vector in vectors if isinstance(vectors, list) else ():
        if isinstance(vector, list):
            vector[:] = [None if isinstance(number, bool) else number for number in vector]


def read_vectors(data: Any, expected: int) -> EmbedResult:
    """An /api/embed answer for `expected` texts.

    Raises EmbeddingError (retryable) for another number of vectors, and for one that is ragged, not finite
    or all zero; its `indexes` are positions in this request. The server decodes null as 0, so what was NaN
    can arrive as zeros.
    """
    result = read_embed_answer(data)
    vectors: Sequence[Any] = result.vectors
    if len(vectors) != expected:
        raise EmbeddingError(
            f"The server sent {len(vectors) if vectors else 'no'} vectors for {expected} text"
            f"{'s' if expected > 1 else ''}",
            retryable=True,
        )
    length = next((len(vector) for vector in vectors if isinstance(vector, list) and vector), 0)
    bad = [index for index, vector in enumerate(vectors) if not _is_sound(vector, length)]
    if bad:
        defect = _defect(vectors[bad[0]], length)
        many = f" ({len(bad)} of {expected} vectors are unusable)" if expected > 1 else ""
        raise EmbeddingError(
            f"The server sent a vector that {defect}{many}", indexes=tuple(bad), retryable=True
        )
    return result


def _is_sound(vector: Any, length: int) -> bool:
    try:
        # Two passes in C, the second ends at the first number that is not zero; a sum is NaN or infinite
        # when one of its parts is.
        return (
            isinstance(vector, list) and len(vector) == length and math.isfinite(sum(vector)) and any(vector)
        )
    except TypeError:
        return False


def _defect(vector: Any, length: int) -> str:
    """What is wrong with an unsound vector, to follow "a vector that"."""
    if not isinstance(vector, list) or not vector:
        return "is empty"
    if len(vector) != length:
        return f"has {len(vector)} numbers where others have {length}"
    if not all(isinstance(number, float | int) for number in vector):
        return "holds what is no finite number"
    return "is not finite" if any(vector) else "is all zero"


def mean_vector(vectors: Sequence[Sequence[float]], weights: Sequence[float]) -> list[float] | None:
    """The weighted mean of vectors of one length, as a unit vector; None where it has no direction."""
    total = [sum(map(mul, column, weights)) for column in zip(*vectors, strict=True)]
    norm = math.hypot(*total)
    return [number / norm for number in total] if 0.0 < norm < math.inf else None
