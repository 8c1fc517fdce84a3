"""Ending what a call has under way, from another thread or task."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Stop"]


class _Abortable(Protocol):
    def abort(self) -> None: ...


class Stop:
    """asked: no more of this call is wanted."""

    __slots__ = ("_under_way", "asked")

    def __init__(self) -> None:
        self.asked = False
        self._under_way: set[_Abortable] = set()

    def add(self, exchange: _Abortable) -> None:
        self._under_way.add(exchange)

    def now(self) -> None:
        """End all of it; what begins later looks at `asked`."""
        self.asked = True
        for exchange in list(self._under_way):
            exchange.abort()
