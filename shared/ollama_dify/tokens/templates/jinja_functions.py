"""Filters, tests and methods that chat templates use; what is unknown here is `NotRendered`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .jinja_values import UNDEFINED, Undefined, attribute, entries, json_text, text_of
from .rendering import MOST_AT_ONCE, NotRendered

__all__ = ["FILTERS", "METHODS", "TESTS", "call"]

Function = Callable[..., Any]


def call(function: Function, *arguments: Any, **named: Any) -> Any:
    """The function's value; what Python refuses is what the template's own engine would refuse."""
    try:
        return function(*arguments, **named)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise NotRendered(f"a call that fails: {error}") from None


def _length(value: Any) -> int:
    return 0 if isinstance(value, Undefined) else len(value)


def _default(value: Any, other: Any = "", boolean: Any = False) -> Any:
    return other if isinstance(value, Undefined) or (boolean and not value) else value


def _join(value: Any, between: str = "", attribute: str | None = None) -> str:
    texts = [text_of(_part(entry, attribute) if attribute else entry) for entry in entries(value)]
    _allow(sum(map(len, texts)) + len(texts) * len(between))
    return between.join(texts)


def _replace(value: Any, old: str, new: str, limit: int = -1) -> str:
    text = text_of(value)
    _allow(len(text) + (text.count(old) + 1) * len(new))
    return text.replace(old, new, limit)


def _allow(characters: int) -> None:
    if characters > MOST_AT_ONCE:
        raise NotRendered("too much text")


def _part(value: Any, path: Any) -> Any:
    for name in str(path).split("."):
        value = attribute(value, name)
    return value


def _map(
    value: Any, filter_name: str | None = None, *given: Any, attribute: Any = None, default: Any = UNDEFINED
) -> Any:
    if attribute is not None:
        parts = [_part(entry, attribute) for entry in entries(value)]
        return [default if isinstance(part, Undefined) else part for part in parts]
    if filter_name is None:
        raise NotRendered("a map of nothing")
    return [call(FILTERS[filter_name], entry, *given) for entry in entries(value)]


def _chosen(keeps: bool, *, by_attribute: bool) -> Function:
    def choose(value: Any, *given: Any) -> list[Any]:
        name, given = (given[0], given[1:]) if by_attribute else (None, given)
        test = TESTS[given[0]] if given else bool
        return [
            entry
            for entry in entries(value)
            if bool(test(_part(entry, name) if by_attribute else entry, *given[1:])) == keeps
        ]

    return choose


def _unique(value: Any) -> list[Any]:
    kept: list[Any] = []
    for entry in entries(value):
        if entry not in kept:
            kept.append(entry)
    return kept


def _indent(value: Any, width: int = 4, first: bool = False, blank: bool = False) -> str:
    lines = text_of(value).split("\n")
    _allow(width * len(lines))
    room = " " * width
    return "\n".join(
        room + line if (line or blank) and (index or first) else line for index, line in enumerate(lines)
    )


def _json(value: Any, indent: Any = None, ensure_ascii: bool = False, **other: Any) -> str:
    if other or ensure_ascii:
        raise NotRendered("an option of tojson")
    return json_text(value, indent)


def _sorted(
    value: Any, reverse: bool = False, case_sensitive: bool = False, attribute: Any = None
) -> list[Any]:
    def key(entry: Any) -> Any:
        found = entry if attribute is None else _part(entry, attribute)
        return found.lower() if isinstance(found, str) and not case_sensitive else found

    return sorted(entries(value), key=key, reverse=reverse)


def _dictsort(value: Any) -> list[Any]:
    return sorted(value.items(), key=lambda entry: str(entry[0]).lower())


def _end(value: Any, index: int) -> Any:
    found = entries(value)
    return found[index] if found else UNDEFINED


FILTERS: dict[str, Function] = {
    "tojson": _json,
    "trim": lambda value, signs=None: text_of(value).strip(signs),
    "length": _length,
    "count": _length,
    "upper": lambda value: text_of(value).upper(),
    "lower": lambda value: text_of(value).lower(),
    "title": lambda value: text_of(value).title(),
    "capitalize": lambda value: text_of(value).capitalize(),
    "string": text_of,
    "safe": lambda value: value,
    "int": lambda value, default=0: int(value) if not isinstance(value, Undefined) else default,
    "float": lambda value: float(value),
    "abs": lambda value: abs(value),
    "default": _default,
    "d": _default,
    "join": _join,
    "list": entries,
    "first": lambda value: _end(value, 0),
    "last": lambda value: _end(value, -1),
    "reverse": lambda value: value[::-1] if isinstance(value, str) else entries(value)[::-1],
    "items": lambda value: [] if isinstance(value, Undefined) else list(value.items()),
    "dictsort": _dictsort,
    "sort": _sorted,
    "unique": _unique,
    "replace": _replace,
    "map": _map,
    "select": _chosen(True, by_attribute=False),
    "reject": _chosen(False, by_attribute=False),
    "selectattr": _chosen(True, by_attribute=True),
    "rejectattr": _chosen(False, by_attribute=True),
    "indent": _indent,
    "sum": lambda value: sum(entries(value)),
    "min": lambda value: min(entries(value)),
    "max": lambda value: max(entries(value)),
}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


TESTS: dict[str, Function] = {
    "defined": lambda value: not isinstance(value, Undefined),
    "undefined": lambda value: isinstance(value, Undefined),
    "none": lambda value: value is None,
    "string": lambda value: isinstance(value, str),
    "mapping": lambda value: isinstance(value, dict),
    "sequence": lambda value: isinstance(value, (str, list, tuple, dict)),
    "iterable": lambda value: isinstance(value, (str, list, tuple, dict)),
    "number": _is_number,
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, float),
    "boolean": lambda value: isinstance(value, bool),
    "true": lambda value: value is True,
    "false": lambda value: value is False,
    "odd": lambda value: value % 2 == 1,
    "even": lambda value: value % 2 == 0,
    "divisibleby": lambda value, number: value % number == 0,
    "in": lambda value, among: value in among,
    "callable": callable,
    **dict.fromkeys(("eq", "equalto", "=="), lambda value, other: value == other),
    **dict.fromkeys(("ne", "!="), lambda value, other: value != other),
    **dict.fromkeys(("gt", "greaterthan", ">"), lambda value, other: value > other),
    **dict.fromkeys(("lt", "lessthan", "<"), lambda value, other: value < other),
}

_TEXT_METHODS = (
    *(
        "startswith",
        "endswith",
        "strip",
        "lstrip",
        "rstrip",
        "split",
        "rsplit",
        "splitlines",
        "upper",
        "lower",
    ),
    *("title", "capitalize", "find", "rfind", "count", "isdigit", "removeprefix", "removesuffix"),
)


def _append(value: list[Any], entry: Any) -> None:
    value.append(entry)


METHODS: dict[type, dict[str, Function]] = {
    str: {
        **{name: getattr(str, name) for name in _TEXT_METHODS},
        "join": lambda between, value: _join(value, between),
        "replace": _replace,
    },
    dict: {
        "get": lambda value, key, default=None: value.get(key, default),
        "items": lambda value: list(value.items()),
        "keys": lambda value: list(value),
        "values": lambda value: list(value.values()),
    },
    list: {"append": _append, "index": list.index, "count": list.count, "pop": list.pop},
}
