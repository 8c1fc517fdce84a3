"""A socket that is awaited, as a protocol of asyncio, under the face that `Connection` knows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any, cast

import httpx

from .addresses import connect_async, resolved_async, within
from .connection import is_readable, shut_down

__all__ = ["AsyncSocket"]

# What may wait here unread before the server is made to wait.
_HELD_LIMIT = 256 * 1024
# No limit of asyncio's own: ours is around it.
_LONG_S = 24 * 3600.0


class AsyncSocket(asyncio.BufferedProtocol):
    """Belongs to the event loop that it was made in."""

    def __init__(self, buffer: bytearray) -> None:
        """buffer: where the event loop puts what it reads; shared by all."""
        self._sock: socket.socket | None = None
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

    # What the connection calls.

    async def connect(self, host: str, port: int, options: Sequence[Any], limit_s: float | None) -> None:
        until = None if limit_s is None else time.monotonic() + limit_s
        found = await resolved_async(host, port, limit_s)
        left = None if until is None else until - time.monotonic()
        self._sock = sock = await connect_async(found, left)
        for option in ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *options):
            sock.setsockopt(*option)
        await self._loop.create_connection(lambda: self, sock=sock)

    async def start_tls(self, context: ssl.SSLContext, name: str, limit_s: float | None) -> str | None:
        if self._transport is None:
            raise ConnectionResetError("the connection was closed")
        starting = self._loop.start_tls(
            self._transport, self, context, server_hostname=name, ssl_handshake_timeout=_LONG_S
        )
        secure = await within(starting, limit_s)
        if secure is None:
            raise ConnectionResetError("the connection was closed")
        self._transport = secure
        chosen: str | None = secure.get_extra_info("ssl_object").selected_alpn_protocol()
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

    def is_stale(self) -> bool:
        if self._ended or self._pieces or self._sock is None:
            return True
        # What the event loop had no turn to read would be taken for the next answer.
        return is_readable(self._sock)

    def cut(self) -> None:
        self._ended = True
        self.close()
        self._wake()

    def close(self) -> None:
        # In a forked child the event loop's selector is shared with the parent: leave both alone.
        if self._sock is None or self._pid != os.getpid():
            return
        # A forked child's copy must not keep the connection open.
        shut_down(self._sock)
        if self._transport is not None:
            self._transport.abort()
        else:
            self._sock.close()

    def drop(self) -> None:
        if self._transport is not None and self._pid == os.getpid():
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                self._loop.call_soon_threadsafe(self.close)

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
