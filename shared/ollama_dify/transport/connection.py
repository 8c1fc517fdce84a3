"""A connection to the server: one socket, one exchange at a time. `async_connection` is its twin."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import httpx

from .exchange import Exchange
from .http1 import Dialogue

__all__ = ["READ_SIZE", "WRITE_SIZE", "Connection", "Target", "close", "is_readable", "joined", "shut_down"]

READ_SIZE = 64 * 1024
# What is written under one timeout: a long request on a slow line takes longer than that, and goes on.
WRITE_SIZE = 256 * 1024


class Target(NamedTuple):
    """Where to connect to. host: a name or an IP address. tls: None for plain http."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    tls_name: str


def shut_down(sock: socket.socket) -> None:
    """End a connection although others hold copies of it: a forked child, or a thread that reads from it."""
    with contextlib.suppress(OSError):
        if isinstance(sock, ssl.SSLSocket):
            # Its own shutdown() would pull the TLS state from under a reading thread.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        else:
            sock.shutdown(socket.SHUT_RDWR)


class Connection:
    """Use it from one thread at a time; only `abort` may come from another.

    Raises httpx's errors: ConnectError, ConnectTimeout, WriteError, WriteTimeout, ReadError, ReadTimeout,
    LocalProtocolError, RemoteProtocolError.
    """

    def __init__(
        self, target: Target, options: Iterable[Any], exchange: Exchange, timeout: float | None
    ) -> None:
        """Connect. timeout: seconds for TCP, and as many for TLS; None for none."""
        sock = None
        try:
            sock = _connected_socket(target, options, exchange.limit(timeout))
            if target.tls is not None:
                sock.settimeout(exchange.limit(timeout))
                sock = target.tls.wrap_socket(sock, server_hostname=target.tls_name)
        except TimeoutError as error:
            close(sock)
            raise httpx.ConnectTimeout(str(error)) from error
        except (OSError, UnicodeError) as error:
            close(sock)
            raise httpx.ConnectError(str(error)) from error
        except BaseException:
            close(sock)
            raise
        self._sock = sock
        self._timeout = sock.gettimeout()
        self._pid = os.getpid()
        self._idle_since = 0.0
        self._used = False
        self.is_idle = False

    def begin(self, request: httpx.Request, exchange: Exchange) -> Dialogue:
        """Send a request, read the answer's head."""
        dialogue = Dialogue(request)
        exchange.begin(self.abort)
        exchange.reused, self._used, self.is_idle = self._used, True, False
        phases = request.extensions["timeout"]
        # A server that refuses before it has read everything may close: its answer says more than that.
        with contextlib.suppress(httpx.WriteError):
            for data in joined(dialogue.head, request.stream):  # type: ignore[arg-type]  # a sync body
                self._write(data, exchange, phases["write"])
        while True:
            data = self._read(exchange, phases["read"])
            exchange.received += len(data)
            if dialogue.feed(data):
                return dialogue
            exchange.check_head()

    def body(self, dialogue: Dialogue, request: httpx.Request, exchange: Exchange) -> Iterator[bytes]:
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
            # The wait between pieces is another than that for the head: the caller has changed it meanwhile.
            data = self._read(exchange, request.extensions["timeout"]["read"])
            if data:
                data = body.feed(data)
            else:
                body.end()
        self.is_idle = body.clean and dialogue.keeps
        self._idle_since = time.monotonic()

    def is_stale(self, keep_s: float) -> bool:
        """Whether an idle connection is of no more use: too old, or the server said something (its end)."""
        if time.monotonic() - self._idle_since > keep_s:
            return True
        return is_readable(self._sock)

    def abort(self) -> None:
        """Cut it, from any thread."""
        shut_down(self._sock)

    def close(self) -> None:
        # In a forked child this is a copy: closing it must not end the parent's connection.
        if self._pid == os.getpid():
            shut_down(self._sock)
        self._sock.close()

    def _read(self, exchange: Exchange, timeout: float | None) -> bytes:
        self._limit(exchange.limit(timeout))
        try:
            return self._sock.recv(READ_SIZE)
        except TimeoutError as error:
            raise httpx.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpx.ReadError(str(error)) from error

    def _write(self, data: bytes, exchange: Exchange, timeout: float | None) -> None:
        try:
            for start in range(0, len(data), WRITE_SIZE):
                self._limit(exchange.limit(timeout))
                self._sock.sendall(data[start : start + WRITE_SIZE])
        except TimeoutError as error:
            raise httpx.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpx.WriteError(str(error)) from error

    def _limit(self, timeout: float | None) -> None:
        """Set the socket's timeout, which is a system call, where it is another than before."""
        if timeout != self._timeout:
            self._sock.settimeout(timeout)
            self._timeout = timeout


def joined(head: bytes, body: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces to send; a head and what fits beside it make one packet."""
    pieces = iter(body)
    first = next(pieces, b"")
    if len(first) > WRITE_SIZE:
        yield head
        yield first
    else:
        yield head + first
    yield from pieces


def _connected_socket(target: Target, options: Iterable[Any], timeout: float | None) -> socket.socket:
    """A socket connected to the first of the host's addresses that answers; raises what the last one did.

    timeout: for all addresses together, where `socket.create_connection` gives each so much.
    """
    began = time.monotonic()
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    for number, (family, kind, proto, _, address) in enumerate(found, 1):
        sock = None
        try:
            sock = socket.socket(family, kind, proto)
            if timeout is not None:
                # One address that never answers leaves time for the others.
                left = timeout * number / len(found) - (time.monotonic() - began)
                sock.settimeout(max(left, 0.001))
            sock.connect(address)
            for option in ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *options):
                sock.setsockopt(*option)
            return sock
        except BaseException as error:
            close(sock)
            if number == len(found) or not isinstance(error, OSError):
                raise
    raise httpx.ConnectError("the host has no address")


def is_readable(sock: socket.socket) -> bool:
    """Whether an idle connection has bytes or an end to read."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([sock], [], [], 0)[0])


def close(sock: socket.socket | None) -> None:
    if sock is not None:
        sock.close()
