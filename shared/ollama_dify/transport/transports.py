"""The networks and transports, blocking and async: how each waits, and its connection pool."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ..errors import ConnectionFailedError
from ..settings import ConnectionSettings, Timeouts
from .addresses import resolve, resolve_async, within
from .endpoint import Endpoint
from .http_stream import HttpNetwork
from .network import CancelToken, run
from .pool import Pool
from .sockets import AsyncSocket, BlockingSocket

__all__ = ["AsyncNetwork", "AsyncTransport", "BlockingNetwork", "Transport"]

T = TypeVar("T")


class BlockingNetwork(HttpNetwork):
    """The network of one call."""

    awaits = False
    new_queue = SimpleQueue
    new_socket = BlockingSocket
    resolve = staticmethod(resolve)

    async def wait_for(self, queue: Any, limit_s: float | None) -> None:
        with contextlib.suppress(Empty):
            queue.get(timeout=limit_s)

    async def compute(self, work: Callable[[], T]) -> T:
        return work()

    async def gather(self, jobs: Sequence[Callable[[], Coroutine[Any, Any, T]]], limit: int) -> list[T]:
        if len(jobs) == 1:
            return [await jobs[0]()]
        results: dict[int, T] = {}
        numbered = enumerate(jobs)
        ended: SimpleQueue[BaseException | None] = SimpleQueue()

        def work() -> None:
            failure = None
            try:
                for number, job in numbered:
                    if self.token.cancelled:
                        break
                    results[number] = run(job())
            except BaseException as error:  # raised again by the thread that waits for the results
                failure = error
            ended.put(failure)

        try:
            for number in range(min(limit, len(jobs))):
                # Each in a copy of the caller's context, which has the current span. Daemons, so that after
                # Ctrl-C nothing waits for them, not even the interpreter at its end.
                threading.Thread(
                    target=copy_context().run, args=(work,), name=f"ollama-dify-{number}", daemon=True
                ).start()
            for _ in range(min(limit, len(jobs))):
                failure = ended.get()
                if failure is not None:
                    raise failure
        except BaseException:
            self.token.cancel()
            raise
        if len(results) < len(jobs):
            raise ConnectionFailedError("The call was cancelled.")
        return [results[number] for number in range(len(jobs))]


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


class Transport(Endpoint):
    """What this process keeps between calls: a connection pool, a queue in front of it."""

    def __init__(self, settings: ConnectionSettings) -> None:
        super().__init__(settings, settings.http_client)
        self._pool: Pool | None = None
        if self.client is None:
            self._pool = pool = Pool(self.target(), BlockingSocket)
            # Garbage collection closes the sockets of a client that was not closed.
            self._finalizer = weakref.finalize(self, pool.close)

    async def connected(self) -> Pool:
        assert self._pool is not None
        return self._pool

    def close(self) -> None:
        if self._pool is not None:
            self._finalizer()

    def network(self, timeouts: Timeouts, token: CancelToken) -> BlockingNetwork:
        """The network of one call."""
        return BlockingNetwork(self, timeouts, token)


class AsyncTransport(Endpoint):
    """The async twin of `Transport`; belongs to one event loop."""

    def __init__(self, settings: ConnectionSettings) -> None:
        super().__init__(settings, settings.http_async_client)
        self._pool: Pool | None = None
        self._guard: AsyncGenerator[None, None] | None = None

    async def connected(self) -> Pool:
        if self._pool is not None:
            return self._pool
        # In a thread for https, which reads files and would block the event loop.
        is_secure = self.url.startswith("https:")
        target = await asyncio.to_thread(self.target) if is_secure else self.target()
        if self._pool is None:
            self._pool = pool = Pool(target, AsyncSocket)
            # Keeps the pool alive in garbage collection, so that the guard closes its sockets.
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


async def _closing(pool: Pool) -> AsyncGenerator[None, None]:
    """An async generator that closes the pool when it is closed: by us, by garbage collection, or at the end
    of the event loop, which closes all async generators (as in `asyncio.run`)."""
    try:
        yield
    finally:
        await pool.aclose()
