"""LlamaIndex's agents run to their end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.agent.workflow import (
    AgentOutput,
    AgentStream,
    AgentWorkflow,
    FunctionAgent,
    ReActAgent,
    ToolCallResult,
)
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from llamaindex_ollama_dify import OllamaDify
from ollama_dify.testing import Reply, SimulatedOllama
from tests.llamaindex.asking import sent

MakeLLM = Callable[..., OllamaDify]
# LlamaIndex's workflows look at every attribute of an agent, pydantic's deprecated ones too; its ReAct agent
# asks the workflow whether it runs, which the workflow finds outdated.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
    pytest.mark.filterwarnings("ignore:is_running called from within a step:DeprecationWarning"),
]
variants = pytest.mark.parametrize(
    ("model", "streaming"),
    [("llama3.2", False), ("llama3.2", True), ("qwen3", False), ("qwen3", True)],
    ids=["plain", "plain-streamed", "thinking", "thinking-streamed"],
)


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"Sunny in {city}."


async def run(agent: Any, text: str, **call: Any) -> tuple[AgentOutput, list[Any]]:
    """The answer and the events on the way; a memory of its own, for LlamaIndex's leaves a database open."""
    handler = agent.run(user_msg=text, memory=ChatMemoryBuffer.from_defaults(token_limit=3000), **call)
    events = [event async for event in handler.stream_events()]
    return await handler, events


class Report(BaseModel):
    """A report."""

    result: int
    sky: str


REPORT = '{"result": 42, "sky": "sunny"}'
# Whether the answer is an object too.
answers = pytest.mark.parametrize("output_cls", [None, Report], ids=["text", "object"])


def reported(answer: AgentOutput, server: SimulatedOllama, output_cls: Any) -> None:
    if output_cls is not None:
        assert answer.structured_response == {"result": 42, "sky": "sunny"}
        assert sent(server)[-1]["format"] == Report.model_json_schema()


def thought(model: str, text: str) -> str | None:
    return text if model == "qwen3" else None


def streamed_text(events: list[Any]) -> str:
    return "".join(event.delta for event in events if isinstance(event, AgentStream))


@answers
@variants
async def test_function_agent(
    server: SimulatedOllama, make_llm: MakeLLM, model: str, streaming: bool, output_cls: Any
) -> None:
    calls = [
        {"name": "multiply", "arguments": {"a": 6, "b": 7}},
        {"name": "weather", "arguments": {"city": "Oslo"}},
    ]
    server.script(
        [
            Reply("I look.", thinking=thought(model, "Two tools."), tool_calls=calls),
            Reply("42, and sunny.", thinking=thought(model, "Done.")),
            *[Reply(REPORT, thinking=thought(model, "As JSON."))] * (output_cls is not None),
        ]
    )
    llm = make_llm(model, think=True if model == "qwen3" else None)
    agent = FunctionAgent(
        tools=[multiply, weather],
        llm=llm,
        system_prompt="Use tools.",
        streaming=streaming,
        output_cls=output_cls,
    )
    answer, events = await run(agent, "6*7, and Oslo's weather?")
    await llm.aclose()

    reported(answer, server, output_cls)
    assert answer.response.content == "42, and sunny."
    results = [(one.tool_name, one.tool_output.content) for one in events if isinstance(one, ToolCallResult)]
    assert sorted(results) == [("multiply", "42"), ("weather", "Sunny in Oslo.")]
    second = sent(server)[1]
    *_, asked, first_result, second_result = second["messages"]
    assert asked["role"] == "assistant"
    assert asked.get("thinking") == thought(model, "Two tools.")
    made = [
        (call["id"], call["function"]["name"], call["function"]["arguments"]) for call in asked["tool_calls"]
    ]
    assert [one[1:] for one in made] == [("multiply", {"a": 6, "b": 7}), ("weather", {"city": "Oslo"})]
    ids = {name: call_id for call_id, name, _ in made}
    for result in (first_result, second_result):
        assert result["role"] == "tool"
        assert result["tool_call_id"] == ids[result["tool_name"]]
    assert {first_result["content"], second_result["content"]} == {"42", "Sunny in Oslo."}
    if streaming:
        assert streamed_text(events) == "I look.42, and sunny."
        thoughts = "".join(event.thinking_delta or "" for event in events if isinstance(event, AgentStream))
        assert thoughts == ("Two tools.Done." if model == "qwen3" else "")


