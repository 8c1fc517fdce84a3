"""The demo's LangChain half: everything that it does with the framework."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.prompts import ChatPromptTemplate

from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings, OllamaDifyRerank

from .. import CapabilityError, ChatSettings

__all__ = ["LangChain"]

PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", "Answer from the context alone, in one sentence."),
        ("user", "Context information is below.\n---\n{context}\n---\nQuery: {question}\nAnswer:"),
    ]
)


class LangChain:
    """Models from the settings, over a Chroma collection."""

    def __init__(self, settings: ChatSettings, embedding_model: str, database: Any, collection: Any) -> None:
        from langchain_chroma import Chroma

        self._model = ChatOllamaDify.from_settings(settings)
        self._reranker = OllamaDifyRerank.from_settings(settings.for_rerank(settings.model))
        self._store = Chroma(
            client=database,
            collection_name=collection.name,
            embedding_function=OllamaDifyEmbeddings.from_settings(settings.for_embedding(embedding_model)),
        )
        self.tokens = [0, 0]

    def add(self, passages: list[str], source: str) -> None:
        self._store.add_documents([Document(text, metadata={"source": source}) for text in passages])

    def find(self, question: str) -> list[tuple[str, str]]:
        """Passages with their sources, the best of the nearest first."""
        found = self._store.as_retriever(search_kwargs={"k": 8}).invoke(question)
        with contextlib.suppress(CapabilityError):  # a server before 0.12.11 cannot: the nearest first
            found = self._reranker.compress_documents(found, question)
        return [(document.page_content, document.metadata["source"]) for document in found[:4]]

    def answer(self, question: str, context: str) -> Iterator[str]:
        return self._stream(PROMPT.format_messages(context=context, question=question))

    def look(self, question: str, image: Path) -> Iterator[str]:
        data = base64.b64encode(image.read_bytes()).decode()
        block = {"type": "image", "base64": data, "mime_type": "image/png"}
        return self._stream([HumanMessage([{"type": "text", "text": question}, block])])

    def _stream(self, messages: list[Any]) -> Iterator[str]:
        whole: AIMessageChunk | None = None
        for chunk in self._model.stream(messages):
            yield chunk.text
            whole = chunk if whole is None else whole + chunk
        if whole is not None and whole.usage_metadata is not None:
            self.tokens[0] += whole.usage_metadata["input_tokens"]
            self.tokens[1] += whole.usage_metadata["output_tokens"]
