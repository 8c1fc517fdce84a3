"""What langchain-ollama's test_llms.py asks of a completion model, asked of ours.

As with chat models, unset reasoning keeps the thoughts apart where langchain-ollama drops them.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

from langchain_core.outputs import GenerationChunk

from tests.compat.shim import OllamaLLM

PROMPT = "I'm Pickle Rick"
PROMPTS = [PROMPT, "I'm not Pickle Rick"]
SAMPLE = "What is 3^3?"


def plain() -> OllamaLLM:
    return OllamaLLM(model="llama3.1")


def thinking(**settings: Any) -> OllamaLLM:
    return OllamaLLM(model="deepseek-r1:1.5b", num_ctx=4096, **settings)


def joined(chunks: list[GenerationChunk]) -> tuple[str, dict[str, Any]]:
    whole = reduce(add, chunks)
    assert whole.text
    assert "think>" not in whole.text
    return whole.text, whole.generation_info or {}


def assert_texts(texts: list[Any], count: int | None = None) -> None:
    assert all(isinstance(text, str) for text in texts)
    assert "".join(texts)
    assert count is None or len(texts) == count


def test_stream_text_tokens() -> None:
    assert_texts(list(plain().stream(PROMPT)))


async def test_astream_text_tokens() -> None:
    assert_texts([text async for text in plain().astream(PROMPT)])


def test__stream_no_reasoning() -> None:
    assert joined(list(thinking()._stream(SAMPLE)))[1]["reasoning_content"]
    assert "reasoning_content" not in joined(list(thinking(reasoning=False)._stream(SAMPLE)))[1]


async def test__astream_no_reasoning() -> None:
    unset, off = thinking(), thinking(reasoning=False)
    assert joined([chunk async for chunk in unset._astream(SAMPLE)])[1]["reasoning_content"]
    assert "reasoning_content" not in joined([chunk async for chunk in off._astream(SAMPLE)])[1]


def test__stream_with_reasoning() -> None:
    thoughts = joined(list(thinking(reasoning=True)._stream(SAMPLE)))[1]["reasoning_content"]
    assert thoughts
    assert "think>" not in thoughts


async def test__astream_with_reasoning() -> None:
    model = thinking(reasoning=True)
    assert joined([chunk async for chunk in model._astream(SAMPLE)])[1]["reasoning_content"]


def test_batch() -> None:
    assert_texts(plain().batch(PROMPTS), 2)


async def test_abatch() -> None:
    assert_texts(await plain().abatch(PROMPTS), 2)


async def test_abatch_tags() -> None:
    assert_texts(await plain().abatch(PROMPTS, config={"tags": ["foo"]}), 2)


def test_invoke() -> None:
    assert_texts([plain().invoke(PROMPT, config={"tags": ["foo"]})])


async def test_ainvoke() -> None:
    assert_texts([await plain().ainvoke(PROMPT, config={"tags": ["foo"]})])
