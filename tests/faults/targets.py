"""The core and the adapters, sync and async, behind one face, so that a fault meets all of them alike."""

from __future__ import annotations

import asyncio
import base64
import importlib
from collections.abc import Callable, Sequence
from typing import Any

from ollama_dify import AsyncOllamaClient, ChatSettings, EmbeddingSettings, Image, OllamaClient, Tool, user

TOOL = Tool("look", "Looks.", {"type": "object", "properties": {"at": {"type": "string"}}})


class Target:
    """What the table asks of an implementation, here the core; the objects it made are closed with it."""

    framework = "core"
    mode = "sync"
    package = "ollama_dify"

    def __init__(self) -> None:
        self._made: list[Any] = []

    @property
    def name(self) -> str:
        return f"{self.framework} {self.mode}"

    def chat_model(self, url: str, **settings: Any) -> Any:
        """A chat model for the server."""
        self._made.append(self._chat_model({"model": "m", "base_url": url, **settings}))
        return self._made[-1]

    def embedder(self, url: str, **settings: Any) -> Any:
        self._made.append(self._embedder({"model": "m", "base_url": url, **settings}))
        return self._made[-1]

    def close(self) -> None:
        for made in self._made:
            made.close()

    def call(self, model: Any, method: str, *arguments: Any, **named: Any) -> Any:
        return getattr(model, method)(*arguments, **named)

    def pieces(self, model: Any, method: str, *arguments: Any, most: int | None) -> list[Any]:
        """What a stream gives to a plain loop with a break, as a user writes it."""
        found = []
        for item in getattr(model, method)(*arguments):
            found.append(item)
            if most is not None and len(found) >= most:
                break
        return found

    def _chat_model(self, settings: dict[str, Any]) -> Any:
        return (OllamaClient if self.mode == "sync" else AsyncOllamaClient)(ChatSettings(**settings))

    def _embedder(self, settings: dict[str, Any]) -> Any:
        return (OllamaClient if self.mode == "sync" else AsyncOllamaClient)(EmbeddingSettings(**settings))

    def chat(self, model: Any, text: str = "hi", **call: Any) -> str:
        """The whole answer's text."""
        return str(self.call(model, "chat", [user(text)], **call).text)

    def see(self, model: Any, image: bytes) -> str:
        return str(self.call(model, "chat", [user("what?", Image.from_bytes(image))]).text)

    def stream(self, model: Any, text: str = "hi", *, most: int | None = None) -> list[str]:
        """The pieces of an answer that hold text; leaves the loop after `most` pieces."""
        found = self.pieces(model, "chat_stream", [user(text)], most=most)
        return [piece.text for piece in found if piece.text]

    def embed(self, model: Any, texts: Sequence[str]) -> list[Any]:
        return list(self.call(model, "embed", list(texts)).vectors)

    def calls(self, model: Any) -> list[dict[str, Any]]:
        """Arguments of the tool calls in an answer."""
        found = self.call(model, "chat", [user("hi")], tools=[TOOL]).tool_calls
        return [dict(call.arguments) for call in found]


class AsyncTarget(Target):
    """Keeps one event loop, so that connections are reused from call to call."""

    mode = "async"
    prefix = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    def close(self) -> None:
        for made in self._made:
            self.run(made.aclose())
        self.run(self.loop.shutdown_asyncgens())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()

    def call(self, model: Any, method: str, *arguments: Any, **named: Any) -> Any:
        return self.run(getattr(model, self.prefix + method)(*arguments, **named))

    def pieces(self, model: Any, method: str, *arguments: Any, most: int | None) -> list[Any]:
        async def collect() -> list[Any]:
            found = []
            stream = getattr(model, self.prefix + method)(*arguments)
            async for item in await stream if asyncio.iscoroutine(stream) else stream:
                found.append(item)
                if most is not None and len(found) >= most:
                    break
            return found

        return list(self.run(collect()))


class LangChain(Target):
    framework = "LangChain"
    package = "langchain_ollama_dify"

    def _chat_model(self, settings: dict[str, Any]) -> Any:
        return importlib.import_module(self.package).ChatOllamaDify(**settings)

    def _embedder(self, settings: dict[str, Any]) -> Any:
        return importlib.import_module(self.package).OllamaDifyEmbeddings(**settings)

    def chat(self, model: Any, text: str = "hi", **call: Any) -> str:
        return str(self.call(model, "invoke", text, **call).text)

    def see(self, model: Any, image: bytes) -> str:
        from langchain_core.messages import HumanMessage

        url = f"data:image/png;base64,{base64.b64encode(image).decode()}"
        content: list[Any] = ["what?", {"type": "image_url", "image_url": {"url": url}}]
        return str(self.call(model, "invoke", [HumanMessage(content)]).text)

    def stream(self, model: Any, text: str = "hi", *, most: int | None = None) -> list[str]:
        return [str(piece.text) for piece in self.pieces(model, "stream", text, most=most) if piece.text]

    def embed(self, model: Any, texts: Sequence[str]) -> list[Any]:
        return list(self.call(model, "embed_documents", list(texts)))

    def calls(self, model: Any) -> list[dict[str, Any]]:
        described = {"name": TOOL.name, "description": "Looks.", "parameters": TOOL.parameters}
        bound = model.bind_tools([{"type": "function", "function": described}])
        return [call["args"] for call in self.call(bound, "invoke", "hi").tool_calls]


class LlamaIndex(Target):
    framework = "LlamaIndex"
    package = "llamaindex_ollama_dify"

    def _chat_model(self, settings: dict[str, Any]) -> Any:
        return importlib.import_module(self.package).OllamaDify(**settings)

    def _embedder(self, settings: dict[str, Any]) -> Any:
        return importlib.import_module(self.package).OllamaDifyEmbedding(**settings)

    def _said(self, text: str, *images: bytes) -> list[Any]:
        from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock

        blocks = [TextBlock(text=text), *(ImageBlock(image=image) for image in images)]
        return [ChatMessage(role="user", blocks=blocks)]

    def chat(self, model: Any, text: str = "hi", **call: Any) -> str:
        return str(self.call(model, "chat", self._said(text), **call).message.content)

    def see(self, model: Any, image: bytes) -> str:
        return str(self.call(model, "chat", self._said("what?", image)).message.content)

    def stream(self, model: Any, text: str = "hi", *, most: int | None = None) -> list[str]:
        found = self.pieces(model, "stream_chat", self._said(text), most=most)
        return [piece.delta for piece in found if piece.delta]

    def embed(self, model: Any, texts: Sequence[str]) -> list[Any]:
        return list(self.call(model, "get_text_embedding_batch", list(texts)))

    def calls(self, model: Any) -> list[dict[str, Any]]:
        from llama_index.core.tools import FunctionTool

        def look(at: str) -> str:
            """Looks."""
            return at

        response = self.call(model, "chat_with_tools", [FunctionTool.from_defaults(look)], user_msg="hi")
        found = model.get_tool_calls_from_response(response, error_on_no_tool_call=False)
        return [call.tool_kwargs for call in found]


class AsyncLangChain(LangChain, AsyncTarget):
    prefix = "a"


class AsyncLlamaIndex(LlamaIndex, AsyncTarget):
    prefix = "a"


def targets() -> list[Callable[[], Target]]:
    """Those whose packages can be imported here."""
    found: list[Callable[[], Target]] = []
    for kind in (Target, AsyncTarget, LangChain, AsyncLangChain, LlamaIndex, AsyncLlamaIndex):
        try:
            importlib.import_module(kind.package)
        except ImportError:
            continue
        found.append(kind)
    return found
