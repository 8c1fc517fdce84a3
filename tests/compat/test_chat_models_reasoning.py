"""What langchain-ollama's test_chat_models_reasoning.py asks, asked of ours.

With reasoning unset a thinking model thinks, and the server sends the thoughts apart. langchain-ollama drops
them then; ours keeps them apart from the text, so three names differ on purpose.
"""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage

from tests.compat.shim import ChatOllama
from tests.langchain.asking import ask

SAMPLE = [{"role": "user", "content": "What is 3^3?"}]
streamed = pytest.mark.parametrize("way", ["stream", "astream"])
whole = pytest.mark.parametrize("way", ["invoke", "ainvoke"])


async def answered(reasoning: bool | None, way: str) -> AIMessage:
    return await ask(ChatOllama(model="deepseek-r1:1.5b", num_ctx=4096, reasoning=reasoning), way, SAMPLE)


def assert_plain(answer: AIMessage) -> None:
    assert answer.text
    assert "think>" not in answer.text
    assert "reasoning_content" not in answer.additional_kwargs
    assert [block["type"] for block in answer.content_blocks] == ["text"]


def assert_apart(answer: AIMessage) -> None:
    assert answer.text
    assert answer.additional_kwargs["reasoning_content"]
    assert "think>" not in answer.text + answer.additional_kwargs["reasoning_content"]
    assert [block["type"] for block in answer.content_blocks] == ["reasoning", "text"]


@streamed
async def test_stream_no_reasoning(way: str) -> None:
    assert_plain(await answered(False, way))


@streamed
async def test_stream_reasoning_none(way: str) -> None:
    assert_apart(await answered(None, way))


@streamed
async def test_reasoning_stream(way: str) -> None:
    assert_apart(await answered(True, way))


@whole
async def test_invoke_no_reasoning(way: str) -> None:
    assert_plain(await answered(False, way))


@whole
async def test_invoke_reasoning_none(way: str) -> None:
    assert_apart(await answered(None, way))


@whole
async def test_reasoning_invoke(way: str) -> None:
    assert_apart(await answered(True, way))


async def test_reasoning_modes_behavior() -> None:
    assert_apart(await answered(None, "invoke"))
    assert_plain(await answered(False, "invoke"))
    assert_apart(await answered(True, "invoke"))
