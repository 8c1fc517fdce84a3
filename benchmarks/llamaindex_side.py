"""LlamaIndex: our models, the peer's, and the framework alone."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    ImageBlock,
    LLMMetadata,
    TextBlock,
)
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback

from .subjects import MODEL, QUESTION, image, texts

__all__ = ["embedding_ours", "embedding_peer", "floor", "fresh", "ours", "peer"]


class ChatSubject:
    """An LLM; made anew by `construct` and `first_call`."""

    def __init__(self, new: Callable[[], Any]) -> None:
        self._new = new
        self.model = new()
        self._message = ChatMessage(QUESTION)

    def prepare(self, *, tokens: int = 16, megabytes: int = 0, **_: Any) -> None:
        """Everything that a caller has in hand before the call."""
        if isinstance(self.model, Prebuilt):
            self.model.prepare(tokens)
        self._message = ChatMessage(QUESTION)
        if megabytes:
            block = ImageBlock(image=base64.b64decode(image(megabytes)), image_mimetype="image/png")
            self._message = ChatMessage(blocks=[TextBlock(text=QUESTION), block])

    def stream(self, **_: Any) -> int:
        return sum(1 for _response in self.model.stream_chat([self._message])) - 1

    async def astream(self, **_: Any) -> int:
        count = 0
        async for _response in await self.model.astream_chat([self._message]):
            count += 1
        return count - 1

    def call(self, *, calls: int = 1, **_: Any) -> int:
        for _call in range(calls):
            self.model.chat([self._message])
        return calls

    async def acall(self, *, calls: int = 1, **_: Any) -> int:
        for _call in range(calls):
            await self.model.achat([self._message])
        return calls

    async def many(self, *, streams: int = 16, **_: Any) -> int:
        return sum(await asyncio.gather(*(self.astream() for _stream in range(streams))))

    def construct(self, *, objects: int = 1, **_: Any) -> int:
        for _object in range(objects):
            self._new()
        return objects

    def first_call(self, *, objects: int = 1, **_: Any) -> int:
        for _object in range(objects):
            self._new().chat([self._message])
        return objects


class Prebuilt(CustomLLM):
    """The framework alone: responses that were made beforehand; each holds the whole answer so far."""

    responses: Any = ()

    def prepare(self, tokens: int) -> None:
        self.responses = [
            ChatResponse(message=ChatMessage(role="assistant", content=" word" * count), delta=" word")
            for count in range(tokens + 1)
        ]

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    @llm_chat_callback()
    def chat(self, messages: Any, **_: Any) -> ChatResponse:
        return ChatResponse(message=ChatMessage(role="assistant", content="words"))

    @llm_chat_callback()
    async def achat(self, messages: Any, **_: Any) -> ChatResponse:
        return ChatResponse(message=ChatMessage(role="assistant", content="words"))

    @llm_chat_callback()
    def stream_chat(self, messages: Any, **_: Any) -> ChatResponseGen:
        yield from self.responses

    @llm_chat_callback()
    async def astream_chat(self, messages: Any, **_: Any) -> ChatResponseAsyncGen:
        async def each() -> ChatResponseAsyncGen:
            for response in self.responses:
                yield response

        return each()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        return CompletionResponse(text="words")

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **_: Any) -> Any:
        yield CompletionResponse(text="words")


class Fresh(Prebuilt):
    """The framework and its validated responses, made one by one."""

    def prepare(self, tokens: int) -> None:
        self.responses = range(tokens)

    @llm_chat_callback()
    def stream_chat(self, messages: Any, **_: Any) -> ChatResponseGen:
        text = ""
        for _index in self.responses:
            text += " word"
            yield ChatResponse(message=ChatMessage(role="assistant", content=text), delta=" word")
        yield ChatResponse(message=ChatMessage(role="assistant", content=text), delta="")


class EmbeddingSubject:
    """An embedding model at its default settings."""

    def __init__(self, new: Callable[[], Any]) -> None:
        self._new = new
        self.model = new()
        self._texts: list[str] = []

    def prepare(self, *, count: int = 1, **_: Any) -> None:
        self._texts = texts(count)

    def embed(self, **_: Any) -> int:
        return len(self.model.get_text_embedding_batch(self._texts))

    async def aembed(self, **_: Any) -> int:
        return len(await self.model.aget_text_embedding_batch(self._texts))

    def construct(self, *, objects: int = 1, **_: Any) -> int:
        for _object in range(objects):
            self._new()
        return objects


def ours(url: str) -> ChatSubject:
    from llamaindex_ollama_dify import OllamaDify

    return ChatSubject(lambda: OllamaDify(model=MODEL, base_url=url))


def peer(url: str) -> ChatSubject:
    from llama_index.llms.ollama import Ollama

    return ChatSubject(lambda: Ollama(model=MODEL, base_url=url))


def floor(url: str) -> ChatSubject:
    return ChatSubject(Prebuilt)


def fresh(url: str) -> ChatSubject:
    return ChatSubject(Fresh)


def embedding_ours(url: str) -> EmbeddingSubject:
    from llamaindex_ollama_dify import OllamaDifyEmbedding

    return EmbeddingSubject(lambda: OllamaDifyEmbedding(model=MODEL, base_url=url))


def embedding_peer(url: str) -> EmbeddingSubject:
    from llama_index.embeddings.ollama import OllamaEmbedding

    return EmbeddingSubject(lambda: OllamaEmbedding(model_name=MODEL, base_url=url))
