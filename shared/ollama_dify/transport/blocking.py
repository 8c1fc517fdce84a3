"""The network, blocking: a connection pool, and coroutines that never suspend. `asynchronous` is its twin."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import httpx

from ..errors import ConnectionFailedError
from ..settings.model import ConnectionSettings, Timeouts
from ..wire.requests import WireRequest
from .blocking_socket import BlockingSocket
from .endpoint import KEEP_ALIVE, Endpoint
from .http_stream import HttpNetwork, HttpStream
from .image_download import download, resolve
from .network import CancelToken, run
from .pool import Pool

__all__ = ["BlockingNetwork", "BlockingStream", "Transport"]

T = TypeVar("T")


class BlockingStream(HttpStream):
    """A response under way; iterate for its bytes, close it in any case."""

    _source: Iterator[bytes]
    _turn: SimpleQueue[None] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            data = next(self._source)
            if self._state.is_late:
                raise httpx.ReadTimeout(self._state.phase)
            return data
        except Exception as error:
            if self._finished:
                raise StopIteration from None
            self._fail(error)

    def wake(self) -> None:
        if self._turn is not None:
            self._turn.put(None)

    def close(self) -> None:
        run(self.aclose())

    async def read(self) -> bytes | None:
        return next(self, None)

    async def _rest(self, seconds: float) -> None:
        if self._turn is None:
            # From here on `wake` is heard; what came before it is looked at once more.
            self._turn = SimpleQueue()
            return
        with contextlib.suppress(Empty):
            self._turn.get(timeout=seconds)

    def _begin(self, response: httpx.Response) -> None:
        self._source = iter(response.stream)  # type: ignore[arg-type]  # a sync client gives a sync stream

    async def _close(self, response: httpx.Response) -> None:
        response.close()


class BlockingNetwork(HttpNetwork[BlockingStream]):
    """The network of one call."""

    async def fetch_image(self, url: str, *, limit: int, where: str) -> bytes:
        return await download(
            url, limit, where, self.token.left(), resolve=resolve, new_socket=BlockingSocket
        )

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
            # Daemons: after Ctrl-C nobody waits for them, the interpreter's end neither.
            threads = [
                threading.Thread(
                    # Each in a copy of the caller's context, which holds the current span.
                    target=copy_context().run,
                    args=(work,),
                    name=f"ollama-dify-{number}",
                    daemon=True,
                )
                for number in range(min(limit, len(jobs)))
            ]
            for thread in threads:
                thread.start()
            for _ in threads:
                failure = ended.get()
                if failure is not None:
                    raise failure
        except BaseException:
            self.token.cancel()
            raise
        if len(results) < len(jobs):
            raise ConnectionFailedError("The call was cancelled.")
        return [results[number] for number in range(len(jobs))]

    def _stream(self, request: WireRequest) -> BlockingStream:
        return BlockingStream(self._endpoint, request, self.token)

    async def _pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  # blocking is what this network is for


class Transport(Endpoint):
    """What this process keeps between calls: a connection pool, a queue in front of it."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._client: httpx.Client | None = settings.http_client
        super().__init__(settings, self._client)
        self._pool: Pool | None = None
        if self._client is None:
            self._pool = pool = Pool(self.target(), BlockingSocket, KEEP_ALIVE)
            # Sockets of a client nobody closed are closed when it is collected.
            self._finalizer = weakref.finalize(self, _close_in, os.getpid(), pool)

    def close(self) -> None:
        if self._pool is not None:
            self._finalizer()

    def network(self, timeouts: Timeouts, token: CancelToken) -> BlockingNetwork:
        """The network as one call sees it."""
        return BlockingNetwork(self, timeouts, token)

    async def hand_over(self, sent: httpx.Request) -> httpx.Response:
        if self._client is not None:
            return self._client.send(sent, stream=True, follow_redirects=False)
        assert self._pool is not None
        # Past httpx.Client: no cookies kept from an answer, no authentication flow, no log line per call.
        response = await self._pool.handle_async_request(sent)
        response.request = sent
        return response


def _close_in(pid: int, pool: Pool) -> None:
    """Close a pool; of one that a forked child inherited only the child's copies of the sockets."""
    if os.getpid() == pid:
        pool.close()
    else:
        pool.drop()
