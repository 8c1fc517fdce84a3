"""What of the settings a request needs, and one translation of every failure into our errors.

No I/O but reading the environment and certificates; the sockets are `transport`'s.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import httpx

from .address import is_loopback, is_private
from .advice import connection_advice, in_container
from .classify import error_from_response
from .errors import (
    ConfigurationError,
    ConnectionFailedError,
    IncompleteResponseError,
    OllamaError,
    ProtocolError,
    RequestTimeoutError,
)
from .requests import StreamedBody, WireRequest, encode
from .responses import printable
from .settings import ConnectionSettings, Timeouts
from .sockets import Exchange

__all__ = ["Endpoint", "Translated", "system_tls"]

logger = logging.getLogger("ollama_dify")

# Their answers, unless streamed, send nothing before they are complete.
_SILENT_PATHS = ("/api/chat", "/api/generate", "/api/embed")
_KEEP_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), seconds)
    for name, seconds in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 4))
    if hasattr(socket, name)
]
_LOST = (httpx.NetworkError, httpx.RemoteProtocolError)
# How httpx, httpcore and the server's kernel say that a connection ended where more had to come.
_ENDED = ("disconnected", "peer closed", "incomplete", "connection closed")
_PASSED_ON = (OllamaError, MemoryError, StopIteration, StopAsyncIteration)
_UNSENDABLE = (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError, UnicodeError)


@cache
def system_tls() -> ssl.SSLContext:
    """One per process: loading the certificates costs some 20 ms."""
    return httpx.create_ssl_context()


@cache
def _no_tls() -> ssl.SSLContext:
    """For plain http: trusts nobody, and costs nothing to make."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@cache
