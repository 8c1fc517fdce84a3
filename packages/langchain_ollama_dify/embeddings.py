"""`OllamaDifyEmbeddings`: the settings as LangChain embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from langchain_core.embeddings import Embeddings

from ollama_dify import EmbeddingError, EmbeddingSettings, EmbedResult
from ollama_dify.adapter import ClientOwner

from .errors import langchain_errors
from .serialization import LangChainSerializable

__all__ = ["OllamaDifyEmbeddings"]

Kind = Literal["query", "document"]


class OllamaDifyEmbeddings(LangChainSerializable, Embeddings, ClientOwner, EmbeddingSettings):
    """An embedding model of an Ollama server, by the settings of Dify's form.

    `OllamaDifyEmbeddings(model="nomic-embed-text")`, or `from_settings(settings)`. Texts go in batches of
    `batch_size`, `max_concurrency` of them at once; the order is kept and every vector is checked.
    """

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of documents, in order; None in the place of a failed one (`skip_failed` only)."""
        return cast(list[list[float]], self.embed(texts).vectors)

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        with langchain_errors():
            return _only_vector(self.embed([text], kind="query"))

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of documents, in order; None in the place of a failed one (`skip_failed` only)."""
        return cast(list[list[float]], (await self.aembed(texts)).vectors)

    async def aembed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        with langchain_errors():
            return _only_vector(await self.aembed([text], kind="query"))

    def embed(self, texts: Sequence[str], *, kind: Kind = "document") -> EmbedResult:
        """The vectors with what LangChain's own methods have no place for: tokens, and which texts were cut,
        split or failed."""
        with langchain_errors():
            return self.client.embed(texts, kind=kind)

    async def aembed(self, texts: Sequence[str], *, kind: Kind = "document") -> EmbedResult:
        """The async twin of `embed`."""
        with langchain_errors():
            return await self.async_client.embed(texts, kind=kind)

    def fingerprint(self) -> str:
        """A short name for all that decides what vectors mean: model digest, length, prefixes, overflow.

        To store beside an index, and as `namespace` of LangChain's CacheBackedEmbeddings. Asks the server.
        """
        with langchain_errors():
            return self.client.embedding_fingerprint()

    async def afingerprint(self) -> str:
        """The async twin of `fingerprint`."""
        with langchain_errors():
            return await self.async_client.embedding_fingerprint()


def _only_vector(result: EmbedResult) -> list[float]:
    (vector,) = result.vectors
    if vector is None:
        raise EmbeddingError("The question has no vector.", indexes=(0,), hint="Ask with other words.")
    return vector
