"""What went wrong on the way, in our words: httpx's errors and the socket's → ours, with advice. Pure."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

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
from ..settings.connection import Timeouts
from ..wire.json_reading import printable
from ..wire.requests import WireRequest
from .proxy import ProxyRefusedError
from .state import RequestState

__all__ = ["HttpErrors"]

# How httpx, httpcore and the server's kernel say that a connection ended where more had to come.
_ENDED = ("disconnected", "peer closed", "incomplete", "connection closed")
LOOK_UP_S = 60.0
_PASSING = (408, 429, 502, 503, 504)
_CHECK_PROXY = N_("Check proxy=, HTTP_PROXY and NO_PROXY; trust_env=False ignores proxy variables.")
_UNSENDABLE = (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError, UnicodeError)


@dataclass(frozen=True, slots=True)
class HttpErrors:
    """The errors of one server. url, source: its address and its origin. via: its proxy's address."""

    url: str
    source: str
    timeouts: Timeouts
    max_connections: int
    via: str | None = None

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
        if request.timeouts is not None:
            return request.timeouts
        return _for_look_ups(self.timeouts) if is_look_up(request) else self.timeouts

    def translate(self, error: Exception, request: WireRequest, state: RequestState) -> OllamaError:
        """Our error for another library's; the caller chains it."""
        url = f"{self.url}{request.path}"
        if isinstance(error, httpx.TimeoutException):
            return self.late(_phase(error, state), request)
        if isinstance(error, httpx.ConnectError):
            return self._not_connected(error, request, url)
        if isinstance(error, httpx.ProxyError):
            return self._refused_by_proxy(error, request, url)
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
        if broke and state.in_body:
            return IncompleteResponseError(
                f"The connection to {url} broke in the middle of the answer: {_said(error)}.",
                url=url,
                model=request.model,
                retryable=True,
                hint=_(
                    "The server may have restarted or run out of memory, or a proxy cut the answer: see the "
                    "logs. What had arrived is in the error's `partial`."
                ),
            )
        if broke:
            return ConnectionFailedError(
                f"The connection to {url} broke: {_said(error)}.",
                url=url,
                model=request.model,
                retryable=True,
                hint=_("The server may have restarted or run out of memory: see its log."),
            )
        return ProtocolError(
            f"The answer of {url} breaks the rules of HTTP: {_said(error)}.",
            url=url,
            model=request.model,
            hint="Is this an Ollama server? A proxy may be changing its answers.",
        )

    def _refused_by_proxy(
        self, error: httpx.ProxyError, request: WireRequest, url: str
    ) -> ConnectionFailedError:
        status = error.status if isinstance(error, ProxyRefusedError) else None
        credentials = _("Give its name and password: proxy=http://name:password@host:port.") + " "
        return ConnectionFailedError(
            f"The proxy {self.via} does not connect to {self.url}: {_said(error)}.",
            url=url,
            model=request.model,
            retryable=status is None or status in _PASSING,
            hint=(credentials if status == 407 else "") + _(_CHECK_PROXY),
        )

    def late(self, phase: str, request: WireRequest) -> RequestTimeoutError:
        """The error for a limit that was reached: which, and how to raise it."""
        from ..advice import timeout_advice  # with an error only

        seconds = getattr(self.limits(request), phase)
        look_up_s = LOOK_UP_S if is_look_up(request) else None
        hint = self._advice("timed out") if phase == "connect" else ""
        hint = hint or timeout_advice(phase, max_connections=self.max_connections, look_up_s=look_up_s)
        at_proxy = phase == "connect" and self.via is not None
        place = f"The proxy {self.via}" if at_proxy else self.url + request.path
        return RequestTimeoutError(
            f"{place} did not answer in time: the limit for {phase} is {seconds} s.",
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
        place = self.url if self.via is None else f"the proxy {self.via} for {self.url}"
        return ConnectionFailedError(
            f"No connection to {place}: {reason}.",
            url=url,
            model=request.model,
            retryable=passing,
            hint=self._advice(reason),
        )

    def _advice(self, reason: str) -> str:
        if self.via is not None:
            return _(_CHECK_PROXY)
        from ..advice import connection_advice  # long texts, for those who need them
        from ..container import container_kind

        return connection_advice(
            self.url, source=self.source, container=container_kind(), platform=sys.platform, reason=reason
        )


def is_look_up(request: WireRequest) -> bool:
    """Whether a request only asks what the server has: its answer takes no model."""
    return request.method == "GET" or request.path == "/api/show"


@lru_cache(maxsize=64)  # each look-up asks several times, and a copy takes as long as the rest of it
def _for_look_ups(timeouts: Timeouts) -> Timeouts:
    answer = LOOK_UP_S if timeouts.answer is None else min(timeouts.answer, LOOK_UP_S)
    return timeouts.model_copy(update={"answer": answer})


def _phase(error: httpx.TimeoutException, state: RequestState) -> str:
    if state.is_late:
        return state.phase
    if isinstance(error, httpx.ConnectTimeout):
        return "connect"
    if isinstance(error, httpx.PoolTimeout):
        return "pool"
    return "idle" if state.in_body or isinstance(error, httpx.WriteTimeout) else state.phase


def _said(error: Exception) -> str:
    """An error's own words, which may quote the server."""
    return printable(str(error), 200) or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _count in range(20):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
