"""The async client: the twin of `blocking`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast
from weakref import WeakKeyDictionary

from ..errors import ConfigurationError, OllamaError
from ..settings import ConnectionSettings
from ..wire.responses import ChatChunk
from .blocking import ChatStream, OllamaClient
from .operations import CommonClient, CommonStream, PullProgress, mark_begun
from .request import Request

P = ParamSpec("P")
T = TypeVar("T")


class AsyncChatStream(
    CommonStream[AsyncGenerator[ChatChunk, None]], AbstractAsyncContextManager["AsyncChatStream"]
):
    """The async twin of `ChatStream`."""

    def __init__(self, client: AsyncOllamaClient, request: Request) -> None:
        super().__init__(client, request, _chunks)

    def __aiter__(self) -> AsyncIterator[ChatChunk]:
        return self._handed_over() or self

    async def __anext__(self) -> ChatChunk:
        chunks = self._known()
        if chunks is None:
            raise StopAsyncIteration
        return await chunks.__anext__()

    async def aclose(self) -> None:
        """Stop, from another task too; see `ChatStream.close`."""
        chunks = self._known()
        try:
            if chunks is not None:
                await chunks.aclose()
        except RuntimeError:  # the other task is inside the generator
            self._token.cancel()

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()


async def _chunks(
    opening: Callable[[], Coroutine[Any, Any, Any]], begun: list[Any]
) -> AsyncGenerator[Any, None]:
    stream, decoder, first = await opening()
    begun.append(decoder)
    try:
        for chunk in first:
            yield chunk
        if decoder.finished:
            stream.finish()
        async for data in stream:
            for chunk in decoder.feed(data):
                yield chunk
            if decoder.error is not None:
                break
            if decoder.finished:
                stream.finish()
        for chunk in decoder.close():
            yield chunk
    except OllamaError as error:
        mark_begun(error, decoder)
        raise
    finally:
        await stream.aclose()


def awaited(
    method: Callable[Concatenate[OllamaClient, P], T],
) -> Callable[Concatenate[AsyncOllamaClient, P], Coroutine[Any, Any, T]]:
    """A method of `OllamaClient` for its async twin: the same arguments, an awaitable result."""

    @wraps(method)
    async def twin(self: Any, /, *args: P.args, **values: P.kwargs) -> T:
        logic: Any = method(self, *args, **values)  # the twin's `_run` returns its argument
        result: T = await logic
        return result

    return twin


def streamed(
    method: Callable[Concatenate[OllamaClient, P], ChatStream],
) -> Callable[Concatenate[AsyncOllamaClient, P], AsyncChatStream]:
    """A method of `OllamaClient` for its twin, whose `ask_stream` it calls."""
    return cast(Any, method)  # type: ignore[no-any-return]  # the stream is of the twin's class


class AsyncOllamaClient(CommonClient, AbstractAsyncContextManager["AsyncOllamaClient"]):
    """The async twin of `OllamaClient`; usable from several event loops, each with its own connections."""

    def __init__(self, settings: ConnectionSettings) -> None:
        super().__init__(settings)
        self._transports = WeakKeyDictionary()

    chat = awaited(OllamaClient.chat)
    generate = awaited(OllamaClient.generate)
    ask = awaited(OllamaClient.ask)
    embed = awaited(OllamaClient.embed)
    rerank = awaited(OllamaClient.rerank)
    embedding_fingerprint = awaited(OllamaClient.embedding_fingerprint)
    model_info = awaited(OllamaClient.model_info)
    show = awaited(OllamaClient.show)
    tags = awaited(OllamaClient.tags)
    ps = awaited(OllamaClient.ps)
    version = awaited(OllamaClient.version)
    count_tokens = awaited(OllamaClient.count_tokens)
    counter = awaited(OllamaClient.counter)
    warmup = awaited(OllamaClient.warmup)

    chat_stream = streamed(OllamaClient.chat_stream)
    generate_stream = streamed(OllamaClient.generate_stream)

    def ask_stream(self, request: Request) -> AsyncChatStream:
        """Answer a request made with `streamed=True`, piece by piece."""
        return AsyncChatStream(self, request)

    def pull(self, model: str | None = None) -> AsyncIterator[PullProgress]:
        """Have the server download a model; see `OllamaClient.pull`."""
        return _chunks(partial(self._pulled, model), [])

    async def aclose(self) -> None:
        """Close this event loop's connections; the client connects again when it is used again."""
        for transport in list(self._transports.get(asyncio.get_running_loop(), {}).values()):
            await transport.aclose()
        self._transports.pop(asyncio.get_running_loop(), None)

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def _run(self, logic: T) -> T:
        return logic

    def _transports_here(self) -> Any:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError as error:
            raise ConfigurationError(
                "AsyncOllamaClient needs a running asyncio event loop, and there is none here.",
                hint="asyncio and uvloop are supported, trio is not: call OllamaClient in a thread there "
                "(trio.to_thread.run_sync).",
            ) from error
        # A transport may keep its event loop alive, so transports of closed loops are dropped here.
        for known in self._transports.keyrefs():  # a list: other threads may add their loops meanwhile
            other = known()
            if other is not None and other.is_closed():
                self._transports.pop(other, None)
        return self._transports.setdefault(loop, {})

    def _connect(self) -> Any:
        from ..transport.transports import AsyncTransport

        return AsyncTransport(self.settings)
