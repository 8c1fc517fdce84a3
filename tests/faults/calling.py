"""A client that is called, or awaited in an event loop of its own, behind one face; with uvloop too."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from typing_extensions import Self

from ollama_dify import AsyncOllamaClient, ChatSettings, ConnectionSettings, OllamaClient, user

__all__ = ["BOTH", "MODES", "Calling", "chat", "run"]

T = TypeVar("T")
BOTH = pytest.mark.parametrize("mode", ["sync", "async"])
MODES = pytest.mark.parametrize("mode", ["sync", "async", "uvloop"])


def chat(url: str, **values: Any) -> ChatSettings:
    return ChatSettings(model="m", base_url=url, **{"max_retries": 0, **values})


class Calling:
    """Closes the client and its loop at the end."""

    def __init__(self, mode: str, settings: ConnectionSettings) -> None:
        self.loop: Any = None if mode == "sync" else _loop(mode)
        self.client: Any = OllamaClient(settings) if mode == "sync" else AsyncOllamaClient(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.loop is None:
            self.client.close()
        else:
            self.run(self.client.aclose())
            _close(self.loop)

    def run(self, result: Any) -> Any:
        """What a call gave, awaited where it is to be."""
        return self.loop.run_until_complete(result) if inspect.isawaitable(result) else result

    def chat(self, text: str = "hi") -> str:
        return str(self.run(self.client.chat([user(text)])).text)

    def next(self, stream: Any) -> str:
        """The text of a stream's next chunk."""
        return str((next(stream) if self.loop is None else self.run(stream.__anext__())).text)

    def rest(self, stream: Any) -> str:
        async def collect() -> str:
            return "".join([piece.text async for piece in stream])

        return "".join(it.text for it in stream) if self.loop is None else str(self.run(collect()))

    def stream(self, text: str = "hi") -> str:
        return self.rest(self.client.chat_stream([user(text)]))

    def leave(self, stream: Any) -> None:
        self.run(stream.close() if self.loop is None else stream.aclose())

    def later(self, seconds: float, call: Callable[[], Any]) -> None:
        """Call a function of the client from elsewhere: another thread, or another task."""
        if self.loop is None:
            timer = threading.Timer(seconds, call)
            timer.start()
        else:
            self.loop.call_later(seconds, lambda: self.loop.create_task(call()))


def run(mode: str, work: Coroutine[Any, Any, T]) -> T:
    """Await `work` in an event loop of its own."""
    loop = _loop(mode)
    try:
        done: T = loop.run_until_complete(work)
        return done
    finally:
        _close(loop)


def _loop(mode: str) -> asyncio.AbstractEventLoop:
    if mode == "async":
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    return loop


def _close(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
