"""An agent with two tools whose answer is an object, plain and thinking; a format beside tools."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from langchain_ollama_dify import ChatOllamaDify
from ollama_dify.testing import RecordedRequest, Reply, SimulatedOllama
from tests.langchain.test_agents import ASKED, Report, population, run, ways, weather

PEOPLE = '{"city": "Oslo", "people": 700000}'
thinking = pytest.mark.parametrize("think", [None, "I look it up."], ids=["plain", "thinking"])


def next_step(request: RecordedRequest, think: str | None) -> Reply:
    """A server with a format says nothing but what it allows: the next call that is due, else the answer."""
    allowed = request.body["format"].get("anyOf", [request.body["format"]])
    keys = {key for form in allowed for key in form.get("properties", ())}
    called = [turn["tool_name"] for turn in request.body["messages"] if turn["role"] == "tool"]
    due = next((name for name in ("weather", "population") if name in keys and name not in called), None)
    if due is not None:
        return Reply(f'{{"{due}": {{"city": "Oslo"}}}}', thinking=think)
    return Reply(f'{{"Report": {PEOPLE}}}' if "Report" in keys else PEOPLE, thinking=think)


@ways
@thinking
@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("strategy", [ToolStrategy, ProviderStrategy], ids=["tool", "provider"])
async def test_two_tools_then_an_object(
    server: SimulatedOllama, way: str, think: str | None, version: str, strategy: Any
) -> None:
    server.answerer = lambda request: next_step(request, think)
    model = ChatOllamaDify(model="qwen3" if think else "all-round", output_version=version)
    agent = create_agent(model, [weather, population], response_format=strategy(Report))

    state = await run(agent, way, ASKED)

    assert state["structured_response"] == Report(city="Oslo", people=700_000)
    results = [message.content for message in state["messages"] if isinstance(message, ToolMessage)]
    assert results[:2] == ["Rain in Oslo", "700000"]
    sent = [request.body["messages"] for request in server.requests if request.path == "/api/chat"]
    assert len(sent) == 3
    assert [turn.get("thinking") for turn in sent[-1] if turn["role"] == "assistant"] == [think, think]


@ways
@thinking
async def test_a_conversation_with_a_checkpointer(
    server: SimulatedOllama, way: str, think: str | None
) -> None:
    call = [{"name": "weather", "arguments": {"city": "Oslo"}}]
    server.script(
        [Reply(thinking=think, tool_calls=call), Reply("Wet.", thinking=think), Reply("Still wet.")]
    )
    model = ChatOllamaDify(model="qwen3" if think else "all-round")
    agent = create_agent(model, [weather], checkpointer=InMemorySaver())
    remembered = agent.with_config(configurable={"thread_id": "1"})

    await run(remembered, way, ASKED)
    state = await run(remembered, way, {"messages": [("user", "And now?")]})

    assert state["messages"][-1].text == "Still wet."
    roles = [turn["role"] for turn in server.requests[-1].body["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]


@thinking
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("answer", ["call", "object"])
async def test_a_format_beside_tools(
    server: SimulatedOllama, way: str, think: str | None, answer: str
) -> None:
    server.reply(Reply('{"weather": {"city": "Oslo"}}' if answer == "call" else PEOPLE, thinking=think))
    model = ChatOllamaDify(model="qwen3" if think else "all-round").bind_tools([weather], format=Report)

    got = model.invoke("Oslo?") if way == "invoke" else await model.ainvoke("Oslo?")

    assert [call["name"] for call in got.tool_calls] == (["weather"] if answer == "call" else [])
    assert got.text == ("" if answer == "call" else PEOPLE)
    assert got.additional_kwargs.get("reasoning_content") == think
