"""Leaving a stream early, in either framework, sync and async, stops the server."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage

from langchain_ollama_dify import ChatOllamaDify, OllamaDifyLLM
from llamaindex_ollama_dify import OllamaDify
from ollama_dify.testing import Reply, SimulatedOllama

ASKED = [ChatMessage("Count")]
STREAMS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "langchain chat": (ChatOllamaDify, lambda model: model.stream("Count")),
    "langchain chat, async": (ChatOllamaDify, lambda model: model.astream("Count")),
    "langchain llm": (OllamaDifyLLM, lambda model: model.stream("Count")),
    "langchain llm, async": (OllamaDifyLLM, lambda model: model.astream("Count")),
    "llamaindex chat": (OllamaDify, lambda model: model.stream_chat(ASKED)),
    "llamaindex chat, async": (OllamaDify, lambda model: model.astream_chat(ASKED)),
    "llamaindex complete": (OllamaDify, lambda model: model.stream_complete("Count")),
    "llamaindex complete, async": (OllamaDify, lambda model: model.astream_complete("Count")),
}


@pytest.mark.parametrize(("kind", "opened"), STREAMS.values(), ids=STREAMS)
async def test_leaving_early(
    simulated_ollama: SimulatedOllama, kind: Any, opened: Callable[[Any], Any]
) -> None:
    simulated_ollama.latency.chunk_s = 0.02
    simulated_ollama.script([Reply(pieces=["x "] * 500)])
    async with kind(model="llama3.2", base_url=simulated_ollama.base_url) as model:
        stream = opened(model)
        stream = await stream if hasattr(stream, "__await__") else stream
        if hasattr(stream, "__anext__"):
            await anext(stream)
            await stream.aclose()
        else:
            next(stream)
            stream.close()
        del stream
        gc.collect()
        for _ in range(500):
            if simulated_ollama.disconnects:
                break
            await asyncio.sleep(0.01)
        model.close()
    assert simulated_ollama.disconnects == 1
