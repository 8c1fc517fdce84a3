"""Connections to one server, kept for reuse: the newest idle one first, else a new one.

How many there may be is the business of the semaphore in front. httpcore's own pool looks at all connections
at every start and end of a request, and keeps a place for ever for a connection whose request was cancelled
between connecting and sending; for proxies it is used all the same.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import httpcore
import httpx

from .sockets import AsyncSockets, Sockets

__all__ = ["AsyncPool", "Pool"]

KEEP_S = 30.0
_KINDS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = tuple(
    (getattr(httpcore, name), getattr(httpx, name))
    for name in (
        "ConnectTimeout",
        "ReadTimeout",
        "WriteTimeout",
        "PoolTimeout",
        "ConnectError",
        "ReadError",
        "WriteError",
        "LocalProtocolError",
        "RemoteProtocolError",
        "UnsupportedProtocol",
    )
)


class _Renamed:
    """httpcore's errors as httpx's, so that all transports fail alike."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for theirs, ours in _KINDS if isinstance(error, Exception) else ():
            if isinstance(error, theirs):
                raise ours(str(error)) from error


_renamed = _Renamed()


def _core_request(request: httpx.Request) -> httpcore.Request:
    url = request.url
    return httpcore.Request(
        request.method,
        httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=request.headers.raw,
        content=request.stream,
        extensions=request.extensions,
    )


def _origin(url: httpx.URL) -> httpcore.Origin:
    port = url.port if url.port is not None else {"http": 80, "https": 443}[url.scheme]
    return httpcore.Origin(url.raw_scheme, url.raw_host, port)


class _Body(httpx.SyncByteStream):
    """A response's body, which gives its connection back when it is closed."""

    def __init__(self, body: Any, connection: httpcore.HTTPConnection, pool: Pool) -> None:
        self._body = body
        self._connection = connection
        self._pool = pool

    def __iter__(self) -> Iterator[bytes]:
        with _renamed:
            yield from self._body

    def close(self) -> None:
        try:
            self._body.close()
        finally:
            self._pool.give_back(self._connection)


class Pool(httpx.BaseTransport):
    """Plain and TLS connections to the origin of `url`; safe between threads."""

    def __init__(self, url: httpx.URL, tls: ssl.SSLContext, socket_options: Any) -> None:
        self.sockets = Sockets(httpcore.SyncBackend())
        self._origin = _origin(url)
        self._tls = tls
        self._options = socket_options
        # Changed by single operations only, which no other thread can come between.
        self._idle: list[httpcore.HTTPConnection] = []
        self._busy: set[httpcore.HTTPConnection] = set()
        self._closed = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        connection = self._take()
        self._busy.add(connection)
        try:
            with _renamed:
                answered = connection.handle_request(_core_request(request))
        except BaseException:
            self._busy.discard(connection)
            connection.close()
            raise
        return httpx.Response(
            answered.status,
            headers=answered.headers,
            stream=_Body(answered.stream, connection, self),
            extensions=answered.extensions,
        )

    def _take(self) -> httpcore.HTTPConnection:
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread was faster
                connection = self._idle.pop()
                if not connection.has_expired():
                    return connection
                connection.close()
        return httpcore.HTTPConnection(
            self._origin,
            ssl_context=self._tls,
            keepalive_expiry=KEEP_S,
            network_backend=self.sockets,
            socket_options=self._options,
        )

    def give_back(self, connection: httpcore.HTTPConnection) -> None:
        if connection in self._busy:
            self._busy.discard(connection)
            if self._closed or not connection.is_idle():
                connection.close()
            else:
                self._idle.append(connection)

    def close(self) -> None:
        self._closed = True
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().close()
        for connection in list(self._busy):
            connection.close()


class _AsyncBody(httpx.AsyncByteStream):
    """The async twin of `_Body`."""

    def __init__(self, body: Any, connection: httpcore.AsyncHTTPConnection, pool: AsyncPool) -> None:
        self._body = body
        self._connection = connection
        self._pool = pool

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _renamed:
            async for data in self._body:
                yield data

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await self._body.aclose()
            finally:
                await self._pool.give_back(self._connection)


class AsyncPool(httpx.AsyncBaseTransport):
    """The async twin of `Pool`, for one event loop."""

    def __init__(self, url: httpx.URL, tls: ssl.SSLContext, socket_options: Any) -> None:
        self._sockets = AsyncSockets(httpcore.AnyIOBackend())
        self._origin = _origin(url)
        self._tls = tls
        self._options = socket_options
        self._idle: list[httpcore.AsyncHTTPConnection] = []
        self._busy: set[httpcore.AsyncHTTPConnection] = set()
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        connection = await self._take()
        self._busy.add(connection)
        try:
            with _renamed:
                answered = await connection.handle_async_request(_core_request(request))
        except BaseException:
            self._busy.discard(connection)
            with anyio.CancelScope(shield=True):
                await connection.aclose()
            raise
        return httpx.Response(
            answered.status,
            headers=answered.headers,
            stream=_AsyncBody(answered.stream, connection, self),
            extensions=answered.extensions,
        )

    async def _take(self) -> httpcore.AsyncHTTPConnection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.has_expired():
                return connection
            with anyio.CancelScope(shield=True):
                await connection.aclose()
        return httpcore.AsyncHTTPConnection(
            self._origin,
            ssl_context=self._tls,
            keepalive_expiry=KEEP_S,
            network_backend=self._sockets,
            socket_options=self._options,
        )

    async def give_back(self, connection: httpcore.AsyncHTTPConnection) -> None:
        if connection in self._busy:
            self._busy.discard(connection)
            if self._closed or not connection.is_idle():
                await connection.aclose()
            else:
                self._idle.append(connection)

    async def aclose(self) -> None:
        self._closed = True
        while self._idle:
            await self._idle.pop().aclose()
        for connection in list(self._busy):
            await connection.aclose()
