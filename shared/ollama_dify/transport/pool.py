"""Connections to one server, kept for reuse: the newest idle one first, else a new one.

Nothing here limits how many there are: the queue in front does.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx

from .connection import STATE, Connection, RequestState, Target
from .http1 import Http1
from .network import run
from .sockets import AnySocket

__all__ = ["Pool"]

KEEP_S = 30.0
_LOST = (httpx.NetworkError, httpx.RemoteProtocolError)


class Pool(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Connections to one server; idle ones are held here, those in use by who uses them.

    new_socket: `BlockingSocket` for a pool that is called, from any thread; `AsyncSocket` for one that is
    awaited, in one event loop.
    """

    def __init__(self, target: Target, new_socket: Callable[[], AnySocket]) -> None:
        self._target = target
        self._new_socket = new_socket
        # Changed by single operations only, which no other thread can come between.
        self._idle: list[Connection] = []
        self._alive: set[weakref.ref[Connection]] = set()
        self._closed = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return run(self.handle_async_request(request))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the response's head is read."""
        state = request.extensions.get(STATE) or RequestState()
        kept = self._take()
        if kept is not None:
            try:
                return await self._exchange(kept, request, state)
            except _LOST:
                # No byte came back: it was closed while it was idle, as others may have been.
                if kept.answered:
                    raise
        connection = Connection(self._new_socket(), self._target)
        self._alive.add(weakref.ref(connection, self._alive.discard))
        return await self._exchange(connection, request, state)

    async def _exchange(
        self, connection: Connection, request: httpx.Request, state: RequestState
    ) -> httpx.Response:
        phases = request.extensions["timeout"]
        try:
            self._check_open()  # after `close` could see this connection
            if not connection.is_open:
                await connection.open(state, phases["connect"])
                self._check_open()
            http = await connection.begin(request, state)
        except BaseException as error:
            connection.socket.close()
            if isinstance(error, httpx.NetworkError):
                self._check_open()
            raise
        body = _Body(self, connection, http, state, phases)
        return httpx.Response(http.status, headers=http.headers, stream=body, request=request)

    def _check_open(self) -> None:
        if self._closed:
            raise httpx.LocalProtocolError("the pool is closed")

    def _take(self) -> Connection | None:
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread was faster
                connection = self._idle.pop()
                if not connection.is_stale(KEEP_S):
                    return connection
                connection.socket.close()
        return None

    def give_back(self, connection: Connection) -> None:
        """To be called once by who used it."""
        if connection.is_idle:
            self._idle.append(connection)
        else:
            connection.socket.close()
        if self._closed:  # asked last: another thread may close at any moment
            self._close_idle()

    def _close_idle(self) -> None:
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().socket.close()

    def _all(self) -> list[Connection]:
        return [it for known in list(self._alive) if (it := known()) is not None]

    def close(self) -> None:
        self._closed = True
        self._close_idle()
        # Who uses it closes it: a number of a socket freed under a reading thread may be another's by then.
        for connection in self._all():
            connection.socket.cut()

    async def aclose(self) -> None:
        self.close()
        # The event loop closes the sockets in its next round.
        await asyncio.sleep(0)

    def drop(self) -> None:
        """Let go of what a fork inherited: closing leaves the parent's connections alone."""
        for connection in self._all():
            connection.socket.close()


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A response's body as it comes, which gives its connection back when it is closed.

    No async generator, which would outlive a loop that was left.
    """

    def __init__(
        self, pool: Pool, connection: Connection, http: Http1, state: RequestState, phases: Any
    ) -> None:
        """phases: the request's timeouts, of which the caller changes "read" once the head is there."""
        self._pool = pool
        self._connection: Connection | None = connection
        self._http = http
        self._socket: Any = connection.socket
        self._state = state
        self._phases = phases

    def _is_over(self) -> bool:
        """Whether the body is complete, so that the connection may be idle. Raises what broke it."""
        body = self._http.body
        if body.error is not None:
            raise body.error
        if body.finished and self._connection is not None:
            self._connection.end(self._http)
        return body.finished or self._connection is None

    def _limit(self) -> float | None:
        return self._state.limit(self._phases["read"])

    def __iter__(self) -> Iterator[bytes]:
        body, receive, limit = self._http.body, self._socket.receive, self._limit
        if self._http.rest:
            yield self._http.rest
        while not self._is_over():
            data = receive(limit())
            if not data:
                body.end()
            elif data := body.feed(data):
                yield data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        body = self._http.body
        if data := self._http.rest:
            self._http.rest = b""
            return data
        while not self._is_over():
            data = await self._socket.read(self._limit())
            if not data:
                body.end()
            elif data := body.feed(data):
                return data
        raise StopAsyncIteration

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give_back(connection)

    async def aclose(self) -> None:
        self.close()
