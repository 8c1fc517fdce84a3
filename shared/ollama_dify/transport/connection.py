"""A connection to the server: one socket, one exchange at a time, called or awaited."""

from __future__ import annotations

import contextlib
import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from http.client import responses
from typing import NamedTuple

import httpx

from .http1 import Http1
from .network import CancelToken, countdown
from .sockets import AnySocket

__all__ = ["STATE", "Connection", "RequestState", "Target", "nothing", "target_of"]


# Where a request of httpx holds its state, beside its timeouts.
STATE = "ollama_dify"


def nothing() -> None:
    """What `cut` does where no connection serves the request."""


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
        self.cut: Callable[[], None] = nothing

    def begin(self, cut: Callable[[], None] = nothing) -> None:
        """A connection serves it from now on. Raises ReadError where the call was cancelled."""
        self.cut = cut
        if self._token.cancelled:
            raise httpx.ReadError("it was cancelled")

    @property
    def is_late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def hurry(self, seconds: float, phase: str | None = None) -> None:
        """Allow the rest only this long. phase: the limit that these seconds are."""
        soon = time.monotonic() + seconds
        if self.deadline is None or soon < self.deadline:
            self.deadline, self.phase = soon, phase or self.phase

    def limit(self, timeout: float | None) -> float | None:
        """The timeout of one operation, cut to what is left; raises ReadTimeout when nothing is."""
        if self.deadline is None:
            return timeout
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise httpx.ReadTimeout(self.phase)
        return left if timeout is None else min(timeout, left)


class Target(NamedTuple):
    """Where to connect to. host: a name or an IP address. tls: None for plain http."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    tls_name: str
    proxy: httpx.Proxy | None = None


def target_of(url: httpx.URL, tls: Callable[[], ssl.SSLContext], proxy: httpx.Proxy | None = None) -> Target:
    """Where a URL leads to. tls: called for https only."""
    host, secure = url.raw_host.decode("ascii"), url.scheme == "https"
    return Target(host, url.port or (443 if secure else 80), tls() if secure else None, host, proxy)


class Connection:
    """Use it from one thread or task at a time; only its socket's `cut` may come from another.

    answered: something came back for the last request. Raises httpx's errors. Who uses it holds it: one that
    nobody holds closes its socket.
    """

    def __init__(self, sock: AnySocket, target: Target) -> None:
        self.socket = sock
        self._target = target
        self._idle_since = 0.0
        self.is_open = self.is_idle = self.answered = False

    async def open(self, state: RequestState, limit_s: float | None) -> None:
        """Connect. limit_s: for the addresses, the proxy and TLS together; None for no limit."""
        target = self._target
        state.begin(self.socket.cut)
        left = countdown(state.limit(limit_s))
        try:
            if target.proxy is None:
                await self.socket.connect(target.host, target.port, left())
            else:
                via = target.proxy.url
                await self.socket.connect(via.raw_host.decode("ascii"), via.port or 80, left())
            if target.tls is not None:
                if target.proxy is not None:
                    await self._open_tunnel(left)
                chosen = await self.socket.start_tls(target.tls, target.tls_name, left())
                if chosen not in (None, "http/1.1"):
                    raise httpx.UnsupportedProtocol(f"the SSLContext of verify= offers {chosen}")
            self.is_open = True
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(str(error)) from error

    async def _open_tunnel(self, left: Callable[..., float | None]) -> None:
        """Have the proxy connect to the server."""
        place = f"{self._target.host}:{self._target.port}"
        asked = httpx.Request("CONNECT", f"http://{place}", headers={"Host": place})
        http = Http1(asked, target=place.encode("ascii"), more_headers=self._credentials())
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
            raise httpx.ProxyError(f"{http.status} {responses.get(http.status, '')}".rstrip())
        if not http.body.clean:
            raise httpx.ProxyError("it sent bytes before the server could")

    def _credentials(self) -> list[tuple[bytes, bytes]]:
        """The headers that the proxy alone gets."""
        proxy = self._target.proxy
        if proxy is None or proxy.raw_auth is None:
            return []
        return [(b"Proxy-Authorization", b"Basic " + b64encode(b":".join(proxy.raw_auth)))]

    async def begin(self, request: httpx.Request, state: RequestState) -> Http1:
        """Send a request, read the response's head; one that comes before all is sent ends the sending."""
        http = self._http1(request)
        state.begin(self.socket.cut)
        self.is_idle = self.answered = False
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
        if self._target.proxy is None or self._target.tls is not None:
            return Http1(request)
        url = request.url
        target = b"%b://%b%b" % (url.raw_scheme, url.netloc, url.raw_path)
        return Http1(request, target=target, more_headers=self._credentials())

    async def _read_head(self, http: Http1, state: RequestState, limit_s: float | None) -> bool:
        data = await self.socket.read(state.limit(limit_s))
        self.answered = self.answered or bool(data)
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
