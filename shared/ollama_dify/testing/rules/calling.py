"""Whether a message asks for a tool, for which one, and with which arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from . import reading
from .sources import Source
from .values import Filler, spread_name

Tool = Mapping[str, Any]
Call = dict[str, Any]
_ASKED = re.compile(r"\b(?:use|call|invoke|run|using)\b[^.?!]{0,40}\b(?:tools?|functions?)\b", re.IGNORECASE)
_ARITHMETIC = re.compile(r"\d\s*[-+*/×÷^]\s*-?\d|\b(?:plus|minus|times|sum|product|divided)\b", re.IGNORECASE)
_GENERIC_WORDS = "get set current tool function value call fetch number two new my run do"
_GENERIC = frozenset(map(reading.stem, _GENERIC_WORDS.split()))
_ACTION_WORDS = "get set add find search send create make call run fetch list read write delete update"
_ACTIONS = frozenset(_ACTION_WORDS.split())
_LIST = re.compile(r"\s*(?:,\s*(?:and|or)\s+|\s+and\s+|\s+or\s+|\s*&\s*|\s+vs\.?\s+|、|和|と)\s*")


def calls_for(text: str, tools: Sequence[Tool]) -> list[Call]:
    """The calls a message asks for."""
    functions = [tool.get("function") or tool for tool in tools]
    functions = [function for function in functions if function.get("name")]
    named = [function for function in functions if _mentions(text, function["name"])]
    chosen = named[:1] or _matching(text, functions)
    return [call for function in chosen for call in _calls_of(function, text)]


def form_for(text: str, tools: Sequence[Tool], done: Sequence[str], results: Sequence[str]) -> list[Call]:
    """The call of a tool that is no action but the final answer's form: a class name such as `Report`."""
    functions = [tool.get("function") or tool for tool in tools]
    forms = [function for function in functions if _is_form(function.get("name") or "")]
    if not forms or any(function["name"] in done for function in forms):
        return []
    spoken = [spread_name(f"{function['name']} {function.get('description', '')}") for function in forms]
    form = forms[reading.most_alike(text, spoken)]
    parameters = form.get("parameters") or {}
    filler = Filler(Source("\n".join([*results, text])), parameters)
    return [{"name": form["name"], "arguments": filler.object(parameters)}]


def _is_form(name: str) -> bool:
    first = spread_name(name).partition(" ")[0].lower()
    return name[:1].isupper() and "_" not in name and first not in _ACTIONS


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", text) is not None and (
        "_" in name or len(name) > 3
    )


def _matching(text: str, functions: list[Tool]) -> list[Tool]:
    scores = [_score(text, function) for function in functions]
    best = max(scores, default=0.0)
    forced = _ASKED.search(text) is not None
    if not functions or (best < 1.0 and not forced):
        return []
    first = functions[scores.index(best)]
    chosen, taken = [first], _name_stems(first)
    asked = reading.key_words(text)
    for function in functions:
        own = (_name_stems(function) - taken) & asked
        if function is not first and own:
            chosen.append(function)
            taken |= _name_stems(function)
    return chosen


def _name_stems(function: Tool) -> set[str]:
    return reading.key_words(spread_name(function["name"])) - _GENERIC


def _score(text: str, function: Tool) -> float:
    asked = reading.key_words(text)
    parameters = function.get("parameters") or {}
    by_name = asked & _name_stems(function)
    described = (asked & reading.key_words(function.get("description") or "")) - _GENERIC
    by_parameter = (
        asked & reading.key_words(spread_name(" ".join(parameters.get("properties") or {})))
    ) - _GENERIC
    score = (
        2.0 * len(by_name) + 1.0 * len(described - by_name) + 0.5 * len(by_parameter - described - by_name)
    )
    return score + (1.0 if _fits_arithmetic(text, parameters) else 0.0)


def _fits_arithmetic(text: str, parameters: Mapping[str, Any]) -> bool:
    properties = parameters.get("properties") or {}
    numeric = [name for name, schema in properties.items() if schema.get("type") in ("integer", "number")]
    return len(numeric) >= 2 and len(numeric) == len(properties) and _ARITHMETIC.search(text) is not None


def _calls_of(function: Tool, text: str) -> list[Call]:
    parameters = function.get("parameters") or {}
    properties = parameters.get("properties") or {}
    required = [name for name in parameters.get("required") or () if name in properties] or list(properties)[
        :1
    ]
    spoken = re.sub(rf"(?<!\w){re.escape(function['name'])}(?!\w)", " ", text)
    if len(required) == 1 and properties:
        several = _several(spoken, properties[required[0]])
        if len(several) > 1:
            return [{"name": function["name"], "arguments": {required[0]: value}} for value in several]
    filler = Filler(Source(spoken), parameters, eager=False)
    return [{"name": function["name"], "arguments": filler.object(parameters) if properties else {}}]


def _several(text: str, schema: Mapping[str, Any]) -> list[Any]:
    """The things a sentence names for one parameter: `Paris and Berlin`, `3 and 5`."""
    kind = schema.get("type")
    if schema.get("enum") or kind not in ("string", "integer", "number"):
        return []
    if kind == "string":
        quoted = re.findall(r"[\"']([^\"']{1,80})[\"']", text)
        things: list[str] = quoted if len(quoted) > 1 else Source(text).proper_names()
    else:
        things = re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?", text)
    listed = dict.fromkeys(one for pair in pairwise(things) if _are_joined(text, *pair) for one in pair)
    if kind == "string":
        return list(listed)
    return [int(one) if kind == "integer" and "." not in one else float(one) for one in listed]


def _are_joined(text: str, left: str, right: str) -> bool:
    """Whether a comma or an `and` stands between two things."""
    link = rf"[\"']?(?:{_LIST.pattern}|\s*,\s*)(?:in |for |of )?[\"']?"
    return re.search(f"{re.escape(left)}{link}{re.escape(right)}", text) is not None
