"""The network, awaited: the twin of `blocking`, for one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from ..settings import ConnectionSettings, Timeouts
from .addresses import resolve_async, within
from .endpoint import Endpoint
from .http_stream import HttpNetwork
from .network import CancelToken
from .pool import Pool
from .sockets import AsyncSocket

__all__ = ["AsyncNetwork", "AsyncTransport"]

T = TypeVar("T")


class AsyncNetwork(HttpNetwork):
    """The network of one call."""

    awaits = True
    new_queue = asyncio.Queue
    new_socket = AsyncSocket
    resolve = staticmethod(resolve_async)

    async def wait_for(self, queue: Any, limit_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            await within(queue.get(), limit_s)

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
        super().__init__(settings, settings.http_async_client)
        self._pool: Pool | None = None
        self._guard: AsyncGenerator[None, None] | None = None

    async def connected(self) -> Pool:
        if self._pool is not None:
            return self._pool
        # For https it reads files, which takes too long for an event loop.
        is_secure = self.url.startswith("https:")
        target = await asyncio.to_thread(self.target) if is_secure else self.target()
        if self._pool is None:
            self._pool = pool = Pool(target, AsyncSocket)
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
