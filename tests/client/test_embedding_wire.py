"""Embedding by both clients, against the simulated server."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import orjson
import pytest

from ollama_dify import (
    AsyncOllamaClient,
    EmbeddingError,
    EmbeddingSettings,
    EmbedResult,
    OllamaClient,
    Timeouts,
)
from ollama_dify.client.prefixes import fingerprint
from ollama_dify.testing import Fault, RecordedRequest, Reply, SimulatedOllama

from .scripted_server import END_OF_FILE

# Arguments of the call; all others are settings.
CALL = ("kind", "progress", "skip_failed")
Run = Callable[..., EmbedResult]
LONG = "The cat sat on the mat and looked at the dog. " * 300


@pytest.fixture
def server() -> Iterator[SimulatedOllama]:
    with SimulatedOllama() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ollama_dify.client.session.random.random", lambda: 0.0)


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest, server: SimulatedOllama) -> Run:
    def embed(client: Any, texts: Sequence[str], fields: dict[str, Any]) -> Any:
        return client.embed(texts, **{name: fields[name] for name in CALL if name in fields})

    def sync(texts: Sequence[str], **fields: Any) -> EmbedResult:
        with OllamaClient(_settings(server, fields)) as client:
            return embed(client, texts, fields)

    def awaited(texts: Sequence[str], **fields: Any) -> EmbedResult:
        async def work() -> EmbedResult:
            async with AsyncOllamaClient(_settings(server, fields)) as client:
                return await embed(client, texts, fields)

        return asyncio.run(work())

    return sync if request.param == "sync" else awaited


def _settings(server: SimulatedOllama, fields: dict[str, Any]) -> EmbeddingSettings:
    settings = {name: value for name, value in fields.items() if name not in CALL}
    return EmbeddingSettings(
        **{"model": "all-minilm", "base_url": server.base_url, "timeout": 20, **settings}
    )


def holds(text: str) -> Callable[[RecordedRequest], bool]:
    return lambda request: request.body is not None and any(text in one for one in request.body["input"])


def test_order_is_kept_over_batches_in_flight_together(run: Run) -> None:
    texts = [f"text number {n} about {'cats' if n % 2 else 'dogs'}" for n in range(150)]
    done: list[int] = []
    together = run(texts, batch_size=16, progress=done.append)
    alone = run(texts, batch_size=1)
    assert together.vectors == alone.vectors
    assert together.input_tokens == alone.input_tokens
    assert sum(done) == 150
    assert len(done) == 10
    assert together.dimension == 384


def test_transient_faults_over_the_wire_lose_nothing(run: Run, server: SimulatedOllama) -> None:
    texts = [f"text {n}" for n in range(200)]
    expected = run(texts).vectors
    faults = [
        Fault("status", status=503, data=b'{"error":"server busy, please try again"}'),
        Fault("status", status=502, data=b"<html>Bad Gateway</html>"),
        Fault("reset", after=0, part="response"),
        Fault("cut", after=100),
        Fault("status", status=400, data=orjson.dumps({"error": END_OF_FILE})),
        Fault("status", status=200, data=b'{"embeddings":[[1.0]]}'),
    ]
    for seed, fault in enumerate(faults):
        server.fault(fault, times=None, path="/api/embed", share=0.05, seed=seed)
    assert run(texts, batch_size=8, max_retries=8).vectors == expected


def test_overflow_over_the_wire(run: Run, server: SimulatedOllama) -> None:
    texts = ["A cat.", LONG, "A dog."]
    with pytest.raises(EmbeddingError, match="text 1: longer than the model's context") as caught:
        run(texts)
    assert caught.value.indexes == (1,)
    whole = run(["A cat.", "A dog."]).vectors
    cut = run(texts, overflow="truncate")
    assert (cut.truncated, cut.split, cut.failed) == ((1,), (), ())
    split = run(texts, overflow="split")
    assert (split.truncated, split.split, split.failed) == ((), (1,), ())
    for result in (cut, split):
        assert [result.vectors[0], result.vectors[2]] == whole
        assert math.hypot(*(result.vectors[1] or ())) == pytest.approx(1.0, abs=1e-4)
    assert split.input_tokens > cut.input_tokens > 512
    hole = run(texts, skip_failed=True)
    assert hole.vectors == [whole[0], None, whole[1]]


@pytest.mark.parametrize("asked", [None, 64], ids=["whole", "shortened"])
def test_dimensions(run: Run, asked: int | None) -> None:
    assert run(["a"], dimensions=asked).dimension == (384 if asked is None else asked)


def test_an_error_of_progress_reaches_the_caller(run: Run) -> None:
    def stop(done: int) -> None:
        raise KeyError("stop")

    with pytest.raises(KeyError):
        run(["a"], progress=stop)


@pytest.mark.parametrize("bound", ["max_concurrency", "max_connections"])
@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
def test_a_bound_holds_for_the_object_and_not_for_a_call(bound: str, awaited: bool) -> None:
    """Eight calls of eight batches; waiting for the object's own other calls is no timeout."""
    texts = [f"text {number}" for number in range(16)]
    pool = 0.01 if bound == "max_concurrency" else 20.0
    with SimulatedOllama(latency_s=0.005) as server:
        settings = _settings(server, {"batch_size": 2, bound: 3, "timeout": Timeouts(pool=pool)})

        async def gathered() -> list[EmbedResult]:
            async with AsyncOllamaClient(settings) as client:
                return await asyncio.gather(*(client.embed(texts) for _ in range(8)))

        if awaited:
            results = asyncio.run(gathered())
        else:
            with OllamaClient(settings) as client, ThreadPoolExecutor(8) as threads:
                results = list(threads.map(lambda _: client.embed(texts), range(8)))
        assert len({str(result.vectors) for result in results}) == 1
        assert len(server.requests) == 64
        assert server.connections.total <= 3


def test_the_clients_agree_on_the_fingerprint(server: SimulatedOllama) -> None:
    settings = _settings(server, {"model": "nomic-embed-text", "prefixes": True})
    digest = server.models["nomic-embed-text:latest"].sha256

    async def awaited() -> str:
        async with AsyncOllamaClient(settings) as client:
            return await client.embedding_fingerprint()

    with OllamaClient(settings) as client:
        assert client.embedding_fingerprint() == fingerprint(settings, digest, 768)
    assert asyncio.run(awaited()) == fingerprint(settings, digest, 768)


def test_the_fingerprint_follows_a_model_that_was_pulled_anew(server: SimulatedOllama) -> None:
    with OllamaClient(_settings(server, {})) as client:
        before = client.embedding_fingerprint()
        assert client.embedding_fingerprint() == before
        server.install(replace(server.models["all-minilm:latest"], digest="f" * 64))
        assert client.embedding_fingerprint() != before


def test_scripted_reply_counts_are_added_up(run: Run, server: SimulatedOllama) -> None:
    body = {"model": "all-minilm", "embeddings": [[1.0, 0.0]], "total_duration": 5, "prompt_eval_count": 7}
    server.reply(Reply(raw=orjson.dumps(body)), path="/api/embed", times=2)
    result = run(["a", "b"], batch_size=1)
    assert (result.input_tokens, result.total_duration, result.load_duration) == (14, 10, 0)
