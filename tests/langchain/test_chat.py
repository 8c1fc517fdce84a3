"""Questions and answers of the chat model: what is on the wire, what the user sees."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import LLMResult

import ollama_dify
from langchain_ollama_dify import ChatOllamaDify
from ollama_dify.testing import Reply, SimulatedOllama
from tests.langchain.asking import WAYS, ask, chunks

ways = pytest.mark.parametrize("way", WAYS)
streams = pytest.mark.parametrize("way", ["stream", "astream"])


def chat(**settings: Any) -> ChatOllamaDify:
    return ChatOllamaDify(**{"model": "all-round", **settings})


@ways
async def test_the_request_says_what_the_settings_say(server: SimulatedOllama, way: str) -> None:
    model = chat(context_size=2048, max_tokens=100, temperature=0, think=False, keep_alive="10m")

    await ask(model, way, [SystemMessage("Be brief."), HumanMessage("Hello")])

    (request,) = server.requests
    assert request.path == "/api/chat"
    assert request.body == {
        "model": "all-round",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        "stream": way in ("stream", "astream"),
        "options": {"num_ctx": 2048, "num_predict": 100, "temperature": 0},
        "keep_alive": "10m",
        "think": False,
        "truncate": False,
        "shift": False,
    }


@ways
async def test_the_answer_carries_usage_and_metadata(server: SimulatedOllama, way: str) -> None:
    server.reply(Reply(pieces=["Good", " day", "."]))

    answer = await ask(chat(), way, "Hello")

    assert answer.content == "Good day."
    told = answer.response_metadata
    assert answer.usage_metadata == {
        "input_tokens": told["prompt_eval_count"],
        "output_tokens": told["eval_count"],
        "total_tokens": told["prompt_eval_count"] + told["eval_count"],
    }
    assert told["eval_count"] > 0
    assert {key: told[key] for key in ("model_name", "model_provider", "done_reason")} == {
        "model_name": "all-round",
        "model_provider": "ollama",
        "done_reason": "stop",
    }
    assert told["total_duration"] > 0


@streams
async def test_usage_is_told_once_on_the_last_chunk(server: SimulatedOllama, way: str) -> None:
    server.reply(Reply(pieces=["Good", " day"]))

    got = await chunks(chat(), way, "Hello")

    assert [chunk.content for chunk in got if chunk.content] == ["Good", " day"]
    assert [chunk.chunk_position for chunk in got] == [None] * (len(got) - 1) + ["last"]
    assert [chunk.usage_metadata is not None for chunk in got] == [False] * (len(got) - 1) + [True]


@ways
@pytest.mark.parametrize("version", ["v0", "v1"])
async def test_thinking_is_a_reasoning_block(server: SimulatedOllama, way: str, version: str) -> None:
    server.reply(Reply("Four.", thinking="Two and two."))
    model = chat(model="qwen3", output_version=version)

    answer = await ask(model, way, "2 + 2?")

    blocks = [{key: block[key] for key in block if key != "index"} for block in answer.content_blocks]
    assert blocks == [
        {"type": "reasoning", "reasoning": "Two and two."},
        {"type": "text", "text": "Four."},
    ]
    assert answer.additional_kwargs["reasoning_content"] == "Two and two."
    assert answer.text == "Four."
    if version == "v1":
        assert answer.content == answer.content_blocks


@ways
@pytest.mark.parametrize("version", ["v0", "v1"])
async def test_thinking_goes_back_in_a_tool_loop(server: SimulatedOllama, way: str, version: str) -> None:
    server.reply(
        Reply(thinking="I must look.", tool_calls=[{"name": "weather", "arguments": {"city": "Oslo"}}])
    )
    model = chat(model="qwen3", output_version=version)
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    asked: list[Any] = [HumanMessage("Weather in Oslo?")]

    answer = await ask(model, way, asked, tools=tools)
    (call,) = answer.tool_calls
    result = ToolMessage("Rain", tool_call_id=call["id"])
    await ask(model, way, [*asked, answer, result], tools=tools)

    _, turn, told = server.requests[-1].body["messages"]
    assert turn == {
        "role": "assistant",
        "content": "",
        "thinking": "I must look.",
        "tool_calls": [
            {"id": call["id"], "function": {"index": 0, "name": "weather", "arguments": {"city": "Oslo"}}}
        ],
    }
    assert told == {"role": "tool", "content": "Rain", "tool_name": "weather", "tool_call_id": call["id"]}


@ways
async def test_logprobs_stand_in_the_metadata(server: SimulatedOllama, way: str) -> None:
    server.reply(Reply(pieces=["Good", " day"]))

    answer = await ask(chat(logprobs=True), way, "Hello")

    assert [entry["token"] for entry in answer.response_metadata["logprobs"]] == ["Good", " day"]


PER_CALL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "temperature": ({"temperature": 0.5}, {"options": {"temperature": 0.5}}),
    "stop": ({"stop": ["x"]}, {"options": {"stop": ["x"]}}),
    "num_predict": ({"num_predict": 7}, {"options": {"num_predict": 7}}),
    "max_tokens": ({"max_tokens": 7}, {"options": {"num_predict": 7}}),
    "options": ({"options": {"low_vram": True}}, {"options": {"low_vram": True}}),
    "model": ({"model": "llama3.2"}, {"model": "llama3.2"}),
    "think": ({"think": False}, {"think": False}),
    "format": ({"format": "json"}, {"format": "json"}),
    "keep_alive": ({"keep_alive": 5}, {"keep_alive": 5}),
    "logprobs": ({"logprobs": True, "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
}


@ways
@pytest.mark.parametrize(("call", "sent"), PER_CALL.values(), ids=PER_CALL)
async def test_a_setting_per_call(
    server: SimulatedOllama, way: str, call: dict[str, Any], sent: dict[str, Any]
) -> None:
    await ask(chat(), way, "Hello", **call)

    body = dict(server.requests[-1].body)
    body["options"] = {key: body["options"][key] for key in sent.get("options", {})}
    assert {key: body[key] for key in sent} == sent


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt name": ({"temprature": 1}, "did you mean 'temperature'?"),
    "another library's name": ({"num_ctx": 1}, "Set context_size="),
    "a load-time option": ({"num_gpu": 1}, "load the model again"),
    "more than the bound": ({"num_predict": 9999}, "num_predict=9999"),
    "both ways to ask for a format": (
        {"format": "json", "response_format": {"type": "text"}},
        "leave one out",
    ),
}


@ways
@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
async def test_an_argument_of_a_call_is_refused(
    server: SimulatedOllama, way: str, call: dict[str, Any], message: str
) -> None:
    with pytest.raises(ollama_dify.ConfigurationError, match=message.replace("?", r"\?")):
        await ask(chat(), way, "Hello", **call)

    assert server.requests == []


@ways
async def test_an_empty_conversation_is_refused(server: SimulatedOllama, way: str) -> None:
    with pytest.raises(ollama_dify.UnsupportedContentError, match="no messages"):
        await ask(chat(), way, [])

    assert server.requests == []


COMPLETIONS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "a lone user turn": ([HumanMessage("Hello")], {"prompt": "Hello"}),
    "system apart": (
        [SystemMessage("Be brief."), HumanMessage("Hello")],
        {"prompt": "Hello", "system": "Be brief."},
    ),
    "a conversation": (
        [HumanMessage("Hello"), AIMessage("Hi."), SystemMessage("Be kind."), HumanMessage("Bye")],
        {"prompt": "user: Hello\nassistant: Hi.\nuser: Bye\nassistant:", "system": "Be kind."},
    ),
}


@ways
@pytest.mark.parametrize(("asked", "sent"), COMPLETIONS.values(), ids=COMPLETIONS)
async def test_completion_mode_goes_to_generate(
    server: SimulatedOllama, way: str, asked: list[Any], sent: dict[str, Any]
) -> None:
    answer = await ask(chat(mode="completion"), way, asked)

    (request,) = server.requests
    assert request.path == "/api/generate"
    assert {key: request.body.get(key) for key in ("prompt", "system")} == {"system": None, **sent}
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] > 0


@ways
async def test_completion_mode_refuses_tools(server: SimulatedOllama, way: str) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}

    with pytest.raises(ollama_dify.CapabilityError, match='mode="chat"'):
        await ask(chat(mode="completion"), way, "Hello", tools=[tool])

    assert server.requests == []


@pytest.mark.parametrize(
    ("settings", "way", "streamed"),
    [
        ({}, "invoke", False),
        ({"streaming": True}, "invoke", True),
        ({"streaming": True}, "ainvoke", True),
        ({"streaming": False}, "stream", False),
        ({"disable_streaming": True}, "astream", False),
        ({}, "stream", True),
    ],
)
async def test_when_it_streams(
    server: SimulatedOllama, settings: dict[str, Any], way: str, streamed: bool
) -> None:
    model = chat(**settings)

    if way in ("stream", "astream"):
        await chunks(model, way, "Hello")
    else:
        await ask(model, way, "Hello")

    assert [request.body["stream"] for request in server.requests] == [streamed]


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_call_says_whether_to_stream(server: SimulatedOllama, way: str, streamed: bool) -> None:
    await ask(chat(), way, "Hello", stream=streamed)

    assert [request.body["stream"] for request in server.requests] == [streamed]


class Events(BaseCallbackHandler):
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.usage: list[Any] = []

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append("start")

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.seen.append("token")

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        self.seen.append("end")
        self.usage.append(response.generations[0][0].message.usage_metadata)  # type: ignore[union-attr]


@ways
async def test_callbacks_come_once(server: SimulatedOllama, way: str) -> None:
    server.reply(Reply(pieces=["Good", " day"]))
    events = Events()

    answer = await ask(chat(), way, "Hello", config={"callbacks": [events]})

    tokens = 0 if way in ("invoke", "ainvoke") else 3
    assert events.seen == ["start", *["token"] * tokens, "end"]
    assert events.usage == [answer.usage_metadata]


async def test_batch_keeps_the_order(server: SimulatedOllama) -> None:
    asked = [f"Repeat after me: {number}" for number in range(5)]
    model = chat()

    sync = [answer.usage_metadata for answer in model.batch(asked)]
    awaited = [answer.usage_metadata for answer in await model.abatch(asked)]

    assert sync == awaited
    assert len(server.requests) == 10


@streams
async def test_leaving_a_stream_early_disconnects(server: SimulatedOllama, way: str) -> None:
    server.reply(Reply(pieces=["a"] * 500))
    server.latency.chunk_s = 0.01
    model = chat()

    if way == "stream":
        stream = model.stream("Hello")
        next(stream)
        stream.close()
    else:
        awaited = model.astream("Hello")
        await anext(awaited)
        await awaited.aclose()

    assert await _becomes(lambda: server.disconnects == 1)


async def _becomes(condition: Any) -> bool:
    for _ in range(200):
        if condition():
            return True
        await asyncio.sleep(0.01)
    return False
