"""Reranking through both adapters, sync and async: the same bytes, the same scores, in the core's order."""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.callbacks.schema import CBEventType
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

import langchain_ollama_dify
import llamaindex_ollama_dify
from ollama_dify import ConfigurationError, ContextOverflowError, OllamaClient, RerankSettings
from ollama_dify.testing import Reply, SimulatedOllama
from tests.llamaindex.watching import Watcher

QUERY = "How many of three piers has the harbour?"
TEXTS = ["Tea is served.", "Piers of the harbour: three.", "Three cats.", "Piers of the harbour: three."]
LONG = "Tea and cats and dogs. " * 120

# Settings and texts.
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "plain": ({}, TEXTS),
    "best": ({"top_n": 2}, TEXTS),
    "instruction and options": ({"instruction": "Find numbers", "num_gpu": 1, "keep_alive": "5m"}, TEXTS),
    "chat model": ({"model": "llama3.2"}, TEXTS),
    "truncated": ({"overflow": "truncate", "context_size": 512}, [*TEXTS, LONG]),
    "split": ({"overflow": "split", "context_size": 512}, [*TEXTS, LONG]),
    "none": ({}, []),
    "unclear": ({}, ["odd", *TEXTS]),
}
Found = list[tuple[str, float]]
Way = Callable[[Any, list[str]], Awaitable[Found]]


def _documents(texts: list[str]) -> list[Document]:
    return [Document(text, id=str(at), metadata={"at": at}) for at, text in enumerate(texts)]


def _read(documents: Any) -> Found:
    assert all(set(document.metadata) == {"at", "relevance_score"} for document in documents)
    return [(document.page_content, document.metadata["relevance_score"]) for document in documents]


def _nodes(texts: list[str]) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text), score=9.0) for text in texts]


async def _compress(settings: RerankSettings, texts: list[str]) -> Found:
    with langchain_ollama_dify.OllamaDifyRerank.from_settings(settings) as model:
        documents = _documents(texts)
        found = _read(model.compress_documents(documents, QUERY))
        assert documents == _documents(texts)  # the caller's stay as they are
        return found


async def _acompress(settings: RerankSettings, texts: list[str]) -> Found:
    async with langchain_ollama_dify.OllamaDifyRerank.from_settings(settings) as model:
        return _read(await model.acompress_documents(_documents(texts), QUERY))


async def _process(settings: RerankSettings, texts: list[str]) -> Found:
    with llamaindex_ollama_dify.OllamaDifyRerank.from_settings(settings) as model:
        nodes = _nodes(texts)
        found = model.postprocess_nodes(nodes, query_str=QUERY)
        assert [node.score for node in nodes] == [9.0] * len(nodes)
        return [(hit.text, hit.score or 0.0) for hit in found]


async def _aprocess(settings: RerankSettings, texts: list[str]) -> Found:
    async with llamaindex_ollama_dify.OllamaDifyRerank.from_settings(settings) as model:
        found = await model.apostprocess_nodes(_nodes(texts), query_bundle=QueryBundle(QUERY))
        return [(hit.text, hit.score or 0.0) for hit in found]


WAYS: dict[str, Way] = {
    "compress": _compress,
    "acompress": _acompress,
    "postprocess": _process,
    "apostprocess": _aprocess,
}


@pytest.mark.parametrize(("values", "texts"), CASES.values(), ids=CASES)
async def test_rerank(simulated_ollama: SimulatedOllama, values: dict[str, Any], texts: list[str]) -> None:
    server = simulated_ollama
    settings = RerankSettings(**{"model": "qwen3-reranker", "base_url": server.base_url, **values})
    unclear = Reply(pieces=["Hm"], logprobs=[{"Hm": -0.1}])
    seen, found = [], []
    for way in (None, *WAYS.values()):
        server.reset()
        server.reply(unclear, times=None, when=lambda asked: ": odd<" in asked.body["prompt"])
        if way is None:
            with OllamaClient(settings) as client:
                result = client.rerank(QUERY, texts)
            found.append([(texts[at], result.scores[at]) for at in result.order])
        else:
            found.append(await way(settings, texts))
        seen.append(sorted(request.raw for request in server.requests if request.path == "/api/generate"))
    assert all(sent == seen[0] for sent in seen)
    assert all(one == found[0] for one in found)
    assert len(found[0]) == min(len(texts), settings.top_n or len(texts))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_an_error_is_the_cores(simulated_ollama: SimulatedOllama, way: Way) -> None:
    settings = RerankSettings(model="qwen3-reranker", base_url=simulated_ollama.base_url, context_size=512)
    with pytest.raises(ContextOverflowError, match="Document 1 does not fit"):
        await way(settings, ["Tea.", LONG])


