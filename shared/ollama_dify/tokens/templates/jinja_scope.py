"""Names in a Jinja template: where they are kept, how several are set at once, and texts written in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .jinja_tokens import Tokens
from .jinja_values import UNDEFINED, entries
from .rendering import NotRendered, Work

__all__ = ["Expression", "Scope", "string", "targets"]

_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}


class Scope:
    """Names, those of the scope outside, and the work done."""

    __slots__ = ("names", "outer", "work")

    def __init__(self, names: dict[str, Any], work: Work, outer: Scope | None = None) -> None:
        self.names = names
        self.outer = outer
        self.work = work

    def get(self, name: str) -> Any:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.outer
        return UNDEFINED

    def inner(self) -> Scope:
        return Scope({}, self.work, self)


Expression = Callable[[Scope], Any]


def targets(tokens: Tokens) -> Callable[[Scope, Any], None]:
    """Names on the left of `=` or `in`: one, or several that take the entries of a value."""
    names = [tokens.name()]
    while tokens.skip(","):
        names.append(tokens.name())

    def keep(scope: Scope, value: Any) -> None:
        if len(names) == 1:
            scope.names[names[0]] = value
            return
        parts = entries(value)
        if len(parts) != len(names):
            raise NotRendered("a value of another length")
        scope.names.update(zip(names, parts, strict=True))

    return keep


def string(text: str) -> str:
    """What a quoted text says."""

    def sign(escape: re.Match[str]) -> str:
        code = escape.group(1) or escape.group(2)
        return chr(int(code, 16)) if code else _ESCAPES.get(escape.group(3), escape.group(3))

    return _ESCAPE.sub(sign, text[1:-1])
