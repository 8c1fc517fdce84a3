"""Completion mode and embeddings through both adapters: the same bytes, the same results."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings, OllamaDifyLLM
from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding
from ollama_dify.testing import SimulatedModel, SimulatedOllama

from .ways import ended

PROMPTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "bounded": ({"max_tokens": 16, "temperature": 0.0, "seed": 3}, {}),
    "per call": ({}, {"num_predict": 5, "stop": ["x"]}),
    "raw": ({}, {"raw": True}),
    "suffix": ({"model": "coder"}, {"suffix": "The end."}),
    "system": ({}, {"system": "Be brief."}),
    "template": ({}, {"template": "{{ .Prompt }}"}),
    "think": ({"model": "qwen3", "think": False}, {}),
    "json": ({"format": "json"}, {}),
}
# Settings, and what the body of a query holds.
EMBEDDINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {"model": "nomic-embed-text", "input": ["animals"], "truncate": False}),
    "batches": ({"batch_size": 2}, {}),
    "dimensions": ({"dimensions": 64}, {"dimensions": 64}),
    "cut by the server": ({"overflow": "truncate"}, {}),
    "context": (
        {"context_size": 1024, "keep_alive": "5m"},
        {"options": {"num_ctx": 1024}, "keep_alive": "5m"},
    ),
    "prefixes": ({"prefixes": True}, {"input": ["search_query: animals"]}),
    "own prefixes": ({"query_prefix": "q: ", "document_prefix": "d: "}, {"input": ["q: animals"]}),
}
TEXTS = ["a cat on a mat", "a dog in the fog", "stars", "the sea", "你好"]


def generated(server: SimulatedOllama) -> list[bytes]:
    return sorted(request.raw for request in server.requests if request.path == "/api/generate")


def embedded(server: SimulatedOllama) -> list[bytes]:
    return sorted(request.raw for request in server.requests if request.path == "/api/embed")


@pytest.mark.parametrize(("settings", "call"), PROMPTS.values(), ids=PROMPTS)
async def test_completion(
    simulated_ollama: SimulatedOllama, settings: dict[str, Any], call: dict[str, Any]
) -> None:
    values = {"model": "llama3.2", "base_url": simulated_ollama.base_url, **settings}
    llm, model = OllamaDifyLLM(**values), OllamaDify(**values, mode="completion")
    simulated_ollama.install(SimulatedModel("coder", ("completion", "insert")))
    seen, said = [], []
    for streamed in (False, True):
        for one, name in ((llm, "stream" if streamed else "invoke"), (model, "stream_complete")):
            name = name if streamed else name.removeprefix("stream_")
            for way in (name, f"a{name}"):
                simulated_ollama.reset()
                made = await ended(getattr(one, way)("Tell me of ships.", **call))
                last = made if not streamed else "".join(made) if one is llm else made[-1]
                said.append(getattr(last, "text", last))
                seen.append(generated(simulated_ollama))
                body = simulated_ollama.requests[-1].body
                assert body["prompt"] == "Tell me of ships."
                for argument in {"raw", "suffix", "system", "template"} & call.keys():
                    assert body[argument] == call[argument]
    assert len({tuple(bodies) for bodies in seen[:4]}) == 1
    assert len({tuple(bodies) for bodies in seen[4:]}) == 1
    assert len(seen[0]) == 1
    assert len(set(said)) == 1
    await llm.aclose()
    await model.aclose()
    llm.close()
    model.close()


def test_chat_model_in_completion_mode_sends_system_apart(simulated_ollama: SimulatedOllama) -> None:
    with ChatOllamaDify(model="llama3.2", base_url=simulated_ollama.base_url, mode="completion") as model:
        model.invoke([("system", "Be brief."), ("user", "Hello")])
    (request,) = [sent for sent in simulated_ollama.requests if sent.path == "/api/generate"]
    assert request.body["system"] == "Be brief."
    assert "Be brief." not in request.body["prompt"]


@pytest.mark.parametrize(("settings", "sent"), EMBEDDINGS.values(), ids=EMBEDDINGS)
async def test_embeddings(
    simulated_ollama: SimulatedOllama, settings: dict[str, Any], sent: dict[str, Any]
) -> None:
    values = {"model": "nomic-embed-text", "base_url": simulated_ollama.base_url, **settings}
    documents, queries, bodies = [], [], []
    for adapter, many, single in (
        (OllamaDifyEmbeddings(**values), "embed_documents", "embed_query"),
        (OllamaDifyEmbeddings(**values), "aembed_documents", "aembed_query"),
        (OllamaDifyEmbedding(**values), "get_text_embedding_batch", "get_query_embedding"),
        (OllamaDifyEmbedding(**values), "aget_text_embedding_batch", "aget_query_embedding"),
    ):
        simulated_ollama.reset()
        documents.append(await ended(getattr(adapter, many)(TEXTS)))
        queries.append(await ended(getattr(adapter, single)("animals")))
        bodies.append(embedded(simulated_ollama))
        last = simulated_ollama.requests[-1].body
        assert {key: last[key] for key in sent} == sent
        await adapter.aclose()
        adapter.close()
    for found in (documents, queries, bodies):
        assert all(other == found[0] for other in found[1:])
    assert len(documents[0]) == len(TEXTS)
