"""Who may have a connection: a queue whose first `count` places are the slots."""

from __future__ import annotations

import itertools
import weakref
from functools import partial
from typing import Any

__all__ = ["Slots"]


class Slots:
    """Places in order of arrival; the first `count` of them are slots, whose owners may have a connection.

    owner: has `place`, its number, and `wake()`: it may be its turn (called from any thread, also when it
    waits no more). Taking a place is one operation, done before anything is waited for, and so is leaving
    it. A place whose owner is gone without leaving (an interrupt may fall between any two lines) goes with
    it: its weak reference calls the dictionary's own `pop`. No lock: garbage collection may close a stream
    anywhere.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._places: dict[int, weakref.ref[Any]] = {}
        self._numbers = itertools.count(1)

    def enter(self, owner: Any) -> None:
        """Take the last place."""
        number = owner.place = next(self._numbers)
        # With the key in front `pop` takes the dead reference as its default, so it never raises.
        self._places[number] = weakref.ref(owner, partial(self._places.pop, number))

    def has_turn(self, owner: Any) -> bool:
        """Whether the owner's place is a slot."""
        places = self._places
        return len(places) <= self._count or owner.place in list(places)[: self._count]

    def leave(self, owner: Any) -> None:
        """Give the place up; whoever now has a slot is woken. Done twice it does nothing."""
        left = self._places.pop(owner.place, None)
        if left is not None and len(self._places) >= self._count:
            for reference in list(self._places.values())[: self._count]:
                follower = reference()
                if follower is not None:
                    follower.wake()
