"""The awaiting client: the twin of `blocking`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from ..errors import ConfigurationError, OllamaError
from ..settings import ConnectionSettings
from ..transport.network import CancelToken
from ..wire.messages import Message, Tool
from ..wire.requests import Prompt
from ..wire.responses import ChatChunk
from ..wire.streaming import ChatDecoder
from .blocking import OllamaClient
from .chat import ask
from .operations import CommonClient, CommonStream, PullDecoder, PullProgress, mark_begun, pull_request
from .request import Request

if TYPE_CHECKING:
    from ..transport.asynchronous import AsyncNetwork, AsyncTransport

__all__ = ["AsyncChatStream", "AsyncOllamaClient"]

P = ParamSpec("P")
T = TypeVar("T")


class AsyncChatStream(CommonStream[AsyncGenerator[ChatChunk, None]]):
    """The async twin of `ChatStream`."""

    def __init__(self, client: AsyncOllamaClient, request: Request) -> None:
        super().__init__(partial(_async_chunks, client, request))

    def __aiter__(self) -> AsyncIterator[ChatChunk]:
        return self._handed_over() or self

    async def __anext__(self) -> ChatChunk:
        chunks = self._known()
        if chunks is None:
            raise StopAsyncIteration
        return await chunks.__anext__()

    async def aclose(self) -> None:
        """Stop: the server sees the disconnect and stops generating.

        From another task than the one that iterates, that one gets a ConnectionFailedError.
        """
        chunks = self._known()
        try:
            if chunks is not None:
                await chunks.aclose()
        except RuntimeError:  # the other task is inside the generator
            self._token.cancel()

    async def __aenter__(self) -> AsyncChatStream:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()


async def _async_chunks(
    client: AsyncOllamaClient, request: Request, begun: list[ChatDecoder], token: CancelToken
) -> AsyncGenerator[ChatChunk, None]:
    network: AsyncNetwork = client._network(request.settings, token)
    session = client._session(request.settings, network)
    stream, decoder, first = await ask(session, request, partial(session.begin, network.open))
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
    """A method of `OllamaClient` for its twin: the same arguments, and the result is awaited."""

    @wraps(method)
    async def twin(self: Any, /, *args: P.args, **values: P.kwargs) -> T:
        logic: Any = method(self, *args, **values)  # the twin's `_run` gives what it is given
        result: T = await logic
        return result

    return twin


class AsyncOllamaClient(CommonClient["AsyncTransport"]):
    """The async twin of `OllamaClient`; usable from several event loops, each with its own connections."""

    def __init__(self, settings: ConnectionSettings) -> None:
        super().__init__(settings)
        self._transports: WeakKeyDictionary[
            asyncio.AbstractEventLoop, dict[tuple[int, tuple[Any, ...]], AsyncTransport]
        ] = WeakKeyDictionary()

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

    def chat_stream(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        tool_choice: str | None = None,
        **call: Any,
    ) -> AsyncChatStream:
        """Answer a conversation, piece by piece."""
        request = self._request(messages, call, tools=tools, tool_choice=tool_choice, streamed=True)
        return self.ask_stream(request)

    def generate_stream(self, prompt: str | Prompt, **call: Any) -> AsyncChatStream:
        """Complete a prompt, piece by piece."""
        return self.ask_stream(self._request(Prompt.of(prompt), call, streamed=True))

    def ask_stream(self, request: Request) -> AsyncChatStream:
        """Answer a request that was made before with `streamed=True`, piece by piece."""
        return AsyncChatStream(self, request)

    async def pull(self, model: str | None = None) -> AsyncIterator[PullProgress]:
        """Have the server download a model, the settings' one unless another is named.

        Iterate for its progress to the end; leaving the loop early ends the download.
        """
        network: AsyncNetwork = self._network(self.settings, CancelToken())
        request = pull_request(self.settings, model)
        stream, decoder = await network.open(request), PullDecoder(request.model or "")
        try:
            for progress in decoder.feed(stream.first):
                yield progress
            async for data in stream:
                for progress in decoder.feed(data):
                    yield progress
            for progress in decoder.close():
                yield progress
        finally:
            await stream.aclose()

    async def aclose(self) -> None:
        """Close this event loop's connections; the client connects again when it is used again."""
        for transport in list(self._transports.get(asyncio.get_running_loop(), {}).values()):
            await transport.aclose()
        self._transports.pop(asyncio.get_running_loop(), None)

    async def __aenter__(self) -> AsyncOllamaClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def _run(self, logic: T) -> T:
        return logic

    def _transports_here(self) -> dict[tuple[int, tuple[Any, ...]], AsyncTransport]:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError as error:
            raise ConfigurationError(
                "AsyncOllamaClient needs a running asyncio event loop, and there is none here.",
                hint="asyncio and uvloop are supported, trio is not: call OllamaClient in a thread there "
                "(trio.to_thread.run_sync).",
            ) from error
        here = self._transports.get(loop)
        if here is None:
            # What a transport holds may hold its loop, so those of finished loops are let go here.
            for other in list(self._transports):
                if other.is_closed():
                    self._transports.pop(other, None)
            here = self._transports.setdefault(loop, {})
        return here

    def _connect(self) -> AsyncTransport:
        from ..transport.asynchronous import AsyncTransport

        return AsyncTransport(self.settings)
