"""What is known while a template's conditions are decided, in three values: true, false, unknown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Loop = Literal["messages", "tools", "calls", "other"]
"""What a loop runs over."""
Facts = Mapping[str, "bool | str | None"]
"""What is known of a prompt: role, first, last, last_user, after_last_user, tools, calls, system, think …

A missing or None entry is unknown.
"""

Sizes = Mapping[str, int]
"""Tokens of the texts that a template may put, of all calls and tools together, and how many these are."""


def all_of(values: list[bool | None]) -> bool | None:
    """Three-valued conjunction."""
    return False if False in values else None if None in values else True


def any_of(values: list[bool | None]) -> bool | None:
    """Three-valued disjunction."""
    return True if True in values else None if None in values else False


def trimmed(text: str, *, before: bool, after: bool) -> str:
    """A literal text less the white space that its neighbours' trim markers remove."""
    text = text.lstrip() if before else text
    return text.rstrip() if after else text
