"""Connections to one server, kept for reuse: the newest idle one first, else a new one.

How many there may be is the business of the semaphore in front. httpcore's pool looks at all connections at
every start and end of a request, and keeps a place for ever for a connection whose request was cancelled
between connecting and sending; for proxies it is used all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import httpx

from .async_connection import AsyncConnection, connect
from .connection import READ_SIZE, Connection, Target
from .exchange import current
from .http1 import Dialogue

__all__ = ["AsyncPool", "Pool", "target_of"]

KEEP_S = 30.0


def target_of(url: httpx.URL, tls: ssl.SSLContext) -> Target:
    """Where a URL leads to."""
    host = url.raw_host.decode("ascii")
    if url.scheme == "http":
        return Target(host, url.port or 80, None, host)
    tls.set_alpn_protocols(["http/1.1"])
    return Target(host, url.port or 443, tls, host)


class _Body(httpx.SyncByteStream):
    """A response's body, which gives its connection back when it is closed."""

    def __init__(self, body: Iterator[bytes], connection: Connection, pool: Pool) -> None:
        self._body = body
        self._connection = connection
        self._pool = pool

    def __iter__(self) -> Iterator[bytes]:
        return self._body

    def close(self) -> None:
        self._pool.give_back(self._connection)


class Pool(httpx.BaseTransport):
    """Connections to one server; safe between threads. A socket for each, until `close`."""

    def __init__(self, target: Target, socket_options: Any) -> None:
        self._target = target
        self._options = list(socket_options)
        # Changed by single operations only, which no other thread can come between.
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._closed = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        exchange = current.get()
        self._check_open()
        connection = None if exchange.fresh else self._take()
        if connection is None:
            connect_s = request.extensions["timeout"]["connect"]
            connection = Connection(self._target, self._options, exchange, connect_s)
        self._busy.add(connection)
        try:
            self._check_open()  # else `close` may have come before it could see this connection
            dialogue = connection.begin(request, exchange)
        except BaseException:
            self._busy.discard(connection)
            connection.close()
            raise
        body = _Body(connection.body(dialogue, request, exchange), connection, self)
        return httpx.Response(dialogue.status, headers=dialogue.headers, stream=body)

    def _check_open(self) -> None:
        if self._closed:
            raise httpx.LocalProtocolError("the pool is closed")

    def _take(self) -> Connection | None:
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread was faster
                connection = self._idle.pop()
                if not connection.is_stale(KEEP_S):
                    return connection
                connection.close()
        return None

    def give_back(self, connection: Connection) -> None:
        if connection in self._busy:
            self._busy.discard(connection)
            if connection.is_idle:
                self._idle.append(connection)
            else:
                connection.close()
            if self._closed:  # asked last: another thread may close at any moment
                self.close()

    def drop(self) -> None:
        """Let go of what a fork inherited: `Connection.close` leaves the parent's connection alone."""
        for connection in [*self._idle, *self._busy]:
            connection.close()

    def close(self) -> None:
        self._closed = True
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().close()
        # Who uses it closes it: a number of a socket freed under a reading thread may be another's by then.
        for connection in list(self._busy):
            connection.abort()


class _AsyncBody(httpx.AsyncByteStream):
    """The async twin of `_Body`."""

    def __init__(
        self, body: AsyncGenerator[bytes, None], connection: AsyncConnection, pool: AsyncPool
    ) -> None:
        self._body = body
        self._connection = connection
        self._pool = pool

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._body

    async def aclose(self) -> None:
        try:
            await self._body.aclose()
        finally:
            self._pool.give_back(self._connection)


class AsyncPool(httpx.AsyncBaseTransport):
    """The async twin of `Pool`, for one event loop."""

    def __init__(self, target: Target, socket_options: Any) -> None:
        self._target = target
        self._options = list(socket_options)
        self._buffer = bytearray(READ_SIZE)
        self._idle: list[AsyncConnection] = []
        self._busy: set[AsyncConnection] = set()
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = current.get()
        self._check_open()
        connection = None if exchange.fresh else self._take()
        if connection is None:
            connect_s = request.extensions["timeout"]["connect"]
            connection = await connect(self._target, self._options, exchange, connect_s, self._buffer)
        self._busy.add(connection)
        try:
            self._check_open()
            dialogue: Dialogue = await connection.begin(request, exchange)
        except BaseException:
            self._busy.discard(connection)
            connection.close()
            raise
        body = _AsyncBody(connection.body(dialogue, request, exchange), connection, self)
        return httpx.Response(dialogue.status, headers=dialogue.headers, stream=body)

    def _check_open(self) -> None:
        if self._closed:
            raise httpx.LocalProtocolError("the pool is closed")

    def _take(self) -> AsyncConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_stale(KEEP_S):
                return connection
            connection.close()
        return None

    def give_back(self, connection: AsyncConnection) -> None:
        if connection in self._busy:
            self._busy.discard(connection)
            if self._closed or not connection.is_idle:
                connection.close()
            else:
                self._idle.append(connection)

    async def aclose(self) -> None:
        self._closed = True
        for connection in [*self._idle, *self._busy]:
            connection.close()
        self._idle.clear()
        # The event loop closes the sockets in its next round.
        await asyncio.sleep(0)
