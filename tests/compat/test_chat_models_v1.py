"""What langchain-ollama's test_chat_models_v1.py asks of `output_version="v1"`, asked of ours.

That file stood on the branch that made content blocks; the ids it expects on them did not come into
langchain-core 1.x, so they are not asked for here.
"""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from pydantic import BaseModel, Field

from ollama_dify.testing import SimulatedOllama
from tests.compat.shim import ChatOllama

HELLO = [HumanMessage("Say hello.")]


class Person(BaseModel):
    """Someone."""

    name: str = Field(description="The name")
    age: int = Field(description="The age in years")


def chat(model: str = "llama3.1", **settings: Any) -> ChatOllama:
    return ChatOllama(model=model, output_version="v1", temperature=0, **settings)


def kinds(content: Any) -> list[str]:
    assert isinstance(content, list)
    return [block["type"] for block in content]


def test_v1_basic_output_format(server: SimulatedOllama) -> None:
    server.reply("Hello, World!")
    content = chat().invoke(HELLO).content
    assert kinds(content) == ["text"]
    assert content[0]["text"] == "Hello, World!"


def test_v1_reasoning_output() -> None:
    answer = chat("deepseek-r1:1.5b", reasoning=True).invoke(HELLO)
    assert kinds(answer.content) == ["reasoning", "text"]


def test_v1_streaming() -> None:
    chunks = list(chat().stream(HELLO))
    assert {kind for chunk in chunks for kind in kinds(chunk.content)} == {"text"}


async def test_v1_async() -> None:
    assert kinds((await chat().ainvoke(HELLO)).content) == ["text"]


async def test_v1_async_streaming() -> None:
    chunks = [chunk async for chunk in chat().astream(HELLO)]
    assert {kind for chunk in chunks for kind in kinds(chunk.content)} == {"text"}


def test_v1_structured_output(server: SimulatedOllama) -> None:
    server.reply('{"Person": {"name": "John", "age": 25}}')
    model = chat().with_structured_output(Person, method="function_calling")
    assert model.invoke("John is 25 years old") == Person(name="John", age=25)


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_v1_structured_output_streaming(method: Any) -> None:
    chunks = list(chat().with_structured_output(Person, method=method).stream("John is 25 years old"))
    assert chunks
    assert all(isinstance(chunk, Person) for chunk in chunks)


def test_v1_vs_v0_comparison() -> None:
    old, new = ChatOllama(model="llama3.1", output_version="v0").invoke(HELLO), chat().invoke(HELLO)
    assert isinstance(old.content, str)
    assert kinds(new.content) == ["text"]
    assert old.text == new.text


def test_v1_content_blocks_property() -> None:
    answer = chat("deepseek-r1:1.5b", reasoning=True).invoke(HELLO)
    assert answer.content_blocks == answer.content
