"""`OllamaDifyEmbeddings`: the settings as LangChain embeddings."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Literal, cast

from langchain_core.embeddings import Embeddings
from pydantic import Field

from ollama_dify import ConfigurationError, EmbeddingSettings, EmbedResult
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

    show_progress_bar: bool = Field(
        default=False, description="Show a progress bar while documents are embedded; needs tqdm."
    )

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of documents, in order."""
        return _vectors(self.embed(texts))

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        return _vectors(self.embed([text], kind="query"))[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of documents, in order."""
        return _vectors(await self.aembed(texts))

    async def aembed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        return _vectors(await self.aembed([text], kind="query"))[0]

    def embed(
        self, texts: Sequence[str], *, kind: Kind = "document", skip_failed: bool = False
    ) -> EmbedResult:
        """The vectors, with data that LangChain's own methods cannot return: tokens, and which texts were
        cut, split or failed.

        skip_failed: None for a text without a vector, instead of an error.
        """
        with langchain_errors(), self._progress(texts, kind) as progress:
            return self.client.embed(texts, kind=kind, progress=progress, skip_failed=skip_failed)

    async def aembed(
        self, texts: Sequence[str], *, kind: Kind = "document", skip_failed: bool = False
    ) -> EmbedResult:
        """The async twin of `embed`."""
        with langchain_errors(), self._progress(texts, kind) as progress:
            return await self.async_client.embed(texts, kind=kind, progress=progress, skip_failed=skip_failed)

    @contextmanager
    def _progress(
        self, texts: Sequence[str], kind: Kind
    ) -> Generator[Callable[[int], object] | None, None, None]:
        """The bar around the work; gives the function that moves it on by a number of texts."""
        if not self.show_progress_bar or kind == "query":
            yield None
            return
        try:
            from tqdm.auto import tqdm  # type: ignore[import-untyped]  # it has no types
        except ImportError as error:
            raise ConfigurationError(
                "show_progress_bar=True needs the package tqdm.", hint="Install it: pip install tqdm"
            ) from error
        with tqdm(total=len(texts), desc="Embedding") as bar:
            yield bar.update

    def fingerprint(self) -> str:
        """A short text that identifies how vectors are made: model digest, length, prefixes, overflow.

        Store it with an index; use it as `namespace` of LangChain's CacheBackedEmbeddings. Asks the server.
        """
        with langchain_errors():
            return self.client.embedding_fingerprint()

    async def afingerprint(self) -> str:
        """The async twin of `fingerprint`."""
        with langchain_errors():
            return await self.async_client.embedding_fingerprint()


def _vectors(result: EmbedResult) -> list[list[float]]:
    return cast(list[list[float]], result.vectors)  # without `skip_failed` none is missing
