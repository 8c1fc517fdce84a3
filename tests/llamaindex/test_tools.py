"""Tools: what is offered, forced, called and given back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, ConfigDict, Field

from llamaindex_ollama_dify import OllamaDify
from ollama_dify import CapabilityError, ConfigurationError, ProtocolError, Tool
from ollama_dify.testing import Reply, SimulatedModel, SimulatedOllama
from tests.llamaindex.asking import COMPLETE_METHODS, sent
from tests.llamaindex.asking import ask as ask_any

MakeLLM = Callable[..., OllamaDify]
FORMS = ("chat_with_tools", "achat_with_tools", "stream_chat_with_tools", "astream_chat_with_tools")


class Place(BaseModel):
    model_config = ConfigDict(extra="forbid")

    city: str
    unit: Literal["C", "F"] = "C"


class Trip(BaseModel):
    model_config = ConfigDict(extra="forbid")

    places: list[Place] = Field(description="Where to, in order.")


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"Sunny in {city}."


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def plan(places: list[Place]) -> str:
    """Plan a trip."""
    return "planned"


def tools() -> list[FunctionTool]:
    return [FunctionTool.from_defaults(weather), FunctionTool.from_defaults(add)]


CALLS = [
    {"name": "weather", "arguments": {"city": "Oslo"}},
    {"name": "add", "arguments": {"a": 1, "b": 2}},
]


async def ask(llm: OllamaDify, form: str, offered: Sequence[FunctionTool], **call: Any) -> ChatResponse:
    """The last response of a method that takes tools."""
    answered = getattr(llm, form)(offered, **call)
    try:
        if form.startswith("a"):
            answered = await answered
        if "stream" not in form:
            return answered
        if form.startswith("a"):
            return [response async for response in answered][-1]
        return list(answered)[-1]
    finally:
        await llm.aclose()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("template", ["chatml", "native"], ids=["call-per-chunk", "calls-at-the-end"])
async def test_parallel_calls(
    server: SimulatedOllama, make_llm: MakeLLM, form: str, template: Literal["chatml", "native"]
) -> None:
    server.install(SimulatedModel("tooled", ("completion", "tools", "thinking"), template=template))
    server.script([Reply("Let me see.", thinking="Two tools.", tool_calls=CALLS)])
    llm = make_llm("tooled")
    response = await ask(llm, form, tools(), user_msg="Weather, and 1+2?", allow_parallel_tool_calls=True)

    blocks = response.message.blocks
    calls = [block for block in blocks if isinstance(block, ToolCallBlock)]
    assert [(call.tool_name, call.tool_kwargs) for call in calls] == [
        ("weather", {"city": "Oslo"}),
        ("add", {"a": 1, "b": 2}),
    ]
    assert len({call.tool_call_id for call in calls}) == 2
    assert "Two tools." in "".join(
        block.content or "" for block in blocks if isinstance(block, ThinkingBlock)
    )
    selections = llm.get_tool_calls_from_response(response)
    assert [(one.tool_id, one.tool_name) for one in selections] == [
        (call.tool_call_id, call.tool_name) for call in calls
    ]
    assert [call["function"]["name"] for call in response.message.additional_kwargs["tool_calls"]] == [
        "weather",
        "add",
    ]


@pytest.mark.parametrize("form", FORMS)
async def test_one_call_unless_parallel_ones_are_allowed(
    server: SimulatedOllama, llm: OllamaDify, form: str
) -> None:
    server.script([Reply(tool_calls=CALLS)])
    response = await ask(llm, form, tools(), user_msg="Weather, and 1+2?")
    assert [call.tool_name for call in llm.get_tool_calls_from_response(response)] == ["weather"]
    assert len(response.message.additional_kwargs["tool_calls"]) == 1


@pytest.mark.parametrize("form", FORMS)
async def test_offered_tools_are_whole(server: SimulatedOllama, llm: OllamaDify, form: str) -> None:
    named = FunctionTool.from_defaults(plan, name="plan.trip[v1]", fn_schema=Trip)
    await ask(llm, form, [named], user_msg="Hello")
    (tool,) = sent(server)[-1]["tools"]
    function = tool["function"]
    assert function["name"] == "plan.trip[v1]"
    assert "Plan a trip." in function["description"]
    parameters = function["parameters"]
    assert parameters["required"] == ["places"]
    assert parameters["additionalProperties"] is False
    items = parameters["properties"]["places"]["items"]
    assert items["properties"]["unit"]["enum"] == ["C", "F"]
    assert "$ref" not in str(parameters)
    assert "$defs" not in str(parameters)


CHOICES: dict[str, tuple[dict[str, Any], list[str] | None]] = {
    "unset": ({}, None),
    "auto": ({"tool_choice": "auto"}, None),
    "required": ({"tool_required": True}, ["weather", "add"]),
    "required-by-choice": ({"tool_choice": "required"}, ["weather", "add"]),
    "any": ({"tool_choice": "any"}, ["weather", "add"]),
    "name": ({"tool_choice": "add", "tool_required": True}, ["add"]),
    "object": ({"tool_choice": {"type": "function", "function": {"name": "add"}}}, ["add"]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CHOICES)
async def test_tool_choice(server: SimulatedOllama, llm: OllamaDify, form: str, case: str) -> None:
    call, forced = CHOICES[case]
    server.script(['{"add": {"a": 1, "b": 2}}' if forced else "No tool needed."])
    response = await ask(llm, form, tools(), user_msg="What is 1+2?", **call)
    body = sent(server)[-1]
    if forced is None:
        assert "format" not in body
        assert len(body["tools"]) == 2
        assert response.message.content == "No tool needed."
    else:
        forms = body["format"].get("anyOf", [body["format"]])
        assert [list(one["properties"]) for one in forms] == [[name] for name in forced]
        (call_made,) = llm.get_tool_calls_from_response(response)
        assert (call_made.tool_name, call_made.tool_kwargs) == ("add", {"a": 1, "b": 2})
        assert response.message.content == ""


@pytest.mark.parametrize("form", FORMS)
async def test_no_tools_are_sent_for_none(server: SimulatedOllama, llm: OllamaDify, form: str) -> None:
    await ask(llm, form, tools(), user_msg="Hello", tool_choice="none")
    assert "tools" not in sent(server)[-1]


@pytest.mark.parametrize("form", FORMS)
async def test_forced_call_that_does_not_come_is_an_error(
    server: SimulatedOllama, llm: OllamaDify, form: str
) -> None:
    server.reply("I would rather not.", times=None)
    with pytest.raises(ProtocolError, match="was to call"):
        await ask(llm, form, tools(), user_msg="What is 1+2?", tool_required=True)


@pytest.mark.parametrize("choice", ["nonsense", {"type": "function"}, 3], ids=str)
async def test_wrong_choice(server: SimulatedOllama, llm: OllamaDify, choice: Any) -> None:
    with pytest.raises(ConfigurationError, match="names no tool"):
        llm.chat_with_tools(tools(), user_msg="Hello", tool_choice=choice)
    assert server.requests == []


@pytest.mark.parametrize("form", FORMS)
async def test_history_stays_as_it_was(server: SimulatedOllama, llm: OllamaDify, form: str) -> None:
    history = [ChatMessage(role="system", content="Be brief.")]
    asked = ChatMessage(role="user", content="Hello")
    await ask(llm, form, tools(), user_msg=asked, chat_history=history)
    assert history == [ChatMessage(role="system", content="Be brief.")]
    assert [message["content"] for message in sent(server)[-1]["messages"]] == ["Be brief.", "Hello"]


@pytest.mark.parametrize("form", COMPLETE_METHODS)
async def test_calls_of_a_completion(server: SimulatedOllama, llm: OllamaDify, form: str) -> None:
    for alone, count in ((True, 2), (False, 1)):
        server.script([Reply(tool_calls=CALLS)])
        given = {"tools": tools(), "allow_parallel_tool_calls": alone}
        responses = await ask_any(llm, form, "Weather, and 1+2?", **given)
        made = [call["function"]["name"] for call in responses[-1].additional_kwargs["tool_calls"]]
        assert made == ["weather", "add"][:count]


def test_no_call_is_an_error_unless_told_otherwise(llm: OllamaDify) -> None:
    answer = ChatResponse(message=ChatMessage(role="assistant", content="No."))
    with pytest.raises(ValueError, match="at least one tool call"):
        llm.get_tool_calls_from_response(answer)
    assert llm.get_tool_calls_from_response(answer, error_on_no_tool_call=False) == []


def test_arguments_as_text_of_another_model(llm: OllamaDify) -> None:
    block = ToolCallBlock(tool_name="add", tool_kwargs='{"a": 1, "b": 2}')
    answer = ChatResponse(message=ChatMessage(role="assistant", blocks=[TextBlock(text=""), block]))
    (selection,) = llm.get_tool_calls_from_response(answer)
    assert (selection.tool_id, selection.tool_kwargs) == ("add", {"a": 1, "b": 2})


async def test_model_without_tools(server: SimulatedOllama, make_llm: MakeLLM) -> None:
    with pytest.raises(CapabilityError, match="function_call_support=False"):
        make_llm(function_call_support=False).chat_with_tools(tools(), user_msg="Hello")
    assert server.requests == []
    llm = make_llm("gemma3")
    with pytest.raises(CapabilityError, match="tools"):
        await ask(llm, "achat_with_tools", tools(), user_msg="Hello")
    assert sent(server) == []
    assert not llm.metadata.is_function_calling_model


@pytest.mark.parametrize("form", ["predict_and_call", "apredict_and_call"])
async def test_predict_and_call(server: SimulatedOllama, llm: OllamaDify, form: str) -> None:
    server.script([Reply(tool_calls=CALLS[:1])])
    answered = getattr(llm, form)(tools(), user_msg="Weather in Oslo?")
    answer = await answered if form.startswith("a") else answered
    assert answer.response == "Sunny in Oslo."
    assert [source.tool_name for source in answer.sources] == ["weather"]
    await llm.aclose()


@pytest.mark.parametrize("form", ["chat", "complete"])
def test_tools_as_plain_arguments(server: SimulatedOllama, llm: OllamaDify, form: str) -> None:
    server.script([Reply(tool_calls=CALLS[:1])])
    asked: Any = [ChatMessage(content="Weather?")] if form == "chat" else "Weather?"
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    definition = {"name": "weather", "parameters": parameters}
    response = getattr(llm, form)(asked, tools=[definition])
    message = response.message.additional_kwargs if form == "chat" else response.additional_kwargs
    assert message["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Oslo"}}
    core_tool = Tool("weather", "Tell the weather.", parameters)
    getattr(llm, form)(asked, tools=[core_tool, {"name": "bare"}])
    bare = {"name": "bare", "description": "", "parameters": {"type": "object", "properties": {}}}
    assert [tool["function"] for tool in sent(server)[-1]["tools"]] == [
        {"name": "weather", "description": "Tell the weather.", "parameters": parameters},
        bare,
    ]
    with pytest.raises(ConfigurationError, match="has no name"):
        getattr(llm, form)(asked, tools=[object()])
