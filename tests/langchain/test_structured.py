"""Structured output: schemas on the wire, objects back, calls, raw answers. The rest: tests/parity."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.exceptions import OutputParserException
from langchain_core.prompts import ChatPromptTemplate
from pydantic import BaseModel, Field, ValidationError
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import TypedDict

import ollama_dify
from ollama_dify.testing import Reply, SimulatedOllama
from tests.langchain.asking import chat, sent, streams, ways


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
WHOLE = json.dumps(OSLO)
BROKEN = '{"name": "Oslo", "people": "many"}'
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
    named = getattr(schema, "__name__", "City")
    spoken = {named: OSLO} if method == "function_calling" else OSLO
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


def say(text: str, method: str) -> str:
    return f'{{"City": {text}}}' if method == "function_calling" else text


@ways
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("repair", [False, True])
async def test_include_raw(server: SimulatedOllama, way: str, method: Any, repair: bool) -> None:
    server.script([*[say(BROKEN, method)] * repair, say(WHOLE, method)])
    model = chat().with_structured_output(City, method=method, include_raw=True, repair=repair)

    if way in ("invoke", "ainvoke"):
        got = await last(model, way, "Oslo?")
        assert got["raw"].usage_metadata["output_tokens"] > 0
    else:
        parts = list(model.stream("?")) if way == "stream" else [part async for part in model.astream("?")]
        got = {key: value for part in parts for key, value in part.items()}

    assert got["parsed"] == City(**OSLO)
    assert got["parsing_error"] is None


NO_OBJECTS: dict[str, Reply] = {
    "no JSON": Reply("Oslo it is."),
    "cut": Reply('{"name": "Oslo", "people": 7', done_reason="length"),
    "wrong type": Reply(BROKEN),
    "empty": Reply(pieces=[""]),
}


@ways
@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("reply", NO_OBJECTS.values(), ids=NO_OBJECTS)
async def test_an_answer_that_is_no_object_is_kept(
    server: SimulatedOllama, way: str, reply: Reply, repair: bool
) -> None:
    server.reply(reply, times=None)

    with pytest.raises(OutputParserException) as caught:
        await last(chat().with_structured_output(City, repair=repair), way, "Oslo?")

    assert caught.value.llm_output == (reply.text or "")
    if way in ("invoke", "ainvoke"):
        model = chat().with_structured_output(City, include_raw=True, repair=repair)
        got = await last(model, way, "Oslo?")
        assert got["parsed"] is None
        assert isinstance(got["parsing_error"], OutputParserException)
        assert got["raw"].text == (reply.text or "")


@ways
async def test_a_call_that_is_not_valid_gets_a_result_that_says_so(server: SimulatedOllama, way: str) -> None:
    server.script([say(BROKEN, "function_calling"), say(WHOLE, "function_calling")])
    model = chat().with_structured_output(City, method="function_calling", repair=True)

    assert await last(model, way, "Oslo?") == City(**OSLO)

    _, call, result = server.requests[-1].body["messages"]
    assert call["tool_calls"][0]["function"]["arguments"] == json.loads(BROKEN)
    assert (result["role"], result["tool_name"]) == ("tool", "City")
    assert result["tool_call_id"] == call["tool_calls"][0]["id"]
    assert "people: Input should be a valid integer" in result["content"]


# Schema, method, answers, and what the second request says.
REPAIRS: dict[str, tuple[Any, Any, list[str], str]] = {
    "pydantic v1": (CityV1, "json_schema", [BROKEN, WHOLE], "value is not a valid integer"),
    "JSON schema": (SCHEMA, "json_schema", ['{"name": "Os', WHOLE], "Unterminated string"),
    "JSON mode": (City, "json_mode", [BROKEN, WHOLE], "should be a valid integer"),
    "no call": (
        City,
        "function_calling",
        ["Oslo it is.", say(WHOLE, "function_calling")],
        "was to call City",
    ),
}


@ways
@pytest.mark.parametrize(("schema", "method", "answers", "told"), REPAIRS.values(), ids=REPAIRS)
async def test_a_repair(
    server: SimulatedOllama,
    way: str,
    schema: Any,
    method: Any,
    answers: list[str],
    told: str,
) -> None:
    server.script(answers)

    got = await last(chat().with_structured_output(schema, method=method, repair=True), way, "Oslo?")

    assert got == (OSLO if schema is SCHEMA else schema(**OSLO))
    asked = server.requests[-1].body["messages"]
    assert [turn["role"] for turn in asked] == ["user", "assistant", "user"]
    assert asked[1]["content"] == answers[0]
    assert told in asked[-1]["content"]
    assert len(sent(server)) == 2


SECOND_FAILURES: dict[str, tuple[Any, list[str], type[Exception], str]] = {
    "json_mode": ("json_mode", ["no", "still no"], OutputParserException, "not JSON"),
    "call": ("function_calling", [say(BROKEN, "function_calling")] * 2, ValidationError, "valid integer"),
    "no call": ("function_calling", ["no", "still no"], ollama_dify.ProtocolError, "answered 'still no'"),
}


@ways
@pytest.mark.parametrize(("method", "answers", "kind", "told"), SECOND_FAILURES.values(), ids=SECOND_FAILURES)
async def test_there_is_never_a_third_request(
    server: SimulatedOllama, way: str, method: Any, answers: list[str], kind: type[Exception], told: str
) -> None:
    server.script([*answers, WHOLE])

    with pytest.raises(kind, match=told):
        await last(chat().with_structured_output(City, method=method, repair=True), way, "Oslo?")

    assert len(sent(server)) == 2


@ways
async def test_in_a_chain_with_callbacks(server: SimulatedOllama, way: str) -> None:
    server.script([BROKEN, WHOLE])
    usage = UsageMetadataCallbackHandler()
    prompt = ChatPromptTemplate.from_messages([("system", "Know cities."), ("user", "{city}?")])
    model = chat().with_structured_output(City, repair=True)
    chain = (prompt | model).with_config(callbacks=[usage])

    assert await last(chain, way, {"city": "Oslo"}) == City(**OSLO)

    roles = [turn["role"] for turn in server.requests[-1].body["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    (used,) = usage.usage_metadata.values()
    assert used["output_tokens"] > 2 * len(OSLO)


async def test_a_repair_tells_its_input_and_calls_handlers_on_the_event_loop(server: SimulatedOllama) -> None:
    loops = set()

    class Watching(AsyncCallbackHandler):
        async def on_chain_start(self, *given: Any, **details: Any) -> None:
            loops.add(asyncio.get_running_loop())

    server.script([BROKEN, WHOLE])
    model = chat().with_structured_output(City, repair=True)
    await model.ainvoke("Oslo?", {"callbacks": [Watching()]})
    assert loops == {asyncio.get_running_loop()}
    assert "HumanMessage" in model.get_input_jsonschema()["$defs"]


@streams
async def test_what_can_be_read_so_far_is_streamed(server: SimulatedOllama, way: str) -> None:
    server.reply(Reply(pieces=['{"name": "Os', 'lo", ', '"people": 7', "00000}"]))
    model = chat().with_structured_output(SCHEMA)

    parts = list(model.stream("?")) if way == "stream" else [part async for part in model.astream("?")]

    assert parts == [{"name": "Os"}, {"name": "Oslo"}, {"name": "Oslo", "people": 7}, OSLO]


@ways
@pytest.mark.parametrize(
    ("call", "sent"),
    [
        ({"format": {"name": "City", "parameters": SCHEMA}}, SCHEMA),
        ({"format": City}, City.model_json_schema()),
        ({"response_format": City}, City.model_json_schema()),
    ],
    ids=["function dict", "class", "class as response_format"],
)
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
