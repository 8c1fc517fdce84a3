"""`OllamaDifyRerank`: the settings as a LangChain document compressor."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document

from ollama_dify import RerankResult, RerankSettings
from ollama_dify.adapter import ClientOwner

from .errors import langchain_errors
from .serialization import LangChainSerializable

__all__ = ["OllamaDifyRerank"]


class OllamaDifyRerank(LangChainSerializable, BaseDocumentCompressor, ClientOwner, RerankSettings):
    """A model of an Ollama server that reranks documents, by the settings of Dify's form.

    `OllamaDifyRerank(model="qwen3-reranker", top_n=3)`, or `from_settings(settings)`. Returns copies of
    the documents, the most relevant first, with `metadata["relevance_score"]` from 0 to 1. Documents for
    which the model said neither yes nor no come last, with score 0; `client.rerank` lists them.
    """

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The most relevant documents, at most `top_n`."""
        with langchain_errors():
            return _ranked(documents, self.client.rerank(query, _texts(documents)))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The async twin of `compress_documents`."""
        with langchain_errors():
            return _ranked(documents, await self.async_client.rerank(query, _texts(documents)))


def _texts(documents: Sequence[Document]) -> list[str]:
    return [document.page_content for document in documents]


def _ranked(documents: Sequence[Document], result: RerankResult) -> list[Document]:
    return [
        documents[place].model_copy(
            update={"metadata": {**documents[place].metadata, "relevance_score": result.scores[place]}}
        )
        for place in result.order
    ]
