"""Below httpx's own transports, which serve proxies and images: what httpx has no word for.

A deadline that holds to the byte however slowly an answer drips, a bound for an answer's head, whether a
connection had served before, and a close that the server sees even while a forked child holds a copy. Our
own connections have all this in `connection`.
"""

# ruff: noqa: ASYNC109  the signatures are httpcore's
from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
import weakref
from collections.abc import Coroutine, Iterable
from functools import partial
from typing import Any

import anyio
import httpcore

from .connection import shut_down
from .exchange import Exchange, current

__all__ = ["Sockets", "sweep", "watch"]

_WRITE_SIZE = 256 * 1024
_Options = Iterable[Any] | None


def _shut_down(stream: Any) -> None:
    sock = stream.get_extra_info("socket")
    if sock is not None:
        shut_down(sock)


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, exchange: Exchange, streams: Sockets) -> None:
        self.inner = inner
        self._exchange = exchange
        self._pid = os.getpid()
        self._streams = streams
        streams.add(self)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        exchange = self._exchange
        asked = current.get(exchange)
        if asked is not exchange:
            asked.reused = True
            self._exchange = exchange = asked
        exchange.begin(partial(_shut_down, self.inner))
        if exchange.deadline is None:
            return self.inner.write(buffer, timeout)
        for start in range(0, len(buffer), _WRITE_SIZE):
            self.inner.write(buffer[start : start + _WRITE_SIZE], exchange.limit(timeout))
        return None

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        exchange = self._exchange
        data = self.inner.read(max_bytes, exchange.limit(timeout))
        if not exchange.in_body:
            exchange.received += len(data)
            exchange.check_head()
        return data

    def close(self) -> None:
        # In a forked child this is a copy: closing it must not end the parent's connection.
        if self._pid == os.getpid():
            _shut_down(self.inner)
        self.inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        exchange = self._exchange
        inner = self.inner.start_tls(ssl_context, server_hostname, exchange.limit(timeout))
        return _Stream(inner, exchange, self._streams)

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)


class _AsyncStream(httpcore.AsyncNetworkStream):
    """The async twin of `_Stream`."""

    def __init__(self, inner: httpcore.AsyncNetworkStream, exchange: Exchange) -> None:
        self.inner = inner
        self._exchange = exchange
        self._pid = os.getpid()

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        exchange = self._exchange
        asked = current.get(exchange)
        if asked is not exchange:
            asked.reused = True
            self._exchange = exchange = asked
        exchange.begin(partial(_shut_down, self.inner))
        await self.inner.write(buffer, exchange.limit(timeout))

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        exchange = self._exchange
        data = await self.inner.read(max_bytes, exchange.limit(timeout))
        if not exchange.in_body:
            exchange.received += len(data)
            exchange.check_head()
        return data

    async def aclose(self) -> None:
        # In a forked child the event loop's selector is shared with the parent: leave both alone.
        if self._pid == os.getpid():
            _shut_down(self.inner)
            await self.inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        exchange = self._exchange
        inner = await self.inner.start_tls(ssl_context, server_hostname, exchange.limit(timeout))
        return _AsyncStream(inner, exchange)

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)


class Sockets(httpcore.NetworkBackend):
    """Opens connections as `inner` does, and watches them."""

    def __init__(self, inner: httpcore.NetworkBackend) -> None:
        self._inner = inner
        self._open: weakref.WeakSet[_Stream] = weakref.WeakSet()

    def add(self, stream: _Stream) -> None:
        self._open.add(stream)

    def drop(self) -> None:
        """Let go of what a fork inherited, without a word to the server and without the parent's locks."""
        for stream in list(self._open):
            with contextlib.suppress(Exception):
                stream.inner.close()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: _Options = None,
    ) -> httpcore.NetworkStream:
        exchange = current.get()
        inner = self._inner.connect_tcp(host, port, exchange.limit(timeout), local_address, socket_options)
        return _Stream(inner, exchange, self)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: _Options = None
    ) -> httpcore.NetworkStream:
        exchange = current.get()
        inner = self._inner.connect_unix_socket(path, exchange.limit(timeout), socket_options)
        return _Stream(inner, exchange, self)

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


async def _cancellable(
    connecting: Coroutine[Any, Any, httpcore.AsyncNetworkStream],
) -> httpcore.AsyncNetworkStream:
    """Connect in a task of its own, so that a cancellation always arrives here.

    anyio cancels its other attempts once it is connected; before Python 3.11 it takes a cancellation from
    outside that comes in the same turn for its own, and goes on.
    """
    task = asyncio.ensure_future(connecting)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            await task.result().aclose()
        raise
    return task.result()


class AsyncSockets(httpcore.AsyncNetworkBackend):
    """The async twin of `Sockets`."""

    def __init__(self, inner: httpcore.AsyncNetworkBackend) -> None:
        self._inner = inner

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: _Options = None,
    ) -> httpcore.AsyncNetworkStream:
        exchange = current.get()
        limit = exchange.limit(timeout)
        connecting = self._inner.connect_tcp(host, port, limit, local_address, socket_options)
        inner = await (_cancellable(connecting) if sys.version_info < (3, 11) else connecting)
        return _AsyncStream(inner, exchange)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: _Options = None
    ) -> httpcore.AsyncNetworkStream:
        exchange = current.get()
        inner = await self._inner.connect_unix_socket(path, exchange.limit(timeout), socket_options)
        return _AsyncStream(inner, exchange)

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


def watch(transport: object) -> Sockets | None:
    """Put ourselves between httpx's transport and the network; what is no httpcore pool stays as it is.

    httpx offers no argument for it. Where these attributes are missing, deadlines are checked between pieces
    only and an idle connection that turns out closed costs an ordinary retry.
    """
    pool: Any = getattr(transport, "_pool", None)
    backend = getattr(pool, "_network_backend", None)
    if isinstance(backend, httpcore.NetworkBackend):
        pool._network_backend = sockets = Sockets(backend)
        return sockets
    if isinstance(backend, httpcore.AsyncNetworkBackend):
        pool._network_backend = AsyncSockets(backend)
    return None


async def sweep(transport: object) -> None:
    """Throw out connections that nobody holds, after a request was cancelled.

    httpcore forgets a connection whose request is cancelled between connecting and sending: it stays open, is
    never used again, and takes one of the pool's places for good.
    """
    pool: Any = getattr(transport, "_pool", None)
    connections, requests = getattr(pool, "_connections", None), getattr(pool, "_requests", None)
    if connections is None or requests is None:
        return
    held = {id(request.connection) for request in requests}
    lost = [it for it in connections if id(it) not in held and not it.is_idle() and not it.is_closed()]
    for connection in lost:
        connections.remove(connection)
    with anyio.CancelScope(shield=True):
        for connection in lost:
            await connection.aclose()
