"""`OllamaDifyEmbedding`: the settings as a LlamaIndex embedding model."""

from __future__ import annotations

import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import llama_index.core.instrumentation as instrument
from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from pydantic import Field, model_validator

from ollama_dify import Connected, EmbeddingError, EmbeddingSettings

from .portable import Portable

__all__ = ["OllamaDifyEmbedding"]

dispatcher = instrument.get_dispatcher(__name__)

# LlamaIndex's words for our fields.
_THEIR_WORDS = {"model_name": "model", "embed_batch_size": "batch_size", "num_workers": "max_concurrency"}
_CACHE = "embeddings"


class OllamaDifyEmbedding(Portable, BaseEmbedding, Connected, EmbeddingSettings):
    """An Ollama embedding model with the fields of Dify's form, for LlamaIndex.

        Settings.embed_model = OllamaDifyEmbedding(model="nomic-embed-text", context_size=2048)

    LlamaIndex's `model_name`, `embed_batch_size` and `num_workers` are `model`, `batch_size` and
    `max_concurrency`: either word may be given or assigned, and both hold the same value.
    """

    model_name: str = Field("", description="LlamaIndex's word for `model`.", exclude=True)
    embed_batch_size: int = Field(64, description="LlamaIndex's word for `batch_size`.", exclude=True)
    num_workers: int | None = Field(None, description="LlamaIndex's word for `max_concurrency`.", exclude=True)
    query_instruction: str | None = Field(
        None, description="Put in front of each query as it is, e.g. `search_query: `."
    )
    text_instruction: str | None = Field(
        None, description="Put in front of each text as it is, e.g. `search_document: `."
    )

    @model_validator(mode="before")
    @classmethod
    def _read_their_words(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        read = dict(values)
        for theirs, ours in _THEIR_WORDS.items():
            value = read.pop(theirs, None)
            if value is None:
                continue
            if read.setdefault(ours, value) != value:
                raise ValueError(
                    f"{theirs}={value!r} and {ours}={read[ours]!r} are two words for one setting; give one"
                )
        return read

    @model_validator(mode="after")
    def _follow(self) -> OllamaDifyEmbedding:
        for theirs, ours in _THEIR_WORDS.items():
            self.__dict__[theirs] = self.__dict__[ours]
        return self

    @model_validator(mode="after")
    def _check_instructions(self) -> OllamaDifyEmbedding:
        if self.prefixes and (self.query_instruction is not None or self.text_instruction is not None):
            raise ValueError("prefixes=True puts the model's own words in front; leave out the instructions")
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(_THEIR_WORDS.get(name, name), value)

    @classmethod
    def class_name(cls) -> str:
        """The name LlamaIndex serialises under."""
        return "OllamaDifyEmbedding"

    def get_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """The vectors of texts, in order; requests run side by side (`batch_size`, `max_concurrency`).

        Raises EmbeddingError whose `indexes` are positions in `texts`.
        """
        job = _Job(self, texts)
        if self.embeddings_cache is not None:
            for index, text in enumerate(texts):
                job.take(index, self.embeddings_cache.get(key=text, collection=_CACHE))
        with self._reported(job), _progress(job, show_progress) as advance:
            for group in job.groups(visible=show_progress):
                if self.rate_limiter is not None:
                    self.rate_limiter.acquire()
                with job.naming(group):
                    job.keep(group, self._get_text_embeddings([texts[index] for index in group]))
                if self.embeddings_cache is not None:
                    for index in group:
                        self.embeddings_cache.put(key=texts[index], val=job.entry(index), collection=_CACHE)
                advance(len(group))
        return job.vectors

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """The async twin of `get_text_embedding_batch`."""
        job = _Job(self, texts)
        if self.embeddings_cache is not None:
            for index, text in enumerate(texts):
                job.take(index, await self.embeddings_cache.aget(key=text, collection=_CACHE))
        with self._reported(job), _progress(job, show_progress) as advance:
            for group in job.groups(visible=show_progress):
                if self.rate_limiter is not None:
                    await self.rate_limiter.async_acquire()
                with job.naming(group):
                    job.keep(group, await self._aget_text_embeddings([texts[index] for index in group]))
                if self.embeddings_cache is not None:
                    for index in group:
                        entry = job.entry(index)
                        await self.embeddings_cache.aput(key=texts[index], val=entry, collection=_CACHE)
                advance(len(group))
        return job.vectors
