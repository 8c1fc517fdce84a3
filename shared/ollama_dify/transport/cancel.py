"""What accompanies one public call: its deadline, and a way to end it from another thread or task."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["CancelToken"]


class _Abortable(Protocol):
    def abort(self) -> None: ...


class CancelToken:
    """cancelled: no more of this call is wanted. deadline: on the monotonic clock, None for none."""

    __slots__ = ("_under_way", "cancelled", "deadline")

    def __init__(self) -> None:
        self.cancelled = False
        self.deadline: float | None = None
        self._under_way: set[_Abortable] = set()

    def start(self, total_s: float | None) -> None:
        """The call begins, and may take so long."""
        self.deadline = None if total_s is None else time.monotonic() + total_s

    def left(self) -> float | None:
        """Seconds until the deadline."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def add(self, exchange: _Abortable) -> None:
        self._under_way.add(exchange)

    def discard(self, exchange: _Abortable) -> None:
        self._under_way.discard(exchange)

    def cancel(self) -> None:
        """End all of it; what begins later looks at `cancelled`."""
        self.cancelled = True
        for exchange in list(self._under_way):
            exchange.abort()