def _warn_once(text: str) -> None:
    logger.warning(text)


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
        self.source = address.source
        self.timeouts = settings.timeouts
        self.follow_redirects = settings.follow_redirects
        self.max_connections = settings.max_connections
        self.proxy = _proxy(settings)
        self._verify = settings.verify
        self._urls: dict[str, httpx.URL] = {}
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
        return self._uses_tls and not isinstance(self._verify, ssl.SSLContext)

    @property
    def _uses_tls(self) -> bool:
        return self.url.startswith("https:") or (self.proxy or "").startswith("https:")

    def tls(self) -> ssl.SSLContext:
        """The TLS context; shared by the process where certificates are verified as usual."""
        verify = self._verify
        if isinstance(verify, ssl.SSLContext):
            return verify
        if not self._uses_tls:
            return _no_tls()
        if verify is True:
            return system_tls()
        if verify is False:
            return httpx.create_ssl_context(verify=False)
        try:
            path = os.fspath(verify)
            folder = os.path.isdir(path)
            return ssl.create_default_context(**{"capath" if folder else "cafile": path})
        except (OSError, ssl.SSLError, TypeError, ValueError) as error:
            raise ConfigurationError(f"verify={verify!r} is no usable CA bundle: {error}.") from error

    def pool_options(self) -> dict[str, Any]:
        """Arguments of httpx's transports."""
        return {
            "verify": self.tls(),
            "proxy": self.proxy,
            "socket_options": _KEEP_ALIVE,
            "limits": httpx.Limits(
                max_connections=self.max_connections,
                max_keepalive_connections=self.max_connections,
                keepalive_expiry=30.0,
            ),
        }

    def limits(self, request: WireRequest) -> Timeouts:
        return self.timeouts if request.timeouts is None else request.timeouts

    def exchange(self, request: WireRequest) -> Exchange:
        """What to watch on the socket; its deadline starts now."""
        total = self.limits(request).total
        return Exchange(None if total is None else time.monotonic() + total)

    def build(self, request: WireRequest, extra_headers: Mapping[str, str] | None = None) -> httpx.Request:
        """The httpx request, with each phase's timeout."""
        url = self._urls.get(request.path)
        if url is None:
            url = self._urls[request.path] = httpx.URL(self.url + request.path)
        headers = {**(extra_headers or {}), **self._headers}
        limits = self.limits(request)
        silent = request.path in _SILENT_PATHS and not request.streamed
        first_byte = None if silent else limits.first_byte
        if limits.total is not None:
            first_byte = limits.total if first_byte is None else min(first_byte, limits.total)
        phases = {"connect": limits.connect, "read": first_byte, "write": limits.idle, "pool": limits.pool}
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

    def body_follows(self, sent: httpx.Request, request: WireRequest, exchange: Exchange) -> None:
        """The head is here: from now on the wait is between pieces."""
        exchange.in_body = True
        # httpcore reads this when it starts on the body.
        sent.extensions["timeout"]["read"] = self.limits(request).idle

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

    def too_long(self, request: WireRequest, limit: int) -> ProtocolError:
        url = self.url + request.path
        return ProtocolError(
            f"The answer of {url} is over {limit} bytes.",
            url=url,
            model=request.model,
            hint="An answer to this request is far shorter; is this an Ollama server?",
        )

    def slot_wait(self, request: WireRequest) -> float | None:
        """Seconds a call may wait for a connection."""
        limits = self.limits(request)
        known = [limit for limit in (limits.pool, limits.total) if limit is not None]
        return min(known, default=None)

    def no_slot(self, request: WireRequest) -> RequestTimeoutError:
        """The error for a call that found all connections in use for too long."""
        limits = self.limits(request)
        total, pool = limits.total, limits.pool
        return self._late(
            "pool" if total is None or (pool is not None and pool < total) else "total", request
        )

    def translate(self, error: Exception, request: WireRequest, exchange: Exchange) -> OllamaError:
        """Our error for another library's; the caller chains it."""
        url = f"{self.url}{request.path}"
        error = _named_rightly(error)
        if isinstance(error, httpx.TimeoutException):
            return self._late(_phase(error, exchange), request)
        if isinstance(error, httpx.ConnectError):
            return self._not_connected(error, request, url)
        if isinstance(error, httpx.ProxyError):
            return ConnectionFailedError(
                f"The proxy did not let the request through to {url}: {_said(error)}.",
                url=url,
                model=request.model,
                retryable=True,
                hint="Check proxy=, HTTP_PROXY and NO_PROXY.",
            )
        if isinstance(error, RuntimeError) and "closed" in str(error):
            return ConnectionFailedError(
                f"The client for {self.url} was closed while a request was under way: {_said(error)}.",
                url=url,
                model=request.model,
                hint="Close it after the last call. An http_client or http_async_client of your own must "
                "stay open, and the latter belongs to one event loop.",
            )
        if isinstance(error, _UNSENDABLE):
            return ConfigurationError(f"The request to {url} cannot be sent: {_said(error)}.", url=url)
        broke = isinstance(error, (httpx.NetworkError, OSError, EOFError)) or (
            isinstance(error, httpx.RemoteProtocolError)
            and any(words in str(error).lower() for words in _ENDED)
        )
        if broke and exchange.in_body:
            return IncompleteResponseError(
                f"The connection to {url} broke in the middle of the answer: {_said(error)}.",
                url=url,
                model=request.model,
                retryable=True,
                hint="The server may have restarted or run out of memory, or a proxy cut the answer: see the "
                "logs. What had arrived is in the error's `partial`.",
            )
        if broke:
            return ConnectionFailedError(
                f"The connection to {url} broke: {_said(error)}.",
                url=url,
                model=request.model,
                retryable=True,
                hint="The server may have restarted or run out of memory: see its log.",
            )
        return ProtocolError(
            f"The answer of {url} breaks the rules of HTTP: {_said(error)}.",
            url=url,
            model=request.model,
            hint="Is this an Ollama server? A proxy may be changing its answers.",
        )

    def _late(self, phase: str, request: WireRequest) -> RequestTimeoutError:
        seconds = getattr(self.limits(request), phase)
        hint = {
            "connect": self._advice("timed out"),
            "pool": f"All max_connections={self.max_connections} are in use: raise it, or close streams that "
            "are not read to their end.",
            "idle": "The server or the network stalled in mid-answer: see the server's log, or raise "
            "Timeouts(idle=…).",
        }.get(phase, "Loading a model takes its time: raise timeout=, or call warmup() first.")
        return RequestTimeoutError(
            f"{self.url}{request.path} did not answer in time: the limit for {phase} is {seconds} s.",
            phase=phase,
            url=self.url + request.path,
            model=request.model,
            retryable=phase == "connect",
            hint=hint,
        )

    def _not_connected(self, error: Exception, request: WireRequest, url: str) -> ConnectionFailedError:
        causes = list(_causes(error))
        if any(isinstance(cause, socket.gaierror) for cause in causes):
            reason, passing = "the name cannot be resolved", False
        elif any(isinstance(cause, ssl.SSLError) for cause in causes):
            reason, passing = f"TLS failed ({_said(error)})", False
        elif any(isinstance(cause, ConnectionRefusedError) for cause in causes):
            reason, passing = "connection refused", True
        else:
            reason, passing = _said(error), True
        return ConnectionFailedError(
            f"No connection to {self.url}: {reason}.",
            url=url,
            model=request.model,
            retryable=passing,
            hint=self._advice(reason),
        )

    def _advice(self, reason: str) -> str:
        return connection_advice(
            self.url, source=self.source, in_container=in_container(), platform=sys.platform, reason=reason
        )


