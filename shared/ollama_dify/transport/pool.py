"""Connections to one server, kept for reuse; the queue (`Slots`) limits their number."""

from __future__ import annotations

import asyncio
import contextlib
import math
import ssl
import time
import weakref
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from http.client import responses
from typing import Any, NamedTuple

import httpx

from .http1 import Http1
from .network import CancelToken, countdown, run
from .sockets import AnySocket, is_late

__all__ = ["STATE", "Pool", "RequestState", "Target"]

KEEP_S = 30.0
_LOST = (httpx.NetworkError, httpx.RemoteProtocolError)
# The key of our state in the extensions of an httpx request.
STATE = "ollama_dify"


class RequestState:
    """One request and its answer, under the token of its call.

    deadline: on the monotonic clock, None for none; phase: the limit that set it ("total", "answer" or
    "first_byte"). in_body: the answer's head is complete.
    cut: ends the connection, from any thread or task, while it serves this request.
    """

    def __init__(self, deadline: float | None = None, token: CancelToken | None = None) -> None:
        self._token = CancelToken() if token is None else token
        self.deadline = deadline
        self.phase = "total"
        self.in_body = False
        self.cut: Callable[[], None] | None = None

    def begin(self, cut: Callable[[], None] | None = None) -> None:
        """A connection serves the request from now on. Raises ReadError if the call was cancelled."""
        self.cut = cut
        if self._token.cancelled:
            raise httpx.ReadError("it was cancelled")

    @property
    def is_late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def hurry(self, seconds: float | None, phase: str | None = None) -> None:
        """Limit the remaining time; None for no limit. phase: the name of this limit."""
        soon = math.inf if seconds is None else time.monotonic() + seconds
        if soon < (math.inf if self.deadline is None else self.deadline):
            self.deadline, self.phase = soon, phase or self.phase

    def limit(self, timeout: float | None) -> float | None:
        """The timeout of one operation, at most the time left; raises ReadTimeout if none is left."""
        if self.deadline is None:
            return timeout
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise httpx.ReadTimeout(self.phase)
        return left if timeout is None else min(timeout, left)


class Target(NamedTuple):
    """Where to connect to. tls: None for plain http. ip: connected to instead of the URL's host."""

    url: httpx.URL
    tls: ssl.SSLContext | None = None
    proxy: httpx.Proxy | None = None
    ip: str | None = None


class Connection:
    """Use it from one thread or task at a time; only its socket's `cut` may be called from another.

    answered: bytes arrived for the last request. Raises httpx's errors. Its user holds the only reference:
    without one it closes its socket.
    """

    def __init__(self, sock: AnySocket, target: Target) -> None:
        self.socket = sock
        self._target = target
        self.idle_since = 0.0
        self.is_idle = self.answered = self._is_open = False

    async def _open(self, state: RequestState, limit_s: float | None) -> None:
        """Connect. limit_s: for the addresses, the proxy and TLS together; None for no limit."""
        url, tls, proxy, ip = self._target
        name, port = url.raw_host.decode("ascii"), url.port or (80 if tls is None else 443)
        host, at = ip or name, port
        if proxy is not None:
            host, at = proxy.url.raw_host.decode("ascii"), proxy.url.port or 80
        left = countdown(state.limit(limit_s))
        try:
            await self.socket.connect(host, at, left())
            if tls is not None:
                if proxy is not None:
                    place = f"[{name}]" if ":" in name else name
                    await self._open_tunnel(f"{place}:{port}", left)
                chosen = await self.socket.start_tls(tls, name, left())
                if chosen not in (None, "http/1.1"):
                    raise httpx.UnsupportedProtocol(f"the SSLContext of verify= offers {chosen}")
            self._is_open = True
        except (OSError, UnicodeError) as error:
            raise (httpx.ConnectTimeout if is_late(error) else httpx.ConnectError)(str(error)) from error

    async def _open_tunnel(self, place: str, left: Callable[..., float | None]) -> None:
        """Have the proxy connect to the server."""
        asked = httpx.Request("CONNECT", f"http://{place}", headers={"Host": place})
        http = Http1(asked, target=place.encode("ascii"), more_headers=self._credentials())
        try:
            for data in http.request:
                while data:
                    data = data[await self.socket.send(data, left()) :]
            while not http.feed(await self.socket.read(left())):
                pass
        # A failure at the proxy is not an answer of the server; a timeout here is one of connecting.
        except httpx.TimeoutException as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
            raise httpx.ProxyError(str(error)) from error
        if not 200 <= http.status < 300:
            raise httpx.ProxyError(f"{http.status} {responses.get(http.status, '')}".rstrip())
        if not http.body.clean:
            raise httpx.ProxyError("it sent bytes before the server could")

    def _credentials(self) -> list[tuple[bytes, bytes]]:
        """The headers for the proxy only."""
        proxy = self._target.proxy
        if proxy is None or proxy.raw_auth is None:
            return []
        return [(b"Proxy-Authorization", b"Basic " + b64encode(b":".join(proxy.raw_auth)))]

    async def begin(self, request: httpx.Request, state: RequestState) -> Http1:
        """Send a request, read the response's head; an early response stops the sending."""
        phases = request.extensions["timeout"]
        state.begin(self.socket.cut)
        if not self._is_open:
            await self._open(state, phases["connect"])
        http = self._http1(request)
        self.is_idle = self.answered = False
        complete = cut_short = False
        # A server may refuse and close before it has read everything; then its answer is still read.
        with contextlib.suppress(httpx.WriteError):
            for data in http.request:
                cut_short = True
                while data and not complete:
                    taken = await self.socket.send(data, state.limit(phases["write"]))
                    data = data[taken:]
                    if not taken:
                        complete = await self._read_head(http, state, phases["write"])
                if complete:
                    break
            else:
                cut_short = False
        http.request = iter(())
        while not complete:
            complete = await self._read_head(http, state, phases["read"])
        http.keeps = http.keeps and not cut_short
        return http

    def _http1(self, request: httpx.Request) -> Http1:
        if self._target.proxy is None or self._target.tls is not None:
            return Http1(request)
        url = request.url
        target = b"%b://%b%b" % (url.raw_scheme, url.netloc, url.raw_path)
        return Http1(request, target=target, more_headers=self._credentials())

    async def _read_head(self, http: Http1, state: RequestState, limit_s: float | None) -> bool:
        data = await self.socket.read(state.limit(limit_s))
        self.answered = self.answered or bool(data)
        return http.feed(data)

    def is_stale(self) -> bool:
        """Whether an idle connection is unusable: too old, or bytes or an end arrived from the server."""
        return time.monotonic() - self.idle_since > KEEP_S or self.socket.is_stale()

    def __del__(self) -> None:
        sock = getattr(self, "socket", None)  # an interrupt may have come before it was set
        if sock is not None:
            sock.drop()


