"""`with_structured_output(repair=True)`: one more request after an answer that is not valid."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.exceptions import OutputParserException
from langchain_core.prompts import ChatPromptTemplate
from pydantic import ValidationError

import ollama_dify
from langchain_ollama_dify import ChatOllamaDify
from ollama_dify.testing import Reply, SimulatedOllama
from tests.langchain.asking import WAYS
from tests.langchain.test_structured import METHODS, OSLO, SCHEMA, City, CityV1, last

ways = pytest.mark.parametrize("way", WAYS)
WHOLE = json.dumps(OSLO)
BROKEN = '{"name": "Oslo", "people": "many"}'


def chat(**settings: Any) -> ChatOllamaDify:
    return ChatOllamaDify(**{"model": "all-round", **settings})


def asked(server: SimulatedOllama) -> list[list[dict[str, Any]]]:
    return [request.body["messages"] for request in server.requests if request.path == "/api/chat"]


PROBLEMS: dict[str, tuple[Any, str, list[str], str]] = {
    "wrong type": (City, BROKEN, ["user", "assistant", "user"], "people: Input should be a valid integer"),
    "missing field": (City, '{"name": "Oslo"}', ["user", "assistant", "user"], "people: Field required"),
    "pydantic v1": (CityV1, BROKEN, ["user", "assistant", "user"], "people: value is not a valid integer"),
    "no JSON": (City, "Oslo it is.", ["user", "assistant", "user"], "Expecting value: line 1"),
    "no JSON, JSON schema": (SCHEMA, '{"name": "Os', ["user", "assistant", "user"], "Unterminated string"),
    "nothing": (City, "", ["user", "user"], "Expecting value: line 1"),
}


@ways
@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
@pytest.mark.parametrize(("schema", "answer", "roles", "told"), PROBLEMS.values(), ids=PROBLEMS)
async def test_the_answer_and_its_problem_are_sent_back_once(
    server: SimulatedOllama, way: str, method: Any, schema: Any, answer: str, roles: list[str], told: str
) -> None:
    server.script([Reply(pieces=[answer]), WHOLE])
    model = chat().with_structured_output(schema, method=method, repair=True)

    got = await last(model, way, "Oslo?")

    assert got == (OSLO if schema is SCHEMA else schema(**OSLO))
    first, second = asked(server)
    assert [turn["role"] for turn in second] == roles
    assert second[: len(first)] == first
    if answer:
        assert second[1]["content"] == answer
    assert told in second[-1]["content"]
    assert "whole corrected JSON" in second[-1]["content"]
    assert server.requests[-1].body["format"] == server.requests[-2].body["format"]


@ways
async def test_a_call_that_is_not_valid_gets_a_result_that_says_so(server: SimulatedOllama, way: str) -> None:
    server.script([f'{{"City": {BROKEN}}}', f'{{"City": {WHOLE}}}'])
    model = chat().with_structured_output(City, method="function_calling", repair=True)

    assert await last(model, way, "Oslo?") == City(**OSLO)

    _, (_, call, result) = asked(server)
    assert call["tool_calls"][0]["function"]["arguments"] == json.loads(BROKEN)
    assert (result["role"], result["tool_name"]) == ("tool", "City")
    assert result["tool_call_id"] == call["tool_calls"][0]["id"]
    assert "people: Input should be a valid integer" in result["content"]


@ways
async def test_a_model_that_says_something_else_than_the_call(server: SimulatedOllama, way: str) -> None:
    server.script(["Oslo it is.", f'{{"City": {WHOLE}}}'])
    model = chat().with_structured_output(City, method="function_calling", repair=True)

    assert await last(model, way, "Oslo?") == City(**OSLO)

    assert [turn["content"] for turn in asked(server)[1][:2]] == ["Oslo?", "Oslo it is."]
    assert "was to call City" in asked(server)[1][2]["content"]


SECOND_FAILURES: dict[str, tuple[str, list[str], type[Exception], str]] = {
    "json_schema": ("json_schema", [BROKEN, '{"name": "Oslo"}'], OutputParserException, "Field required"),
    "json_mode": ("json_mode", ["no", "still no"], OutputParserException, "not JSON"),
    "call": (
        "function_calling",
        [f'{{"City": {BROKEN}}}', '{"City": {"name": "Oslo"}}'],
        ValidationError,
        "Field required",
    ),
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

    assert len(asked(server)) == 2


@ways
@pytest.mark.parametrize("method", METHODS)
async def test_a_valid_answer_is_asked_for_once(server: SimulatedOllama, way: str, method: Any) -> None:
    server.script([f'{{"City": {WHOLE}}}' if method == "function_calling" else WHOLE])

    got = await last(chat().with_structured_output(City, method=method, repair=True), way, "Oslo?")

    assert got == City(**OSLO)
    assert len(asked(server)) == 1


@ways
@pytest.mark.parametrize("repair", [True, False])
async def test_a_cut_answer_is_not_asked_for_again(server: SimulatedOllama, way: str, repair: bool) -> None:
    server.script([Reply('{"name": "Oslo", "peo', done_reason="length"), WHOLE])

    with pytest.raises(OutputParserException, match="raise max_tokens"):
        await last(chat().with_structured_output(City, repair=repair), way, "Oslo?")

    assert len(asked(server)) == 1


@ways
async def test_without_it_nothing_is_repaired(server: SimulatedOllama, way: str) -> None:
    server.script([BROKEN, WHOLE])

    with pytest.raises(OutputParserException):
        await last(chat().with_structured_output(City), way, "Oslo?")

    assert len(asked(server)) == 1


@ways
@pytest.mark.parametrize("answers", [[BROKEN, WHOLE], [BROKEN, "still no"]], ids=["repaired", "not repaired"])
async def test_include_raw(server: SimulatedOllama, way: str, answers: list[str]) -> None:
    server.script(answers)

    got = await last(chat().with_structured_output(City, include_raw=True, repair=True), way, "Oslo?")

    assert got["raw"].text == answers[1]
    if answers[1] == WHOLE:
        assert (got["parsed"], got["parsing_error"]) == (City(**OSLO), None)
    else:
        assert got["parsed"] is None
        assert isinstance(got["parsing_error"], OutputParserException)


@pytest.mark.parametrize("way", ["stream", "astream"])
@pytest.mark.parametrize("answers", [[WHOLE], [BROKEN, WHOLE]], ids=["valid", "repaired"])
async def test_a_stream_gives_the_object_once_at_the_end(
    server: SimulatedOllama, way: str, answers: list[str]
) -> None:
    server.script([Reply(pieces=list(answer)) for answer in answers])
    model = chat().with_structured_output(City, repair=True)

    parts = list(model.stream("?")) if way == "stream" else [part async for part in model.astream("?")]

    assert parts == [City(**OSLO)]


@ways
async def test_in_a_chain_with_a_thinking_model_and_callbacks(server: SimulatedOllama, way: str) -> None:
    server.script([Reply(BROKEN, thinking="How many?"), Reply(WHOLE, thinking="700000.")])
    usage = UsageMetadataCallbackHandler()
    prompt = ChatPromptTemplate.from_messages([("system", "Know cities."), ("user", "{city}?")])
    model = chat(model="qwen3").with_structured_output(City, repair=True)
    chain = (prompt | model).with_config(callbacks=[usage])

    assert await last(chain, way, {"city": "Oslo"}) == City(**OSLO)

    _, second = asked(server)
    assert [turn["role"] for turn in second] == ["system", "user", "assistant", "user"]
    assert second[2]["thinking"] == "How many?"
    (used,) = usage.usage_metadata.values()
    assert used["output_tokens"] > 2 * len(OSLO)
    assert used["input_tokens"] > 0


@ways
async def test_in_completion_mode(server: SimulatedOllama, way: str) -> None:
    server.script([BROKEN, WHOLE])

    got = await last(chat(mode="completion").with_structured_output(City, repair=True), way, "Oslo?")

    assert got == City(**OSLO)
    prompt = server.requests[-1].body["prompt"]
    assert BROKEN in prompt
    assert "people: Input should be a valid integer" in prompt
