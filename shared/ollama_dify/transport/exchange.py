"""One request and its answer as the connection sees them: deadline, progress, a way to cut it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar

import httpx

from .cancel import CancelToken

__all__ = ["HEAD_LIMIT", "Exchange", "current"]

HEAD_LIMIT = 256 * 1024


class Exchange:
    """One request and its answer.

    deadline: on the monotonic clock, None for none; phase: the limit that set it ("total", "answer" or
    "first_byte"). received: bytes until the answer's head was complete.
    in_body: it is complete. fresh: wants a new connection. reused: the connection had served another
    exchange before. cut: ends the connection, while it serves this exchange.
    """

    __slots__ = ("_token", "cut", "deadline", "fresh", "in_body", "phase", "received", "reused")

    def __init__(self, deadline: float | None, *, phase: str = "total", fresh: bool = False) -> None:
        self.deadline = deadline
        self.phase = phase
        self.fresh = fresh
        self.received = 0
        self.in_body = False
        self.reused = False
        self.cut: Callable[[], None] | None = None
        self._token: CancelToken | None = None

    def end_with(self, token: CancelToken) -> None:
        """Be aborted by the token. Raises ReadError where that was asked for already."""
        self._token = token
        token.add(self)
        self._check_wanted()

    def end(self) -> None:
        """It is over: a late abort must not hit the connection's next exchange."""
        self.cut = None
        if self._token is not None:
            self._token.discard(self)

    def begin(self, cut: Callable[[], None]) -> None:
        """A connection serves it from now on. Raises ReadError where it is not wanted any more."""
        self.cut = cut
        self._check_wanted()

    def _check_wanted(self) -> None:
        if self._token is not None and self._token.cancelled:
            raise httpx.ReadError("it was cancelled")

    def again(self) -> Exchange:
        """An exchange with the same deadline, on a new connection: where one had ended, others may have."""
        following = Exchange(self.deadline, phase=self.phase, fresh=True)
        self.end()
        if self._token is not None:
            following.end_with(self._token)
        return following

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

    def check_head(self) -> None:
        """Refuse a head without end (an endless row of 1xx, for example)."""
        if not self.in_body and self.received > HEAD_LIMIT:
            raise httpx.RemoteProtocolError(f"the answer's head is over {HEAD_LIMIT} bytes")

    def abort(self) -> None:
        """Cut the connection from another thread or task: whoever reads from it gets an error."""
        cut = self.cut  # read once: it goes as the exchange ends
        if cut is not None:
            cut()


# Set by the transport right before a request, read by what sends it: httpx has no other way through.
current: ContextVar[Exchange] = ContextVar("ollama_dify_exchange")
