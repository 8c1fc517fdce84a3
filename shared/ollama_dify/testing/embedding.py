"""/api/embed and /api/embeddings: hashed features, so that similar texts get near vectors."""

from __future__ import annotations

import asyncio
import functools
import math
import re
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import checks, vocabulary
from .faults import RecordedRequest
from .models import SimulatedModel
from .responses import Answer, ok, refuse

if TYPE_CHECKING:
    from .server import SimulatedOllama

_TOO_LONG = "the input length exceeds the context length"
_NO_EMBEDDINGS = "This server does not support embeddings. Start it with `--embeddings`"
_WORD = re.compile(r"[^\W_]+")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_COMMON_WORDS = """
a an and are as at be by can do does for from had has have how i in is it its me my no not of on or
our so that the their them there these they this to was we were what when where which who why will
with you your are did if than then about into over
"""
_COMMON = frozenset(_COMMON_WORDS.split())


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of a batch and the tokens they cost; texts without a token yield no vector."""

    vectors: list[list[float]]
    tokens: int
    load_ns: int
    started_ns: int


async def embed(server: SimulatedOllama, request: RecordedRequest) -> Answer:
    """POST /api/embed."""
    body = checks.parse_body(request.raw, "EmbedRequest")
    texts = _inputs(body.get("input"))
    keep_alive_s = checks.keep_alive(body, server.keep_alive_s)
    model = server.find(body.get("model") or "")
    if model is None:
        raise refuse(404, f'model "{body.get("model") or ""}" not found, try pulling it first')
    name = body["model"]
    done = await compute(server, model, body, texts, keep_alive_s)
    if not done.vectors:
        return ok({"model": name, "embeddings": []})
    return ok(
        {
            "model": name,
            "embeddings": done.vectors,
            "total_duration": max(1, time.perf_counter_ns() - done.started_ns),
            "load_duration": done.load_ns,
            "prompt_eval_count": done.tokens,
        }
    )


async def legacy(server: SimulatedOllama, request: RecordedRequest) -> Answer:
    """POST /api/embeddings, the older route: one text, never cut."""
    body = checks.parse_body(request.raw, "EmbeddingRequest")
    keep_alive_s = checks.keep_alive(body, server.keep_alive_s)
    model = server.find(body.get("model") or "")
    if model is None:
        raise refuse(404, f'model "{body.get("model") or ""}" not found, try pulling it first')
    prompt = body.get("prompt") or ""
    if prompt and model.count(prompt) > model.context_length:
        raise refuse(500, _TOO_LONG)
    done = await compute(server, model, body, [prompt] if prompt else [], keep_alive_s)
    return ok({"embedding": done.vectors[0] if done.vectors else []})


async def compute(
    server: SimulatedOllama,
    model: SimulatedModel,
    body: dict[str, Any],
    texts: Sequence[str],
    keep_alive_s: float,
) -> Embedded:
    """Load, check lengths, and make the vectors."""
    started = time.perf_counter_ns()
    chosen = {**checks.options(model.parameters), **checks.options(body.get("options"))}
    runner = await server.runners.load(model, chosen, keep_alive_s)
    load_ns = max(1, time.perf_counter_ns() - started)
    if not texts or (len(texts) == 1 and not texts[0]):
        return Embedded([], 0, load_ns, started)
    if not model.can("embedding") and server.is_modern:
        raise refuse(501, _NO_EMBEDDINGS)
    release = await server.runners.acquire(runner)
    try:
        limit = runner.context
        counts = [model.count(text) for text in texts]
        if body.get("truncate") is False and any(count > limit for count in counts):
            raise refuse(400, _TOO_LONG)
        fitting = [
            text if count <= limit else _first_tokens(text, limit)
            for text, count in zip(texts, counts, strict=True)
        ]
        dimensions = body.get("dimensions")
        vectors = []
        for number, text in enumerate(fitting):
            if number % 16 == 15:
                await asyncio.sleep(0)
            vectors.append(shortened(embed_text(text, model.dimensions), dimensions))
    finally:
        release()
    return Embedded(vectors, sum(min(count, limit) for count in counts), load_ns, started)


def _inputs(given: Any) -> list[str]:
    if given is None:
        return []
    if isinstance(given, str):
        return [given] if given else []
    if isinstance(given, list) and all(isinstance(text, str) for text in given):
        return list(given)
    raise refuse(400, "invalid input type")


def _first_tokens(text: str, limit: int) -> str:
    return vocabulary.decode(vocabulary.encode(text)[:limit])


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
