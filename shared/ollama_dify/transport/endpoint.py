"""What of the settings a request needs, computed once: address, headers, TLS, proxy, timeouts.

No I/O but reading the environment and certificates.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import cache, lru_cache
from typing import Any

import httpx

from ..address import is_loopback
from ..errors import ConfigurationError, OllamaError, ProtocolError
from ..media.image import MediaFile
from ..settings.model import ConnectionSettings
from ..wire.requests import WireRequest, encode
from ..wire.server_errors import error_from_response
from .connection import Target, target_of
from .errors import HttpErrors
from .network import CancelToken
from .proxy import proxy_of
from .slots import Slots
from .state import RequestState

__all__ = ["KEEP_ALIVE", "Endpoint", "parsed", "system_tls"]

logger = logging.getLogger("ollama_dify")

KEEP_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), seconds)
    for name, seconds in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 4))
    if hasattr(socket, name)
]


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
    """For plain http: has no certificates, and costs nothing to make."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@cache
def _warn_once(text: str) -> None:
    logger.warning(text)


@lru_cache(maxsize=256)  # costs as much as sending a request does
def parsed(url: str) -> httpx.URL:
    return httpx.URL(url)


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body with images, encoded while it is sent; may be sent again."""

    def __init__(self, pieces: Sequence[bytes | MediaFile]) -> None:
        self._pieces = pieces
        self.length = sum(len(piece) if isinstance(piece, bytes) else piece.base64_length for piece in pieces)

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            yield from (piece,) if isinstance(piece, bytes) else piece.base64_pieces()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


class Endpoint:
    """A server as the settings describe it, and the queue in front of its connections."""

    def __init__(
        self, settings: ConnectionSettings, own_client: httpx.Client | httpx.AsyncClient | None
    ) -> None:
        """own_client: the caller's, whose headers are sent too."""
        address = settings.address
        self.url = address.url
        self.is_users_client = own_client is not None
        self.timeouts = settings.timeouts
        self.follow_redirects = settings.follow_redirects
        most = settings.max_connections
        requests_at_once = min(most, getattr(settings, "max_concurrency", most))
        # Waiting for `max_concurrency` is the object's own doing, and lasts as long as its other calls do.
        self.is_queue_timed = requests_at_once == most
        self.slots = Slots(requests_at_once)
        self.proxy = proxy_of(settings)
        via = None if self.proxy is None else self.proxy.url
        self.errors = HttpErrors(address.url, address.source, self.timeouts, settings.max_connections, via)
        self._verify = settings.verify
        # Names in lower case, as httpx has them, so that one replaces the other and none is sent twice.
        self._headers = {
            **({} if own_client is None else own_client.headers),
            "accept": "application/json, application/x-ndjson",
            "accept-encoding": "identity",
            "user-agent": "ollama-dify",
            **settings.sent_headers(),
        }
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

    async def hand_over(self, sent: httpx.Request) -> httpx.Response:
        """Have a request sent and the answer's head read."""
        raise NotImplementedError

    def set_deadline(self, state: RequestState, request: WireRequest, token: CancelToken) -> None:
        """The request is sent from now on; its deadline is the first of all that bind it."""
        limits = self.errors.limits(request)
        phase, seconds = ("first_byte", limits.first_byte) if request.streamed else ("answer", limits.answer)
        state.deadline = token.deadline
        if seconds is not None:
            deadline = time.monotonic() + seconds
            if token.deadline is None or deadline < token.deadline:
                state.deadline, state.phase = deadline, phase

    def build(self, request: WireRequest) -> httpx.Request:
        """The httpx request, with each phase's timeout."""
        url = parsed(self.url + request.path)
        headers = dict(self._headers)
        limits = self.errors.limits(request)
        # The head is bounded as a whole, by the state's deadline; httpx's own client knows this one only.
        bounds = (limits.first_byte if request.streamed else limits.answer, limits.total)
        read = min((bound for bound in bounds if bound is not None), default=None)
        phases = {"connect": limits.connect, "read": read, "write": limits.idle, "pool": limits.pool}
        content: dict[str, Any] = {}
        if request.body is not None:
            headers["content-type"] = "application/json"
            body = encode(request.body)
            if isinstance(body, bytes):
                content = {"content": body}
            else:
                # httpx adds neither for a body of one's own.
                stream = _Body(body)
                headers["Host"] = url.netloc.decode("ascii")
                headers["content-length"] = str(stream.length)
                content = {"stream": stream}
        return httpx.Request(request.method, url, headers=headers, extensions={"timeout": phases}, **content)

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
        return httpx.Request(
            sent.method, target, headers=sent.headers, extensions=sent.extensions, stream=sent.stream
        )

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
