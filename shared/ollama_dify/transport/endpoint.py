"""What of the settings a request needs, computed once: address, headers, TLS, proxy, timeouts.

No I/O but reading the environment and certificates; the sockets are `transport`'s.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

import httpx

from ..address import is_loopback
from ..errors import (
    ConfigurationError,
    OllamaError,
    ProtocolError,
)
from ..settings.model import ConnectionSettings
from ..wire.requests import StreamedBody, WireRequest, encode
from ..wire.server_errors import error_from_response
from .cancel import CancelToken
from .connection import Target, target_of
from .errors import HttpErrors
from .exchange import Exchange
from .proxy import proxy_of

__all__ = ["KEEP_ALIVE", "Endpoint", "parsed", "system_tls"]

logger = logging.getLogger("ollama_dify")

KEEP_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), seconds)
    for name, seconds in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 4))
    if hasattr(socket, name)
]
_LOST = (httpx.NetworkError, httpx.RemoteProtocolError)


@cache
def system_tls() -> ssl.SSLContext:
    """One per process: loading the certificates costs some 20 ms."""
    return _speaking_http1(httpx.create_ssl_context())


def _speaking_http1(made_here: ssl.SSLContext) -> ssl.SSLContext:
    """A context that is the caller's is not changed."""
    made_here.set_alpn_protocols(["http/1.1"])
    return made_here


@cache
def _no_tls() -> ssl.SSLContext:
    """For plain http: trusts nobody, and costs nothing to make."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@cache
def _warn_once(text: str) -> None:
    logger.warning(text)


@lru_cache(maxsize=256)  # costs as much as sending a request does
def parsed(url: str) -> httpx.URL:
    return httpx.URL(url)


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A `StreamedBody` as httpx sends it; may be sent again."""

    def __init__(self, body: StreamedBody) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._body:
            yield piece


