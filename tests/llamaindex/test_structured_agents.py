"""Agents whose answer is an object, and structured models, with and without thinking, whole and streamed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage, ThinkingBlock
from pydantic import BaseModel

from llamaindex_ollama_dify import OllamaDify
from ollama_dify.testing import Reply, SimulatedOllama
from tests.llamaindex.asking import sent
from tests.llamaindex.test_agents import multiply, pytestmark, run, thought, variants, weather

MakeLLM = Callable[..., OllamaDify]
__all__ = ["pytestmark"]

CALLS = [
    {"name": "multiply", "arguments": {"a": 6, "b": 7}},
    {"name": "weather", "arguments": {"city": "Oslo"}},
]


class Report(BaseModel):
    """A report."""

    result: int
    sky: str


REPORT = '{"result": 42, "sky": "sunny"}'


@variants
async def test_function_agent_with_two_tools_and_an_object(
    server: SimulatedOllama, make_llm: MakeLLM, model: str, streaming: bool
) -> None:
    server.script(
        [
            Reply(thinking=thought(model, "Two tools."), tool_calls=CALLS),
            Reply("42, and sunny.", thinking=thought(model, "Done.")),
            Reply(REPORT, thinking=thought(model, "As JSON.")),
        ]
    )
    llm = make_llm(model)
    agent = FunctionAgent(tools=[multiply, weather], llm=llm, output_cls=Report, streaming=streaming)
    answer, events = await run(agent, "6*7, and Oslo's weather?")
    await llm.aclose()
    assert answer.structured_response == {"result": 42, "sky": "sunny"}
    assert len([event for event in events if isinstance(event, ToolCallResult)]) == 2
    assert sent(server)[-1]["format"] == Report.model_json_schema()


@variants
async def test_react_agent_with_an_object(
    server: SimulatedOllama, make_llm: MakeLLM, model: str, streaming: bool
) -> None:
    server.script(
        [
            Reply(
                'Thought: A tool.\nAction: multiply\nAction Input: {"a": 6, "b": 7}',
                thinking=thought(model, "A tool."),
            ),
            Reply("Thought: I can answer without using any more tools.\nAnswer: 42."),
            Reply(REPORT, thinking=thought(model, "As JSON.")),
        ]
    )
    llm = make_llm(model)
    agent = ReActAgent(tools=[multiply], llm=llm, output_cls=Report, streaming=streaming)
    answer, _ = await run(agent, "6*7?")
    await llm.aclose()
    assert answer.structured_response == {"result": 42, "sky": "sunny"}


@variants
async def test_workflow_with_an_object(
    server: SimulatedOllama, make_llm: MakeLLM, model: str, streaming: bool
) -> None:
    hand_over = {"name": "handoff", "arguments": {"to_agent": "forecaster", "reason": "about weather"}}
    server.script(
        [
            Reply(thinking=thought(model, "Not mine."), tool_calls=[hand_over]),
            Reply("Sunny.", thinking=thought(model, "Mine.")),
            Reply(REPORT, thinking=thought(model, "As JSON.")),
        ]
    )
    llm = make_llm(model)
    counter = FunctionAgent(
        name="counter", description="Counts.", tools=[multiply], llm=llm, streaming=streaming
    )
    forecaster = FunctionAgent(
        name="forecaster", description="Knows weather.", tools=[weather], llm=llm, streaming=streaming
    )
    workflow = AgentWorkflow(agents=[counter, forecaster], root_agent="counter", output_cls=Report)
    answer, _ = await run(workflow, "How is Oslo?")
    await llm.aclose()
    assert answer.structured_response == {"result": 42, "sky": "sunny"}
    assert answer.current_agent_name == "forecaster"


FORMS = ("chat", "achat", "stream_chat", "astream_chat", "complete", "acomplete")


@pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # LlamaIndex's StructuredLLM calls it
@pytest.mark.parametrize("form", FORMS)
async def test_as_structured_llm_thinks(server: SimulatedOllama, make_llm: MakeLLM, form: str) -> None:
    server.script([Reply(REPORT, thinking="{not this}")])
    llm = make_llm("qwen3", think=True)
    history = [
        ChatMessage(content="6*7?"),
        ChatMessage(role="assistant", blocks=[ThinkingBlock(content="Easy.")]),
        ChatMessage(content="And the sky?"),
    ]
    answered: Any = getattr(llm.as_structured_llm(Report), form)(history if "chat" in form else "6*7?")
    if form.startswith("a"):
        answered = await answered
    if "stream" in form:
        answered = ([one async for one in answered] if form.startswith("a") else list(answered))[-1]
    await llm.aclose()
    assert answered.raw == Report(result=42, sky="sunny")
    (body,) = sent(server)
    assert (body["think"], body["format"]) == (True, Report.model_json_schema())
    if "chat" in form:
        assert body["messages"][1]["thinking"] == "Easy."
