"""What langchain-ollama's test_chat_models.py asks of a chat model, asked of ours."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

import ollama_dify
from ollama_dify.testing import Fault, SimulatedOllama
from tests.compat.shim import ChatOllama


class Joke(BaseModel):
    """A joke."""

    setup: str = Field(description="the question")
    punchline: str = Field(description="the answer")


class JokeDict(TypedDict):
    """A joke."""

    setup: Annotated[str, "the question"]
    punchline: Annotated[str, "the answer"]


class Person(BaseModel):
    """Someone."""

    name: str | None = Field(None, description="The name")
    hair_color: str | None = Field(None, description="The hair's colour, if known")
    height_in_meters: str | None = Field(None, description="The height in meters")


class People(BaseModel):
    """Several people."""

    people: list[Person]


@tool
def get_current_weather(location: str) -> dict[str, str]:
    """The weather at a location."""
    return {"temperature": "-9", "conditions": "snow"}


def test_init_model_not_found() -> None:
    with pytest.raises(ollama_dify.ModelNotFoundError, match="non-existent-model"):
        ChatOllama(model="non-existent-model", validate_model_on_init=True)


def test_init_connection_error() -> None:
    with pytest.raises(ollama_dify.ConnectionFailedError, match=r"127\.0\.0\.1:9\b"):
        ChatOllama(
            model="llama3.1", base_url="http://127.0.0.1:9", max_retries=0, validate_model_on_init=True
        )


def test_init_response_error(server: SimulatedOllama) -> None:
    server.fault(Fault("status", status=500, data=b'{"error":"out of luck"}'), times=None)
    with pytest.raises(ollama_dify.ServerError, match="out of luck"):
        ChatOllama(model="llama3.1", max_retries=0, validate_model_on_init=True)


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
@pytest.mark.parametrize(
    ("schema", "kind"),
    [(Joke, Joke), (Joke.model_json_schema(), dict), (JokeDict, dict)],
    ids=["pydantic", "JSON schema", "TypedDict"],
)
def test_structured_output(method: Any, schema: Any, kind: type) -> None:
    model = ChatOllama(model="llama3.1", temperature=0).with_structured_output(schema, method=method)

    whole, parts = (
        model.invoke("Tell me a joke about cats."),
        list(model.stream("Tell me a joke about cats.")),
    )

    assert parts
    assert all(isinstance(part, kind) for part in [whole, *parts])
    for made in (whole, parts[-1]):
        assert set(made if isinstance(made, dict) else made.model_dump()) == {"setup", "punchline"}


def test_structured_output_deeply_nested() -> None:
    model = ChatOllama(model="llama3.1", temperature=0).with_structured_output(People)
    text = "Alan Smith is 6 feet tall and blond. Alan Poe is 3 feet tall and grey."

    whole, parts = model.invoke(text), list(model.stream(text))

    assert whole.people
    assert isinstance(whole.people[0], Person)
    assert all(isinstance(part, People) for part in parts)
    assert parts[-1] == whole


def assert_one_streamed_call(chunks: list[Any]) -> None:
    pieces = [piece for chunk in chunks for piece in chunk.tool_call_chunks]
    (call,) = [call for chunk in chunks for call in chunk.tool_calls]
    assert (call["name"], call["args"]) == ("get_current_weather", {"location": "Boston"})
    assert pieces[0]["name"] == "get_current_weather"
    assert {piece["id"] for piece in pieces if piece["id"]} == {call["id"]}


BOSTON = [HumanMessage("What is the weather today in Boston?")]


def test_tool_streaming() -> None:
    model = ChatOllama(model="llama3.1").bind_tools([get_current_weather])
    assert_one_streamed_call(list(model.stream(BOSTON)))


async def test_tool_astreaming() -> None:
    model = ChatOllama(model="llama3.1").bind_tools([get_current_weather])
    assert_one_streamed_call([chunk async for chunk in model.astream(BOSTON)])


@pytest.mark.parametrize("output_version", [None, "v1"])
def test_agent_loop(server: SimulatedOllama, output_version: str | None) -> None:
    model = ChatOllama(model="gpt-oss:20b", output_version=output_version, reasoning="low")
    able = model.bind_tools([get_current_weather])
    asked = HumanMessage("What is the weather in Boston?")

    call = able.invoke([asked])
    (made,) = call.tool_calls
    result = get_current_weather.invoke(made)
    assert isinstance(result, ToolMessage)
    answer = able.invoke([asked, call, result])
    assert "snow" in answer.text
    history = [asked, call, result, answer, HumanMessage("Explain why, step by step.")]
    last = able.invoke(history)

    assert isinstance(last, AIMessage)
    kinds = {block["type"] for block in last.content_blocks}
    assert {"text", "reasoning"} <= kinds
    assert {request.body["think"] for request in server.requests if request.path == "/api/chat"} == {"low"}
    assert server.requests[-1].body["messages"][1]["thinking"]
