"""`pull="missing"`: a call whose model the server lacks has it downloaded first, once, in both frameworks."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings
from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding
from ollama_dify import ModelNotFoundError
from ollama_dify.testing import SimulatedOllama


async def streamed(chunks: Any) -> list[Any]:
    return [chunk async for chunk in chunks]


async def llamaindex_stream(llm: OllamaDify) -> list[Any]:
    return await streamed(await llm.astream_complete("Hi"))


async def plain(result: Any) -> Any:
    return result


WAYS: dict[str, tuple[type[Any], Any]] = {
    "LangChain": (ChatOllamaDify, lambda model: plain(model.invoke("Hi"))),
    "LangChain, async stream": (ChatOllamaDify, lambda model: streamed(model.astream("Hi"))),
    "LangChain embeddings": (OllamaDifyEmbeddings, lambda model: plain(model.embed_query("Hi"))),
    "LangChain embeddings, async": (OllamaDifyEmbeddings, lambda model: model.aembed_documents(["Hi"])),
    "LlamaIndex": (OllamaDify, lambda llm: plain(llm.complete("Hi"))),
    "LlamaIndex, async stream": (OllamaDify, llamaindex_stream),
    "LlamaIndex embeddings": (OllamaDifyEmbedding, lambda model: plain(model.get_query_embedding("Hi"))),
    "LlamaIndex embeddings, async": (OllamaDifyEmbedding, lambda model: model.aget_query_embedding("Hi")),
}


@pytest.mark.parametrize(("kind", "call"), WAYS.values(), ids=WAYS)
async def test_a_missing_model(kind: type[Any], call: Any, simulated_ollama: SimulatedOllama) -> None:
    server, name = simulated_ollama, "all-minilm" if "Embedding" in kind.__name__ else "llama3.2"
    server.models.pop(f"{name}:latest")
    values = {"model": name, "base_url": server.base_url}
    with pytest.raises(ModelNotFoundError):
        await call(kind(**values))
    assert "/api/pull" not in {request.path for request in server.requests}
    assert await call(kind(**values, pull="missing"))
    pulls = [request.body for request in server.requests if request.path == "/api/pull"]
    assert pulls == [{"model": name, "stream": False}]
    with pytest.raises(ModelNotFoundError, match=r"Pulling it failed: .*file does not exist"):
        await call(kind(**{**values, "model": "no-such-model"}, pull="missing"))
