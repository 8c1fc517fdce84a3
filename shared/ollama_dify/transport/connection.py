"""A connection to the server: one socket, one exchange at a time, called or awaited."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import httpx

from .http1 import Http1
from .proxy import Proxy, ProxyRefusedError
from .state import RequestState

__all__ = [
    "READ_SIZE",
    "AnySocket",
    "Connection",
    "Target",
    "is_readable",
    "ready",
    "shut_down",
    "target_of",
]

READ_SIZE = 64 * 1024


class Target(NamedTuple):
    """Where to connect to. host: a name or an IP address. tls: None for plain http."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    tls_name: str
    proxy: Proxy | None = None


def target_of(url: httpx.URL, tls: ssl.SSLContext, proxy: Proxy | None = None) -> Target:
    """Where a URL leads to."""
    host, secure = url.raw_host.decode("ascii"), url.scheme == "https"
    return Target(host, url.port or (443 if secure else 80), tls if secure else None, host, proxy)


class AnySocket(Protocol):
    """A socket for a `Connection`: `BlockingSocket`, whose coroutines never suspend, or `AsyncSocket`.

    limit_s: seconds for this operation, None for no limit. Raises httpx's ReadError, ReadTimeout,
    WriteError, WriteTimeout; connect and start_tls raise OSError.
    """

    async def connect(self, host: str, port: int, options: Sequence[Any], limit_s: float | None) -> None: ...

    async def start_tls(self, context: ssl.SSLContext, name: str, limit_s: float | None) -> str | None:
        """Returns the protocol that ALPN chose."""

    async def send(self, data: memoryview, limit_s: float | None) -> int:
        """How many bytes were taken; 0 when there is something to read first."""

    async def read(self, limit_s: float | None) -> bytes:
        """What has come, b"" at the end."""

    def is_stale(self) -> bool:
        """Whether the server said something on an idle connection, or ended it."""

    def cut(self) -> None:
        """End it, from any thread or task; who reads from it sees the end."""

    def close(self) -> None: ...

    def drop(self) -> None:
        """Close it where nobody else holds it any more; from any thread."""


class Connection:
    """Use it from one thread or task at a time; only its socket's `cut` may come from another.

    Raises httpx's errors. Who uses it holds it: one that nobody holds closes its socket.
    """

    def __init__(self, sock: AnySocket, target: Target) -> None:
        self.socket = sock
        self._target = target
        self._idle_since = 0.0
        self._used = False
        self.is_idle = False

    async def open(self, options: Sequence[Any], state: RequestState, limit_s: float | None) -> None:
        """Connect. limit_s: for the addresses, the proxy and TLS together; None for no limit."""
        target = self._target
        state.begin(self.socket.cut)
        limit_s = state.limit(limit_s)
        until = None if limit_s is None else time.monotonic() + limit_s

        def left() -> float | None:
            return None if until is None else max(until - time.monotonic(), 0.001)

        try:
            proxy = target.proxy
            host, port = (target.host, target.port) if proxy is None else (proxy.host, proxy.port)
            await self.socket.connect(host, port, options, left())
            if target.tls is not None:
                if proxy is not None:
                    await self._open_tunnel(proxy, left)
                chosen = await self.socket.start_tls(target.tls, target.tls_name, left())
                if chosen not in (None, "http/1.1"):
                    raise httpx.UnsupportedProtocol(f"the SSLContext of verify= offers {chosen}")
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(str(error)) from error

    async def _open_tunnel(self, proxy: Proxy, left: Callable[[], float | None]) -> None:
        """Have the proxy connect to the server; raises ProxyRefusedError."""
        place = f"{self._target.host}:{self._target.port}"
        asked = httpx.Request("CONNECT", f"http://{place}", headers={"Host": place})
        http = Http1(asked, target=place.encode("ascii"), more_headers=proxy.headers)
        try:
            while data := http.unsent():
                http.sent(await self.socket.send(data, left()))
            while not http.feed(await self.socket.read(left())):
                pass
        # What fails at the proxy is no answer of the server; what takes too long is a part of connecting.
        except httpx.TimeoutException as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
            raise httpx.ProxyError(str(error)) from error
        if not 200 <= http.status < 300:
            raise ProxyRefusedError(http.status)
        if not http.body.clean:
            raise httpx.ProxyError("it sent bytes before the server could")

    async def begin(self, request: httpx.Request, state: RequestState) -> Http1:
        """Send a request, read the response's head; one that comes before all is sent ends the sending."""
        http = self._http1(request)
        state.begin(self.socket.cut)
        state.reused, self._used, self.is_idle = self._used, True, False
        phases = request.extensions["timeout"]
        complete = cut_short = False
        # A server that refuses before it has read everything may close: its answer says more than that.
        with contextlib.suppress(httpx.WriteError):
            while (data := http.unsent()) and not complete:
                cut_short = True
                taken = await self.socket.send(data, state.limit(phases["write"]))
                if taken:
                    http.sent(taken)
                else:
                    complete = await self._read_head(http, state, phases["write"])
            cut_short = bool(data)
        http.stop_sending()
        while not complete:
            complete = await self._read_head(http, state, phases["read"])
        http.keeps = http.keeps and not cut_short
        return http

    def _http1(self, request: httpx.Request) -> Http1:
        proxy = self._target.proxy
        if proxy is None or self._target.tls is not None:
            return Http1(request)
        url = request.url
        target = b"%b://%b%b" % (url.raw_scheme, url.netloc, url.raw_path)
        return Http1(request, target=target, more_headers=proxy.headers)

    async def _read_head(self, http: Http1, state: RequestState, limit_s: float | None) -> bool:
        data = await self.socket.read(state.limit(limit_s))
        state.received += len(data)
        return http.feed(data)

    def end(self, http: Http1) -> None:
        """The response was read to its end."""
        self.is_idle = http.body.clean and http.keeps
        self._idle_since = time.monotonic()

    def is_stale(self, keep_s: float) -> bool:
        """Whether an idle connection is of no more use: too old, or the server said something (its end)."""
        return time.monotonic() - self._idle_since > keep_s or self.socket.is_stale()

    def __del__(self) -> None:
        sock = getattr(self, "socket", None)  # an interrupt may have come before it was set
        if sock is not None:
            sock.drop()


def shut_down(sock: socket.socket) -> None:
    """End a connection although others hold copies of it: a forked child, or a thread that reads from it."""
    with contextlib.suppress(OSError):
        if isinstance(sock, ssl.SSLSocket):
            # Its own shutdown() would pull the TLS state from under a reading thread.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        else:
            sock.shutdown(socket.SHUT_RDWR)


def is_readable(sock: socket.socket) -> bool:
    """Whether an idle connection has bytes or an end to read."""
    return ready(sock, 0.0, write=False)[0]


def ready(sock: socket.socket, limit_s: float | None, *, write: bool) -> tuple[bool, bool]:
    """Whether there is something to read, and room to write; waits for either."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLIN | (select.POLLOUT if write else 0))
        events = poll.poll(None if limit_s is None else limit_s * 1000)
        seen = events[0][1] if events else 0
        return bool(seen & ~select.POLLOUT), bool(seen & select.POLLOUT)
    readable, writable, _ = select.select([sock], [sock] if write else [], [], limit_s)
    return bool(readable), bool(writable)
