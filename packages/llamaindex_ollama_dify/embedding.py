"""`OllamaDifyEmbedding`: the settings as a LlamaIndex embedding model."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]  # re-exported
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from pydantic import Field, model_validator
from typing_extensions import Self

from ollama_dify import ConfigurationError, EmbeddingSettings, EmbedResult
from ollama_dify.adapter import ClientOwner

from .batches import CACHE_COLLECTION, BatchJob, Progress
from .pickling import PickleMixin

__all__ = ["OllamaDifyEmbedding"]

dispatcher = get_dispatcher(__name__)

Kind = Literal["query", "document"]

# LlamaIndex's names → our fields.
_THEIR_WORDS = {
    "model_name": "model",
    "embed_batch_size": "batch_size",
    "num_workers": "max_concurrency",
    "query_instruction": "query_prefix",
    "text_instruction": "document_prefix",
}


class OllamaDifyEmbedding(PickleMixin, BaseEmbedding, ClientOwner, EmbeddingSettings):
    """An Ollama embedding model with the fields of Dify's form, for LlamaIndex.

        Settings.embed_model = OllamaDifyEmbedding(model="nomic-embed-text", context_size=2048)

    LlamaIndex's `model_name`, `embed_batch_size`, `num_workers`, `query_instruction` and `text_instruction`
    are `model`, `batch_size`, `max_concurrency`, `query_prefix` and `document_prefix`: either name may be
    given or assigned, and both have the same value.
    """

    model_name: str = Field(default="", description="LlamaIndex's word for `model`.", exclude=True)
    embed_batch_size: int = Field(default=64, description="LlamaIndex's word for `batch_size`.", exclude=True)
    num_workers: int | None = Field(
        default=None, description="LlamaIndex's word for `max_concurrency`.", exclude=True
    )
    query_instruction: str | None = Field(
        default=None, description="LlamaIndex's word for `query_prefix`.", exclude=True
    )
    text_instruction: str | None = Field(
        default=None, description="LlamaIndex's word for `document_prefix`.", exclude=True
    )

    def __init__(self, **values: Any) -> None:
        super().__init__(**_in_our_words(values))

    @model_validator(mode="after")
    def _follow(self) -> OllamaDifyEmbedding:
        for theirs, ours in _THEIR_WORDS.items():
            self.__dict__[theirs] = self.__dict__[ours]
        return self

    def _changed(self, update: Mapping[str, Any]) -> Self:
        return super()._changed({_THEIR_WORDS.get(name, name): value for name, value in update.items()})

    @classmethod
    def class_name(cls) -> str:
        """The name LlamaIndex serialises under."""
        return "OllamaDifyEmbedding"

    def get_query_embedding(self, query: str) -> Embedding:
        """The vector of a query; not cached if queries and texts have different prefixes."""
        return super(OllamaDifyEmbedding, self._for_queries()).get_query_embedding(query)

    async def aget_query_embedding(self, query: str) -> Embedding:
        """The async twin of `get_query_embedding`."""
        return await super(OllamaDifyEmbedding, self._for_queries()).aget_query_embedding(query)

    def get_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """The vectors of texts, in order; requests run side by side (`batch_size`, `max_concurrency`).

        Raises EmbeddingError whose `indexes` are positions in `texts`.
        """
        job = BatchJob(texts)
        cache = self.embeddings_cache
        if cache is not None:
            job.take_known([cache.get(key=text, collection=CACHE_COLLECTION) for text in texts])
        with self._reported(job), job.progress(show_progress) as advance:
            for group in job.groups(self._group_size()):
                if self.rate_limiter is not None:
                    self.rate_limiter.acquire()
                with job.naming(group):
                    job.keep(group, self.embed(job.texts_of(group), progress=advance).vectors)
                if cache is not None:
                    cache.put_all(job.entries(group), collection=CACHE_COLLECTION)
        return job.vectors

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """The async twin of `get_text_embedding_batch`."""
        job = BatchJob(texts)
        cache = self.embeddings_cache
        if cache is not None:
            job.take_known([await cache.aget(key=text, collection=CACHE_COLLECTION) for text in texts])
        with self._reported(job), job.progress(show_progress) as advance:
            for group in job.groups(self._group_size()):
                if self.rate_limiter is not None:
                    await self.rate_limiter.async_acquire()
                with job.naming(group):
                    job.keep(group, (await self.aembed(job.texts_of(group), progress=advance)).vectors)
                if cache is not None:
                    await cache.aput_all(job.entries(group), collection=CACHE_COLLECTION)
        return job.vectors

    def embed(
        self,
        texts: Sequence[str],
        *,
        kind: Kind = "document",
        progress: Progress | None = None,
        skip_failed: bool = False,
    ) -> EmbedResult:
        """The vectors, with data that LlamaIndex's own methods cannot return: tokens, and which texts were
        cut, split or failed. Uses no cache.

        skip_failed: None for a text without a vector, instead of an error.
        """
        return self.client.embed(texts, kind=kind, progress=progress, skip_failed=skip_failed)

    async def aembed(
        self,
        texts: Sequence[str],
        *,
        kind: Kind = "document",
        progress: Progress | None = None,
        skip_failed: bool = False,
    ) -> EmbedResult:
        """The async twin of `embed`."""
        return await self.async_client.embed(texts, kind=kind, progress=progress, skip_failed=skip_failed)

    def fingerprint(self) -> str:
        """A short text that identifies how vectors are made: model digest, length, prefixes, overflow.

        Store it with an index and compare it before use. Asks the server.
        """
        return self.client.embedding_fingerprint()

    async def afingerprint(self) -> str:
        """The async twin of `fingerprint`."""
        return await self.async_client.embedding_fingerprint()

    def _get_query_embedding(self, query: str) -> Embedding:
        return _vectors(self.embed([query], kind="query"))[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return _vectors(await self.aembed([query], kind="query"))[0]

    def _get_text_embedding(self, text: str) -> Embedding:
        return _vectors(self.embed([text]))[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return _vectors(await self.aembed([text]))[0]

    def _group_size(self) -> int | None:
        """Texts per call of the core: all of them, unless the requests are limited one by one."""
        return None if self.rate_limiter is None else self.batch_size

    def _for_queries(self) -> Self:
        """This model without its cache, whose key is only the text: it mixes up queries and texts."""
        same = not self.prefixes and self.query_prefix == self.document_prefix
        if same or self.embeddings_cache is None:
            return self
        return self.share_clients(self.model_copy(update={"embeddings_cache": None}))

    @contextmanager
    def _reported(self, job: BatchJob) -> Generator[None, None, None]:
        """LlamaIndex's event and callback around the work, one pair for all of it."""
        if not job.texts:
            yield
            return
        described = self.to_payload()
        dispatcher.event(EmbeddingStartEvent(model_dict=described))
        with self.callback_manager.event(
            CBEventType.EMBEDDING, payload={EventPayload.SERIALIZED: described}
        ) as event:
            yield
            chunks, embeddings = job.texts, job.vectors
            event.on_end(payload={EventPayload.CHUNKS: chunks, EventPayload.EMBEDDINGS: embeddings})
        # Not validated: the numbers were checked on arrival, and checking again takes a third of the time.
        dispatcher.event(EmbeddingEndEvent.model_construct(chunks=chunks, embeddings=embeddings))


def _in_our_words(values: dict[str, Any]) -> dict[str, Any]:
    ours = {name: value for name, value in values.items() if name not in _THEIR_WORDS}
    for word, name in _THEIR_WORDS.items():
        value = values.get(word)
        if value is not None and ours.setdefault(name, value) != value:
            raise ConfigurationError(
                f"{word}={value!r} and {name}={ours[name]!r} are two words for one setting; give one of them."
            )
    return ours


def _vectors(result: EmbedResult) -> list[Embedding]:
    return cast(list[Embedding], result.vectors)  # without `skip_failed` none is missing