class Endpoint:
    """A server as the settings describe it: address, headers, proxy, timeouts, computed once."""

    def __init__(self, settings: ConnectionSettings) -> None:
        address = settings.address
        self.url = address.url
        self.timeouts = settings.timeouts
        self.follow_redirects = settings.follow_redirects
        most = settings.max_connections
        self.requests_at_once = min(most, getattr(settings, "max_concurrency", most))
        # Waiting for `max_concurrency` is the object's own doing, and lasts as long as its other calls do.
        self.is_queue_timed = self.requests_at_once == most
        self.proxy = proxy_of(settings)
        via = None if self.proxy is None else self.proxy.url
        self.errors = HttpErrors(address.url, address.source, self.timeouts, settings.max_connections, via)
        self._verify = settings.verify
        self._headers = _headers(settings)
        self._warn(address.host)

    def _warn(self, host: str) -> None:
        """Say what is risky, once per process and address."""
        if self.url.startswith("http:"):
            if "authorization" in self._headers and not is_loopback(host):
                _warn_once(f"Credentials for {self.url} travel unencrypted: use https.")
        elif self._verify is False:
            _warn_once(
                f"The TLS certificate of {self.url} is not verified (verify=False): anybody on the way can "
                "read and change everything, credentials included. Better give verify= the path of its CA."
            )

    @property
    def needs_certificates(self) -> bool:
        """Whether making the TLS context reads files, which takes too long for an event loop."""
        return self.url.startswith("https:") and not isinstance(self._verify, ssl.SSLContext)

    def tls(self) -> ssl.SSLContext:
        """The TLS context; shared by the process where certificates are verified as usual."""
        verify = self._verify
        if isinstance(verify, ssl.SSLContext):
            return verify
        if not self.url.startswith("https:"):
            return _no_tls()
        if verify is True:
            return system_tls()
        if verify is False:
            return _speaking_http1(httpx.create_ssl_context(verify=False))
        try:
            path = os.fspath(verify)
            folder = os.path.isdir(path)
            return _speaking_http1(ssl.create_default_context(**{"capath" if folder else "cafile": path}))
        except (OSError, ssl.SSLError, TypeError, ValueError) as error:
            raise ConfigurationError(f"verify={verify!r} is no usable CA bundle: {error}.") from error

    def target(self) -> Target:
        """Where the pool connects to."""
        return target_of(parsed(self.url), self.tls(), self.proxy)

    def exchange(self, request: WireRequest, token: CancelToken) -> Exchange:
        """What to watch on the socket, from now on; its deadline is the first of all that bind it."""
        limits = self.errors.limits(request)
        phase, seconds = ("first_byte", limits.first_byte) if request.streamed else ("answer", limits.answer)
        if seconds is not None:
            deadline = time.monotonic() + seconds
            if token.deadline is None or deadline < token.deadline:
                return Exchange(deadline, phase=phase)
        return Exchange(token.deadline)

    def build(self, request: WireRequest, extra_headers: Mapping[str, str] | None = None) -> httpx.Request:
        """The httpx request, with each phase's timeout."""
        url = parsed(self.url + request.path)
        headers = {**(extra_headers or {}), **self._headers}
        limits = self.errors.limits(request)
        # The head is bounded as a whole, by the exchange's deadline; httpx's own client knows this one only.
        bounds = (limits.first_byte if request.streamed else limits.answer, limits.total)
        read = min((bound for bound in bounds if bound is not None), default=None)
        phases = {"connect": limits.connect, "read": read, "write": limits.idle, "pool": limits.pool}
        if request.body is None:
            return httpx.Request(request.method, url, headers=headers, extensions={"timeout": phases})
        headers["content-type"] = "application/json"
        body = encode(request.body)
        if isinstance(body, bytes):
            return httpx.Request(
                request.method, url, headers=headers, content=body, extensions={"timeout": phases}
            )
        # httpx adds neither for a body of one's own.
        headers["Host"] = url.netloc.decode("ascii")
        headers["content-length"] = str(body.length)
        return httpx.Request(
            request.method, url, headers=headers, stream=_Body(body), extensions={"timeout": phases}
        )

    def body_follows(
        self, sent: httpx.Request, request: WireRequest, exchange: Exchange, token: CancelToken
    ) -> None:
        """The head is here: from now on the wait is between pieces."""
        exchange.in_body = True
        if request.streamed:
            exchange.deadline, exchange.phase = token.deadline, "total"
        # It is read again for each piece.
        sent.extensions["timeout"]["read"] = self.errors.limits(request).idle

    def may_replay(self, error: Exception, exchange: Exchange) -> bool:
        """Whether an idle connection turned out closed: it had served before, and no byte came back."""
        return exchange.reused and exchange.received == 0 and isinstance(error, _LOST)

    def redirect(self, sent: httpx.Request, response: httpx.Response) -> httpx.Request | None:
        """The request to send instead, for a 307 or 308 within the same origin when that is wanted."""
        if not self.follow_redirects or response.status_code not in (307, 308):
            return None
        try:
            target = sent.url.join(response.headers.get("location", ""))
        except (httpx.InvalidURL, ValueError):
            return None
        if _origin(target) != _origin(sent.url) or target.userinfo:
            return None
        # A body in memory goes along as such: as a stream, none at all would be sent as an empty chunked one.
        body: dict[str, Any] = (
            {"content": sent.content}
            if isinstance(sent.stream, httpx.ByteStream)
            else {"stream": sent.stream}
        )
        return httpx.Request(sent.method, target, headers=sent.headers, extensions=sent.extensions, **body)

    def check_encoding(self, response: httpx.Response) -> None:
        """Compressed bodies are refused: they were not asked for and may unpack to any size."""
        if _is_encoded(response):
            encoding = response.headers["content-encoding"]
            raise ProtocolError(
                f"The answer is encoded as {encoding[:40]!r}, which was not asked for.",
                url=str(response.request.url),
                hint="A proxy may be compressing; switch that off for this server.",
            )

    def failure(self, response: httpx.Response, body: bytes, request: WireRequest) -> OllamaError:
        """The error for a response that is no success; the text of an encoded one is not looked at."""
        return error_from_response(
            response.status_code,
            response.headers,
            b"" if _is_encoded(response) else body,
            url=str(response.request.url),
            model=request.model,
            now_s=time.time(),
        )


def _is_encoded(response: httpx.Response) -> bool:
    encoding: str = response.headers.get("content-encoding", "")
    return encoding.strip().lower() not in ("", "identity")


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    port = url.port if url.port is not None else {"http": 80, "https": 443}.get(url.scheme)
    return url.scheme, url.host, port


def _headers(settings: ConnectionSettings) -> dict[str, str]:
    """Names in lower case, as httpx has them, so that one replaces the other and none is sent twice."""
    headers = {
        "accept": "application/json, application/x-ndjson",
        "accept-encoding": "identity",
        "user-agent": "ollama-dify",
    }
    return {**headers, **settings.sent_headers()}
