"""What embedding models want in front of queries and documents: a table, and the look-up in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigurationError
from ..settings.model import EmbeddingSettings

__all__ = ["FAMILIES", "Family", "Kind", "Prefixes", "name_to_search", "prefix_of", "prefixes_of"]

Kind = Literal["query", "document"]


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Text put in front, as it is; "" for none."""

    query: str = ""
    document: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """Models that share their prefixes.

    pattern: found in the model's name (lower case, `_` as `-`, without its tag). source: the model card that
    says so.
    """

    name: str
    pattern: str
    prefixes: Prefixes
    source: str


_PASSAGES = "Represent this sentence for searching relevant passages: "
_WEB_SEARCH = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"

# The first pattern found decides, so the narrower stand first. Sources are model cards on huggingface.co.
FAMILIES: tuple[Family, ...] = (
    Family(
        "nomic-embed-text",
        r"nomic-embed-text",
        Prefixes("search_query: ", "search_document: "),
        "nomic-ai/nomic-embed-text-v1.5; the same on nomic-ai/nomic-embed-text-v2-moe",
    ),
    Family(
        "nomic-embed-code",
        r"nomic-embed-code",
        Prefixes("Represent this query for searching relevant code: "),
        "nomic-ai/nomic-embed-code",
    ),
    Family(
        "e5-instruct",
        r"\be5-.*instruct",
        # Their card, unlike Qwen's, has a space after the colon.
        Prefixes(_WEB_SEARCH + " "),
        "intfloat/multilingual-e5-large-instruct, intfloat/e5-mistral-7b-instruct",
    ),
    Family(
        "e5",
        r"\be5-|\be5$",
        Prefixes("query: ", "passage: "),
        "intfloat/e5-large-v2, intfloat/multilingual-e5-large",
    ),
    Family("qwen3-embedding", r"qwen3-embedding", Prefixes(_WEB_SEARCH), "Qwen/Qwen3-Embedding-0.6B"),
    Family(
        "embeddinggemma",
        r"embeddinggemma|embedding-gemma",
        Prefixes("task: search result | query: ", "title: none | text: "),
        "google/embeddinggemma-300m",
    ),
    Family("bge-m3", r"\bbge-m3\b", Prefixes(), "BAAI/bge-m3 (no instruction needed)"),
    Family(
        "bge-zh",
        r"\bbge-(?:small|base|large)-zh",
        Prefixes("为这个句子生成表示以用于检索相关文章："),
        "BAAI/bge-large-zh-v1.5",
    ),
    Family("bge", r"\bbge-(?:small|base|large)\b", Prefixes(_PASSAGES), "BAAI/bge-large-en-v1.5"),
    Family(
        "mxbai-embed-large", r"mxbai-embed-large", Prefixes(_PASSAGES), "mixedbread-ai/mxbai-embed-large-v1"
    ),
    Family(
        "snowflake-arctic-embed2",
        r"arctic-embed2|arctic-embed-[a-z]+-v2",
        Prefixes("query: "),
        "Snowflake/snowflake-arctic-embed-l-v2.0",
    ),
    Family(
        "snowflake-arctic-embed", r"arctic-embed", Prefixes(_PASSAGES), "Snowflake/snowflake-arctic-embed-l"
    ),
    Family("all-minilm", r"all-minilm", Prefixes(), "sentence-transformers/all-MiniLM-L6-v2"),
    Family(
        "paraphrase-multilingual",
        r"paraphrase-multilingual",
        Prefixes(),
        "sentence-transformers/paraphrase-multilingual-mpnet-base-v2",
    ),
    Family(
        "granite-embedding",
        r"granite-embedding",
        Prefixes(),
        "ibm-granite/granite-embedding-278m-multilingual",
    ),
    Family("jina-embeddings-v2", r"jina-embeddings-v2", Prefixes(), "jinaai/jina-embeddings-v2-base-en"),
)


def prefixes_of(settings: EmbeddingSettings) -> Prefixes:
    """What these settings put in front: their own words, and with `prefixes=True` the family's for the rest.

    Raises ConfigurationError for a model of no known family whose prefixes are not both given.
    """
    query, document = settings.query_prefix, settings.document_prefix
    if settings.prefixes and (query is None or document is None):
        family = _family(settings.model)
        query = family.query if query is None else query
        document = family.document if document is None else document
    return Prefixes("" if query is None else query, "" if document is None else document)


def prefix_of(settings: EmbeddingSettings, kind: Kind | None) -> str:
    """What goes in front of texts of one kind.

    Raises ConfigurationError for a kind that is none of the two, or that is left open where it matters.
    """
    if kind not in (None, "query", "document"):
        raise ConfigurationError(f'kind={kind!r} is unknown: it is "query", "document" or None.')
    both = prefixes_of(settings)
    if kind is None:
        if both.query or both.document:
            raise ConfigurationError(
                f"{settings.model!r} has prefixes for queries and documents: which are these texts?\n"
                'Pass kind="query" or kind="document".'
            )
        return ""
    return both.query if kind == "query" else both.document


def name_to_search(model: str) -> str:
    """A model's name as the tables' patterns take it: lower case, `_` as `-`, without its tag."""
    head, slash, last = model.lower().replace("_", "-").rpartition("/")
    return head + slash + last.partition(":")[0]


def _family(model: str) -> Prefixes:
    name = name_to_search(model)
    for family in FAMILIES:
        if re.search(family.pattern, name):
            return family.prefixes
    known = ", ".join(family.name for family in FAMILIES)
    raise ConfigurationError(
        f"prefixes=True, but what {model!r} was trained with is not known here. Known are: {known}.\n"
        'Set query_prefix and document_prefix as its model card says ("" for none), or leave prefixes off.'
    )
