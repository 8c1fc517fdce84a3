"""LangChain: our models, the peer's, and the framework alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from .subjects import MODEL, QUESTION, image, texts

__all__ = ["embeddings_ours", "embeddings_peer", "floor", "fresh", "ours", "peer"]


class ChatSubject:
    """A chat model; made anew by `construct` and `first_call`."""

    def __init__(self, new: Callable[[], BaseChatModel]) -> None:
        self._new = new
        self.model = new()
        self._message = HumanMessage(QUESTION)

    def prepare(self, *, tokens: int = 16, megabytes: int = 0, **_: Any) -> None:
        """Everything that a caller has in hand before the call."""
        if isinstance(self.model, Prebuilt):
            self.model.prepare(tokens)
        self._message = HumanMessage(QUESTION)
        if megabytes:
            url = f"data:image/png;base64,{image(megabytes)}"
            image_block = {"type": "image_url", "image_url": {"url": url}}
            self._message = HumanMessage([{"type": "text", "text": QUESTION}, image_block])

    def stream(self, **_: Any) -> int:
        return sum(1 for _chunk in self.model.stream([self._message])) - 1

    async def astream(self, **_: Any) -> int:
        count = 0
        async for _chunk in self.model.astream([self._message]):
            count += 1
        return count - 1

    def call(self, *, calls: int = 1, **_: Any) -> int:
        for _call in range(calls):
            self.model.invoke([self._message])
        return calls

    async def acall(self, *, calls: int = 1, **_: Any) -> int:
        for _call in range(calls):
            await self.model.ainvoke([self._message])
        return calls

    async def many(self, *, streams: int = 16, **_: Any) -> int:
        return sum(await asyncio.gather(*(self.astream() for _stream in range(streams))))

    def construct(self, *, objects: int = 1, **_: Any) -> int:
        for _object in range(objects):
            self._new()
        return objects

    def first_call(self, *, objects: int = 1, **_: Any) -> int:
        for _object in range(objects):
            self._new().invoke([self._message])
        return objects


class Prebuilt(BaseChatModel):
    """The framework alone: answers that were made beforehand."""

    chunks: Any = ()

    def prepare(self, tokens: int) -> None:
        words = [
            ChatGenerationChunk(
                message=AIMessageChunk(content=" word", response_metadata={"model_provider": "none"})
            )
            for _ in range(tokens)
        ]
        last = AIMessageChunk(content="", response_metadata={"done": True}, chunk_position="last")
        self.chunks = [*words, ChatGenerationChunk(message=last)]

    @property
    def _llm_type(self) -> str:
        return "prebuilt"

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("words"))])

    async def _agenerate(self, *_: Any, **__: Any) -> ChatResult:
        return self._generate()

    def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        yield from self.chunks

    async def _astream(self, *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self.chunks:
            yield chunk


class Fresh(Prebuilt):
    """The framework and its validated chunks, made one by one."""

    def prepare(self, tokens: int) -> None:
        self.chunks = range(tokens)

    def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        for _index in self.chunks:
            message = AIMessageChunk(content=" word", response_metadata={"model_provider": "none"})
            yield ChatGenerationChunk(message=message)
        yield ChatGenerationChunk(message=AIMessageChunk(content="", chunk_position="last"))


class EmbeddingsSubject:
    """An embedding model at its default settings."""

    def __init__(self, new: Callable[[], Any]) -> None:
        self._new = new
        self.model = new()
        self._texts: list[str] = []

    def prepare(self, *, count: int = 1, **_: Any) -> None:
        self._texts = texts(count)

    def embed(self, **_: Any) -> int:
        return len(self.model.embed_documents(self._texts))

    async def aembed(self, **_: Any) -> int:
        return len(await self.model.aembed_documents(self._texts))

    def construct(self, *, objects: int = 1, **_: Any) -> int:
        for _object in range(objects):
            self._new()
        return objects


def ours(url: str) -> ChatSubject:
    from langchain_ollama_dify import ChatOllamaDify

    return ChatSubject(lambda: ChatOllamaDify(model=MODEL, base_url=url))


def peer(url: str) -> ChatSubject:
    from langchain_ollama import ChatOllama

    return ChatSubject(lambda: ChatOllama(model=MODEL, base_url=url))


def floor(url: str) -> ChatSubject:
    return ChatSubject(Prebuilt)


def fresh(url: str) -> ChatSubject:
    return ChatSubject(Fresh)


def embeddings_ours(url: str) -> EmbeddingsSubject:
    from langchain_ollama_dify import OllamaDifyEmbeddings

    return EmbeddingsSubject(lambda: OllamaDifyEmbeddings(model=MODEL, base_url=url))


def embeddings_peer(url: str) -> EmbeddingsSubject:
    from langchain_ollama import OllamaEmbeddings

    return EmbeddingsSubject(lambda: OllamaEmbeddings(model=MODEL, base_url=url))
