"""Tools of every kind, tool choices, calls in both server styles, forced calls."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tools import StructuredTool, tool
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

import ollama_dify
from ollama_dify.testing import Reply, SimulatedModel, SimulatedOllama
from tests.langchain.asking import ask, chat, chunks, streams, ways


class Place(BaseModel):
    city: str
    country: str | None = None


class weather(BaseModel):  # the tool's name
    """The weather somewhere."""

    place: Place = Field(description="Where")
    days: int = Field(1, ge=1, le=7)


class WeatherDict(TypedDict):
    """The weather somewhere."""

    city: str


def weather_function(city: str, days: int = 1) -> str:
    """The weather somewhere.

    Args:
        city: The city.
        days: How many.
    """
    return f"{city} {days}"


@tool
def weather_tool(city: str) -> str:
    """The weather somewhere."""
    return city


STRUCTURED = StructuredTool.from_function(weather_function, name="structured")
OPENAI = {
    "type": "function",
    "function": {
        "name": "openai",
        "description": "The weather somewhere.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ANTHROPIC = {
    "name": "anthropic",
    "description": "The weather somewhere.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}

TOOLS: dict[str, tuple[Any, str]] = {
    "pydantic class": (weather, "weather"),
    "TypedDict": (WeatherDict, "WeatherDict"),
    "function": (weather_function, "weather_function"),
    "BaseTool": (weather_tool, "weather_tool"),
    "StructuredTool": (STRUCTURED, "structured"),
    "OpenAI dict": (OPENAI, "openai"),
    "Anthropic dict": (ANTHROPIC, "anthropic"),
    "flat dict": (OPENAI["function"], "openai"),
}


@ways
@pytest.mark.parametrize(("given", "name"), TOOLS.values(), ids=TOOLS)
async def test_a_tool_on_the_wire(server: SimulatedOllama, way: str, given: Any, name: str) -> None:
    await ask(chat().bind_tools([given]), way, "Hello")

    (sent,) = server.requests[-1].body["tools"]
    assert sent["type"] == "function"
    assert sent["function"]["name"] == name
    assert sent["function"]["description"].startswith("The weather somewhere.")
    assert "city" in str(sent["function"]["parameters"]["properties"])


async def test_nested_schemas_arrive_whole(server: SimulatedOllama) -> None:
    chat().bind_tools([weather]).invoke("Hello")

    parameters = server.requests[-1].body["tools"][0]["function"]["parameters"]
    assert "$ref" not in str(parameters)
    place = parameters["properties"]["place"]
    assert place["properties"]["city"]["type"] == "string"
    assert place["properties"]["country"]["anyOf"] == [{"type": "string"}, {"type": "null"}]
    assert place["required"] == ["city"]
    assert parameters["properties"]["days"]["maximum"] == 7


async def test_strict_narrows_the_schema(server: SimulatedOllama) -> None:
    chat().bind_tools([weather], strict=True).invoke("Hello")

    function = server.requests[-1].body["tools"][0]["function"]
    assert function["parameters"]["additionalProperties"] is False
    assert function["parameters"]["required"] == ["place", "days"]
    assert "strict" not in function


@ways
@pytest.mark.parametrize("style", ["chatml", "native"])
@pytest.mark.parametrize("version", ["v0", "v1"])
async def test_parallel_calls(server: SimulatedOllama, way: str, style: Any, version: str) -> None:
    server.install(SimulatedModel("all-round", ("completion", "tools", "thinking"), template=style))
    asked_for = [
        {"name": "openai", "arguments": {"city": "Oslo", "days": 3, "note": "[1]"}},
        {"name": "openai", "arguments": {"city": "Århus ☂"}},
    ]
    server.reply(Reply("I look.", thinking="Hm.", tool_calls=asked_for))

    answer = await ask(chat(output_version=version).bind_tools([OPENAI]), way, "Weather?")

    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [
        (call["name"], call["arguments"]) for call in asked_for
    ]
    assert len({call["id"] for call in answer.tool_calls}) == 2
    assert answer.invalid_tool_calls == []
    thought, text, *blocks = answer.content_blocks
    assert (thought["type"], thought["reasoning"], text["type"], text["text"]) == (
        "reasoning",
        "Hm.",
        "text",
        "I look.",
    )
    assert [block["type"] for block in blocks] == ["tool_call"] * 2
    assert [block["args"] for block in blocks] == [call["arguments"] for call in asked_for]
    assert [block["id"] for block in blocks] == [call["id"] for call in answer.tool_calls]


@streams
async def test_calls_come_as_numbered_chunks(server: SimulatedOllama, way: str) -> None:
    server.reply(Reply("I look.", tool_calls=[{"name": "openai", "arguments": {"city": "Oslo"}}] * 2))

    got = await chunks(chat().bind_tools([OPENAI]), way, "Weather?")

    pieces = [piece for chunk in got for piece in chunk.tool_call_chunks]
    assert [(piece["name"], piece["args"], piece["index"]) for piece in pieces] == [
        ("openai", '{"city": "Oslo"}', 0),
        ("openai", '{"city": "Oslo"}', 1),
    ]


CHOICES: dict[str, tuple[Any, bool]] = {
    "any": ("any", True),
    "required": ("required", True),
    "True": (True, True),
    "a name": ("openai", True),
    "OpenAI's dict": ({"type": "function", "function": {"name": "openai"}}, True),
    "Anthropic's dict": ({"type": "tool", "name": "openai"}, True),
    "Anthropic's any": ({"type": "any"}, True),
    "auto": ("auto", False),
    "None": (None, False),
    "False": (False, False),
}


@ways
@pytest.mark.parametrize(("choice", "forced"), CHOICES.values(), ids=CHOICES)
async def test_a_tool_choice(server: SimulatedOllama, way: str, choice: Any, forced: bool) -> None:
    answer = await ask(chat().bind_tools([OPENAI], tool_choice=choice), way, "Hello")

    body = server.requests[-1].body
    assert [one["function"]["name"] for one in body["tools"]] == ["openai"]
    assert ("format" in body) is forced
    assert [call["name"] for call in answer.tool_calls] == ["openai"] * forced
    if forced:
        assert answer.text == ""


@ways
@pytest.mark.parametrize("choice", ["none", {"type": "none"}], ids=["none", "Anthropic's none"])
async def test_no_tools_on_none(server: SimulatedOllama, way: str, choice: Any) -> None:
    await ask(chat().bind_tools([OPENAI], tool_choice=choice), way, "Weather in Oslo?")

    assert "tools" not in server.requests[-1].body


@pytest.mark.parametrize("choice", ["opnai", {"type": "function", "function": {"name": "x"}}, 7])
def test_a_choice_that_names_no_tool(choice: Any) -> None:
    with pytest.raises(ollama_dify.ConfigurationError, match="the tools: openai"):
        chat().bind_tools([OPENAI], tool_choice=choice)


@pytest.mark.parametrize("given", [{"type": "web_search_20250305", "name": "web_search"}, {"x": 1}, 7])
def test_what_is_no_tool_for_ollama_is_refused(given: Any) -> None:
    with pytest.raises(ollama_dify.ConfigurationError, match="cannot be offered to an Ollama model"):
        chat().bind_tools([given])


@ways
async def test_tools_can_be_ruled_out(server: SimulatedOllama, way: str) -> None:
    with pytest.raises(ollama_dify.CapabilityError, match="function_call_support=False"):
        await ask(chat(function_call_support=False).bind_tools([OPENAI]), way, "Hello")

    assert server.requests == []


class Tokens(BaseCallbackHandler):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **kwargs: Any) -> None:
        self.calls += [piece["name"] for piece in chunk.message.tool_call_chunks]


@streams
async def test_a_forced_call_is_streamed_as_a_call(server: SimulatedOllama, way: str) -> None:
    tokens = Tokens()

    model = chat().bind_tools([OPENAI], tool_choice="any")
    answer = await ask(model, way, "Weather?", config={"callbacks": [tokens]})

    assert tokens.calls == ["openai"]
    assert set(answer.tool_calls[0]["args"]) == {"city"}


ANSWER = {"type": "object", "properties": {"mood": {"type": "string"}}, "required": ["mood"]}
CALLS_OR_ANSWERS: dict[str, tuple[list[str], str, list[dict[str, Any]]]] = {
    "a call": (['{"op', 'enai": {"city"', ': "Oslo"}}'], "", [{"city": "Oslo"}]),
    "an answer": (['{"mo', 'od": ', '"good"}'], '{"mood": "good"}', []),
    "an answer that begins like a call": (['{"openair', '": 1}'], '{"openair": 1}', []),
    "an empty object": (["{", "}"], "{}", []),
    "no object": (["I am ", "well."], "I am well.", []),
}


@ways
@pytest.mark.parametrize("shape", [ANSWER, "json"], ids=["schema", "json"])
@pytest.mark.parametrize(("pieces", "text", "calls"), CALLS_OR_ANSWERS.values(), ids=CALLS_OR_ANSWERS)
async def test_a_format_leaves_tools_callable(
    server: SimulatedOllama, way: str, shape: Any, pieces: list[str], text: str, calls: list[dict[str, Any]]
) -> None:
    server.reply(Reply(pieces=pieces))

    answer = await ask(chat(format=shape).bind_tools([OPENAI]), way, "Hello")

    assert answer.text == text
    assert [call["args"] for call in answer.tool_calls] == calls
    form, other = server.requests[-1].body["format"]["anyOf"]
    assert form["required"] == ["openai"]
    assert other == (ANSWER if shape == ANSWER else {"type": "object"})


async def test_an_answer_under_a_format_is_streamed_as_it_comes(server: SimulatedOllama) -> None:
    server.reply(Reply(pieces=['{"mood": ', '"very ', 'good"}']))

    got = await chunks(chat(format=ANSWER).bind_tools([OPENAI]), "stream", "Hello")

    assert [chunk.text for chunk in got if chunk.text] == ['{"mood": ', '"very ', 'good"}']


@ways
async def test_a_tool_named_like_a_property_is_refused(server: SimulatedOllama, way: str) -> None:
    schema = {"type": "object", "properties": {"openai": {"type": "string"}}}

    with pytest.raises(ollama_dify.ConfigurationError, match="Rename one"):
        await ask(chat(format=schema).bind_tools([OPENAI]), way, "Hello")
