"""One way to call each of the eight methods, so that a table can run them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse

from llamaindex_ollama_dify import OllamaDify
from ollama_dify.testing import SimulatedOllama

CHAT_METHODS = ("chat", "achat", "stream_chat", "astream_chat")
COMPLETE_METHODS = ("complete", "acomplete", "stream_complete", "astream_complete")
METHODS = CHAT_METHODS + COMPLETE_METHODS


async def ask(llm: Any, method: str, asked: Any, **call: Any) -> list[Any]:
    """The responses of a method, one or as many as it streams; async connections are closed."""
    try:
        answered = getattr(llm, method)(asked, **call)
        if method.startswith("a"):
            answered = await answered
        if "stream" not in method:
            return [answered]
        return [one async for one in answered] if method.startswith("a") else list(answered)
    finally:
        if isinstance(llm, OllamaDify):
            await llm.aclose()


def as_asked(method: str, text: str) -> Sequence[ChatMessage] | str:
    return [ChatMessage(role="user", content=text)] if "chat" in method else text


def text_of(response: ChatResponse | CompletionResponse) -> str | None:
    return response.text if isinstance(response, CompletionResponse) else response.message.content


def sent(server: SimulatedOllama, path: str | None = None) -> list[dict[str, Any]]:
    """The bodies of the answers asked for, in order; look-ups are left out unless `path` names them."""
    paths = ("/api/chat", "/api/generate") if path is None else (path,)
    return [request.body for request in server.requests if request.path in paths]
