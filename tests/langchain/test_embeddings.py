"""Embeddings: what is sent, what comes back, and the tokens used."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_ollama_dify import OllamaDifyEmbeddings
from ollama_dify.testing import SimulatedOllama

both = pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])


def embeddings(**settings: Any) -> OllamaDifyEmbeddings:
    return OllamaDifyEmbeddings(**{"model": "nomic-embed-text", **settings})


async def call(model: Any, awaited: bool, method: str, asked: Any) -> Any:
    return await getattr(model, f"a{method}")(asked) if awaited else getattr(model, method)(asked)


@both
async def test_the_request_of_a_question(server: SimulatedOllama, awaited: bool) -> None:
    model = embeddings(dimensions=128, keep_alive=5, context_size=512)

    vector = await call(model, awaited, "embed_query", "Hello")

    assert len(vector) == 128
    assert server.requests[-1].body == {
        "model": "nomic-embed-text",
        "input": ["Hello"],
        "truncate": False,
        "dimensions": 128,
        "options": {"num_ctx": 512},
        "keep_alive": 5,
    }


@both
async def test_documents_go_in_batches_and_keep_their_order(server: SimulatedOllama, awaited: bool) -> None:
    texts = [f"Text number {number}" for number in range(10)]

    vectors = await call(embeddings(batch_size=3), awaited, "embed_documents", texts)

    sent = [request.body["input"] for request in server.requests if request.path == "/api/embed"]
    assert sorted(map(len, sent)) == [1, 3, 3, 3]
    singles = [embeddings().embed_query(text) for text in texts]
    assert vectors == singles


@both
async def test_usage_is_told(server: SimulatedOllama, awaited: bool) -> None:
    result = await call(embeddings(), awaited, "embed", ["one", "two words"])

    assert result.input_tokens > 0
    assert len(result.vectors) == 2
    assert result.vectors == embeddings().embed_documents(["one", "two words"])


@both
async def test_prefixes_tell_questions_from_documents(server: SimulatedOllama, awaited: bool) -> None:
    model = embeddings(prefixes=True)

    await call(model, awaited, "embed_query", "Hello")
    await call(model, awaited, "embed_documents", ["Hello"])

    sent = [request.body["input"] for request in server.requests if request.path == "/api/embed"]
    assert sent == [["search_query: Hello"], ["search_document: Hello"]]


@both
async def test_no_documents_ask_nobody(server: SimulatedOllama, awaited: bool) -> None:
    assert await call(embeddings(), awaited, "embed_documents", []) == []
    assert server.requests == []
