"""The network, awaited: the twin of `blocking`, for one event loop."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import httpx

from ..settings.model import ConnectionSettings, Timeouts
from ..wire.requests import WireRequest
from .async_socket import AsyncSocket
from .connection import READ_SIZE
from .endpoint import KEEP_ALIVE, Endpoint
from .http_stream import HttpNetwork, HttpStream
from .image_download import download, resolve_async
from .network import CancelToken
from .pool import Pool

__all__ = ["AsyncNetwork", "AsyncStream", "AsyncTransport"]

T = TypeVar("T")


class AsyncStream(HttpStream):
    """The async twin of `BlockingStream`."""

    _source: AsyncIterator[bytes]
    _turn: asyncio.Future[None] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            data = await self._source.__anext__()
            if self._state.is_late:
                raise httpx.ReadTimeout(self._state.phase)
            return data
        except Exception as error:
            if self._finished:
                raise StopAsyncIteration from None
            self._fail(error)

    def wake(self) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    async def read(self) -> bytes | None:
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            return None

    async def _rest(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._turn = loop.create_future()
        timer = loop.call_later(seconds, self.wake)
        try:
            await self._turn
        finally:
            timer.cancel()
            self._turn = None

    def _begin(self, response: httpx.Response) -> None:
        self._source = response.stream.__aiter__()  # type: ignore[union-attr]  # async client, async stream

    async def _close(self, response: httpx.Response) -> None:
        await response.aclose()


class AsyncNetwork(HttpNetwork[AsyncStream]):
    """The network of one call."""

    async def fetch_image(self, url: str, *, limit: int, where: str) -> bytes:
        left, new_socket = self.token.left(), partial(AsyncSocket, bytearray(READ_SIZE))
        return await download(url, limit, where, left, resolve=resolve_async, new_socket=new_socket)

    async def compute(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work)

    async def gather(self, jobs: Sequence[Callable[[], Coroutine[Any, Any, T]]], limit: int) -> list[T]:
        gate = asyncio.Semaphore(limit)

        async def gated(job: Callable[[], Coroutine[Any, Any, T]]) -> T:
            async with gate:
                return await job()

        tasks = [asyncio.ensure_future(gated(job)) for job in jobs]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            self.token.cancel()
            raise
        finally:
            for task in tasks:
                task.cancel()

    def _stream(self, request: WireRequest) -> AsyncStream:
        return AsyncStream(self._endpoint, request, self.token)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _closing(pool: Pool) -> AsyncGenerator[None, None]:
    """Closes a pool when it is closed itself: by us, by garbage collection, or by the loop's end,
    which closes all async generators (`asyncio.run` does)."""
    try:
        yield
    finally:
        await pool.aclose()


class AsyncTransport(Endpoint):
    """The async twin of `Transport`; belongs to one event loop."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._client: httpx.AsyncClient | None = settings.http_async_client
        super().__init__(settings, self._client)
        self._pool: Pool | None = None
        self._guard: AsyncGenerator[None, None] | None = None

    async def _connect(self) -> Pool:
        """Make the pool; what reads files is done off the event loop."""
        if self.needs_certificates:
            target = await asyncio.to_thread(self.target)
        else:
            target = self.target()
        if self._pool is None:
            self._pool = pool = Pool(target, partial(AsyncSocket, bytearray(READ_SIZE)), KEEP_ALIVE)
            # Garbage collection then finds the pool alive: its sockets are closed by the guard, not dropped.
            weakref.finalize(self, bool, pool)
            self._guard = _closing(pool)
            await self._guard.__anext__()
        return self._pool

    async def aclose(self) -> None:
        if self._guard is not None:
            await self._guard.aclose()

    def network(self, timeouts: Timeouts, token: CancelToken) -> AsyncNetwork:
        """The network as one call sees it."""
        return AsyncNetwork(self, timeouts, token)

    async def hand_over(self, sent: httpx.Request) -> httpx.Response:
        if self._client is not None:
            return await self._client.send(sent, stream=True, follow_redirects=False)
        pool = self._pool
        if pool is None:
            pool = await self._connect()
        response = await pool.handle_async_request(sent)
        response.request = sent
        return response