async def test_function_agent_without_a_script(server: SimulatedOllama, make_llm: MakeLLM) -> None:
    llm = make_llm()
    agent = FunctionAgent(tools=[multiply], llm=llm, streaming=False)
    answer, _ = await run(agent, "What is 6 times 7? Use multiply.")
    await llm.aclose()
    assert "42" in str(answer)


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
async def test_forced_first_tool(server: SimulatedOllama, make_llm: MakeLLM, streaming: bool) -> None:
    server.script(['{"multiply": {"a": 6, "b": 7}}', "It is 42."])
    llm = make_llm()
    agent = FunctionAgent(
        tools=[multiply, weather], llm=llm, initial_tool_choice="multiply", streaming=streaming
    )
    answer, _ = await run(agent, "6*7?")
    await llm.aclose()
    assert str(answer) == "It is 42."
    first, second = sent(server)
    assert list(first["format"]["properties"]) == ["multiply"]
    assert "format" not in second


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
async def test_one_call_at_a_time(server: SimulatedOllama, make_llm: MakeLLM, streaming: bool) -> None:
    calls = [{"name": "multiply", "arguments": {"a": number, "b": 2}} for number in (1, 2)]
    server.script([Reply(tool_calls=calls), "Done."])
    llm = make_llm()
    agent = FunctionAgent(tools=[multiply], llm=llm, allow_parallel_tool_calls=False, streaming=streaming)
    _, events = await run(agent, "Multiply!")
    await llm.aclose()
    assert [one.tool_kwargs for one in events if isinstance(one, ToolCallResult)] == [{"a": 1, "b": 2}]


@answers
@variants
async def test_react_agent(
    server: SimulatedOllama, make_llm: MakeLLM, model: str, streaming: bool, output_cls: Any
) -> None:
    server.script(
        [
            Reply(
                'Thought: I need a tool.\nAction: multiply\nAction Input: {"a": 6, "b": 7}',
                thinking=thought(model, "A tool."),
            ),
            Reply(
                "Thought: I can answer without using any more tools. I'll use the user's language to answer\n"
                "Answer: It is 42.",
                thinking=thought(model, "Done."),
            ),
            *[Reply(REPORT, thinking=thought(model, "As JSON."))] * (output_cls is not None),
        ]
    )
    llm = make_llm(model)
    agent = ReActAgent(tools=[multiply], llm=llm, streaming=streaming, output_cls=output_cls)
    answer, events = await run(agent, "6*7?")
    await llm.aclose()
    reported(answer, server, output_cls)
    assert answer.response.content == "It is 42."
    assert [one.tool_output.content for one in events if isinstance(one, ToolCallResult)] == ["42"]
    assert "Observation: 42" in sent(server)[1]["messages"][-1]["content"]
    assert all("tools" not in body for body in sent(server))


@answers
@variants
async def test_workflow_with_hand_over(
    server: SimulatedOllama, make_llm: MakeLLM, model: str, streaming: bool, output_cls: Any
) -> None:
    hand_over = {"name": "handoff", "arguments": {"to_agent": "forecaster", "reason": "about weather"}}
    server.script(
        [
            Reply(thinking=thought(model, "Not mine."), tool_calls=[hand_over]),
            Reply(
                thinking=thought(model, "Mine."),
                tool_calls=[{"name": "weather", "arguments": {"city": "Oslo"}}],
            ),
            Reply("It is sunny.", thinking=thought(model, "Done.")),
            *[Reply(REPORT, thinking=thought(model, "As JSON."))] * (output_cls is not None),
        ]
    )
    llm = make_llm(model)
    counter = FunctionAgent(
        name="counter",
        description="Counts.",
        tools=[multiply],
        llm=llm,
        can_handoff_to=["forecaster"],
        streaming=streaming,
    )
    forecaster = FunctionAgent(
        name="forecaster", description="Knows weather.", tools=[weather], llm=llm, streaming=streaming
    )
    workflow = AgentWorkflow(agents=[counter, forecaster], root_agent="counter", output_cls=output_cls)
    answer, events = await run(workflow, "How is Oslo?")
    await llm.aclose()
    reported(answer, server, output_cls)
    assert answer.response.content == "It is sunny."
    assert answer.current_agent_name == "forecaster"
    assert [one.tool_name for one in events if isinstance(one, ToolCallResult)] == ["handoff", "weather"]
    first, second, third = sent(server)[:3]
    assert [tool["function"]["name"] for tool in first["tools"]] == ["multiply", "handoff"]
    assert [tool["function"]["name"] for tool in second["tools"]] == ["weather", "handoff"]
    assert third["messages"][-1]["tool_name"] == "weather"


async def test_failing_tool_is_told_to_the_model(server: SimulatedOllama, make_llm: MakeLLM) -> None:
    def broken() -> str:
        """Break."""
        raise RuntimeError("no luck")

    server.script([Reply(tool_calls=[{"name": "broken", "arguments": {}}]), "It failed."])
    llm = make_llm()
    agent = FunctionAgent(tools=[FunctionTool.from_defaults(broken)], llm=llm)
    answer, _ = await run(agent, "Try.")
    await llm.aclose()
    assert str(answer) == "It failed."
    assert "no luck" in sent(server)[-1]["messages"][-1]["content"]
