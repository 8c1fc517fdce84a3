"""The demo's LlamaIndex half: everything that it does with the framework."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode

from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding, OllamaDifyRerank

from .. import CapabilityError, ChatSettings

__all__ = ["LlamaIndex"]

SYSTEM = "Answer from the context alone, in one sentence."


class LlamaIndex:
    """Models from the settings, over a Chroma collection."""

    def __init__(self, settings: ChatSettings, embedding_model: str, database: Any, collection: Any) -> None:
        from llama_index.vector_stores.chroma import ChromaVectorStore

        self._llm = OllamaDify.from_settings(settings)
        self._reranker = OllamaDifyRerank.from_settings(settings.for_rerank(settings.model))
        embedding = OllamaDifyEmbedding.from_settings(settings.for_embedding(embedding_model))
        self._embedding = embedding
        self._store = ChromaVectorStore(chroma_collection=collection)
        # Named, since the index would load a splitter and its word lists otherwise.
        self._index = VectorStoreIndex.from_vector_store(
            self._store, embed_model=embedding, transformations=[embedding]
        )
        self.tokens = [0, 0]

    def add(self, passages: list[str], source: str) -> None:
        # Only the text is embedded, so that both frameworks make the same vector of a passage.
        hidden = {"excluded_embed_metadata_keys": ["source"], "excluded_llm_metadata_keys": ["source"]}
        nodes = [TextNode(text=text, metadata={"source": source}, **hidden) for text in passages]
        IngestionPipeline(transformations=[self._embedding], vector_store=self._store).run(nodes=nodes)

    def find(self, question: str) -> list[tuple[str, str]]:
        """Passages with their sources, the best of the nearest first."""
        found = self._index.as_retriever(similarity_top_k=8).retrieve(question)
        with contextlib.suppress(CapabilityError):  # a server before 0.12.11 cannot: the nearest first
            found = self._reranker.postprocess_nodes(found, query_str=question)
        return [(hit.node.get_content(), str(hit.node.metadata["source"])) for hit in found[:4]]

    def answer(self, question: str, context: str) -> Iterator[str]:
        asked = f"Context information is below.\n---\n{context}\n---\nQuery: {question}\nAnswer:"
        return self._stream(
            [ChatMessage(role="system", content=SYSTEM), ChatMessage(role="user", content=asked)]
        )

    def look(self, question: str, image: Path) -> Iterator[str]:
        return self._stream(
            [ChatMessage(role="user", blocks=[TextBlock(text=question), ImageBlock(path=image)])]
        )

    def _stream(self, messages: list[ChatMessage]) -> Iterator[str]:
        answer: Any = None
        for answer in self._llm.stream_chat(messages):
            yield answer.delta or ""
        if answer is not None:
            self.tokens[0] += answer.additional_kwargs["prompt_tokens"]
            self.tokens[1] += answer.additional_kwargs["completion_tokens"]
