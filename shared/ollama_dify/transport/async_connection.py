"""A connection, awaited: the twin of `connection`, as a protocol of asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncGenerator, Iterable
from typing import Any, cast

import anyio
import httpx

from .connection import WRITE_SIZE, Target, close, is_readable, joined, shut_down
from .exchange import Exchange
from .http1 import Dialogue

__all__ = ["AsyncConnection", "connect"]

# What may wait here unread before the server is made to wait.
_HELD_LIMIT = 256 * 1024
# No limit of asyncio's own: ours is around it.
_LONG_S = 24 * 3600.0


class AsyncConnection(asyncio.BufferedProtocol):
    """The async twin of `Connection`: use it from one task at a time; only `abort` may come from another."""

    def __init__(self, sock: socket.socket, buffer: bytearray) -> None:
        """sock: the transport's. buffer: where the event loop puts what it reads; shared by all."""
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(buffer)
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._held = 0
        self._reading = True
        self._writable = True
        self._ended = False
        self._error: Exception | None = None
        # Who waits for bytes, or for room to write; until when; and the timer that looks after it.
        self._waiter: asyncio.Future[bool] | None = None
        self._until: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._pid = os.getpid()
        self._idle_since = 0.0
        self._used = False
        self.is_idle = False

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._pieces.append(bytes(self._buffer[:nbytes]))
        self._held += nbytes
        if self._held > _HELD_LIMIT and self._reading and self._transport is not None:
            self._transport.pause_reading()
            self._reading = False
        self._wake()

    def eof_received(self) -> None:
        self._ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._error = exc
        if self._timer is not None:
            self._timer.cancel()
        # asyncio's transports break when aborted after their end, and Python 3.10's TLS ones want a close.
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
        self._wake()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._wake()

    # What the pool calls.

    async def begin(self, request: httpx.Request, exchange: Exchange) -> Dialogue:
        """Send a request, read the answer's head."""
        dialogue = Dialogue(request)
        exchange.begin(self.abort)
        exchange.reused, self._used, self.is_idle = self._used, True, False
        phases = request.extensions["timeout"]
        # A server that refuses before it has read everything may close: its answer says more than that.
        with contextlib.suppress(httpx.WriteError):
            for data in joined(dialogue.head, cast(Iterable[bytes], request.stream)):
                await self._write(data, exchange, phases["write"])
        while True:
            data = await self._read(exchange, phases["read"])
            exchange.received += len(data)
            if dialogue.feed(data):
                return dialogue
            exchange.check_head()

    async def body(
        self, dialogue: Dialogue, request: httpx.Request, exchange: Exchange
    ) -> AsyncGenerator[bytes, None]:
        """The answer's body as it comes; at its end the connection may be idle."""
        body = dialogue.body
        data, dialogue.rest = dialogue.rest, b""
        if data:
            data = body.feed(data)
        while True:
            if data:
                yield data
            if body.finished:
                break
            if body.error is not None:
                raise body.error
            data = await self._read(exchange, request.extensions["timeout"]["read"])
            if data:
                data = body.feed(data)
            else:
                body.end()
        self.is_idle = body.clean and dialogue.keeps
        self._idle_since = time.monotonic()

    def is_stale(self, keep_s: float) -> bool:
        """Whether an idle connection is of no more use: too old, or the server said something (its end)."""
        if self._ended or self._pieces or time.monotonic() - self._idle_since > keep_s:
            return True
        # What the event loop had no turn to read would be taken for the next answer.
        return is_readable(self._sock)

    def abort(self) -> None:
        """Cut it, from any task."""
        self._ended = True
        self.close()
        self._wake()

    def close(self) -> None:
        # In a forked child the event loop's selector is shared with the parent: leave both alone.
        if self._transport is not None and self._pid == os.getpid():
            # A forked child's copy must not keep the connection open.
            shut_down(self._sock)
            self._transport.abort()

    async def _read(self, exchange: Exchange, limit_s: float | None) -> bytes:
        if not self._pieces:
            limit = exchange.limit(limit_s)
            until = None if limit is None else time.monotonic() + limit
            if not self._ended and not await self._wait(until):
                raise httpx.ReadTimeout("no byte in time")
            if not self._pieces:
                if self._error is not None:
                    raise httpx.ReadError(str(self._error)) from self._error
                return b""
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._held = 0
        if not self._reading and not self._ended and self._transport is not None:
            self._transport.resume_reading()
            self._reading = True
        return data

    async def _write(self, data: bytes, exchange: Exchange, limit_s: float | None) -> None:
        for start in range(0, len(data), WRITE_SIZE):
            limit = exchange.limit(limit_s)
            until = None if limit is None else time.monotonic() + limit
            if self._transport is None or self._ended:
                raise httpx.WriteError("the connection was closed")
            self._transport.write(data[start : start + WRITE_SIZE])
            while not self._writable:
                if not await self._wait(until):
                    raise httpx.WriteTimeout("not taken in time")
                if self._ended:
                    raise httpx.WriteError(str(self._error or "the connection was closed"))

    async def _wait(self, until: float | None) -> bool:
        """Until something happens on the connection; False when nothing did in time.

        until: on the monotonic clock; uvloop's own lags behind, so that a deadline would seem not reached.
        """
        waiter = self._waiter = self._loop.create_future()
        self._until = until
        if until is not None and (self._timer is None or self._due > until):
            self._look_again(until)
        try:
            happened: bool = await waiter
            return happened
        finally:
            self._waiter = None

    def _look_again(self, when: float) -> None:
        """Have one timer go off now and then: setting one for each token costs more than that."""
        if self._timer is not None:
            self._timer.cancel()
        self._due = when
        self._timer = self._loop.call_later(max(when - time.monotonic(), 0), self._look)

    def _look(self) -> None:
        self._timer = None
        if self._waiter is None or self._until is None:
            return
        if time.monotonic() < self._until:
            self._look_again(self._until)
        elif not self._waiter.done():
            self._waiter.set_result(False)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)


