"""The two sockets of a `Connection`: one that blocks, and one that is awaited."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import ssl
import time
from typing import cast

import httpx

from .addresses import connect, resolve, resolve_async, within, writable, writable_async
from .network import countdown

__all__ = ["AnySocket", "AsyncSocket", "BlockingSocket", "is_late"]

READ_SIZE = 64 * 1024
# Unread bytes held here before reading from the server pauses.
_HELD_LIMIT = 256 * 1024
# SSLSocket's own shutdown would remove the TLS state while another thread reads.
_SHUTDOWN = socket.socket.shutdown
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class BlockingSocket:
    """Its coroutines never suspend. It owns its sockets from before they connect until `close`.

    limit_s: seconds for one operation, None for no limit. Raises httpx's ReadError, ReadTimeout, WriteError,
    WriteTimeout; `connect` and `start_tls` raise OSError.
    """

    def __init__(self) -> None:
        self._made: list[socket.socket] = []
        self._timeout: float | None = None
        # Bytes that arrived while the request was being sent.
        self._early: bytes | None = None
        self._is_cut = False
        self._pid = os.getpid()

    async def connect(self, host: str, port: int, limit_s: float | None) -> None:
        left = countdown(limit_s)
        self._sock = await connect(await resolve(host, port, limit_s), self._made, left, writable)
        if self._is_cut:  # perhaps when there was no socket yet
            raise httpx.ReadError("it was cut")
        self._timeout = 0.0

    async def start_tls(self, context: ssl.SSLContext, name: str, limit_s: float | None) -> str | None:
        """Returns the protocol that ALPN chose."""
        self._limit(limit_s)
        secure = context.wrap_socket(self._sock, server_hostname=name, do_handshake_on_connect=False)
        self._sock = secure
        self._made.append(secure)
        secure.do_handshake()
        return secure.selected_alpn_protocol()

    async def send(self, data: memoryview, limit_s: float | None) -> int:
        """Number of bytes sent; 0 if there is something to read first."""
        until, left = None if limit_s is None else time.monotonic() + limit_s, limit_s
        self._limit(0.0)
        while True:
            try:
                return self._sock.send(data)
            except _NOT_NOW as error:
                if left is not None and left <= 0:
                    raise httpx.WriteTimeout("not taken in time") from error
            except OSError as error:
                raise httpx.WriteError(str(error)) from error
            # The kernel reports room only if there is much of it, so a last attempt is made at the timeout.
            if _is_readable(self._sock, left, or_writable=True) and self._read_early():
                return 0
            left = None if until is None else max(until - time.monotonic(), 0.0)

    def _read_early(self) -> bool:
        """Whether something arrived; with TLS it may contain no data."""
        try:
            self._early = self._sock.recv(READ_SIZE)
        except _NOT_NOW:
            return False
        except OSError as error:
            raise httpx.WriteError(str(error)) from error
        return True

    async def read(self, limit_s: float | None) -> bytes:
        """The bytes that arrived; b"" at the end."""
        return self.receive(limit_s)

    def receive(self, limit_s: float | None) -> bytes:
        """`read` without a coroutine."""
        if self._early is not None:
            early, self._early = self._early, None
            return early
        self._limit(limit_s)
        try:
            return self._sock.recv(READ_SIZE)
        except OSError as error:
            raise (httpx.ReadTimeout if is_late(error) else httpx.ReadError)(str(error)) from error

    def _limit(self, limit_s: float | None) -> None:
        """Set the socket's timeout if it changed, because that is a system call."""
        if limit_s != self._timeout:
            self._sock.settimeout(limit_s)
            self._timeout = limit_s

    def is_stale(self) -> bool:
        """Whether bytes arrived on an idle connection, or the server ended it."""
        return _is_readable(self._sock, 0.0)

    def cut(self) -> None:
        """End the connection, from any thread or task; a reader sees its end."""
        self._is_cut = True
        # In a forked child these are copies: the parent's connection must not end.
        if self._pid == os.getpid():
            for sock in list(self._made):
                _shut_down(sock)

    def close(self) -> None:
        self.cut()
        for sock in self._made:
            sock.close()

    drop = close
    """Close the socket if no other reference to it exists; from any thread."""


