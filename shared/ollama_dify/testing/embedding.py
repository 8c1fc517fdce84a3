"""/api/embed: lengths checked and cut, vectors by rule."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from . import checks, models, vocabulary
from .faults import RecordedRequest
from .responses import Answer, ok, refuse
from .rules.vectors import embed_text, shortened
from .state import ServerState

_TOO_LONG = "the input length exceeds the context length"
_NO_EMBEDDINGS = "This server does not support embeddings. Start it with `--embeddings`"


async def embed(server: ServerState, request: RecordedRequest) -> Answer:
    """POST /api/embed."""
    started = time.perf_counter_ns()
    body = checks.parse_body(request.raw, "EmbedRequest")
    texts = _inputs(body.get("input"))
    keep_alive_s = checks.keep_alive(body, server.keep_alive_s)
    name = body.get("model") or ""
    model = server.find(name)
    if name and not models.is_valid_name(name):
        raise refuse(400, "invalid model name")
    if model is None:
        raise refuse(404, f'model "{name}" not found, try pulling it first')
    chosen = {**checks.options(model.parameters), **checks.options(body.get("options"))}
    runner = server.runners.load(model, chosen, keep_alive_s)
    load_ns = max(1, time.perf_counter_ns() - started)
    if not texts:
        return ok({"model": name, "embeddings": []})
    if not model.can("embedding") and server.is_modern:
        raise refuse(501, _NO_EMBEDDINGS)
    release = await server.runners.acquire(runner)
    try:
        counts = [model.count(text) for text in texts]
        if body.get("truncate") is False and any(count > runner.context for count in counts):
            raise refuse(400, _TOO_LONG)
        vectors = []
        for number, (text, count) in enumerate(zip(texts, counts, strict=True)):
            if number % 16 == 15:
                await asyncio.sleep(0)
            if count > runner.context:
                text = vocabulary.decode(vocabulary.encode(text)[: runner.context - model.around])
            vectors.append(shortened(embed_text(text, model.dimensions), body.get("dimensions")))
    finally:
        release()
    return ok(
        {
            "model": name,
            "embeddings": vectors,
            "total_duration": max(1, time.perf_counter_ns() - started),
            "load_duration": load_ns,
            "prompt_eval_count": sum(min(count, runner.context) for count in counts),
        }
    )


def _inputs(given: Any) -> list[str]:
    if given is None:
        return []
    if isinstance(given, str):
        return [given] if given else []
    if isinstance(given, list) and all(isinstance(text, str) for text in given):
        return list(given)
    raise refuse(400, "invalid input type")
