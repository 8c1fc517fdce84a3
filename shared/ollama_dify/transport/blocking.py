"""The network, blocking: a connection pool, and coroutines that never suspend. `asynchronous` is its twin."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ..errors import ConnectionFailedError
from ..settings import ConnectionSettings, Timeouts
from .addresses import resolve
from .endpoint import Endpoint
from .http_stream import HttpNetwork
from .network import CancelToken, run
from .pool import Pool
from .sockets import BlockingSocket

__all__ = ["BlockingNetwork", "Transport"]

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
            except BaseException as error:  # it is raised where the results are waited for
                failure = error
            ended.put(failure)

        try:
            for number in range(min(limit, len(jobs))):
                # Each in a copy of the caller's context, which holds the current span. Daemons: after Ctrl-C
                # nobody waits for them, the interpreter's end neither.
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


class Transport(Endpoint):
    """What this process keeps between calls: a connection pool, a queue in front of it."""

    def __init__(self, settings: ConnectionSettings) -> None:
        super().__init__(settings, settings.http_client)
        self._pool: Pool | None = None
        if self.client is None:
            self._pool = pool = Pool(self.target(), BlockingSocket)
            # Sockets of a client nobody closed are closed when it is collected.
            self._finalizer = weakref.finalize(self, _close_in, os.getpid(), pool)

    async def connected(self) -> Pool:
        assert self._pool is not None
        return self._pool

    def close(self) -> None:
        if self._pool is not None:
            self._finalizer()

    def network(self, timeouts: Timeouts, token: CancelToken) -> BlockingNetwork:
        """The network as one call sees it."""
        return BlockingNetwork(self, timeouts, token)


def _close_in(pid: int, pool: Pool) -> None:
    """Close a pool; of one that a forked child inherited only the child's copies of the sockets."""
    if os.getpid() == pid:
        pool.close()
    else:
        pool.drop()
