"""Functions that Go's text/template and Ollama give to templates."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from .go_values import Names, Struct, go_text, is_true, length
from .rendering import NotRendered

__all__ = ["FUNCTIONS"]

_VERB = re.compile(r"%(.)", re.DOTALL)
_TYPESCRIPT = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise NotRendered("eq of one value")
    return any(_same(first, other) for other in others)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (list, dict, Struct)) or isinstance(other, (list, dict, Struct)):
        raise NotRendered("a comparison of lists or maps")
    if one is None or other is None:
        return one is other
    if type(one) is not type(other):
        raise NotRendered("a comparison of different types")
    return bool(one == other)


def _less(one: Any, other: Any) -> bool:
    if type(one) is not type(other) or not isinstance(one, (int, float, str)) or isinstance(one, bool):
        raise NotRendered("an order of what has none")
    return bool(one < other)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value):
            value = value[key]
        elif isinstance(value, dict) and isinstance(key, str):
            value = value.get(key)
        else:
            raise NotRendered("an index that is not there")
    return value


def _slice(value: Any, *bounds: Any) -> Any:
    if (
        not isinstance(value, (list, str))
        or len(bounds) > 2
        or not all(type(bound) is int for bound in bounds)
    ):
        raise NotRendered("a slice of this")
    whole = value.encode() if isinstance(value, str) else value
    start = bounds[0] if bounds else 0
    end = bounds[1] if len(bounds) > 1 else len(whole)
    if not 0 <= start <= end <= len(whole):
        raise NotRendered("a slice out of range")
    part = whole[start:end]
    return part.decode(errors="replace") if isinstance(part, bytes) else part


def _printed(form: Any, *arguments: Any) -> str:
    if not isinstance(form, str):
        raise NotRendered("printf without a format")
    left = list(arguments)

    def written(verb: re.Match[str]) -> str:
        if verb.group(1) == "%":
            return "%"
        if not left or verb.group(1) not in "svdqt":
            raise NotRendered(f"the format {form!r}")
        value = left.pop(0)
        if verb.group(1) == "q":
            if not isinstance(value, str) or not value.isprintable():
                raise NotRendered("a quoted value")
            return json.dumps(value, ensure_ascii=False)
        if isinstance(value, str) != (verb.group(1) == "s") and verb.group(1) != "v":
            raise NotRendered(f"the format {form!r}")
        return go_text(value)

    text = _VERB.sub(written, form)
    if left:
        raise NotRendered("printf with too many values")
    return text


def _print(*values: Any) -> str:
    """Between two values that are no text stands a space."""
    text = ""
    for index, value in enumerate(values):
        apart = index > 0 and not isinstance(value, str) and not isinstance(values[index - 1], str)
        text += " " * apart + go_text(value)
    return text


def _typescript(value: Any) -> str:
    if not isinstance(value, Struct) or "AnyOf" not in value.fields:
        return "any"
    if value.fields["AnyOf"]:
        return " | ".join(map(_typescript, value.fields["AnyOf"]))
    types = value.fields["Type"]
    named = [_TYPESCRIPT.get(name, "any") for name in types] if isinstance(types, Names) else []
    return " | ".join(named) if named else "any"


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "eq": _equal,
    "ne": lambda one, other: not _same(one, other),
    "lt": _less,
    "le": lambda one, other: not _less(other, one),
    "gt": lambda one, other: _less(other, one),
    "ge": lambda one, other: not _less(one, other),
    "not": lambda value: not is_true(value),
    "len": length,
    "index": _index,
    "slice": _slice,
    "print": _print,
    "println": lambda *values: " ".join(map(go_text, values)) + "\n",
    "printf": _printed,
    "toTypeScriptType": _typescript,
}
