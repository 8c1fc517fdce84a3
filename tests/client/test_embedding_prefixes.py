"""Query and document prefixes as they reach the wire, and the fingerprint that tells indexes apart."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from ollama_dify import ConfigurationError, EmbeddingSettings
from ollama_dify.client.prefixes import fingerprint

from .scripted_server import Server, good

WEB_SEARCH = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
PASSAGES = "Represent this sentence for searching relevant passages: "


@pytest.mark.parametrize(
    ("model", "query", "document"),
    [
        ("nomic-embed-text", "search_query: ", "search_document: "),
        ("nomic-embed-text:v1.5", "search_query: ", "search_document: "),
        ("hf.co/nomic-ai/nomic-embed-text-v2-moe-GGUF:Q4_K_M", "search_query: ", "search_document: "),
        ("jeffh/intfloat-multilingual-e5-large:f16", "query: ", "passage: "),
        ("yxchia/multilingual-e5-large-instruct", WEB_SEARCH + " ", ""),
        ("bge-m3", "", ""),
        ("bge-large:335m", PASSAGES, ""),
        ("hf.co/BAAI/bge_base-en-v1.5", PASSAGES, ""),
        ("quentinz/bge-large-zh-v1.5", "为这个句子生成表示以用于检索相关文章：", ""),
        ("mxbai-embed-large", PASSAGES, ""),
        ("snowflake-arctic-embed:22m", PASSAGES, ""),
        ("snowflake-arctic-embed2", "query: ", ""),
        ("Qwen3-Embedding:0.6b", WEB_SEARCH, ""),
        ("dengcao/Qwen3-Embedding-8B:Q5_K_M", WEB_SEARCH, ""),
        ("embeddinggemma:300m", "task: search result | query: ", "title: none | text: "),
        ("all-minilm:l6-v2", "", ""),
        ("paraphrase-multilingual", "", ""),
        ("granite-embedding:278m", "", ""),
    ],
)
def test_prefixes_are_on_the_wire(model: str, query: str, document: str) -> None:
    server = Server(lambda texts, body: good(texts))
    kinds: tuple[Literal["query", "document"], ...] = ("query", "document")
    for kind in kinds:
        server.embed(["text"], model=model, kind=kind, prefixes=True)
    assert server.asked == [[query + "text"], [document + "text"]]
    server.embed(["text"], model=model, kind="query")
    assert server.asked[-1] == ["text"]  # off by default


def test_own_prefixes_stand_before_the_family_and_for_unknown_models() -> None:
    server = Server(lambda texts, body: good(texts))
    own = {"query_prefix": "Q: ", "document_prefix": ""}
    server.embed(["x"], model="my-own", kind="query", prefixes=True, **own)
    server.embed(["x"], model="my-own", kind="document", **own)
    server.embed(["x"], model="nomic-embed-text", kind="document", prefixes=True, query_prefix="Q: ")
    assert server.asked == [["Q: x"], ["x"], ["search_document: x"]]


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        pytest.param(
            {"model": "my-own"}, "query", "Known are: nomic-embed-text, .*set query_prefix|Set", id="family"
        ),
        pytest.param({"model": "nomic-embed-text"}, None, 'Pass kind="query"', id="kind left open"),
        pytest.param(
            {"model": "nomic-embed-text"}, "passage", "kind='passage' is unknown", id="unknown kind"
        ),
    ],
)
def test_prefixes_that_cannot_be_known(fields: dict[str, str], kind: Any, message: str) -> None:
    server = Server(lambda texts, body: good(texts))
    with pytest.raises(ConfigurationError, match=message):
        server.embed(["x"], prefixes=True, kind=kind, **fields)
    assert server.asked == []


FINGERPRINT = {"model": "nomic-embed-text", "prefixes": True}


@pytest.mark.parametrize(
    ("fields", "digest", "dimension", "same"),
    [
        pytest.param({}, "abc", 768, True, id="the same"),
        pytest.param({}, "sha256:ABC", 768, True, id="another spelling of the digest"),
        pytest.param(
            {"base_url": "http://gpu:11434", "batch_size": 8}, "abc", 768, True, id="another server"
        ),
        pytest.param({"context_size": 512}, "abc", 768, True, id="another context, nothing cut"),
        pytest.param({"query_prefix": "search_query: "}, "abc", 768, True, id="the same prefix, spelled out"),
        pytest.param({}, "abd", 768, False, id="another digest"),
        pytest.param({}, "abc", 256, False, id="another dimension"),
        pytest.param({"prefixes": False}, "abc", 768, False, id="no prefixes"),
        pytest.param({"document_prefix": ""}, "abc", 768, False, id="another prefix"),
        pytest.param({"overflow": "truncate"}, "abc", 768, False, id="another overflow"),
    ],
)
def test_fingerprint(fields: dict[str, Any], digest: str, dimension: int, same: bool) -> None:
    # Stored beside indexes, so it must never change: this value is part of the interface.
    stored = fingerprint(EmbeddingSettings(**FINGERPRINT), "abc", 768)
    assert stored == "ollama-dify-1-ce1c1992f82e0497c061c70024e0eeda"
    found = fingerprint(EmbeddingSettings(**{**FINGERPRINT, **fields}), digest, dimension)
    assert (found == stored) is same


def test_fingerprint_tells_context_sizes_apart_where_texts_are_cut() -> None:
    small, large = (
        fingerprint(EmbeddingSettings(model="m", overflow="truncate", context_size=size), "abc", 3)
        for size in (512, 2048)
    )
    assert small != large
