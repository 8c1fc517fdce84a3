"""The embedding model: vectors, batches, cache, events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from llamaindex_ollama_dify import OllamaDifyEmbedding
from ollama_dify import EmbeddingError
from ollama_dify.testing import SimulatedOllama
from tests.llamaindex.asking import sent
from tests.llamaindex.watching import CountingLimiter, Recorder, Watcher

MakeEmbedding = Callable[..., OllamaDifyEmbedding]
TEXTS = [f"Sentence number {number} about ships and harbours." for number in range(10)]
one_by_one = pytest.mark.parametrize(
    "form", ["get_text_embedding", "aget_text_embedding", "get_query_embedding", "aget_query_embedding"]
)
batched = pytest.mark.parametrize("form", ["get_text_embedding_batch", "aget_text_embedding_batch"])


async def embed(embedding: OllamaDifyEmbedding, form: str, what: Any, **call: Any) -> Any:
    made = getattr(embedding, form)(what, **call)
    try:
        return await made if form.startswith("a") else made
    finally:
        await embedding.aclose()


def inputs(server: SimulatedOllama) -> list[list[str]]:
    return [body["input"] for body in sent(server, "/api/embed")]


@batched
async def test_batches_keep_order(server: SimulatedOllama, make_embedding: MakeEmbedding, form: str) -> None:
    embedding = make_embedding(batch_size=3)
    vectors = await embed(embedding, form, TEXTS)
    assert sorted(inputs(server)) == sorted([TEXTS[0:3], TEXTS[3:6], TEXTS[6:9], TEXTS[9:]])
    alone = [await embed(embedding, "get_text_embedding", text) for text in TEXTS]
    assert vectors == alone
    assert await embed(embedding, form, []) == []


@batched
async def test_requests_run_side_by_side_within_the_limit(
    server: SimulatedOllama, make_embedding: MakeEmbedding, form: str
) -> None:
    server.latency.first_byte_s = 0.05
    embedding = make_embedding(batch_size=1, num_workers=3)
    await embed(embedding, form, TEXTS)
    assert len(inputs(server)) == 10
    assert len({request.connection for request in server.requests}) == 3


@batched
@pytest.mark.parametrize("shown", [True, False])
async def test_progress_bar(
    server: SimulatedOllama,
    make_embedding: MakeEmbedding,
    capfd: pytest.CaptureFixture[str],
    form: str,
    shown: bool,
) -> None:
    embedding = make_embedding(batch_size=2, max_concurrency=2)
    vectors = await embed(embedding, form, TEXTS, show_progress=shown)
    assert [len(vector) for vector in vectors] == [768] * 10
    printed = capfd.readouterr().err
    assert ("Generating embeddings: 100%" in printed) == shown
    assert ("10/10" in printed) == shown


@batched
async def test_events_and_callbacks_once(make_embedding: MakeEmbedding, watcher: Watcher, form: str) -> None:
    recorder = Recorder()
    embedding = make_embedding(batch_size=3, callback_manager=CallbackManager([recorder]))
    vectors = await embed(embedding, form, TEXTS)
    (ended,) = watcher.of(EmbeddingEndEvent)
    assert watcher.count(EmbeddingStartEvent) == 1
    assert (ended.chunks, ended.embeddings) == (TEXTS, vectors)
    ((kind, payload),) = recorder.ended
    assert kind == CBEventType.EMBEDDING
    assert payload == {EventPayload.CHUNKS: TEXTS, EventPayload.EMBEDDINGS: vectors}


@batched
async def test_rate_limit_once_per_request(
    server: SimulatedOllama, make_embedding: MakeEmbedding, form: str
) -> None:
    limiter = CountingLimiter()
    await embed(make_embedding(batch_size=4, rate_limiter=limiter), form, TEXTS)
    assert limiter.taken == len(inputs(server)) == 3


@one_by_one
async def test_rate_limit_of_one_text(make_embedding: MakeEmbedding, form: str) -> None:
    limiter = CountingLimiter()
    await embed(make_embedding(rate_limiter=limiter), form, "A ship.")
    assert limiter.taken == 1


@batched
async def test_cache_is_read_and_written(
    server: SimulatedOllama, make_embedding: MakeEmbedding, form: str
) -> None:
    embedding = make_embedding(batch_size=3, embeddings_cache=SimpleKVStore())
    first = await embed(embedding, form, TEXTS[:4])
    before = len(inputs(server))
    again = await embed(embedding, form, [TEXTS[9], *TEXTS[:4]])
    assert again[1:] == first
    assert inputs(server)[before:] == [[TEXTS[9]]]
    assert await embed(embedding, "get_text_embedding", TEXTS[9]) == again[0]
    assert await embed(embedding, "aget_text_embedding", TEXTS[0]) == first[0]
    assert len(inputs(server)) == before + 1


@batched
@pytest.mark.parametrize("cached", [False, True], ids=["plain", "partly-cached"])
@pytest.mark.parametrize("limited", [False, True], ids=["at-once", "rate-limited"])
async def test_the_bad_text_is_named_by_its_place(
    make_embedding: MakeEmbedding, form: str, cached: bool, limited: bool
) -> None:
    embedding = make_embedding(
        batch_size=2,
        on_empty="error",
        embeddings_cache=SimpleKVStore() if cached else None,
        rate_limiter=CountingLimiter() if limited else None,
    )
    if cached:
        await embed(embedding, form, TEXTS[:3])
    with pytest.raises(EmbeddingError) as caught:
        await embed(embedding, form, [*TEXTS[:5], "", *TEXTS[5:]])
    assert caught.value.indexes == (5,)
    assert "ext 5" in str(caught.value)
    assert len(caught.value.partial) == 11
    assert caught.value.partial[5] is None


async def test_instructions(server: SimulatedOllama, make_embedding: MakeEmbedding) -> None:
    embedding = make_embedding(query_instruction="query: ", text_instruction="passage: ")
    for form in ("get_query_embedding", "aget_query_embedding"):
        await embed(embedding, form, "ships")
    for form in ("get_text_embedding", "aget_text_embedding"):
        await embed(embedding, form, "ships")
    for form in ("get_text_embedding_batch", "aget_text_embedding_batch"):
        await embed(embedding, form, ["ships"])
    assert inputs(server) == [["query: ships"]] * 2 + [["passage: ships"]] * 4


@pytest.mark.parametrize(
    "apart", [{"prefixes": True}, {"query_instruction": "query: "}], ids=["prefixes", "own"]
)
@pytest.mark.parametrize("form", ["get_query_embedding", "aget_query_embedding"])
async def test_cached_text_is_not_taken_for_a_query(
    server: SimulatedOllama, make_embedding: MakeEmbedding, form: str, apart: dict[str, Any]
) -> None:
    embedding = make_embedding(embeddings_cache=SimpleKVStore(), **apart)
    (text,) = await embed(embedding, "get_text_embedding_batch", ["ships"])
    query = await embed(embedding, form, "ships")
    assert query != text
    assert inputs(server)[-1][0].endswith("query: ships")
    assert await embed(embedding, "get_text_embedding", "ships") == text
    assert len(inputs(server)) == 2


async def test_nodes_are_embedded(make_embedding: MakeEmbedding) -> None:
    embedding = make_embedding()
    nodes = [TextNode(text=text) for text in TEXTS[:3]]
    embedding(nodes)
    vectors = [node.embedding for node in nodes]
    assert vectors == await embed(embedding, "aget_text_embedding_batch", TEXTS[:3])
    await embedding.acall(nodes)
    await embedding.aclose()
    assert [node.embedding for node in nodes] == vectors
