"""Questions and answers of the chat model: what is on the wire, what the user sees."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult

from ollama_dify.testing import Reply, SimulatedOllama
from tests.langchain.asking import ask, chat, chunks, streams, ways


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
async def test_logprobs_stand_in_the_metadata(server: SimulatedOllama, way: str) -> None:
    server.reply(Reply(pieces=["Good", " day"]))

    answer = await ask(chat(logprobs=True), way, "Hello")

    assert [entry["token"] for entry in answer.response_metadata["logprobs"]] == ["Good", " day"]


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
