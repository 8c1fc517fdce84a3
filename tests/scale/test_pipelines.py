"""Many texts through the frameworks' own pipelines: indexing, caches, worker processes, Spark."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_index.core
import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.storage import LocalFileStore
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import Document as LlamaDocument
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter

from langchain_ollama_dify import OllamaDifyEmbeddings
from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding
from ollama_dify import EmbeddingSettings
from ollama_dify.testing import SimulatedOllama

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)

both = pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])


def embedded(server: SimulatedOllama) -> list[str]:
    """Every text that the server was asked for, in order."""
    sent = [request.body for request in server.requests if request.path == "/api/embed"]
    return [text for body in sent if body for text in body["input"]]


@both
async def test_index_with_full_cleanup(server: SimulatedOllama, awaited: bool) -> None:
    """A second run over changed documents embeds the new ones alone, and deletes what is gone."""
    async with OllamaDifyEmbeddings(model="nomic-embed-text", base_url=server.base_url) as embeddings:
        store, records = InMemoryVectorStore(embeddings), InMemoryRecordManager("scale")
        records.create_schema()

        async def run(numbers: range) -> dict[str, int]:
            documents = [Document(f"text {number}", metadata={"source": "a"}) for number in numbers]
            how: dict[str, Any] = {"cleanup": "full", "source_id_key": "source", "key_encoder": "sha256"}
            done = (
                await aindex(documents, records, store, **how)
                if awaited
                else index(documents, records, store, **how)
            )
            return dict(done)

        assert await run(range(5)) == {"num_added": 5, "num_updated": 0, "num_skipped": 0, "num_deleted": 0}
        assert await run(range(2, 7)) == {
            "num_added": 2,
            "num_updated": 0,
            "num_skipped": 3,
            "num_deleted": 2,
        }
        embeddings.close()
    assert sorted(embedded(server)) == [f"text {number}" for number in range(7)]


def test_a_cache_named_by_the_fingerprint(server: SimulatedOllama, tmp_path: Path) -> None:
    """On disk, where a key may hold letters, digits and hyphens only; other settings share no entry."""
    for document_prefix, sent in ((None, 2), (None, 0), ("passage: ", 2)):
        with OllamaDifyEmbeddings(
            model="nomic-embed-text", base_url=server.base_url, document_prefix=document_prefix
        ) as embeddings:
            cached = CacheBackedEmbeddings.from_bytes_store(
                embeddings,
                LocalFileStore(tmp_path),
                namespace=embeddings.fingerprint(),
                key_encoder="sha256",
            )
            known = len(embedded(server))
            vectors = cached.embed_documents(["one", "two"])
            assert len(embedded(server)) - known == sent
            assert vectors == embeddings.embed_documents(["one", "two"])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"prefixes": True}, {"prefixes": True}),
        (
            {"query_prefix": "q: ", "document_prefix": "d: "},
            {"query_prefix": "q: ", "text_instruction": "d: "},
        ),
    ],
    ids=["plain", "prefixes", "instructions"],
)
@both
async def test_fingerprints_agree(
    server: SimulatedOllama, awaited: bool, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    """What sends the same texts has the same fingerprint in both frameworks."""
    settings = EmbeddingSettings(model="nomic-embed-text", base_url=server.base_url)
    found = []
    for model in (
        OllamaDifyEmbeddings.from_settings(settings, **ours),
        OllamaDifyEmbedding.from_settings(settings, **theirs),
    ):
        found.append(await model.afingerprint() if awaited else model.fingerprint())
        await model.aclose()
        model.close()
    assert found[0] == found[1]
    plain = OllamaDifyEmbeddings.from_settings(settings)
    assert (found[0] == plain.fingerprint()) == (ours == {})
    plain.close()


BUNDLED = Path(llama_index.core.__file__).parent / "_static" / "tiktoken_cache"


@pytest.fixture(params=["model's tokenizer", "TIKTOKEN_CACHE_DIR"])
def splitter(
    request: pytest.FixtureRequest, server: SimulatedOllama, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SentenceSplitter]:
    """Both ways to have a splitter that a new process can unpickle without a download."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # a download would fail, here as in a worker
    if request.param == "TIKTOKEN_CACHE_DIR":
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(BUNDLED))
        yield SentenceSplitter(chunk_size=64, chunk_overlap=0)
        return
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    with OllamaDify(model="llama3.2", base_url=server.base_url) as llm:
        yield SentenceSplitter(chunk_size=64, chunk_overlap=0, tokenizer=llm.tokenizer)


@pytest.mark.scale
def test_a_pipeline_in_worker_processes(server: SimulatedOllama, splitter: SentenceSplitter) -> None:
    """LlamaIndex spawns its workers: what they get is pickled, and they connect by themselves."""
    embedding = OllamaDifyEmbedding(model="nomic-embed-text", base_url=server.base_url)
    documents = [LlamaDocument(text=f"Ship {number} left. " * 30) for number in range(4)]
    pipeline = IngestionPipeline(transformations=[splitter, embedding])
    nodes = pipeline.run(documents=documents, num_workers=2)
    embedding.close()
    assert len(nodes) > 4
    assert all(node.embedding for node in nodes)
    assert sorted(embedded(server)) == sorted(node.get_content("embed") for node in nodes)


def test_the_pages_block_for_langchain(
    server: SimulatedOllama, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", server.base_url)
    (block,) = [block for block in BLOCKS if "pandas_udf" not in block]
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(block, str(PAGE), "exec", dont_inherit=True), names)
    names["embeddings"].close()
    assert "'num_added': 1" in capsys.readouterr().out


@pytest.mark.scale
def test_spark(server: SimulatedOllama, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's recipe, as it stands there: a pandas UDF, one client for each of Spark's processes."""
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed")
    monkeypatch.setenv("OLLAMA_HOST", server.base_url)
    (recipe,) = [block for block in BLOCKS if "pandas_udf" in block]
    spark = sql.SparkSession.builder.master("local[2]").config("spark.driver.host", "127.0.0.1").getOrCreate()
    try:
        rows = [(number, f"text {number}") for number in range(2_000)]
        names = {"__name__": "__main__", "frame": spark.createDataFrame(rows, "id long, text string")}
        exec(compile(recipe, str(PAGE), "exec", dont_inherit=True), names)
        found = names["embedded"].collect()
    finally:
        spark.stop()
    assert sorted(row.id for row in found) == list(range(2_000))
    assert {len(row.embedding) for row in found} == {768}


def test_async_calls_of_a_pipeline_share_the_bound(server: SimulatedOllama) -> None:
    embedding = OllamaDifyEmbedding(model="nomic-embed-text", base_url=server.base_url, batch_size=2)

    async def run() -> None:
        lists = [[f"text {number} {call}" for number in range(10)] for call in range(6)]
        await asyncio.gather(*(embedding.aget_text_embedding_batch(texts) for texts in lists))
        await embedding.aclose()

    asyncio.run(run())
    assert server.connections.total <= embedding.max_concurrency
