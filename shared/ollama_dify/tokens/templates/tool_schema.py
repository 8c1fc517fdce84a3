"""What Ollama keeps of a tool: it reads each into a fixed form and drops the rest.

`api/types.go` of Ollama 0.24 to 0.33: a property keeps its alternatives, types, items, description, values,
properties and the names of those required.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .go_values import JsonList, JsonMap, Names, Ordered, Struct
from .rendering import NotRendered

__all__ = ["api_tool", "template_tools"]

_MAX_DEPTH = 40
_PROPERTY_NAMES = {
    "AnyOf": "anyOf",
    "Type": "type",
    "Items": "items",
    "Description": "description",
    "Enum": "enum",
    "Properties": "properties",
    "Required": "required",
}
_PARAMETER_NAMES = {
    "Type": "type",
    "Defs": "$defs",
    "Items": "items",
    "Required": "required",
    "Properties": "properties",
}
_TOOL_NAMES = {"Type": "type", "Items": "items", "Function": "function"}
_FUNCTION_NAMES = {"Name": "name", "Description": "description", "Parameters": "parameters"}


def template_tools(tools: list[Mapping[str, Any]]) -> JsonList:
    """The tools as Go templates see them."""
    return JsonList(_tool(tool, prints_json=True) for tool in tools)


def api_tool(tool: Mapping[str, Any]) -> Struct:
    """A tool as the server writes it in JSON for a template of another kind."""
    return _tool(tool, prints_json=False)


def _tool(tool: Mapping[str, Any], *, prints_json: bool) -> Struct:
    function = _mapping(tool.get("function"))
    parameters = _mapping(function.get("parameters"))
    properties = parameters.get("properties")
    sort = JsonMap if prints_json else Ordered
    known = {
        "Type": _text(parameters.get("type")),
        "Defs": parameters.get("$defs"),
        "Items": parameters.get("items"),
        "Required": _list(parameters.get("required")),
        "Properties": None
        if properties is None and not prints_json
        else sort({name: _property(value, 0) for name, value in _mapping(properties).items()}),
    }
    fields = {
        "Name": _text(function.get("name")),
        "Description": _text(function.get("description")),
        "Parameters": Struct(known, _PARAMETER_NAMES, frozenset({"Defs", "Items", "Required"})),
    }
    return Struct(
        {
            "Type": _text(tool.get("type")),
            "Items": tool.get("items"),
            "Function": Struct(
                fields, _FUNCTION_NAMES, frozenset() if prints_json else frozenset({"Description"})
            ),
        },
        _TOOL_NAMES,
        frozenset({"Items"}),
        prints_json,
    )


def _property(value: Any, depth: int) -> Struct:
    if depth > _MAX_DEPTH:
        raise NotRendered("a schema that is too deep")
    given = _mapping(value)
    types, properties = given.get("type"), given.get("properties")
    if properties is not None:
        properties = Ordered(
            {name: _property(item, depth + 1) for name, item in _mapping(properties).items()}
        )
    return Struct(
        {
            "AnyOf": [_property(item, depth + 1) for item in _list(given.get("anyOf"))],
            "Type": Names([types] if isinstance(types, str) else _list(types)),
            "Items": given.get("items"),
            "Description": _text(given.get("description")),
            "Enum": _list(given.get("enum")),
            "Properties": properties,
            "Required": _list(given.get("required")),
        },
        _PROPERTY_NAMES,
        frozenset(_PROPERTY_NAMES),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise NotRendered("a schema that is no object")
    return value


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        raise NotRendered("a schema with one value for several")
    return list(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise NotRendered("a schema with a text that is none")
    return value
