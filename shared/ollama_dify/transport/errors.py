"""Errors of httpx and of sockets → our errors, with advice. Pure."""

from __future__ import annotations

import re
import socket
import ssl
import sys
import time
from typing import TypeVar

import httpx

from ..errors import (
    ConfigurationError,
    ConnectionFailedError,
    IncompleteResponseError,
    OllamaError,
    ProtocolError,
    RequestTimeoutError,
)
from ..language import N_, _
from ..wire.requests import WireRequest
from ..wire.responses import printable
from ..wire.server_errors import error_from_response
from .endpoint import Endpoint, is_look_up
from .pool import RequestState

__all__ = ["check", "late", "too_long", "translate"]

E = TypeVar("E", bound=OllamaError)
# Texts of httpx, httpcore and the server's kernel for a connection that ended too early.
_ENDED = ("disconnected", "peer closed", "incomplete", "connection closed")
_PASSING = (408, 429, 502, 503, 504)
_UNSENDABLE = (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError, UnicodeError)
_CHECK_PROXY = N_("Check proxy=, HTTP_PROXY and NO_PROXY; trust_env=False ignores proxy variables.")
# Type among the causes of the error → the problem, and whether a retry may help.
_NO_CONNECTION: tuple[tuple[type[Exception], str, bool], ...] = (
    (socket.gaierror, "the name cannot be resolved", False),
    (ssl.SSLError, "TLS failed ({})", False),
    (ConnectionRefusedError, "connection refused", True),
    (Exception, "{}", True),
)


def translate(endpoint: Endpoint, error: Exception, request: WireRequest, state: RequestState) -> OllamaError:
    """Our error for another library's; the caller chains it."""
    url = endpoint.url + request.path
    # The error's text may quote the server.
    said = printable(str(error), 200) or type(error).__name__

    def made(kind: type[E], text: str, hint: str | None = None, *, retryable: bool = False) -> E:
        return kind(text, url=url, model=request.model, retryable=retryable, hint=hint)

    if isinstance(error, httpx.TimeoutException):
        return late(endpoint, _phase(error, state), request, said)
    if isinstance(error, httpx.ConnectError):
        causes = _causes(error)
        reason, passing = next(
            (reason.format(said), passing)
            for kind, reason, passing in _NO_CONNECTION
            if any(isinstance(cause, kind) for cause in causes)
        )
        place = endpoint.url if endpoint.via is None else f"the proxy {endpoint.via} for {endpoint.url}"
        text = f"No connection to {place}: {reason}."
        return made(ConnectionFailedError, text, _advice(endpoint, reason), retryable=passing)
    if isinstance(error, httpx.ProxyError):
        status = re.match(r"\d{3}\b", said)
        credentials = _("Give its name and password: proxy=http://name:password@host:port.") + " "
        return made(
            ConnectionFailedError,
            f"The proxy {endpoint.via} does not connect to {endpoint.url}: "
            f"{'it answers ' if status else ''}{said}.",
            (credentials if status and status[0] == "407" else "") + _(_CHECK_PROXY),
            retryable=int(status[0]) in _PASSING if status else _is_broken(error.__cause__ or error),
        )
    if isinstance(error, (RuntimeError, httpx.LocalProtocolError)) and "closed" in str(error):
        return made(
            ConnectionFailedError,
            f"The client for {endpoint.url} was closed while a request was under way: {said}.",
            "Close it after the last call. An http_client or http_async_client of your own must stay open, "
            "and the latter belongs to one event loop.",
        )
    if isinstance(error, _UNSENDABLE):
        return made(ConfigurationError, f"The request to {url} cannot be sent: {said}.")
    if not _is_broken(error):
        return made(
            ProtocolError,
            f"The answer of {url} breaks the rules of HTTP: {said}.",
            "Is this an Ollama server? A proxy may be changing its answers.",
        )
    if state.in_body:
        return made(
            IncompleteResponseError,
            f"The connection to {url} broke in the middle of the answer: {said}.",
            _(
                "The server may have restarted or run out of memory, or a proxy cut the answer: see the "
                "logs. What had arrived is in the error's `partial`."
            ),
            retryable=True,
        )
    return made(
        ConnectionFailedError,
        f"The connection to {url} broke: {said}.",
        _("The server may have restarted or run out of memory: see its log."),
        retryable=True,
    )


def late(endpoint: Endpoint, phase: str, request: WireRequest, said: str = "") -> RequestTimeoutError:
    """The error for a timeout: which limit, and how to raise it. said: the words of the caller's client."""
    from ..advice import advice  # with an error only

    seconds = getattr(endpoint.limits(request), phase)
    name = "look-up" if phase == "answer" and is_look_up(request) else phase
    hint = _advice(endpoint, "timed out") if phase == "connect" else ""
    if seconds is None:
        told, hint = said, hint or "The limit is none of the settings: see those of your own http_client."
    else:
        told = f"the limit for {phase} is {seconds} s"
        hint = hint or advice(name, number=endpoint.max_connections, seconds=f"{seconds:g}")
    url = endpoint.url + request.path
    place = f"The proxy {endpoint.via}" if phase == "connect" and endpoint.via is not None else url
    return RequestTimeoutError(
        f"{place} did not answer in time: {told}.",
        phase=phase,
        url=url,
        model=request.model,
        retryable=phase == "connect",
        hint=hint,
    )


def too_long(endpoint: Endpoint, request: WireRequest, limit: int) -> ProtocolError:
    url = endpoint.url + request.path
    return ProtocolError(
        f"The answer of {url} is over {limit} bytes.",
        url=url,
        model=request.model,
        hint="An answer to this request is far shorter; is this an Ollama server?",
    )


def check(response: httpx.Response, body: bytes | None, request: WireRequest) -> None:
    """Raise for a response without a success status, and for a compressed one. body: of the response.

    Compression was not requested, and the content could expand to any size.
    """
    encoding, url = response.headers.get("content-encoding", ""), str(response.request.url)
    encoded = encoding.strip().lower() not in ("", "identity")
    if body is not None:
        text, status = b"" if encoded else body, response.status_code
        raise error_from_response(
            status, response.headers, text, url=url, model=request.model, now_s=time.time()
        )
    if encoded:
        raise ProtocolError(
            f"The answer is encoded as {encoding[:40]!r}, which was not asked for.",
            url=url,
            hint="A proxy may be compressing; switch that off for this server.",
        )


def _advice(endpoint: Endpoint, reason: str) -> str:
    if endpoint.via is not None:
        return _(_CHECK_PROXY)
    from ..advice import connection_advice  # long texts, imported only for an error
    from ..container import container_kind

    return connection_advice(
        endpoint.url, source=endpoint.source, container=container_kind(), platform=sys.platform, reason=reason
    )


def _phase(error: httpx.TimeoutException, state: RequestState) -> str:
    if state.is_late:
        return state.phase
    if isinstance(error, httpx.ConnectTimeout):
        return "connect"
    if isinstance(error, httpx.PoolTimeout):
        return "pool"
    return "idle" if state.in_body or isinstance(error, httpx.WriteTimeout) else state.phase


def _is_broken(error: BaseException) -> bool:
    """Whether the connection ended too early."""
    if isinstance(error, httpx.RemoteProtocolError):
        return any(words in str(error).lower() for words in _ENDED)
    return isinstance(error, (httpx.NetworkError, OSError, EOFError))


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(found) < 20:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found
