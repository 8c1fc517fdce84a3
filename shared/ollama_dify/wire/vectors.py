"""The vectors of one /api/embed answer, checked; and the mean of several vectors. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from operator import mul
from typing import Any

from ..errors import EmbeddingError, ProtocolError
from .responses import EmbedResult, load_json, read_finish, wrong

# NaN and infinity as other servers write them, numbers too large for a float, and booleans in a list.
_NO_NUMBER = re.compile(
    rb"-?\b(?:NaN|Infinity|\d+(?:\.\d+)?[eE]\+?\d{3,})\b|(?<=[\[,\s])(?:true|false)(?=[\],\s])"
)


def read_vectors(body: bytes, expected: int) -> EmbedResult:
    """An /api/embed answer for `expected` texts.

    Raises EmbeddingError (retryable) for a wrong number of vectors, and for a vector of another length, with
    a number that is not finite, or all zero; `indexes` are positions in this request. The server decodes
    null as 0, so NaN can arrive as zeros.
    """
    data = _parsed(body)
    vectors = data.get("embeddings") if isinstance(data, dict) else None
    if not isinstance(vectors, list):
        raise wrong("`embeddings`", vectors)
    if len(vectors) != expected:
        texts = f"{expected} texts" if expected > 1 else "1 text"
        raise EmbeddingError(f"The server sent {len(vectors) or 'no'} vectors for {texts}", retryable=True)
    length = next((len(vector) for vector in vectors if isinstance(vector, list) and vector), 0)
    defects = {index: defect for index, one in enumerate(vectors) if (defect := _defect(one, length))}
    if defects:
        many = f" ({len(defects)} of {expected} vectors are unusable)" if expected > 1 else ""
        first = next(iter(defects.values()))
        raise EmbeddingError(
            f"The server sent a vector that {first}{many}", indexes=tuple(defects), retryable=True
        )
    finish = read_finish(data)
    return EmbedResult(
        vectors, finish.model, finish.usage.input_tokens, finish.total_duration, finish.load_duration
    )


def _parsed(body: bytes) -> Any:
    """The JSON of an answer; a number that is not finite becomes None, so that its text can be named."""
    # Booleans count as numbers in Python. One letter is found ten times as fast as a word, and numbers have
    # neither the u of true nor the s of false.
    start, end = body.find(b'"embeddings"') + len(b'"embeddings"'), body.rfind(b"]]")
    if body.find(b"u", start, end) >= 0 or body.find(b"s", start, end) >= 0:
        body = _NO_NUMBER.sub(b"null", body)
    try:
        return load_json(body)
    except ProtocolError:
        repaired = _NO_NUMBER.sub(b"null", body)
        if repaired == body:
            raise
        return load_json(repaired)


def _defect(vector: Any, length: int) -> str:
    """What is wrong with a vector, as words to put after "a vector that"; "" if it is valid."""
    if not isinstance(vector, list) or not vector:
        return "is empty"
    if len(vector) != length:
        return f"has {len(vector)} numbers where others have {length}"
    try:
        # Two passes in C; the second ends at the first number that is not zero. The sum is NaN or infinite
        # if one of the numbers is.
        if not math.isfinite(sum(vector)):
            return "is not finite"
    except TypeError:
        return "holds what is no finite number"
    return "" if any(vector) else "is all zero"


def mean_vector(vectors: Sequence[Sequence[float]], weights: Sequence[float]) -> list[float] | None:
    """The weighted mean of vectors of one length, as a unit vector; None if the mean is zero."""
    total = [sum(map(mul, column, weights)) for column in zip(*vectors, strict=True)]
    norm = math.hypot(*total)
    return [number / norm for number in total] if 0.0 < norm < math.inf else None
