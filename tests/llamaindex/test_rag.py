"""LlamaIndex's pipelines over both classes, at their default settings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import llama_index.core
import pytest
from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core import __version__ as llama_index_core_version
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.memory import ChatMemoryBuffer

from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding
from ollama_dify.testing import SimulatedOllama
from tests.llamaindex.asking import sent

MakeLLM = Callable[..., OllamaDify]
MakeEmbedding = Callable[..., OllamaDifyEmbedding]

FACTS = {
    "harbour.md": "The harbour of Vellmar was opened in 1874. Its lighthouse is painted red and white.",
    "bakery.md": "The bakery on Linden Street sells rye bread every Tuesday at six in the morning.",
    "library.md": "The library keeps forty thousand books, and lends each of them for three weeks.",
}
QUESTION = "When was the harbour of Vellmar opened?"


@pytest.fixture
def index(llm: OllamaDify, make_embedding: MakeEmbedding) -> VectorStoreIndex:
    documents = [Document(text=text, metadata={"file": name}) for name, text in FACTS.items()]
    return VectorStoreIndex.from_documents(documents, embed_model=make_embedding())


@pytest.fixture
def exact_counts(llm: OllamaDify, monkeypatch: pytest.MonkeyPatch) -> None:
    """LlamaIndex's prompt helper counts with the model's own tokenizer."""
    monkeypatch.setattr(llama_index.core, "global_tokenizer", None)
    monkeypatch.setattr(Settings, "_tokenizer", None)
    Settings.tokenizer = llm.tokenizer


@pytest.fixture
def own_loop() -> Iterator[None]:
    """LlamaIndex makes itself a loop where there is none, and leaves it open."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.mark.usefixtures("exact_counts", "own_loop")
@pytest.mark.parametrize("response_mode", ["compact", "refine", "tree_summarize", "simple_summarize"])
def test_query_engine(llm: OllamaDify, index: VectorStoreIndex, response_mode: str) -> None:
    engine = index.as_query_engine(llm=llm, similarity_top_k=1, response_mode=response_mode)
    answer = engine.query(QUESTION)
    assert "1874" in str(answer)
    assert [node.metadata["file"] for node in answer.source_nodes] == ["harbour.md"]


async def test_query_engine_async(llm: OllamaDify, index: VectorStoreIndex) -> None:
    answer = await index.as_query_engine(llm=llm, similarity_top_k=1).aquery(QUESTION)
    await llm.aclose()
    await index._embed_model.aclose()  # type: ignore[attr-defined]  # it is ours
    assert "1874" in str(answer)


@pytest.mark.skipif(
    tuple(map(int, llama_index_core_version.split(".")[:3])) < (0, 14, 25),
    reason="LlamaIndex itself gathers the stream before 0.14.25",
)
def test_query_engine_streams(llm: OllamaDify, index: VectorStoreIndex) -> None:
    answer = index.as_query_engine(llm=llm, similarity_top_k=1, streaming=True).query(QUESTION)
    pieces = list(answer.response_gen)
    assert len(pieces) > 3
    assert "1874" in "".join(pieces)


def test_query_engine_in_completion_mode(
    server: SimulatedOllama, make_llm: MakeLLM, index: VectorStoreIndex
) -> None:
    answer = index.as_query_engine(llm=make_llm(mode="completion"), similarity_top_k=1).query(QUESTION)
    assert "1874" in str(answer)
    assert [request.path for request in server.requests if request.path == "/api/chat"] == []


@pytest.mark.parametrize("model", ["llama3.2", "qwen3"], ids=["plain", "thinking"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kind", ["context", "condense_plus_context", "condense_question"])
def test_chat_engines_remember(
    server: SimulatedOllama, make_llm: MakeLLM, index: VectorStoreIndex, model: str, streamed: bool, kind: str
) -> None:
    llm = make_llm(model)
    memory = ChatMemoryBuffer.from_defaults(token_limit=3000, llm=llm)
    engine = index.as_chat_engine(chat_mode=kind, llm=llm, memory=memory, similarity_top_k=1)
    said = [_say(engine, text, streamed) for text in (QUESTION, "And how is its lighthouse painted?")]
    assert "1874" in said[0]
    assert said[1]
    history = memory.get_all()
    assert [message.role.value for message in history] == ["user", "assistant"] * 2
    assert [history[1].content, history[3].content] == said
    spoken = str(sent(server)[-1] if kind != "condense_question" else sent(server)[1:])
    assert QUESTION in spoken


def _say(engine: object, text: str, streamed: bool) -> str:
    if streamed:
        answer = engine.stream_chat(text)  # type: ignore[attr-defined]
        return "".join(answer.response_gen)
    return str(engine.chat(text))  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["context", "condense_plus_context"])
async def test_chat_engines_async(llm: OllamaDify, index: VectorStoreIndex, kind: str) -> None:
    memory = ChatMemoryBuffer.from_defaults(token_limit=3000, llm=llm)
    engine = index.as_chat_engine(chat_mode=kind, llm=llm, memory=memory, similarity_top_k=1)
    answer = await engine.achat(QUESTION)
    stream = await engine.astream_chat("Really?")
    assert "".join([piece async for piece in stream.async_response_gen()])
    await llm.aclose()
    await index._embed_model.aclose()  # type: ignore[attr-defined]  # it is ours
    assert "1874" in str(answer)


@pytest.mark.parametrize("workers", [None, 2], ids=["here", "two-processes"])
def test_ingestion_pipeline(
    server: SimulatedOllama, make_embedding: MakeEmbedding, workers: int | None
) -> None:
    embedding = make_embedding(headers={"X-Kept": "yes"}, batch_size=8)
    pipeline = IngestionPipeline(transformations=[embedding])
    documents = [Document(text=text) for text in FACTS.values()]
    nodes = pipeline.run(documents=documents, num_workers=workers)
    assert sorted(node.get_content() for node in nodes) == sorted(FACTS.values())
    for node in nodes:
        assert node.embedding == embedding.get_text_embedding(node.get_content())
    requests = [request for request in server.requests if request.path == "/api/embed"]
    assert {request.header("x-kept") for request in requests} == {"yes"}


def test_ingestion_cache_tells_settings_apart(server: SimulatedOllama, make_embedding: MakeEmbedding) -> None:
    documents = [Document(text=FACTS["bakery.md"])]
    pipeline = IngestionPipeline(transformations=[make_embedding(dimensions=64)])
    first = pipeline.run(documents=documents)
    before = len(server.requests)
    assert pipeline.run(documents=documents)[0].embedding == first[0].embedding
    assert len(server.requests) == before
    pipeline.transformations = [make_embedding(dimensions=32)]
    assert len(pipeline.run(documents=documents)[0].embedding or []) == 32
