"""One question, asked in each of the four ways a chat model can be asked."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, message_chunk_to_message

from langchain_ollama_dify import ChatOllamaDify
from ollama_dify.testing import SimulatedOllama

WAYS = ("invoke", "ainvoke", "stream", "astream")
ways = pytest.mark.parametrize("way", WAYS)
streams = pytest.mark.parametrize("way", WAYS[2:])


def chat(**settings: Any) -> ChatOllamaDify:
    return ChatOllamaDify(**{"model": "all-round", **settings})


async def chunks(model: Any, way: str, asked: Any, /, **call: Any) -> list[Any]:
    """What a stream gives, sync or async."""
    if way == "stream":
        return list(model.stream(asked, **call))
    return [chunk async for chunk in model.astream(asked, **call)]


async def ask(model: Any, way: str, asked: Any, /, **call: Any) -> AIMessage:
    """The answer as one message."""
    if way == "invoke":
        answer: AIMessage = model.invoke(asked, **call)
        return answer
    if way == "ainvoke":
        awaited: AIMessage = await model.ainvoke(asked, **call)
        return awaited
    first, *rest = await chunks(model, way, asked, **call)
    assert isinstance(first, AIMessageChunk)
    whole = message_chunk_to_message(first + rest)
    assert isinstance(whole, AIMessage)
    return whole


def sent(server: SimulatedOllama) -> list[dict[str, Any]]:
    """The bodies of the answers asked for, in order; look-ups are left out."""
    return [asked.body for asked in server.requests if asked.path in ("/api/chat", "/api/generate")]
