"""Agents of LangChain and LangGraph that run to the end."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import BaseModel

from langchain_ollama_dify import ChatOllamaDify
from ollama_dify.testing import RecordedRequest, Reply, SimulatedOllama
from tests.langchain.asking import ways


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


thinking = pytest.mark.parametrize("think", [None, "I look it up."], ids=["plain", "thinking"])
ASKED = {"messages": [HumanMessage("How is Oslo?")]}


@ways
@thinking
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
async def test_an_agent_with_a_format_and_no_tools(server: SimulatedOllama, way: str) -> None:
    server.reply('{"city": "Oslo", "people": 700000}')
    agent = create_agent(ChatOllamaDify(model="all-round"), [], response_format=Report)

    state = await run(agent, way, ASKED)

    assert state["structured_response"] == Report(city="Oslo", people=700_000)
    assert set(server.requests[-1].body["format"]["properties"]) == {"city", "people"}


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


PEOPLE = '{"city": "Oslo", "people": 700000}'


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
@pytest.mark.parametrize(
    "strategy",
    [ToolStrategy(Report), ProviderStrategy(Report), Report],
    ids=["tool", "provider", "auto"],
)
async def test_two_tools_then_an_object(
    server: SimulatedOllama, way: str, think: str | None, version: str, strategy: Any
) -> None:
    server.answerer = lambda request: next_step(request, think)
    model = ChatOllamaDify(model="qwen3" if think else "all-round", output_version=version)
    agent = create_agent(model, [weather, population], response_format=strategy)

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
