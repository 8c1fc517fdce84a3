"""What went wrong on the way, in our words: httpx's errors and the socket's → ours, with advice. Pure."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from ..errors import (
    ConfigurationError,
    ConnectionFailedError,
    IncompleteResponseError,
    OllamaError,
    ProtocolError,
    RequestTimeoutError,
)
from ..settings.connection import Timeouts
from ..wire.requests import WireRequest
from ..wire.responses import printable
from .exchange import Exchange

__all__ = ["HttpErrors", "Translated"]

# How httpx, httpcore and the server's kernel say that a connection ended where more had to come.
_ENDED = ("disconnected", "peer closed", "incomplete", "connection closed")
_PASSED_ON = (OllamaError, MemoryError, StopIteration, StopAsyncIteration)
LOOK_UP_S = 60.0
_UNSENDABLE = (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError, UnicodeError)


@dataclass(frozen=True, slots=True)
class HttpErrors:
    """The errors of one server. url, source: its address and where that came from."""

    url: str
    source: str
    timeouts: Timeouts
    max_connections: int

    def too_long(self, request: WireRequest, limit: int) -> ProtocolError:
        url = self.url + request.path
        return ProtocolError(
            f"The answer of {url} is over {limit} bytes.",
            url=url,
            model=request.model,
            hint="An answer to this request is far shorter; is this an Ollama server?",
        )

    def limits(self, request: WireRequest) -> Timeouts:
        """The timeouts of a request; a look-up is given at most a minute."""
        limits = self.timeouts if request.timeouts is None else request.timeouts
        if is_look_up(request) and (limits.answer is None or limits.answer > LOOK_UP_S):
            return limits.model_copy(update={"answer": LOOK_UP_S})
        return limits

    def translate(self, error: Exception, request: WireRequest, exchange: Exchange) -> OllamaError:
        """Our error for another library's; the caller chains it."""
        url = f"{self.url}{request.path}"
        error = _named_rightly(error)
        if isinstance(error, httpx.TimeoutException):
            return self.late(_phase(error, exchange), request)
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
        if isinstance(error, (RuntimeError, httpx.LocalProtocolError)) and "closed" in str(error):
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

    def late(self, phase: str, request: WireRequest) -> RequestTimeoutError:
        """The error for a limit that was reached: which, and how to raise it."""
        seconds = getattr(self.limits(request), phase)
        hint = {
            "connect": self._advice("timed out"),
            "pool": f"All max_connections={self.max_connections} are in use: raise it or Timeouts(pool=…), "
            "or close streams that are not read to their end.",
            "first_byte": "Loading a model takes its time: raise Timeouts(first_byte=…), or call warmup() "
            "first.",
            "idle": "The server or the network stalled in mid-answer: see the server's log, or raise "
            "Timeouts(idle=…).",
            "answer": "Loading a model and a long answer take their time: raise Timeouts(answer=…), stream "
            "the answer, or call warmup() first.",
            "total": "It bounds the whole call, with its queue, retries and batches: raise timeout= or "
            "Timeouts(total=…).",
        }[phase]
        if phase == "answer" and is_look_up(request):
            hint = f"A look-up is given at most {LOOK_UP_S:g} s: see the server's log for what keeps it busy."
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
        from ..advice import connection_advice, in_container  # long texts, for those who need them

        return connection_advice(
            self.url, source=self.source, in_container=in_container(), platform=sys.platform, reason=reason
        )


class Translated:
    """`with` this, nothing but our errors gets out; where one of another library was, it is the cause."""

    __slots__ = ("_errors", "_exchange", "_request")

    def __init__(self, errors: HttpErrors, request: WireRequest, exchange: Exchange) -> None:
        self._errors = errors
        self._request = request
        self._exchange = exchange

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, _PASSED_ON):
            raise self._errors.translate(error, self._request, self._exchange) from error


def is_look_up(request: WireRequest) -> bool:
    """Whether a request only asks what the server has: its answer takes no model."""
    return request.method == "GET" or request.path == "/api/show"


def _phase(error: httpx.TimeoutException, exchange: Exchange) -> str:
    if exchange.is_late:
        return exchange.phase
    if isinstance(error, httpx.ConnectTimeout):
        return "connect"
    if isinstance(error, httpx.PoolTimeout):
        return "pool"
    return "idle" if exchange.in_body or isinstance(error, httpx.WriteTimeout) else exchange.phase


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
