"""Prefixes of queries and documents that embedding models expect: a table, and its look-up."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Literal

from ..errors import ConfigurationError
from ..settings import EmbeddingSettings

Kind = Literal["query", "document"]

_PASSAGES = "Represent this sentence for searching relevant passages: "
_WEB_SEARCH = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"

# Families: name, what is put in front of queries and of documents ("" for nothing), and a pattern found in
# the model's name (`name_to_search`) where the name itself is not it. The first one found decides, so the
# narrower stand first. Sources, on huggingface.co: nomic-ai/nomic-embed-text-v1.5 (v2-moe has the same) and
# nomic-embed-code, intfloat/e5-large-v2 and multilingual-e5-large-instruct (its card, unlike Qwen's, has a
# space after the colon), Qwen/Qwen3-Embedding-0.6B, google/embeddinggemma-300m, BAAI/bge-m3 and
# bge-large-zh-v1.5 and bge-large-en-v1.5, mixedbread-ai/mxbai-embed-large-v1,
# Snowflake/snowflake-arctic-embed-l-v2.0 and -l, sentence-transformers/all-MiniLM-L6-v2 and
# paraphrase-multilingual-mpnet-base-v2, ibm-granite/granite-embedding-278m-multilingual,
# jinaai/jina-embeddings-v2-base-en.
_FAMILIES = (
    ("nomic-embed-text", "search_query: ", "search_document: ", ""),
    ("nomic-embed-code", "Represent this query for searching relevant code: ", "", ""),
    ("e5-instruct", _WEB_SEARCH + " ", "", r"\be5-.*instruct"),
    ("e5", "query: ", "passage: ", r"\be5-|\be5$"),
    ("qwen3-embedding", _WEB_SEARCH, "", ""),
    ("embeddinggemma", "task: search result | query: ", "title: none | text: ", "embedding-?gemma"),
    ("bge-m3", "", "", r"\bbge-m3\b"),
    ("bge-zh", "为这个句子生成表示以用于检索相关文章：", "", r"\bbge-(?:small|base|large)-zh"),
    ("bge", _PASSAGES, "", r"\bbge-(?:small|base|large)\b"),
    ("mxbai-embed-large", _PASSAGES, "", ""),
    ("snowflake-arctic-embed2", "query: ", "", "arctic-embed2|arctic-embed-[a-z]+-v2"),
    ("snowflake-arctic-embed", _PASSAGES, "", "arctic-embed"),
    ("all-minilm", "", "", ""),
    ("paraphrase-multilingual", "", "", ""),
    ("granite-embedding", "", "", ""),
    ("jina-embeddings-v2", "", "", ""),
)


def prefixes_of(settings: EmbeddingSettings) -> tuple[str, str]:
    """The prefixes for queries and documents: the settings' own, else with `prefixes=True` the family's.

    Raises ConfigurationError for a model of no known family whose prefixes are not both given.
    """
    own = settings.query_prefix, settings.document_prefix
    family = _family(settings.model) if settings.prefixes and None in own else ("", "")
    query, document = (theirs if mine is None else mine for mine, theirs in zip(own, family, strict=True))
    return query, document


def prefix_of(settings: EmbeddingSettings, kind: Kind | None) -> str:
    """The prefix for texts of one kind.

    Raises ConfigurationError for an unknown kind, and for None if the model has prefixes.
    """
    if kind not in (None, "query", "document"):
        raise ConfigurationError(f'kind={kind!r} is unknown: it is "query", "document" or None.')
    query, document = prefixes_of(settings)
    if kind is None and (query or document):
        raise ConfigurationError(
            f"{settings.model!r} has prefixes for queries and documents: which are these texts?\n"
            'Pass kind="query" or kind="document".'
        )
    return {"query": query, "document": document}.get(kind or "", "")


def fingerprint(settings: EmbeddingSettings, digest: str, dimension: int) -> str:
    """A short text that identifies how vectors are made: store it with an index, compare it before use.

    Letters, digits and hyphens, so that it can be part of a file name or of a key in a store.
    Same model digest, dimension, query and document prefixes and overflow policy (with the context size where
    that decides what is cut or split) give the same text on every machine; anything else another.
    """
    query, document = prefixes_of(settings)
    parts = {
        "digest": digest.lower().removeprefix("sha256:"),
        "dimension": dimension,
        "query_prefix": query,
        "document_prefix": document,
        "overflow": settings.overflow,
        "context_size": None if settings.overflow == "error" else settings.context_size,
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return f"ollama-dify-1-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def name_to_search(model: str) -> str:
    """A model's name as the tables' patterns take it: lower case, `_` as `-`, without its tag."""
    head, slash, last = model.lower().replace("_", "-").rpartition("/")
    return head + slash + last.partition(":")[0]


def _family(model: str) -> tuple[str, str]:
    name = name_to_search(model)
    for known, query, document, pattern in _FAMILIES:
        if re.search(pattern or known, name):
            return query, document
    names = ", ".join(family[0] for family in _FAMILIES)
    raise ConfigurationError(
        f"prefixes=True, but what {model!r} was trained with is not known here. Known are: {names}.\n"
        'Set query_prefix and document_prefix as its model card says ("" for none), or leave prefixes off.'
    )
