"""While an async call waits for the server, its event loop runs: each request is held until it has."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings, OllamaDifyLLM
from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding
from ollama_dify.testing import Fault, RecordedRequest, SimulatedOllama

PIXEL = (Path(__file__).parents[1] / "data" / "images" / "png_rgb.png").read_bytes()


class City(BaseModel):
    name: str


def weather(city: str) -> str:
    """The weather in a city."""
    return city


async def drain(stream: Any) -> list[Any]:
    return [part async for part in stream]


async def drain_awaited(stream: Awaitable[Any]) -> list[Any]:
    return await drain(await stream)


PROMPT = PromptTemplate("Oslo?")
SEEN = ChatMessage(blocks=[TextBlock(text="What is it?"), ImageBlock(image=PIXEL)])
CALLS: dict[str, tuple[Any, str, Callable[[Any], Awaitable[Any]]]] = {
    "langchain ainvoke": (ChatOllamaDify, "llama3.2", lambda m: m.ainvoke("Hello")),
    "langchain astream": (ChatOllamaDify, "llama3.2", lambda m: drain(m.astream("Hello"))),
    "langchain abatch": (ChatOllamaDify, "llama3.2", lambda m: m.abatch(["Hello", "Good day"])),
    "langchain tools": (ChatOllamaDify, "llama3.2", lambda m: m.bind_tools([weather]).ainvoke("Hello")),
    "langchain structured": (
        ChatOllamaDify,
        "llama3.2",
        lambda m: m.with_structured_output(City, repair=True).ainvoke("Oslo"),
    ),
    "langchain awarmup": (ChatOllamaDify, "llama3.2", lambda m: m.awarmup()),
    "langchain completion": (OllamaDifyLLM, "llama3.2", lambda m: m.ainvoke("Hello")),
    "langchain aembed": (OllamaDifyEmbeddings, "nomic-embed-text", lambda m: m.aembed_documents(["a", "b"])),
    "llamaindex achat": (OllamaDify, "llama3.2", lambda m: m.achat([ChatMessage(content="Hello")])),
    "llamaindex image": (OllamaDify, "llava", lambda m: m.achat([SEEN])),
    "llamaindex astream": (OllamaDify, "llama3.2", lambda m: drain_awaited(m.astream_complete("Hello"))),
    "llamaindex tools": (
        OllamaDify,
        "llama3.2",
        lambda m: m.achat_with_tools([FunctionTool.from_defaults(weather)], "Hello"),
    ),
    "llamaindex structured": (OllamaDify, "llama3.2", lambda m: m.astructured_predict(City, PROMPT)),
    "llamaindex awarmup": (OllamaDify, "llama3.2", lambda m: m.awarmup()),
    "llamaindex aembed": (
        OllamaDifyEmbedding,
        "nomic-embed-text",
        lambda m: m.aget_text_embedding_batch(["a", "b"]),
    ),
}


def hold(server: SimulatedOllama) -> list[bool]:
    """Holds each request until the client's loop has run something else; gives whether it did."""
    loop, ran = asyncio.get_running_loop(), list[bool]()

    def wait(request: RecordedRequest) -> bool:
        turn = threading.Event()
        loop.call_soon_threadsafe(turn.set)
        ran.append(turn.wait(10))
        return False

    server.fault(Fault("reset"), times=None, when=wait)  # never strikes: the condition only waits
    return ran


@pytest.mark.parametrize(("kind", "name", "call"), CALLS.values(), ids=CALLS)
async def test_the_loop_runs_during_each_request(
    simulated_ollama: SimulatedOllama, kind: Any, name: str, call: Callable[[Any], Awaitable[Any]]
) -> None:
    ran = hold(simulated_ollama)
    async with kind(model=name, base_url=simulated_ollama.base_url) as model:
        await call(model)
    assert len(ran) == len(simulated_ollama.requests) > 0
    assert all(ran)
