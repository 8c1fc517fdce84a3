"""The network, awaited: the twin of `blocking`, for one event loop."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import httpx

from ..errors import OllamaError
from ..settings.model import ConnectionSettings, Timeouts
from ..wire.requests import WireRequest
from .cancel import CancelToken
from .endpoint import KEEP_ALIVE, Endpoint
from .exchange import Exchange, send_under
from .http_stream import HttpNetwork, HttpStream
from .image_download import download, fetch_async, resolve_async
from .pool import AsyncPool
from .slots import Slots

__all__ = ["AsyncNetwork", "AsyncStream", "AsyncTransport"]

T = TypeVar("T")


class AsyncStream(HttpStream):
    """The async twin of `BlockingStream`."""

    _source: AsyncIterator[bytes]

    def __init__(self, transport: AsyncTransport, request: WireRequest, token: CancelToken) -> None:
        super().__init__(transport, request, token)
        self._transport = transport
        self._turn: asyncio.Future[None] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            with self._mapped:
                data = await self._source.__anext__()
                if self._seen.is_late:
                    raise httpx.ReadTimeout(self._seen.phase)
                return data
        except OllamaError:
            if self._finished:
                raise StopAsyncIteration from None
            raise

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

    async def _hand_over(self, sent: httpx.Request, exchange: Exchange) -> httpx.Response:
        response = await self._transport.hand_over(sent, exchange)
        self._source = response.stream.__aiter__()  # type: ignore[union-attr]  # async client, async stream
        return response

    async def _close(self, response: httpx.Response) -> None:
        await response.aclose()


class AsyncNetwork(HttpNetwork[AsyncStream]):
    """The network of one call."""

    def __init__(self, transport: AsyncTransport, timeouts: Timeouts, token: CancelToken) -> None:
        super().__init__(transport.endpoint, timeouts, token)
        self._transport = transport

    async def fetch_image(self, url: str, *, limit: int, where: str) -> bytes:
        left = self.token.left()
        return await download(url, limit, where, left, resolve=resolve_async, fetch=fetch_async)

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
        return AsyncStream(self._transport, request, self.token)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _closing(pool: httpx.AsyncBaseTransport) -> AsyncGenerator[None, None]:
    """Closes a pool when it is closed itself: by us, by garbage collection, or by the loop's end,
    which closes all async generators (`asyncio.run` does)."""
    try:
        yield
    finally:
        await pool.aclose()


def _let_go(pool: httpx.AsyncBaseTransport) -> None:
    """The end of a reference that outlives its owner."""


class AsyncTransport:
    """The async twin of `Transport`; belongs to one event loop."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.endpoint = Endpoint(settings)
        self.slots = Slots(self.endpoint.requests_at_once)
        self._client: httpx.AsyncClient | None = settings.http_async_client
        self._pool: AsyncPool | None = None
        self._guard: AsyncGenerator[None, None] | None = None

    async def _connect(self) -> None:
        """Make the pool; what reads files is done off the event loop."""
        if self.endpoint.needs_certificates:
            target = await asyncio.to_thread(self.endpoint.target)
        else:
            target = self.endpoint.target()
        if self._pool is not None:
            return
        self._pool = pool = AsyncPool(target, KEEP_ALIVE)
        # Garbage collection then finds the pool alive, and its sockets are closed by the guard, not dropped.
        weakref.finalize(self, _let_go, pool)
        self._guard = _closing(pool)
        await self._guard.__anext__()

    async def aclose(self) -> None:
        if self._guard is not None:
            await self._guard.aclose()

    def network(self, timeouts: Timeouts, token: CancelToken) -> AsyncNetwork:
        """The network as one call sees it."""
        return AsyncNetwork(self, timeouts, token)

    async def hand_over(self, sent: httpx.Request, exchange: Exchange) -> httpx.Response:
        """Have a request sent and the answer's head read."""
        if self._client is not None:
            return await self._client.send(send_under(exchange, sent), stream=True, follow_redirects=False)
        if self._pool is None:
            await self._connect()
        assert self._pool is not None
        response = await self._pool.handle_async_request(send_under(exchange, sent))
        response.request = sent
        return response

    def client_headers(self) -> httpx.Headers | None:
        return None if self._client is None else self._client.headers
