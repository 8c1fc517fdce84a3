"""One question, asked in each of the four ways a chat model can be asked."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, message_chunk_to_message

WAYS = ("invoke", "ainvoke", "stream", "astream")


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
