"""Connections to one server, kept for reuse: the newest idle one first, else a new one.

How many there may be is the business of the semaphore in front.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Generic

import httpx

from .async_socket import AsyncSocket
from .blocking_socket import BlockingSocket
from .connection import READ_SIZE, Connection, S, Target
from .exchange import exchange_of
from .http1 import Http1Exchange
from .network import run

__all__ = ["AsyncPool", "Pool"]

KEEP_S = 30.0


class _Connections(Generic[S]):
    """What both pools have in common. Idle connections are held here, those in use by who uses them."""

    def __init__(self, target: Target, socket_options: Sequence[Any] = ()) -> None:
        self._target = target
        self._options = list(socket_options)
        # Changed by single operations only, which no other thread can come between.
        self._idle: list[Connection[S]] = []
        self._alive: set[weakref.ref[Connection[S]]] = set()
        self._closed = False

    def _new_socket(self) -> S:
        raise NotImplementedError

    async def _respond(self, request: httpx.Request) -> tuple[Connection[S], Http1Exchange]:
        """Send a request on a connection; the response's head is read."""
        exchange = exchange_of(request)
        connection = None if exchange.fresh else self._take()
        is_new = connection is None
        if connection is None:
            connection = Connection(self._new_socket(), self._target)
            self._alive.add(weakref.ref(connection, self._alive.discard))
        try:
            self._check_open()  # after `close` could see this connection
            if is_new:
                await connection.open(self._options, exchange, request.extensions["timeout"]["connect"])
                self._check_open()
            return connection, await connection.begin(request, exchange)
        except BaseException as error:
            connection.close()
            if isinstance(error, httpx.NetworkError):
                self._check_open()
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise httpx.LocalProtocolError("the pool is closed")

    def _take(self) -> Connection[S] | None:
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread was faster
                connection = self._idle.pop()
                if not connection.is_stale(KEEP_S):
                    return connection
                connection.close()
        return None

    def give_back(self, connection: Connection[S]) -> None:
        """To be called once by who used it."""
        if connection.is_idle:
            self._idle.append(connection)
        else:
            connection.close()
        if self._closed:  # asked last: another thread may close at any moment
            self._close_idle()

    def _all(self) -> list[Connection[S]]:
        return [it for known in list(self._alive) if (it := known()) is not None]

    def drop(self) -> None:
        """Let go of what a fork inherited: closing leaves the parent's connections alone."""
        for connection in self._all():
            connection.close()

    def _close_idle(self) -> None:
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().close()


class _Body(Generic[S]):
    """A response's body as it comes, which gives its connection back when it is closed."""

    def __init__(
        self, pool: _Connections[S], request: httpx.Request, answered: tuple[Connection[S], Http1Exchange]
    ) -> None:
        self._pool = pool
        connection, self._http = answered
        self._connection: Connection[S] | None = connection
        self._socket = connection.socket
        self._exchange = exchange_of(request)
        # The wait between pieces is another than that for the head: the caller changes it in between.
        self._phases = request.extensions["timeout"]

    def _first(self) -> bytes:
        """What came with the head."""
        data, self._http.rest = self._http.rest, b""
        return self._http.body.feed(data) if data else data

    def _is_over(self) -> bool:
        """Whether the body is complete, so that the connection may be idle. Raises what broke it."""
        body = self._http.body
        if body.error is not None:
            raise body.error
        if body.finished and self._connection is not None:
            self._connection.end(self._http)
        return body.finished or self._connection is None

    def _limit(self) -> float | None:
        return self._exchange.limit(self._phases["read"])

    def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give_back(connection)


class _SyncBody(_Body[BlockingSocket], httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        body, receive, limit = self._http.body, self._socket.receive, self._limit
        if data := self._first():
            yield data
        while not self._is_over():
            data = receive(limit())
            if not data:
                body.end()
            elif data := body.feed(data):
                yield data

    def close(self) -> None:
        self._give_back()


class _AsyncBody(_Body[AsyncSocket], httpx.AsyncByteStream):
    """No async generator, which would outlive a loop that was left."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        body = self._http.body
        if self._http.rest and (data := self._first()):
            return data
        while not self._is_over():
            data = await self._socket.read(self._limit())
            if not data:
                body.end()
            elif data := body.feed(data):
                return data
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._give_back()


class Pool(_Connections[BlockingSocket], httpx.BaseTransport):
    """Connections to one server; safe between threads."""

    def _new_socket(self) -> BlockingSocket:
        return BlockingSocket()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answered = run(self._respond(request))
        http = answered[1]
        return httpx.Response(http.status, headers=http.headers, stream=_SyncBody(self, request, answered))

    def close(self) -> None:
        self._closed = True
        self._close_idle()
        # Who uses it closes it: a number of a socket freed under a reading thread may be another's by then.
        for connection in self._all():
            connection.abort()


class AsyncPool(_Connections[AsyncSocket], httpx.AsyncBaseTransport):
    """The async twin of `Pool`, for one event loop."""

    def __init__(self, target: Target, socket_options: Sequence[Any] = ()) -> None:
        super().__init__(target, socket_options)
        self._buffer = bytearray(READ_SIZE)

    def _new_socket(self) -> AsyncSocket:
        return AsyncSocket(self._buffer)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answered = await self._respond(request)
        http = answered[1]
        return httpx.Response(http.status, headers=http.headers, stream=_AsyncBody(self, request, answered))

    async def aclose(self) -> None:
        self._closed = True
        self._idle.clear()
        for connection in self._all():
            connection.close()
        # The event loop closes the sockets in its next round.
        await asyncio.sleep(0)
