"""The transport alone: what it costs to get the same bytes and parse them, without framework or checks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import orjson

from .subjects import BATCH, MODEL, QUESTION, texts

__all__ = ["aiohttp_floor", "httpx_floor", "our_client"]

_JSON = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


def _question(*, stream: bool) -> bytes:
    options = {"num_ctx": 4096, "num_predict": 4096}
    turns = [{"role": "user", "content": QUESTION}]
    return orjson.dumps({"model": MODEL, "messages": turns, "stream": stream, "options": options})


def _batches(count: int) -> Iterator[bytes]:
    asked = texts(count)
    for start in range(0, count, BATCH):
        yield orjson.dumps({"model": MODEL, "input": asked[start : start + BATCH], "truncate": False})


def _count(data: bytes, rest: bytes) -> tuple[int, bytes]:
    """Parse the whole lines of what was read."""
    *lines, rest = (rest + data).split(b"\n")
    for line in lines:
        orjson.loads(line)["message"]["content"]
    return len(lines), rest


class HttpxFloor:
    """httpx as it comes, its raw bytes, and orjson."""

    def __init__(self, url: str) -> None:
        import httpx

        self._url = url
        self._sync = httpx.Client(verify=False, timeout=600)
        self._async = httpx.AsyncClient(verify=False, timeout=600)

    def prepare(self, **_: Any) -> None:
        pass

    def stream(self, **_: Any) -> int:
        count, rest, asked = 0, b"", _question(stream=True)
        with self._sync.stream("POST", f"{self._url}/api/chat", content=asked, headers=_JSON) as response:
            for data in response.iter_raw():
                found, rest = _count(data, rest)
                count += found
        return count - 1

    async def astream(self, **_: Any) -> int:
        count, rest, asked = 0, b"", _question(stream=True)
        async with self._async.stream(
            "POST", f"{self._url}/api/chat", content=asked, headers=_JSON
        ) as response:
            async for data in response.aiter_raw():
                found, rest = _count(data, rest)
                count += found
        return count - 1

    def call(self, *, calls: int = 1, **_: Any) -> int:
        for _call in range(calls):
            asked = _question(stream=False)
            orjson.loads(self._sync.post(f"{self._url}/api/chat", content=asked, headers=_JSON).content)
        return calls

    async def acall(self, *, calls: int = 1, **_: Any) -> int:
        for _call in range(calls):
            asked = _question(stream=False)
            response = await self._async.post(f"{self._url}/api/chat", content=asked, headers=_JSON)
            orjson.loads(response.content)
        return calls

    def embed(self, *, count: int = 1, **_: Any) -> int:
        vectors: list[Any] = []
        for asked in _batches(count):
            response = self._sync.post(f"{self._url}/api/embed", content=asked, headers=_JSON)
            vectors += orjson.loads(response.content)["embeddings"]
        return len(vectors)

    async def aembed(self, *, count: int = 1, **_: Any) -> int:
        vectors: list[Any] = []
        for asked in _batches(count):
            response = await self._async.post(f"{self._url}/api/embed", content=asked, headers=_JSON)
            vectors += orjson.loads(response.content)["embeddings"]
        return len(vectors)


class AiohttpFloor:
    """aiohttp as it comes, and orjson."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: Any = None

    def prepare(self, **_: Any) -> None:
        pass

    def _connected(self) -> Any:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(loop=asyncio.get_running_loop())
        return self._session

    async def astream(self, **_: Any) -> int:
        count, rest, asked = 0, b"", _question(stream=True)
        async with self._connected().post(f"{self._url}/api/chat", data=asked, headers=_JSON) as response:
            async for data in response.content.iter_any():
                found, rest = _count(data, rest)
                count += found
        return count - 1

    async def acall(self, *, calls: int = 1, **_: Any) -> int:
        for _call in range(calls):
            asked = _question(stream=False)
            async with self._connected().post(f"{self._url}/api/chat", data=asked, headers=_JSON) as response:
                orjson.loads(await response.read())
        return calls

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


class OurClient:
    """The core without a framework."""

    def __init__(self, url: str) -> None:
        from ollama_dify import AsyncOllamaClient, ChatSettings, OllamaClient, user

        self._asked = [user(QUESTION)]
        settings = ChatSettings(model=MODEL, base_url=url)
        self._sync = OllamaClient(settings)
        self._async = AsyncOllamaClient(settings)

    def prepare(self, **_: Any) -> None:
        pass

    def stream(self, **_: Any) -> int:
        return sum(1 for _chunk in self._sync.chat_stream(self._asked)) - 1

    async def astream(self, **_: Any) -> int:
        count = 0
        async for _chunk in self._async.chat_stream(self._asked):
            count += 1
        return count - 1

    def call(self, *, calls: int = 1, **_: Any) -> int:
        for _call in range(calls):
            self._sync.chat(self._asked)
        return calls

    async def acall(self, *, calls: int = 1, **_: Any) -> int:
        for _call in range(calls):
            await self._async.chat(self._asked)
        return calls

    async def aclose(self) -> None:
        await self._async.aclose()


httpx_floor = HttpxFloor
aiohttp_floor = AiohttpFloor
our_client = OurClient