async def connect(
    target: Target, options: Iterable[Any], exchange: Exchange, limit_s: float | None, buffer: bytearray
) -> AsyncConnection:
    """Connect. limit_s: for TCP and TLS together; None for none. Raises ConnectError, ConnectTimeout."""
    limit_s = exchange.limit(limit_s)
    try:
        # Not asyncio.wait_for: before Python 3.12 it loses a cancellation that comes as the connection does.
        with anyio.fail_after(limit_s):
            sock = await _connected_socket(target, options, limit_s)
            tls: dict[str, Any] = {}
            if target.tls is not None:
                tls = {"ssl": target.tls, "server_hostname": target.tls_name}
                tls["ssl_handshake_timeout"] = _LONG_S
            loop = asyncio.get_running_loop()
            connection = AsyncConnection(sock, buffer)
            await loop.create_connection(lambda: connection, sock=sock, **tls)
            return connection
    except TimeoutError as error:
        raise httpx.ConnectTimeout(str(error)) from error
    except (OSError, UnicodeError) as error:
        raise httpx.ConnectError(str(error)) from error


async def _connected_socket(target: Target, options: Iterable[Any], limit_s: float | None) -> socket.socket:
    """A socket connected to the first of the host's addresses that answers; raises what the last one did.

    asyncio's own way loses the socket when it is cancelled at the wrong moment.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    # One address that never answers leaves time for the others.
    share = None if limit_s is None else limit_s / len(found)
    for number, (family, kind, proto, _, address) in enumerate(found, 1):
        last = number == len(found)
        sock = None
        try:
            sock = socket.socket(family, kind, proto)
            sock.setblocking(False)
            with anyio.move_on_after(None if last else share):
                await loop.sock_connect(sock, address)
                for option in ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *options):
                    sock.setsockopt(*option)
                return sock
        except BaseException as error:
            close(sock)
            if last or not isinstance(error, OSError):
                raise
        else:
            close(sock)
    raise httpx.ConnectError("none of the host's addresses answered in time")
