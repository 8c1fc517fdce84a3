"""Agents of LangChain and LangGraph that run to the end."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import BaseModel

from langchain_ollama_dify import ChatOllamaDify
from ollama_dify.testing import RecordedRequest, Reply, SimulatedOllama

ways = pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"Rain in {city}"


@tool
def population(city: str) -> int:
    """How many people live in a city."""
    return 700_000


class Report(BaseModel):
    """A report about a city."""

    city: str
    people: int


async def run(agent: Any, way: str, asked: Any) -> dict[str, Any]:
    """The final state, however it was asked."""
    if way == "invoke":
        return dict(agent.invoke(asked))
    if way == "ainvoke":
        return dict(await agent.ainvoke(asked))
    if way == "stream":
        return dict(list(agent.stream(asked, stream_mode="values"))[-1])
    return dict([state async for state in agent.astream(asked, stream_mode="values")][-1])


def steps(think: str | None) -> list[Reply]:
    return [
        Reply(thinking=think, tool_calls=[{"name": "weather", "arguments": {"city": "Oslo"}}]),
        Reply(thinking=think, tool_calls=[{"name": "population", "arguments": {"city": "Oslo"}}]),
    ]


ASKED = {"messages": [HumanMessage("How is Oslo?")]}


@ways
@pytest.mark.parametrize("think", [None, "I look it up."], ids=["plain", "thinking"])
@pytest.mark.parametrize("version", ["v0", "v1"])
async def test_an_agent_with_two_tools(
    server: SimulatedOllama, way: str, think: str | None, version: str
) -> None:
    server.script([*steps(think), Reply("Wet, and full of people.", thinking=think)])
    model = ChatOllamaDify(model="qwen3" if think else "all-round", output_version=version)

    state = await run(create_agent(model, [weather, population]), way, ASKED)

    results = [message.content for message in state["messages"] if isinstance(message, ToolMessage)]
    assert results == ["Rain in Oslo", "700000"]
    assert state["messages"][-1].text == "Wet, and full of people."
    sent = [request.body["messages"] for request in server.requests if request.path == "/api/chat"]
    assert [turn["role"] for turn in sent[-1]] == ["user", "assistant", "tool", "assistant", "tool"]
    assert [turn.get("thinking") for turn in sent[-1] if turn["role"] == "assistant"] == [think, think]
    assert [turn["tool_name"] for turn in sent[-1] if turn["role"] == "tool"] == ["weather", "population"]


@ways
async def test_an_agent_whose_answer_is_an_object(server: SimulatedOllama, way: str) -> None:
    server.reply(
        '{"weather": {"city": "Oslo"}}',
        '{"Report": {"city": "Oslo", "people": 700000}}',
    )
    agent = create_agent(
        ChatOllamaDify(model="all-round"), [weather, population], response_format=ToolStrategy(Report)
    )

    state = await run(agent, way, ASKED)

    assert state["structured_response"] == Report(city="Oslo", people=700_000)


@ways
async def test_an_agent_with_a_format_and_no_tools(server: SimulatedOllama, way: str) -> None:
    server.reply('{"city": "Oslo", "people": 700000}')
    agent = create_agent(ChatOllamaDify(model="all-round"), [], response_format=Report)

    state = await run(agent, way, ASKED)

    assert state["structured_response"] == Report(city="Oslo", people=700_000)
    assert set(server.requests[-1].body["format"]["properties"]) == {"city", "people"}


@ways
@pytest.mark.parametrize("strategy", [Report, ProviderStrategy(Report)], ids=["automatic", "provider"])
async def test_an_agent_with_tools_and_the_servers_own_format(
    server: SimulatedOllama, way: str, strategy: Any
) -> None:
    def constrained(request: RecordedRequest) -> str:
        """A server with a format says nothing but what it allows, calls included."""
        allowed = request.body["format"].get("anyOf", ())
        may_call = any("weather" in form.get("properties", ()) for form in allowed)
        if may_call and request.body["messages"][-1]["role"] != "tool":
            return '{"weather": {"city": "Oslo"}}'
        return '{"city": "Oslo", "people": 700000}'

    server.answerer = constrained
    agent = create_agent(ChatOllamaDify(model="all-round"), [weather], response_format=strategy)

    state = await run(agent, way, ASKED)

    assert [message.content for message in state["messages"] if isinstance(message, ToolMessage)] == [
        "Rain in Oslo"
    ]
    assert state["structured_response"] == Report(city="Oslo", people=700_000)


@ways
async def test_a_graph(server: SimulatedOllama, way: str) -> None:
    server.script([*steps(None), Reply("Wet.")])
    model = ChatOllamaDify(model="all-round").bind_tools([weather, population])

    async def aask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", aask if way.startswith("a") else ask)
    graph.add_node("tools", ToolNode([weather, population]))
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", tools_condition, {"tools": "tools", END: END})
    graph.add_edge("tools", "ask")

    state = await run(graph.compile(), way, ASKED)

    assert state["messages"][-1].text == "Wet."
    assert len([message for message in state["messages"] if isinstance(message, ToolMessage)]) == 2


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="LangGraph passes callbacks into async nodes from Python 3.11 on"
)
async def test_tokens_of_an_agent_are_streamed(server: SimulatedOllama) -> None:
    server.script([Reply(pieces=["Good", " day"])])
    agent = create_agent(ChatOllamaDify(model="all-round"), [weather])

    pieces = [piece.text async for piece, _ in agent.astream(ASKED, stream_mode="messages")]
    server.script([Reply(pieces=["Good", " day"])])
    same = [piece.text for piece, _ in agent.stream(ASKED, stream_mode="messages")]

    assert pieces == same
    assert [piece for piece in pieces if piece] == ["Good", " day"]