class ByLength:
    """An embedding that knows only how long a text is: the nearest is not the best."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[float(len(text)), 9.0] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(len(text)), 9.0]


def test_retrieval_with_and_without(simulated_ollama: SimulatedOllama) -> None:
    """A demonstration, by the simulated server's rule; it says nothing about a model's quality."""
    values: dict[str, Any] = {"model": "qwen3-reranker", "base_url": simulated_ollama.base_url, "top_n": 1}
    texts = ["The tea house opens at nine each morning.", TEXTS[1], "Cats."]
    store: Any = InMemoryVectorStore(ByLength())  # type: ignore[arg-type]  # all that the store calls
    store.add_texts(texts)
    near = store.as_retriever(search_kwargs={"k": 3}).invoke(QUERY)
    with langchain_ollama_dify.OllamaDifyRerank(**values) as model:
        (best,) = model.compress_documents(near, QUERY)
    assert (near[0].page_content, best.page_content) == (texts[0], texts[1])

    nodes = [TextNode(text=text, embedding=ByLength().embed_query(text)) for text in texts]
    index = VectorStoreIndex(nodes, embed_model=_unused_embedding(simulated_ollama.base_url))
    bundle = QueryBundle(QUERY, embedding=ByLength().embed_query(QUERY))
    hits = index.as_retriever(similarity_top_k=3).retrieve(bundle)
    with llamaindex_ollama_dify.OllamaDifyRerank(**values) as processor:
        (top,) = processor.postprocess_nodes(hits, bundle)
    assert (hits[0].text, top.text, top.score) == (texts[0], texts[1], best.metadata["relevance_score"])


def _unused_embedding(base_url: str) -> Any:
    return llamaindex_ollama_dify.OllamaDifyEmbedding(model="nomic-embed-text", base_url=base_url)


def test_llamaindex_sees_it(simulated_ollama: SimulatedOllama) -> None:
    """Events, callbacks, the metadata that embeddings see; and a copy works as well."""
    heard, watcher = LlamaDebugHandler(print_trace_on_end=False), Watcher()
    with llamaindex_ollama_dify.OllamaDifyRerank(
        model="qwen3-reranker",
        base_url=simulated_ollama.base_url,
        top_n=1,
        callback_manager=CallbackManager([heard]),
    ) as model:
        node = TextNode(text=TEXTS[1], metadata={"town": "Vellmar"})
        watcher.attach()
        try:
            (hit,) = model.postprocess_nodes([NodeWithScore(node=node), *_nodes(["x"])], query_str=QUERY)
        finally:
            watcher.detach()
        (began,), (ended,) = watcher.of(ReRankStartEvent), watcher.of(ReRankEndEvent)
        assert (began.top_n, began.model_name, len(began.nodes)) == (1, "qwen3-reranker", 2)
        assert ended.nodes == [hit]
        assert len(heard.get_event_pairs(CBEventType.RERANKING)) == 1
        asked = [request.body["prompt"] for request in simulated_ollama.requests]
        assert any(node.get_content(MetadataMode.EMBED) in prompt for prompt in asked)
        with pytest.raises(ConfigurationError, match="query_str="):
            model.postprocess_nodes(_nodes(["x"]))
        again = pickle.loads(pickle.dumps(model))
        assert again.postprocess_nodes(_nodes(["x"]), query_str="x")[0].score is not None
        again.close()
