"""The core and the adapters, sync and async, behind one face, so that a fault meets all of them alike."""

from __future__ import annotations

import asyncio
import base64
import importlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from ollama_dify import (
    AsyncOllamaClient,
    ChatSettings,
    EmbeddingSettings,
    Image,
    OllamaClient,
    Tool,
    user,
)

T = TypeVar("T")
# Looked for in what errors show.
PROMPT, KEY = "prompt-4c0ffee", "sk-4c0ffee"
TOOL = Tool("look", "Looks.", {"type": "object", "properties": {"at": {"type": "string"}}})


class Target:
    """What the table asks of an implementation. `objects` made are closed with it."""

    framework = "core"
    mode = "sync"

    def __init__(self) -> None:
        self._made: list[Any] = []

    @property
    def name(self) -> str:
        return f"{self.framework} {self.mode}"

    def chat_model(self, url: str, **settings: Any) -> Any:
        """A chat model for the server."""
        self._made.append(self._chat_model({"model": "m", "base_url": url, "api_key": KEY, **settings}))
        return self._made[-1]

    def embedder(self, url: str, **settings: Any) -> Any:
        self._made.append(self._embedder({"model": "m", "base_url": url, "api_key": KEY, **settings}))
        return self._made[-1]

    def close(self) -> None:
        for made in self._made:
            made.close()

    def _chat_model(self, settings: dict[str, Any]) -> Any:
        return OllamaClient(ChatSettings(**settings))

    def _embedder(self, settings: dict[str, Any]) -> Any:
        return OllamaClient(EmbeddingSettings(**settings))

    def chat(self, model: Any, text: str = PROMPT, **call: Any) -> str:
        """The whole answer's text."""
        return str(model.chat([user(text)], **call).text)

    def see(self, model: Any, image: bytes) -> str:
        return str(model.chat([user("what?", Image.from_bytes(image))]).text)

    def stream(self, model: Any, text: str = PROMPT, *, most: int | None = None) -> list[str]:
        """The pieces of an answer that hold text; leaves the loop after `most` of them."""
        return _take((chunk.text for chunk in _loop(model.chat_stream([user(text)]), most)), None)

    def embed(self, model: Any, texts: Sequence[str]) -> list[Any]:
        return list(model.embed(list(texts)).vectors)

    def calls(self, model: Any) -> list[dict[str, Any]]:
        """Arguments of the tool calls in an answer."""
        found = model.chat([user("hi")], tools=[TOOL]).tool_calls
        return [dict(call.arguments) for call in found]


def _loop(items: Iterable[T], most: int | None) -> Iterable[T]:
    """A plain for loop with a break, as a user writes it."""
    found = []
    for item in items:
        found.append(item)
        if most is not None and len(found) >= most:
            break
    return found


def _take(texts: Iterable[str], most: int | None) -> list[str]:
    return [text for text in itertools.islice(texts, most) if text]


class AsyncTarget(Target):
    """Keeps one event loop, so that connections are reused from call to call."""

    mode = "async"

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

    def _chat_model(self, settings: dict[str, Any]) -> Any:
        return AsyncOllamaClient(ChatSettings(**settings))

    def _embedder(self, settings: dict[str, Any]) -> Any:
        return AsyncOllamaClient(EmbeddingSettings(**settings))

    def chat(self, model: Any, text: str = PROMPT, **call: Any) -> str:
        return str(self.run(model.chat([user(text)], **call)).text)

    def see(self, model: Any, image: bytes) -> str:
        return str(self.run(model.chat([user("what?", Image.from_bytes(image))])).text)

    def stream(self, model: Any, text: str = PROMPT, *, most: int | None = None) -> list[str]:
        async def collect() -> list[str]:
            return [chunk.text for chunk in await _async_loop(model.chat_stream([user(text)]), most)]

        return [text for text in self.run(collect()) if text]

    def embed(self, model: Any, texts: Sequence[str]) -> list[Any]:
        return list(self.run(model.embed(list(texts))).vectors)

    def calls(self, model: Any) -> list[dict[str, Any]]:
        found = self.run(model.chat([user("hi")], tools=[TOOL])).tool_calls
        return [dict(call.arguments) for call in found]


async def _async_loop(items: Any, most: int | None) -> list[Any]:
    found = []
    async for item in items:
        found.append(item)
        if most is not None and len(found) >= most:
            break
    return found


