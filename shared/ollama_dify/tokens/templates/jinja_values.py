"""Values in Jinja templates: what stands for nothing, how texts and attributes are had, what becomes JSON."""

from __future__ import annotations

import json
from typing import Any

from .rendering import NotRendered

__all__ = [
    "UNDEFINED",
    "Namespace",
    "Undefined",
    "attribute",
    "check_size",
    "entries",
    "item",
    "json_text",
    "text_of",
]


_MAX_NODES = 50_000


class Undefined:
    """What a name or key stands for that is not there: false, empty and nothing to ask of."""

    def __bool__(self) -> bool:
        return False


UNDEFINED = Undefined()


class Namespace:
    """`namespace(a=1)`: names that loops can change."""

    __slots__ = ("names",)

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names


def text_of(value: Any) -> str:
    """What an output writes."""
    if isinstance(value, str):
        return value
    if isinstance(value, Undefined):
        return ""
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)
    # Lists and maps are written in Python's way by some and as JSON by others.
    raise NotRendered(f"a {type(value).__name__} as text")


def attribute(value: Any, name: str) -> Any:
    """`value.name`; a list, a text or nothing has none."""
    if isinstance(value, dict):
        return value.get(name, UNDEFINED)
    if isinstance(value, Namespace):
        return value.names.get(name, UNDEFINED)
    if isinstance(value, (Undefined, type(None))):
        raise NotRendered(f".{name} of nothing")
    return UNDEFINED


def item(value: Any, key: Any) -> Any:
    """`value[key]`, undefined where there is none."""
    if isinstance(value, (dict, Namespace)):
        return attribute(value, key) if isinstance(key, str) else UNDEFINED
    if isinstance(value, (list, tuple, str)) and isinstance(key, int):
        return value[key] if -len(value) <= key < len(value) else UNDEFINED
    if isinstance(value, (Undefined, type(None))):
        raise NotRendered("an entry of nothing")
    return UNDEFINED


def entries(value: Any) -> list[Any]:
    """What a loop runs over: entries, keys or characters."""
    if isinstance(value, Undefined):
        return []
    if isinstance(value, (list, tuple, dict, str)):
        return list(value)
    raise NotRendered(f"a loop over a {type(value).__name__}")


def json_text(value: Any, indent: Any = None) -> str:
    """As `tojson` of chat templates: spaces behind commas and colons, nothing escaped that need not be."""
    check_size(value)
    if indent is not None and (
        isinstance(indent, bool) or not isinstance(indent, int) or not 0 <= indent <= 16
    ):
        raise NotRendered("an indentation that is none")
    return json.dumps(value, ensure_ascii=False, indent=indent)


def check_size(value: Any) -> None:
    """Refuse what is no JSON, and a value that holds another one so often that it never ends."""
    left, nodes = [(value, 0)], 0
    while left:
        found, depth = left.pop()
        nodes += 1
        if depth > 60 or nodes > _MAX_NODES:
            raise NotRendered("a value that is too large")
        if isinstance(found, (dict, list, tuple)):
            left += [(entry, depth + 1) for entry in (found.values() if isinstance(found, dict) else found)]
        elif found is not None and not isinstance(found, (str, bool, int, float)):
            raise NotRendered("a value that is no JSON")
