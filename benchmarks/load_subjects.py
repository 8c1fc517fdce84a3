"""Who runs in the load figures: this library's core, and the frameworks' own integrations beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

BATCH = 64
WORKERS = 8


class Contender:
    """One library's client for one server."""

    name = "ollama-dify"

    def __init__(self, url: str, **settings: Any) -> None:
        from ollama_dify import AsyncOllamaClient, ChatSettings, EmbeddingSettings, OllamaClient

        retries = settings.pop("max_retries", 2)
        shared = {"base_url": url, "model": "m", "max_retries": retries}
        self.chats = OllamaClient(ChatSettings(**shared, **settings))
        self.async_chats = AsyncOllamaClient(ChatSettings(**shared, **settings))
        self.embeds = OllamaClient(EmbeddingSettings(**shared, batch_size=BATCH, max_concurrency=WORKERS))

    def chat(self, text: str) -> str:
        from ollama_dify import user

        return self.chats.chat([user(text)]).text

    async def achat(self, text: str) -> str:
        from ollama_dify import user

        return (await self.async_chats.chat([user(text)])).text

    async def stream(self, text: str) -> AsyncIterator[str]:
        from ollama_dify import user

        async for chunk in self.async_chats.chat_stream([user(text)]):
            yield chunk.text

    def embed(self, texts: Sequence[str]) -> list[Any]:
        return list(self.embeds.embed(texts).vectors)

    async def aclose(self) -> None:
        await self.async_chats.aclose()

    def close(self) -> None:
        self.chats.close()
        self.embeds.close()


class _Peer(Contender):
    async def aclose(self) -> None:
        return None

    def close(self) -> None:
        return None

    def embed(self, texts: Sequence[str]) -> list[Any]:
        """In batches, several at once, as an application would; None for those of a failed batch."""
        batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]

        def one(batch: Sequence[str]) -> list[Any]:
            try:
                found = self.embed_batch(list(batch))
            except Exception:
                return [None] * len(batch)
            return found if len(found) == len(batch) else [*found, *[None] * (len(batch) - len(found))]

        with ThreadPoolExecutor(WORKERS) as pool:
            return [vector for found in pool.map(one, batches) for vector in found]

    def embed_batch(self, texts: list[str]) -> list[Any]:
        raise NotImplementedError


class LangChainOllama(_Peer):
    name = "langchain-ollama"

    def __init__(self, url: str, **settings: Any) -> None:
        from langchain_ollama import ChatOllama, OllamaEmbeddings

        self.model = ChatOllama(model="m", base_url=url)
        self.embedder = OllamaEmbeddings(model="m", base_url=url)

    def chat(self, text: str) -> str:
        return str(self.model.invoke(text).text)

    async def achat(self, text: str) -> str:
        return str((await self.model.ainvoke(text)).text)

    async def stream(self, text: str) -> AsyncIterator[str]:
        async for chunk in self.model.astream(text):
            yield str(chunk.text)

    def embed_batch(self, texts: list[str]) -> list[Any]:
        return list(self.embedder.embed_documents(texts))


class LlamaIndexOllama(_Peer):
    name = "llama-index-ollama"

    def __init__(self, url: str, **settings: Any) -> None:
        from llama_index.embeddings.ollama import OllamaEmbedding
        from llama_index.llms.ollama import Ollama

        # Without it each call asks the server for the context window first.
        self.model = Ollama(model="m", base_url=url, request_timeout=60, context_window=4096)
        self.embedder = OllamaEmbedding(model_name="m", base_url=url, embed_batch_size=BATCH)

    def _said(self, text: str) -> list[Any]:
        from llama_index.core.llms import ChatMessage

        return [ChatMessage(role="user", content=text)]

    def chat(self, text: str) -> str:
        return str(self.model.chat(self._said(text)).message.content)

    async def achat(self, text: str) -> str:
        return str((await self.model.achat(self._said(text))).message.content)

    async def stream(self, text: str) -> AsyncIterator[str]:
        async for chunk in await self.model.astream_chat(self._said(text)):
            yield str(chunk.delta or "")

    def embed_batch(self, texts: list[str]) -> list[Any]:
        return list(self.embedder.get_text_embedding_batch(texts))


CONTENDERS: dict[str, Callable[..., Contender]] = {
    kind.name: kind for kind in (Contender, LangChainOllama, LlamaIndexOllama)
}
