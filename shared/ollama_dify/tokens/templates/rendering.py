"""What rendering a template here has in common for both template languages: when it gives up, and dates.

A template is a text of the server's, so it may be anything. Rendering stops with `NotRendered` at the first
thing that is not understood to the letter, and after a limited amount of work.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable

__all__ = ["MOST_AT_ONCE", "Date", "DearestDate", "NotRendered", "Work"]

Date = Callable[[str], str]
"""Writes some date in a `strftime` format."""

_STEPS, _STEPS_A_MESSAGE = 60_000, 1_500
_CHARACTERS, _TIMES_THE_TEXTS = 2_000_000, 30
MOST_AT_ONCE = 4_000_000
"""Characters that one function may make."""
_KNOWN_DIRECTIVES = frozenset("aAbBdjmyY%-")


class NotRendered(Exception):
    """The template does or says something that is not understood here, or too much of it."""


class Work:
    """A limit on what one rendering may do, so that no template takes long or much memory."""

    __slots__ = ("_characters", "_steps")

    def __init__(self, messages: int, characters: int) -> None:
        """For a conversation of so many messages and characters."""
        self._steps = _STEPS + _STEPS_A_MESSAGE * messages
        self._characters = _CHARACTERS + _TIMES_THE_TEXTS * characters

    def step(self, count: int = 1) -> None:
        self._steps -= count
        if self._steps < 0:
            raise NotRendered("too many steps")

    def text(self, text: str) -> str:
        """The text itself, its length counted."""
        self._characters -= len(text)
        if self._characters < 0:
            raise NotRendered("too much text")
        return text


class DearestDate:
    """Of all days of a year, the one that costs the most tokens in a format; the server's is not known.

    Raises `NotRendered` for what is no part of a date.
    """

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count
        self._known: dict[str, str] = {}

    def __call__(self, form: str) -> str:
        if form not in self._known:
            self._known[form] = self._dearest(form)
        return self._known[form]

    def _dearest(self, form: str) -> str:
        if any(directive not in _KNOWN_DIRECTIVES for directive in _directives(form)):
            raise NotRendered(f"the date format {form!r}")
        first = datetime.date(2028, 1, 1)
        days = (first + datetime.timedelta(days=day) for day in range(366))
        # The dash leaves a zero away, where the platform knows it; written out it costs no less.
        return max((day.strftime(form.replace("%-", "%")) for day in days), key=self._count)


def _directives(form: str) -> str:
    return "".join(part[:1] for part in form.split("%")[1:] if part)
