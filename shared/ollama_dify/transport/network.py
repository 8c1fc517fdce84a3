"""The network as the client's logic uses it: awaited, or if it never suspends, passed to `run`."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from ..wire.requests import WireRequest

__all__ = ["ANSWER_LIMIT", "CancelToken", "Network", "ResponseStream", "countdown", "run"]

T = TypeVar("T")
ANSWER_LIMIT = 64 * 1024 * 1024


class CancelToken:
    """The deadline of one public call, and a way to end the call from another thread or task.

    deadline: on the monotonic clock, None for none. under_way: the states of its requests.
    """

    def __init__(self) -> None:
        self.cancelled = False
        self.deadline: float | None = None
        self.under_way: set[Any] = set()

    def start(self, total_s: float | None) -> None:
        """The call begins; total_s: seconds it may take."""
        self.deadline = None if total_s is None else time.monotonic() + total_s

    def left(self) -> float | None:
        """Seconds until the deadline."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def cancel(self) -> None:
        """End all requests of the call; later ones check `cancelled`."""
        self.cancelled = True
        for state in list(self.under_way):
            cut = state.cut  # read once: it is set to None as the answer ends
            if cut is not None:
                cut()


class ResponseStream(Protocol):
    """A successful streamed response; iterate for the rest. first: its first line, already read."""

    first: bytes

    async def aclose(self) -> None: ...


class Network(Protocol):
    """The network of one public call, under its deadline and CancelToken. Raises OllamaError."""

    async def send(self, request: WireRequest, limit: int = ANSWER_LIMIT) -> bytes:
        """Send a request and read the whole response, of at most `limit` bytes."""

    async def open(self, request: WireRequest) -> ResponseStream:
        """Send a request and read the first line of the response."""

    async def fetch_image(self, url: str, *, limit: int, where: str) -> bytes:
        """GET an image of at most `limit` bytes from a public address; where: names it in errors."""

    async def sleep(self, seconds: float) -> None:
        """Wait. Raises RequestTimeoutError at once if the call's deadline is earlier."""

    async def compute(self, work: Callable[[], T]) -> T:
        """Call a function that takes long or reads a file, off the event loop."""

    async def gather(self, jobs: Sequence[Callable[[], Coroutine[Any, Any, T]]], limit: int) -> list[T]:
        """Run jobs, at most `limit` at once → results, in order. An error cancels the others at once."""


def countdown(limit_s: float | None) -> Callable[..., float | None]:
    """A function `left(most=None)`: the seconds left of `limit_s`, at most `most`; None for no limit.

    It raises TimeoutError if no time is left.
    """
    until = None if limit_s is None else time.monotonic() + limit_s

    def left(most: float | None = None) -> float | None:
        if until is None:
            return most
        seconds = until - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("not done in time")
        return seconds if most is None else min(seconds, most)

    return left


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine over a blocking network, which never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # what a coroutine returns is untyped here
    finally:
        coroutine.close()
    raise TypeError("A coroutine of the blocking client waited for something else than its network.")