class Pool(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Called from any thread with `BlockingSocket`, awaited in one event loop with `AsyncSocket`.

    The pool holds idle connections, the newest is used first; a connection in use is held by its user.
    """

    def __init__(self, target: Target, new_socket: Callable[[], AnySocket]) -> None:
        self._target = target
        self._new_socket = new_socket
        # Changed only by single operations, which are atomic between threads.
        self._idle: list[Connection] = []
        self._alive: set[weakref.ref[Connection]] = set()
        self._closed = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return run(self.handle_async_request(request))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the response's head is read."""
        state = request.extensions.get(STATE) or RequestState()
        kept = self._take()
        if kept is not None:
            try:
                return await self._exchange(kept, request, state)
            except _LOST:
                # No byte came back: it was closed while idle, and others may have been closed too.
                if kept.answered:
                    raise
        connection = Connection(self._new_socket(), self._target)
        self._alive.add(weakref.ref(connection, self._alive.discard))
        return await self._exchange(connection, request, state)

    async def _exchange(
        self, connection: Connection, request: httpx.Request, state: RequestState
    ) -> httpx.Response:
        try:
            self._check_open()  # checked once `close` can see this connection
            http = await connection.begin(request, state)
        except BaseException as error:
            connection.socket.close()
            if isinstance(error, httpx.NetworkError):
                self._check_open()
            raise
        body = _Body(self, connection, http, state, request.extensions["timeout"])
        return httpx.Response(http.status, headers=http.headers, stream=body, request=request)

    def _check_open(self) -> None:
        if self._closed:
            raise httpx.LocalProtocolError("the pool is closed")

    def _take(self) -> Connection | None:
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread was faster
                connection = self._idle.pop()
                if not connection.is_stale():
                    return connection
                connection.socket.close()
        return None

    def give_back(self, connection: Connection) -> None:
        if connection.is_idle:
            self._idle.append(connection)
        else:
            connection.socket.close()
        if self._closed:  # checked last: another thread may close at any time
            self._close_idle()

    def _close_idle(self) -> None:
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().socket.close()

    def close(self) -> None:
        self._closed = True
        self._close_idle()
        # The user closes it: a freed descriptor could be reused while another thread still reads from it.
        for known in list(self._alive):
            connection = known()
            if connection is not None:
                connection.socket.cut()

    async def aclose(self) -> None:
        self.close()
        # The event loop closes the sockets in its next iteration.
        await asyncio.sleep(0)


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A response's body; closing it gives the connection back. No async generator: `break` leaves it open.

    phases: the request's timeouts; the caller changes "read" after the head.
    """

    def __init__(
        self, pool: Pool, connection: Connection, http: Http1, state: RequestState, phases: Any
    ) -> None:
        self._pool = pool
        self._connection: Connection | None = connection
        self._http = http
        self._socket: Any = connection.socket
        self._state = state
        self._phases = phases

    def _is_over(self) -> bool:
        """Whether the body is complete, so that the connection is idle. Raises the body's error."""
        body = self._http.body
        if body.error is not None:
            raise body.error
        if body.finished and self._connection is not None:
            self._connection.is_idle = body.clean and self._http.keeps
            self._connection.idle_since = time.monotonic()
        return body.finished or self._connection is None

    def _limit(self) -> float | None:
        return self._state.limit(self._phases["read"])

    def __iter__(self) -> Iterator[bytes]:
        body, receive, limit = self._http.body, self._socket.receive, self._limit
        if self._http.rest:
            yield self._http.rest
        while not self._is_over():
            data = receive(limit())
            if not data:
                body.end()
            elif data := body.feed(data):
                yield data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        body = self._http.body
        if data := self._http.rest:
            self._http.rest = b""
            return data
        while not self._is_over():
            data = await self._socket.read(self._limit())
            if not data:
                body.end()
            elif data := body.feed(data):
                return data
        raise StopAsyncIteration

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give_back(connection)

    async def aclose(self) -> None:
        self.close()
