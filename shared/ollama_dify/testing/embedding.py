"""/api/embed and /api/embeddings: lengths checked and cut, vectors by rule."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import checks, vocabulary
from .faults import RecordedRequest
from .models import SimulatedModel
from .responses import Answer, ok, refuse
from .rules.vectors import embed_text, shortened
from .state import ServerState

_TOO_LONG = "the input length exceeds the context length"
_NO_EMBEDDINGS = "This server does not support embeddings. Start it with `--embeddings`"


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of a batch and the tokens they cost; texts without a token yield no vector."""

    vectors: list[list[float]]
    tokens: int
    load_ns: int
    started_ns: int


async def embed(server: ServerState, request: RecordedRequest) -> Answer:
    """POST /api/embed."""
    body = checks.parse_body(request.raw, "EmbedRequest")
    texts = _inputs(body.get("input"))
    keep_alive_s = checks.keep_alive(body, server.keep_alive_s)
    model = _model(server, body)
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


async def legacy(server: ServerState, request: RecordedRequest) -> Answer:
    """POST /api/embeddings, the older route: one text, never cut."""
    body = checks.parse_body(request.raw, "EmbeddingRequest")
    keep_alive_s = checks.keep_alive(body, server.keep_alive_s)
    model = _model(server, body)
    prompt = body.get("prompt") or ""
    if prompt and model.count(prompt) > model.context_length:
        raise refuse(500, _TOO_LONG)
    done = await compute(server, model, body, [prompt] if prompt else [], keep_alive_s)
    return ok({"embedding": done.vectors[0] if done.vectors else []})


async def compute(
    server: ServerState,
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
            text if count <= limit else vocabulary.decode(vocabulary.encode(text)[: limit - model.around])
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


def _model(server: ServerState, body: checks.Body) -> SimulatedModel:
    model = server.find(body.get("model") or "")
    if model is None:
        raise refuse(404, f'model "{body.get("model") or ""}" not found, try pulling it first')
    return model


def _inputs(given: Any) -> list[str]:
    if given is None:
        return []
    if isinstance(given, str):
        return [given] if given else []
    if isinstance(given, list) and all(isinstance(text, str) for text in given):
        return list(given)
    raise refuse(400, "invalid input type")
