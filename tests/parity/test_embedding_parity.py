"""Embeddings in both frameworks: empty pages, bad texts, progress, the wrong kind of model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import chromadb
import pytest
from chromadb.config import Settings as ChromaOptions
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import Document as Page
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.vector_stores.chroma import ChromaVectorStore

from langchain_ollama_dify import OllamaDifyEmbeddings
from llamaindex_ollama_dify import OllamaDifyEmbedding
from ollama_dify import CapabilityError, ConfigurationError, EmbeddingError
from ollama_dify.testing import SimulatedOllama

from .ways import ended

PAGES = ["The harbour opened in 1874.", "", "  \n", "Rye bread is sold on Tuesdays."]
Model = OllamaDifyEmbeddings | OllamaDifyEmbedding
frameworks = pytest.mark.parametrize("kind", [OllamaDifyEmbeddings, OllamaDifyEmbedding])


def make(kind: Any, server: SimulatedOllama, **settings: Any) -> Any:
    return kind(**{"model": "nomic-embed-text", "base_url": server.base_url, **settings})


def ways(model: Model, texts: list[str]) -> list[Callable[[], Any]]:
    """Every public way from texts to vectors."""
    if isinstance(model, OllamaDifyEmbeddings):
        return [
            lambda: model.embed_documents(texts),
            lambda: model.aembed_documents(texts),
            lambda: model.embed(texts).vectors,
        ]
    return [
        lambda: model.get_text_embedding_batch(texts),
        lambda: model.aget_text_embedding_batch(texts),
        lambda: model.embed(texts).vectors,
    ]


def chroma() -> Any:
    return chromadb.EphemeralClient(ChromaOptions(anonymized_telemetry=False))


@frameworks
async def test_an_empty_page_is_embedded_like_any_other(
    simulated_ollama: SimulatedOllama, kind: type[Model]
) -> None:
    with make(kind, simulated_ollama) as model:
        for way in ways(model, PAGES):
            assert [len(vector) for vector in await ended(way())] == [768] * 4
            assert simulated_ollama.requests[-1].body["input"] == PAGES
        await model.aclose()


@frameworks
async def test_empty_pages_as_an_error(simulated_ollama: SimulatedOllama, kind: type[Model]) -> None:
    with make(kind, simulated_ollama, on_empty="error") as model:
        for way in ways(model, PAGES):
            with pytest.raises(EmbeddingError, match="texts 1, 2: empty") as raised:
                await ended(way())
            assert raised.value.indexes == (1, 2)
        assert simulated_ollama.requests == []
        # What the error advises.
        assert "embed(texts, skip_failed=True)" in str(raised.value)
        for result in (
            model.embed(PAGES, skip_failed=True),
            await model.aembed(PAGES, skip_failed=True),
        ):
            assert [vector is None for vector in result.vectors] == [False, True, True, False]
            assert (result.failed, set(result.reasons)) == ((1, 2), {1, 2})
        left = [text for number, text in enumerate(PAGES) if number not in raised.value.indexes]
        assert model.embed(left).vectors == [vector for vector in result.vectors if vector is not None]
        await model.aclose()


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("kind", "word", "ask"),
    [
        (OllamaDifyEmbeddings, "query_prefix", "embed_query"),
        (OllamaDifyEmbedding, "query_prefix", "get_query_embedding"),
        (OllamaDifyEmbedding, "query_instruction", "get_query_embedding"),
    ],
)
async def test_an_empty_query_is_empty_behind_what_is_put_in_front(
    simulated_ollama: SimulatedOllama, kind: Any, word: str, ask: str, awaited: bool
) -> None:
    with make(kind, simulated_ollama, on_empty="error", **{word: "search: "}) as model:
        with pytest.raises(EmbeddingError, match="empty"):
            await ended(getattr(model, f"a{ask}" if awaited else ask)(" "))
        assert simulated_ollama.requests == []
        assert await ended(getattr(model, f"a{ask}" if awaited else ask)("ships"))
        assert simulated_ollama.requests[-1].body["input"] == ["search: ships"]
        await model.aclose()


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("store", ["in memory", "Chroma"])
@frameworks
async def test_an_empty_page_ends_no_ingestion(
    simulated_ollama: SimulatedOllama, kind: type[Model], store: str, awaited: bool
) -> None:
    with make(kind, simulated_ollama) as model:
        question = "When did the harbour open?"
        if isinstance(model, OllamaDifyEmbeddings):
            documents = [Document(text) for text in PAGES]
            made: Any = Chroma("pages", model, client=chroma()) if store == "Chroma" else None
            made = InMemoryVectorStore(model) if made is None else made
            ids = await made.aadd_documents(documents) if awaited else made.add_documents(documents)
            found = made.similarity_search(question, k=1)[0].page_content
        else:
            pages = [Page(text=text) for text in PAGES]
            pipeline = IngestionPipeline(transformations=[model])
            ids = await pipeline.arun(documents=pages) if awaited else pipeline.run(documents=pages)
            context = StorageContext.from_defaults()
            if store == "Chroma":
                collection = chroma().create_collection("nodes")
                context = StorageContext.from_defaults(vector_store=ChromaVectorStore(collection))
            index = VectorStoreIndex(list(ids), storage_context=context, embed_model=model)
            found = index.as_retriever(similarity_top_k=1).retrieve(question)[0].get_content()
        assert len(ids) == len(PAGES)
        assert found == PAGES[0]
        await model.aclose()
    if store == "Chroma":
        client = chroma()
        for collection in client.list_collections():
            client.delete_collection(collection.name)


@frameworks
def test_holes_are_no_setting(simulated_ollama: SimulatedOllama, kind: type[Model]) -> None:
    with pytest.raises(ConfigurationError, match="skip_failed"):
        make(kind, simulated_ollama, skip_failed=True)


@frameworks
async def test_a_chat_model_asked_for_vectors(simulated_ollama: SimulatedOllama, kind: type[Model]) -> None:
    with make(kind, simulated_ollama, model="llama3.2") as model:
        for way in ways(model, ["a"]):
            with pytest.raises(CapabilityError, match="nomic-embed-text, bge-m3") as raised:
                await ended(way())
            assert "--embeddings" not in str(raised.value)
        await model.aclose()


async def test_a_progress_bar_in_langchain(
    simulated_ollama: SimulatedOllama,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with make(OllamaDifyEmbeddings, simulated_ollama, show_progress_bar=True, batch_size=1) as model:
        for way in ways(model, PAGES):
            await ended(way())
            assert "4/4" in capfd.readouterr().err
        model.embed_query("?")
        assert capfd.readouterr().err == ""
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
        with pytest.raises(ConfigurationError, match="pip install tqdm"):
            model.embed_documents(PAGES)
        await model.aclose()