class Translated:
    """`with` this, nothing but our errors gets out; where one of another library was, it is the cause."""

    __slots__ = ("_endpoint", "_exchange", "_request")

    def __init__(self, endpoint: Endpoint, request: WireRequest, exchange: Exchange) -> None:
        self._endpoint = endpoint
        self._request = request
        self._exchange = exchange

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, _PASSED_ON):
            raise self._endpoint.translate(error, self._request, self._exchange) from error


def _phase(error: httpx.TimeoutException, exchange: Exchange) -> str:
    if exchange.is_late:
        return "total"
    if isinstance(error, httpx.ConnectTimeout):
        return "connect"
    if isinstance(error, httpx.PoolTimeout):
        return "pool"
    return "idle" if exchange.in_body or isinstance(error, httpx.WriteTimeout) else "first_byte"


def _named_rightly(error: Exception) -> Exception:
    """httpx-aiohttp 0.2 calls every lost connection a ConnectTimeout; what it wraps says what it was."""
    cause = error.__cause__
    if (
        not isinstance(error, httpx.ConnectTimeout)
        or not type(cause).__module__.startswith("aiohttp")
        or isinstance(cause, (TimeoutError, asyncio.TimeoutError))
    ):
        return error
    kind = httpx.ConnectError if hasattr(cause, "os_error") else httpx.ReadError
    named = kind(str(error))
    named.__cause__ = cause
    return named


def _said(error: Exception) -> str:
    """An error's own words, which may quote the server."""
    return printable(str(error), 200) or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(20):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


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
    if settings.api_key is not None:
        headers["authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
    return {**headers, **{name.lower(): value for name, value in settings.headers.items()}}


def _proxy(settings: ConnectionSettings) -> str | None:
    """The proxy for this server: the one given, else the environment's unless the address is private."""
    if settings.proxy is not None:
        return _checked_proxy(settings.proxy.get_secret_value())
    host = settings.address.host
    if not settings.trust_env or is_private(host) or urllib.request.proxy_bypass(host):
        return None
    known = urllib.request.getproxies()
    found = known.get(urlsplit(settings.address.url).scheme) or known.get("all")
    return None if not found else _checked_proxy(found if "://" in found else f"http://{found}")


def _checked_proxy(url: str) -> str:
    """Raises ConfigurationError, without showing the address: it may hold a password."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https", "socks5", "socks5h") or not parsed.host:
        raise ConfigurationError(
            "The proxy (proxy=, or HTTP_PROXY and its kin) is no address that can be used.",
            hint="A good one looks like http://proxy.example:3128; proxy variables are ignored with "
            "trust_env=False.",
        )
    return url