class AsyncSocket(asyncio.Protocol):
    """The async twin of `BlockingSocket`, a protocol of asyncio; belongs to the event loop it was made in."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._made: list[socket.socket] = []
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._held = 0
        self._writable = True
        self._ended = False
        self._error: Exception | None = None
        # The waiter for bytes or for room to write; its deadline; the timer that checks it.
        self._waiter: asyncio.Future[bool] | None = None
        self._until: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._pid = os.getpid()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._held += len(data)
        if self._held > _HELD_LIMIT and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._error = exc
        if self._timer is not None:
            self._timer.cancel()
        # asyncio's transports fail if aborted after their end, and Python 3.10's TLS transports need a close.
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
        self._wake()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._wake()

    async def connect(self, host: str, port: int, limit_s: float | None) -> None:
        left = countdown(limit_s)
        found = await resolve_async(host, port, limit_s)
        sock = await connect(found, self._made, left, writable_async)
        await self._loop.create_connection(lambda: self, sock=sock)

    async def start_tls(self, context: ssl.SSLContext, name: str, limit_s: float | None) -> str | None:
        if self._transport is None:
            raise ConnectionResetError("the connection was closed")
        # asyncio's own limit is disabled: `within` applies ours.
        starting = self._loop.start_tls(
            self._transport, self, context, server_hostname=name, ssl_handshake_timeout=24 * 3600.0
        )
        self._transport = await within(starting, limit_s)
        if self._transport is None:
            raise ConnectionResetError("the connection was closed")
        chosen: str | None = self._transport.get_extra_info("ssl_object").selected_alpn_protocol()
        return chosen

    async def send(self, data: memoryview, limit_s: float | None) -> int:
        until = None if limit_s is None else time.monotonic() + limit_s
        while not self._writable:
            if self._pieces or self._ended:
                return 0
            if not await self._wait(until):
                raise httpx.WriteTimeout("not taken in time")
        if self._transport is None or self._ended:
            raise httpx.WriteError(str(self._error or "the connection was closed"))
        self._transport.write(data)
        return len(data)

    async def read(self, limit_s: float | None) -> bytes:
        if not self._pieces:
            until = None if limit_s is None else time.monotonic() + limit_s
            if not self._ended and not await self._wait(until):
                raise httpx.ReadTimeout("no byte in time")
            if self._error is not None and not self._pieces:
                raise httpx.ReadError(str(self._error)) from self._error
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self._held > _HELD_LIMIT and not self._ended and self._transport is not None:
            self._transport.resume_reading()
        self._held = 0
        return data

    def is_stale(self) -> bool:
        # Bytes that the event loop has not read yet would be taken for the next answer.
        return self._ended or bool(self._pieces) or _is_readable(self._made[0], 0.0)

    def cut(self) -> None:
        self._ended = True
        # In a forked child the event loop's selector is shared with the parent: leave both alone.
        if self._pid == os.getpid():
            # A forked child's copy must not keep the connection open.
            for sock in self._made:
                _shut_down(sock)
            if self._transport is not None:
                self._transport.abort()
        self._wake()

    def close(self) -> None:
        self.cut()
        if self._transport is None and self._pid == os.getpid():
            for sock in self._made:
                sock.close()

    def drop(self) -> None:
        if self._transport is not None and self._pid == os.getpid():
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                self._loop.call_soon_threadsafe(self.close)

    async def _wait(self, until: float | None) -> bool:
        """Wait until something happens on the connection; False if nothing did in time.

        until: on the monotonic clock; uvloop's own clock is behind it, so a deadline would seem not reached.
        """
        waiter = self._waiter = self._loop.create_future()
        self._until = until
        if until is not None and (self._timer is None or self._due > until):
            self._look()
        try:
            happened: bool = await waiter
            return happened
        finally:
            self._waiter = None

    def _look(self) -> None:
        """End a wait that is too long, else check again later: a timer per token would be slower."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiter is None or self._until is None or self._waiter.done():
            return
        left = self._until - time.monotonic()
        if left > 0:
            self._due, self._timer = self._until, self._loop.call_later(left, self._look)
        else:
            self._waiter.set_result(False)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)


AnySocket = BlockingSocket | AsyncSocket


def is_late(error: Exception) -> bool:
    """Whether an error is a limit of ours; those of the system have a number, such as ETIMEDOUT."""
    return isinstance(error, TimeoutError) and error.errno is None


def _shut_down(sock: socket.socket) -> None:
    """End a connection even if a forked child has a copy of it, or a thread reads from it."""
    with contextlib.suppress(OSError):
        _SHUTDOWN(sock, socket.SHUT_RDWR)


def _is_readable(sock: socket.socket, limit_s: float | None, *, or_writable: bool = False) -> bool:
    """Whether there are bytes or an end to read; waits for that, or with or_writable for room to write."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLIN | (select.POLLOUT if or_writable else 0))
        events = poll.poll(None if limit_s is None else limit_s * 1000)
        return bool(events and events[0][1] & ~select.POLLOUT)
    return bool(select.select([sock], [sock] if or_writable else [], [], limit_s)[0])
