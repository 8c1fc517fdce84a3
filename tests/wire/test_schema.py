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


@pytest.mark.parametrize(
    ("schema", "inlined"),
    [
        pytest.param({"type": "object"}, {"type": "object"}, id="nothing to do"),
        pytest.param(
            {"properties": {"c": {"$ref": "#/$defs/City"}}, "$defs": {"City": CITY}},
            {"properties": {"c": CITY}},
            id="$defs",
        ),
        pytest.param(
            {"properties": {"c": {"$ref": "#/definitions/City"}}, "definitions": {"City": CITY}},
            {"properties": {"c": CITY}},
            id="definitions",
        ),
        pytest.param({"$ref": "#/$defs/City", "$defs": {"City": CITY}}, CITY, id="at the top"),
        pytest.param(
            {"items": {"$ref": "#/$defs/A"}, "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"type": "null"}}},
            {"items": {"type": "null"}},
            id="reference to a reference",
        ),
        pytest.param(
            {
                "items": {"$ref": "#/$defs/A", "description": "mine"},
                "$defs": {"A": {"description": "its", "a": 1}},
            },
            {"items": {"description": "mine", "a": 1}},
            id="keywords beside it win",
        ),
        pytest.param(
            {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}], "$defs": {"A": {"a": 1}}},
            {"anyOf": [{"a": 1}, {"type": "null"}]},
            id="in a list",
        ),
        pytest.param(
            {"a": {"$ref": "#/b/1"}, "b": [{"x": 1}, {"y": 2}]},
            {"a": {"y": 2}, "b": [{"x": 1}, {"y": 2}]},
            id="by position",
        ),
        pytest.param(
            {"a": {"$ref": "#/$defs/x~1y~0z"}, "$defs": {"x/y~z": {"b": 1}}},
            {"a": {"b": 1}},
            id="escaped pointer",
        ),
        pytest.param(
            {"properties": {"$ref": {"type": "string"}}},
            {"properties": {"$ref": {"type": "string"}}},
            id="a property called $ref",
        ),
        pytest.param(
            {"properties": {"definitions": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"a": 1}}},
            {"properties": {"definitions": {"a": 1}}},
            id="a property called definitions",
        ),
        pytest.param(
            {"properties": {"enum": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"a": 1}}},
            {"properties": {"enum": {"a": 1}}},
            id="a property called enum",
        ),
        pytest.param(
            {"default": {"$ref": "#/nowhere"}, "enum": [{"$ref": "x"}], "const": {"$ref": "y"}},
            {"default": {"$ref": "#/nowhere"}, "enum": [{"$ref": "x"}], "const": {"$ref": "y"}},
            id="data is no schema",
        ),
        pytest.param(
            {"items": {"$ref": "#/$defs/A"}, "$defs": {"A": True}}, {"items": True}, id="true schema"
        ),
    ],
)
def test_inlined(schema: dict[str, Any], inlined: dict[str, Any]) -> None:
    before = copy.deepcopy(schema)
    assert inline_refs(schema) == inlined
    assert schema == before


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        pytest.param({"items": {"$ref": "#"}}, "'#'", id="the root itself"),
        pytest.param(
            {"$ref": "#/$defs/A", "$defs": {"A": {"items": {"$ref": "#/$defs/A"}}}}, "#/$defs/A", id="a loop"
        ),
        pytest.param(
            {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}},
            "#/$defs/",
            id="a loop of two",
        ),
        pytest.param({"items": {"$ref": "#/$defs/None"}}, "#/$defs/None", id="missing"),
        pytest.param({"items": {"$ref": "#/a/7"}, "a": [1]}, "#/a/7", id="past the end"),
        pytest.param(
            {"items": {"$ref": "https://example.com/s.json"}}, "https://example.com", id="elsewhere"
        ),
    ],
)
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