def _encoded(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


class _LangChain:
    framework = "LangChain"

    def _chat_model(self, settings: dict[str, Any]) -> Any:
        return importlib.import_module("langchain_ollama_dify").ChatOllamaDify(**settings)

    def _embedder(self, settings: dict[str, Any]) -> Any:
        return importlib.import_module("langchain_ollama_dify").OllamaDifyEmbeddings(**settings)

    def _image(self, image: bytes) -> list[Any]:
        from langchain_core.messages import HumanMessage

        part = {"type": "image_url", "image_url": {"url": _encoded(image)}}
        return [HumanMessage([{"type": "text", "text": "what?"}, part])]

    def _bound(self, model: Any) -> Any:
        described = {"name": TOOL.name, "description": "Looks.", "parameters": TOOL.parameters}
        return model.bind_tools([{"type": "function", "function": described}])


class LangChain(_LangChain, Target):
    def chat(self, model: Any, text: str = PROMPT, **call: Any) -> str:
        return str(model.invoke(text, **call).text)

    def see(self, model: Any, image: bytes) -> str:
        return str(model.invoke(self._image(image)).text)

    def stream(self, model: Any, text: str = PROMPT, *, most: int | None = None) -> list[str]:
        return [str(it.text) for it in _loop(model.stream(text), most) if it.text]

    def embed(self, model: Any, texts: Sequence[str]) -> list[Any]:
        return list(model.embed_documents(list(texts)))

    def calls(self, model: Any) -> list[dict[str, Any]]:
        return [call["args"] for call in self._bound(model).invoke("hi").tool_calls]


class AsyncLangChain(_LangChain, AsyncTarget):
    def chat(self, model: Any, text: str = PROMPT, **call: Any) -> str:
        return str(self.run(model.ainvoke(text, **call)).text)

    def see(self, model: Any, image: bytes) -> str:
        return str(self.run(model.ainvoke(self._image(image))).text)

    def stream(self, model: Any, text: str = PROMPT, *, most: int | None = None) -> list[str]:
        return [str(it.text) for it in self.run(_async_loop(model.astream(text), most)) if it.text]

    def embed(self, model: Any, texts: Sequence[str]) -> list[Any]:
        return list(self.run(model.aembed_documents(list(texts))))

    def calls(self, model: Any) -> list[dict[str, Any]]:
        return [call["args"] for call in self.run(self._bound(model).ainvoke("hi")).tool_calls]


class _LlamaIndex:
    framework = "LlamaIndex"

    def _chat_model(self, settings: dict[str, Any]) -> Any:
        return importlib.import_module("llamaindex_ollama_dify").OllamaDify(**settings)

    def _embedder(self, settings: dict[str, Any]) -> Any:
        return importlib.import_module("llamaindex_ollama_dify").OllamaDifyEmbedding(**settings)

    def _said(self, text: str) -> list[Any]:
        from llama_index.core.llms import ChatMessage

        return [ChatMessage(role="user", content=text)]

    def _image(self, image: bytes) -> list[Any]:
        from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock

        return [ChatMessage(role="user", blocks=[TextBlock(text="what?"), ImageBlock(image=image)])]

    def _tool(self) -> Any:
        from llama_index.core.tools import FunctionTool

        def look(at: str) -> str:
            """Looks."""
            return at

        return FunctionTool.from_defaults(look)

    def _arguments(self, model: Any, response: Any) -> list[dict[str, Any]]:
        found = model.get_tool_calls_from_response(response, error_on_no_tool_call=False)
        return [call.tool_kwargs for call in found]


class LlamaIndex(_LlamaIndex, Target):
    def chat(self, model: Any, text: str = PROMPT, **call: Any) -> str:
        return str(model.chat(self._said(text), **call).message.content)

    def see(self, model: Any, image: bytes) -> str:
        return str(model.chat(self._image(image)).message.content)

    def stream(self, model: Any, text: str = PROMPT, *, most: int | None = None) -> list[str]:
        return [it.delta for it in _loop(model.stream_chat(self._said(text)), most) if it.delta]

    def embed(self, model: Any, texts: Sequence[str]) -> list[Any]:
        return list(model.get_text_embedding_batch(list(texts)))

    def calls(self, model: Any) -> list[dict[str, Any]]:
        return self._arguments(model, model.chat_with_tools([self._tool()], user_msg="hi"))


class AsyncLlamaIndex(_LlamaIndex, AsyncTarget):
    def chat(self, model: Any, text: str = PROMPT, **call: Any) -> str:
        return str(self.run(model.achat(self._said(text), **call)).message.content)

    def see(self, model: Any, image: bytes) -> str:
        return str(self.run(model.achat(self._image(image))).message.content)

    def stream(self, model: Any, text: str = PROMPT, *, most: int | None = None) -> list[str]:
        async def collect() -> list[Any]:
            return await _async_loop(await model.astream_chat(self._said(text)), most)

        return [it.delta for it in self.run(collect()) if it.delta]

    def embed(self, model: Any, texts: Sequence[str]) -> list[Any]:
        return list(self.run(model.aget_text_embedding_batch(list(texts))))

    def calls(self, model: Any) -> list[dict[str, Any]]:
        response = self.run(model.achat_with_tools([self._tool()], user_msg="hi"))
        return self._arguments(model, response)


_ALL: dict[type[Target], str] = {
    Target: "ollama_dify",
    AsyncTarget: "ollama_dify",
    LangChain: "langchain_ollama_dify",
    AsyncLangChain: "langchain_ollama_dify",
    LlamaIndex: "llamaindex_ollama_dify",
    AsyncLlamaIndex: "llamaindex_ollama_dify",
}


def targets() -> list[Callable[[], Target]]:
    """Those whose packages can be imported here."""
    found: list[Callable[[], Target]] = []
    for kind, package in _ALL.items():
        try:
            importlib.import_module(package)
        except ImportError:
            continue
        found.append(kind)
    return found
