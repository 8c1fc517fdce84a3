"""Structured output: schemas on the wire, objects back, broken answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.exceptions import OutputParserException
from pydantic import BaseModel, Field
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import TypedDict

import ollama_dify
from langchain_ollama_dify import ChatOllamaDify
from ollama_dify.testing import Reply, SimulatedOllama
from tests.langchain.asking import WAYS

ways = pytest.mark.parametrize("way", WAYS)


def chat(**settings: Any) -> ChatOllamaDify:
    return ChatOllamaDify(**{"model": "all-round", **settings})


class City(BaseModel):
    """A city."""

    name: str = Field(description="Its name")
    people: int


class CityV1(BaseModelV1):
    """A city."""

    name: str
    people: int


class CityDict(TypedDict):
    """A city."""

    name: str
    people: int


SCHEMA = {
    "title": "City",
    "type": "object",
    "properties": {"name": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["name", "people"],
}
OSLO = {"name": "Oslo", "people": 700000}
OBJECTS: dict[str, tuple[Any, Any]] = {
    "pydantic": (City, City(**OSLO)),
    "pydantic v1": (CityV1, CityV1(**OSLO)),
    "TypedDict": (CityDict, OSLO),
    "JSON schema": (SCHEMA, OSLO),
    "OpenAI function": (
        {"name": "City", "description": "A city.", "parameters": SCHEMA},
        OSLO,
    ),
    "OpenAI tool": (
        {"type": "function", "function": {"name": "City", "parameters": SCHEMA}},
        OSLO,
    ),
    "Anthropic tool": ({"name": "City", "description": "A city.", "input_schema": SCHEMA}, OSLO),
}
METHODS = ["json_schema", "json_mode", "function_calling"]


async def last(model: Any, way: str, asked: Any) -> Any:
    if way == "invoke":
        return model.invoke(asked)
    if way == "ainvoke":
        return await model.ainvoke(asked)
    if way == "stream":
        return list(model.stream(asked))[-1]
    return [part async for part in model.astream(asked)][-1]


@ways
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("schema", "expected"), OBJECTS.values(), ids=OBJECTS)
async def test_an_object_of_the_schema(
    server: SimulatedOllama, way: str, method: Any, schema: Any, expected: Any
) -> None:
    spoken = {"City": OSLO} if method == "function_calling" else OSLO
    named = getattr(schema, "__name__", "City")
    if method == "function_calling":
        spoken = {named: OSLO}
    server.reply(json.dumps(spoken))

    assert await last(chat().with_structured_output(schema, method=method), way, "Oslo?") == expected

    body = server.requests[-1].body
    if method == "json_mode":
        assert body["format"] == "json"
    elif method == "json_schema":
        assert set(body["format"]["properties"]) == {"name", "people"}
        assert body["format"]["type"] == "object"
        assert "parameters" not in body["format"]
    else:
        assert body["tools"][0]["function"]["name"] == named


async def test_the_schema_of_a_pydantic_class_is_sent_as_it_is(server: SimulatedOllama) -> None:
    server.reply(json.dumps(OSLO))

    chat().with_structured_output(City).invoke("Oslo?")

    assert server.requests[-1].body["format"] == City.model_json_schema()


@ways
@pytest.mark.parametrize("method", METHODS)
async def test_include_raw(server: SimulatedOllama, way: str, method: Any) -> None:
    server.reply(json.dumps({"City": OSLO} if method == "function_calling" else OSLO))
    model = chat().with_structured_output(City, method=method, include_raw=True)

    if way in ("invoke", "ainvoke"):
        got = await last(model, way, "Oslo?")
        assert got["raw"].usage_metadata["output_tokens"] > 0
    else:
        parts = list(model.stream("?")) if way == "stream" else [part async for part in model.astream("?")]
        got = {key: value for part in parts for key, value in part.items()}

    assert got["parsed"] == City(**OSLO)
    assert got["parsing_error"] is None


BROKEN: dict[str, tuple[Reply, str]] = {
    "no JSON": (Reply("Oslo it is."), "not JSON"),
    "cut": (Reply('{"name": "Oslo", "people": 7', done_reason="length"), "raise max_tokens"),
    "wrong type": (Reply('{"name": "Oslo", "people": "many"}'), "does not satisfy City"),
    "missing field": (Reply('{"name": "Oslo"}'), "does not satisfy City"),
    "empty": (Reply(pieces=[""]), "it is empty"),
}


@ways
@pytest.mark.parametrize(("reply", "message"), BROKEN.values(), ids=BROKEN)
async def test_a_broken_answer_is_an_error(
    server: SimulatedOllama, way: str, reply: Reply, message: str
) -> None:
    server.reply(reply)

    with pytest.raises(OutputParserException, match=message) as caught:
        await last(chat().with_structured_output(City), way, "Oslo?")

    assert caught.value.llm_output == (reply.text or "")


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("reply", [reply for reply, _ in BROKEN.values()], ids=list(BROKEN))
async def test_include_raw_keeps_a_broken_answer(server: SimulatedOllama, way: str, reply: Reply) -> None:
    server.reply(reply)

    got = await last(chat().with_structured_output(City, include_raw=True), way, "Oslo?")

    assert got["parsed"] is None
    assert isinstance(got["parsing_error"], OutputParserException)
    assert got["raw"].text == (reply.text or "")


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_what_can_be_read_so_far_is_streamed(server: SimulatedOllama, way: str) -> None:
    server.reply(Reply(pieces=['{"name": "Os', 'lo", ', '"people": 7', "00000}"]))
    model = chat().with_structured_output(SCHEMA)

    parts = list(model.stream("?")) if way == "stream" else [part async for part in model.astream("?")]

    assert parts == [{"name": "Os"}, {"name": "Oslo"}, {"name": "Oslo", "people": 7}, OSLO]


@ways
async def test_with_a_thinking_model(server: SimulatedOllama, way: str) -> None:
    server.reply(Reply(json.dumps(OSLO), thinking="{not this}"))

    assert await last(chat(model="qwen3").with_structured_output(City), way, "Oslo?") == City(**OSLO)


@ways
async def test_in_completion_mode(server: SimulatedOllama, way: str) -> None:
    server.reply(json.dumps(OSLO))

    model = chat(mode="completion").with_structured_output(City)

    assert await last(model, way, "Oslo?") == City(**OSLO)
    assert server.requests[-1].path == "/api/generate"


FORMATS: dict[str, tuple[dict[str, Any], Any]] = {
    "schema": ({"format": SCHEMA}, SCHEMA),
    "function dict": ({"format": {"name": "City", "parameters": SCHEMA}}, SCHEMA),
    "class": ({"format": City}, City.model_json_schema()),
    "json_schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "City", "schema": SCHEMA}}},
        SCHEMA,
    ),
    "json_object": ({"response_format": {"type": "json_object"}}, "json"),
    "text": ({"response_format": {"type": "text"}}, None),
    "class as response_format": ({"response_format": City}, City.model_json_schema()),
}


@ways
@pytest.mark.parametrize(("call", "sent"), FORMATS.values(), ids=FORMATS)
async def test_ways_to_ask_for_a_format(
    server: SimulatedOllama, way: str, call: dict[str, Any], sent: Any
) -> None:
    await last(chat().bind(**call), way, "Oslo?")

    assert server.requests[-1].body.get("format") == sent


def test_a_function_dict_as_the_models_own_format() -> None:
    assert chat(format={"name": "City", "parameters": SCHEMA}).format == SCHEMA


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"method": "magic"}, "none of json_schema"), ({"schema": None}, "needs a schema")],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ollama_dify.ConfigurationError, match=message):
        chat().with_structured_output(**{"schema": City, **arguments})
