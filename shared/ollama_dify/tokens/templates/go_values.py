"""Go's values as templates see them: how they print, how they become JSON, what counts as true."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from .rendering import NotRendered

__all__ = ["JsonList", "JsonMap", "Names", "Ordered", "Struct", "go_json", "go_text", "is_true", "length"]

_HTML = re.compile("[<>&\u2028\u2029]")
_MAX_DEPTH = 60


class JsonMap(dict[str, Any]):
    """A map that prints as JSON."""


class JsonList(list[Any]):
    """A list that prints as JSON."""


class Ordered(dict[str, Any]):
    """A map that keeps its order in JSON."""


class Names(list[str]):
    """A JSON schema's type: one name, or several."""


@dataclass(slots=True)
class Struct:
    """A struct: its fields in order, their names in JSON, those left out of it when empty, how it prints."""

    fields: Mapping[str, Any]
    json_names: Mapping[str, str] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    prints_json: bool = False


def is_true(value: Any) -> bool:
    """Go's truth: what is not empty, not zero and not nil."""
    return isinstance(value, Struct) or bool(value)


def length(value: Any) -> int:
    """Bytes of a text, entries of a list or map."""
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, (list, dict)):
        return len(value)
    raise NotRendered(f"the length of a {type(value).__name__}")


def go_text(value: Any) -> str:
    """What an action prints."""
    return "<no value>" if value is None else _text(value, 0)


def _text(value: Any, depth: int) -> str:
    if depth > _MAX_DEPTH:
        raise NotRendered("a value that is too deep")
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return _number(value, small=-4)
    if isinstance(value, Names):
        return value[0] if len(value) == 1 else f"[{' '.join(value)}]" if value else ""
    if isinstance(value, (JsonMap, JsonList)) or (isinstance(value, Struct) and value.prints_json):
        return go_json(value)
    if isinstance(value, list):
        return f"[{' '.join(_text(item, depth + 1) for item in value)}]"
    if isinstance(value, dict) and not isinstance(value, Ordered):
        return f"map[{' '.join(f'{key}:{_text(value[key], depth + 1)}' for key in sorted(value))}]"
    if isinstance(value, Struct):
        return f"{{{' '.join(_text(item, depth + 1) for item in value.fields.values())}}}"
    raise NotRendered(f"a {type(value).__name__} as text")


def go_json(value: Any) -> str:
    """As `encoding/json` writes it: compact, with the keys of maps in order and HTML's signs escaped."""
    return _HTML.sub(lambda sign: f"\\u{ord(sign.group()):04x}", _json(value, 0))


def _json(value: Any, depth: int) -> str:
    if depth > _MAX_DEPTH:
        raise NotRendered("a value that is too deep")
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (int, float)):
        return _number(value, small=-6)
    if isinstance(value, Names) and len(value) == 1:
        return _json(value[0], depth)
    if isinstance(value, list):
        return f"[{','.join(_json(item, depth + 1) for item in value)}]"
    if isinstance(value, Struct):
        entries = [
            (value.json_names.get(name, name), item)
            for name, item in value.fields.items()
            if name not in value.optional or item not in (None, "", [], {})
        ]
    elif isinstance(value, dict):
        entries = list(value.items()) if isinstance(value, Ordered) else sorted(value.items())
    else:
        raise NotRendered(f"a {type(value).__name__} as JSON")
    return "{" + ",".join(f"{_json(key, depth)}:{_json(item, depth + 1)}" for key, item in entries) + "}"


def _number(value: float, *, small: int) -> str:
    """The shortest form of a 64-bit number, with an exponent where Go writes one."""
    if isinstance(value, int) and abs(value) < 2**53:
        return str(value)
    digits = repr(float(value))
    if digits in ("inf", "-inf", "nan"):
        raise NotRendered("a number that JSON does not know")
    if value == 0:
        return "0"
    exponent = Decimal(digits).adjusted()
    if small <= exponent < 21:
        return format(Decimal(digits).normalize(), "f")
    mantissa = format(Decimal(digits).scaleb(-exponent).normalize(), "f")
    # JSON writes e-7 where printing writes e-07.
    width = 2 if small == -4 or exponent > 0 else 1
    return f"{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):0{width}d}"
