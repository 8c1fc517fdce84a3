"""One request and its answer as the connection sees them: deadline, progress, a way to cut it."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx

from .network import CancelToken

__all__ = ["RequestState", "state_of", "with_state"]


class RequestState:
    """One request and its answer, under the token of its call.

    deadline: on the monotonic clock, None for none; phase: the limit that set it ("total", "answer" or
    "first_byte"). received: bytes until the answer's head was complete.
    in_body: it is complete. fresh: wants a new connection. reused: the connection had served another
    request before. cut: ends the connection, while it serves this request.
    """

    __slots__ = ("_token", "cut", "deadline", "fresh", "in_body", "phase", "received", "reused")

    def __init__(self, deadline: float | None = None, token: CancelToken | None = None) -> None:
        self._token = token
        self.deadline = deadline
        self.phase = "total"
        self.fresh = False
        self.reset()

    def reset(self) -> None:
        """To be sent: no connection serves it yet."""
        self.cut: Callable[[], None] | None = None
        self.received = 0
        self.in_body = self.reused = False

    def begin(self, cut: Callable[[], None]) -> None:
        """A connection serves it from now on. Raises ReadError where it is not wanted any more."""
        self.cut = cut
        self.check_wanted()

    def check_wanted(self) -> None:
        if self._token is not None and self._token.cancelled:
            raise httpx.ReadError("it was cancelled")

    @property
    def is_late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def hurry(self, seconds: float) -> None:
        """Allow the rest only this long."""
        soon = time.monotonic() + seconds
        self.deadline = soon if self.deadline is None else min(self.deadline, soon)

    def limit(self, timeout: float | None) -> float | None:
        """The timeout of one operation, cut to what is left; raises ReadTimeout when nothing is."""
        if self.deadline is None:
            return timeout
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise httpx.ReadTimeout(self.phase)
        return left if timeout is None else min(timeout, left)

    def abort(self) -> None:
        """Cut the connection from another thread or task: whoever reads from it gets an error."""
        cut = self.cut  # read once: it goes as the answer ends
        if cut is not None:
            cut()


def state_of(request: httpx.Request) -> RequestState:
    """What travels in the request's extensions, as httpx's timeouts do."""
    found = request.extensions.get(_KEY)
    return found if isinstance(found, RequestState) else RequestState()


def with_state(request: httpx.Request, state: RequestState) -> httpx.Request:
    request.extensions[_KEY] = state
    return request


_KEY = "ollama_dify"
