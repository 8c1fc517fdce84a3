"""Schemas without references: the server drops `$defs`, so nothing may point there."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from pydantic import BaseModel

from ollama_dify import inline_refs
from ollama_dify.errors import UnsupportedContentError

CITY = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


A = {"A": {"a": 1}}
OF_A = {"$ref": "#/$defs/A"}
DATA = {"default": {"$ref": "#/nowhere"}, "enum": [{"$ref": "x"}], "const": {"$ref": "y"}}
CALLED_REF = {"properties": {"$ref": {"type": "string"}}}
INLINED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing to do": ({"type": "object"}, {"type": "object"}),
    "$defs": ({"properties": {"c": OF_A}, "$defs": A}, {"properties": {"c": {"a": 1}}}),
    "definitions": ({"items": {"$ref": "#/definitions/A"}, "definitions": A}, {"items": {"a": 1}}),
    "at the top": ({"$ref": "#/$defs/City", "$defs": {"City": CITY}}, CITY),
    "reference to a reference": (
        {"items": {"$ref": "#/$defs/B"}, "$defs": {**A, "B": OF_A}},
        {"items": {"a": 1}},
    ),
    "keywords beside it win": (
        {"items": {**OF_A, "description": "mine"}, "$defs": {"A": {"description": "its", "a": 1}}},
        {"items": {"description": "mine", "a": 1}},
    ),
    "in a list": ({"anyOf": [OF_A, {"type": "null"}], "$defs": A}, {"anyOf": [{"a": 1}, {"type": "null"}]}),
    "by position": (
        {"a": {"$ref": "#/b/1"}, "b": [{"x": 1}, {"y": 2}]},
        {"a": {"y": 2}, "b": [{"x": 1}, {"y": 2}]},
    ),
    "escaped pointer": ({"a": {"$ref": "#/$defs/x~1y~0z"}, "$defs": {"x/y~z": {"b": 1}}}, {"a": {"b": 1}}),
    "a property called $ref": (CALLED_REF, CALLED_REF),
    **{
        f"a property called {name}": (
            {"properties": {name: OF_A}, "$defs": A},
            {"properties": {name: {"a": 1}}},
        )
        for name in ("definitions", "enum")
    },
    "data is no schema": (DATA, DATA),
    "true schema": ({"items": OF_A, "$defs": {"A": True}}, {"items": True}),
}


@pytest.mark.parametrize(("schema", "inlined"), INLINED.values(), ids=INLINED)
def test_inlined(schema: dict[str, Any], inlined: dict[str, Any]) -> None:
    before = copy.deepcopy(schema)
    assert inline_refs(schema) == inlined
    assert schema == before


OF_B = {"$ref": "#/$defs/B"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "the root itself": ({"items": {"$ref": "#"}}, "'#'"),
    "a loop": ({**OF_A, "$defs": {"A": {"items": OF_A}}}, "#/$defs/A"),
    "a loop of two": ({**OF_A, "$defs": {"A": OF_B, "B": OF_A}}, "#/$defs/"),
    "missing": ({"items": OF_A}, "#/$defs/A"),
    "past the end": ({"items": {"$ref": "#/a/7"}, "a": [1]}, "#/a/7"),
    "elsewhere": ({"items": {"$ref": "https://example.com/s.json"}}, "https://example.com"),
}


@pytest.mark.parametrize(("schema", "named"), REFUSED.values(), ids=REFUSED)
def test_refused(schema: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedContentError) as caught:
        inline_refs(schema)
    assert named in str(caught.value)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize("depth", [5_000, 200_000])
def test_too_deep_a_schema_is_refused(depth: int) -> None:
    with pytest.raises(UnsupportedContentError, match="nested too deeply"):
        inline_refs(nested(depth))


def test_a_deep_schema_that_can_be_sent() -> None:
    assert inline_refs(nested(120)) == nested(120)


def test_a_pydantic_model() -> None:
    class Street(BaseModel):
        name: str

    class City(BaseModel):
        streets: list[Street]
        main: Street | None = None

    assert "$ref" not in json.dumps(inline_refs(City.model_json_schema()))
