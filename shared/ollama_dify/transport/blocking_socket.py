"""A socket that blocks, under the face that `Connection` knows."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any

import httpx

from .addresses import connect
from .connection import READ_SIZE, is_readable, ready, shut_down

__all__ = ["BlockingSocket"]

_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class BlockingSocket:
    """Its coroutines never suspend. It owns its sockets from before they connect until `close`."""

    def __init__(self) -> None:
        self._made: list[socket.socket] = []
        self._timeout: float | None = None
        # What came while the request was being sent.
        self._early: bytes | None = None
        self._pid = os.getpid()

    async def connect(self, host: str, port: int, options: Sequence[Any], limit_s: float | None) -> None:
        until = None if limit_s is None else time.monotonic() + limit_s
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        left = None if until is None else until - time.monotonic()
        self._sock = connect(found, self._made, left)
        for sock in self._made:
            if sock is not self._sock:
                sock.close()
        self._made = [self._sock]
        self._timeout = 0.0
        for option in ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *options):
            self._sock.setsockopt(*option)

    async def start_tls(self, context: ssl.SSLContext, name: str, limit_s: float | None) -> str | None:
        self._limit(limit_s)
        plain = self._sock
        secure = context.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False)
        self._sock = secure
        self._made.append(secure)
        secure.do_handshake()
        return secure.selected_alpn_protocol()

    async def send(self, data: memoryview, limit_s: float | None) -> int:
        until = None if limit_s is None else time.monotonic() + limit_s
        left = limit_s
        self._limit(0.0)
        while True:
            try:
                return self._sock.send(data)
            except _NOT_NOW as error:
                if left is not None and left <= 0:
                    raise httpx.WriteTimeout("not taken in time") from error
            except OSError as error:
                raise httpx.WriteError(str(error)) from error
            # The kernel says that there is room only when there is plenty: a last attempt is made at the end.
            if ready(self._sock, left, write=True)[0] and self._read_early():
                return 0
            left = None if until is None else max(until - time.monotonic(), 0.0)

    def _read_early(self) -> bool:
        """Whether something came; with TLS, what made the socket readable may be no data."""
        try:
            self._early = self._sock.recv(READ_SIZE)
        except _NOT_NOW:
            return False
        except OSError as error:
            raise httpx.WriteError(str(error)) from error
        return True

    async def read(self, limit_s: float | None) -> bytes:
        return self.receive(limit_s)

    def receive(self, limit_s: float | None) -> bytes:
        """`read`, called."""
        if self._early is not None:
            early, self._early = self._early, None
            return early
        self._limit(limit_s)
        try:
            return self._sock.recv(READ_SIZE)
        except TimeoutError as error:
            raise httpx.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpx.ReadError(str(error)) from error

    def _limit(self, limit_s: float | None) -> None:
        """Set the socket's timeout, which is a system call, where it is another than before."""
        if limit_s != self._timeout:
            self._sock.settimeout(limit_s)
            self._timeout = limit_s

    def is_stale(self) -> bool:
        return is_readable(self._sock)

    def cut(self) -> None:
        for sock in list(self._made):
            shut_down(sock)

    def close(self) -> None:
        # In a forked child these are copies: closing one must not end the parent's connection.
        if self._pid == os.getpid():
            self.cut()
        for sock in self._made:
            sock.close()

    drop = close
