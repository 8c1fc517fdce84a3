"""The awaiting client: the twin of `blocking`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..errors import ConfigurationError, OllamaError
from ..settings.model import ConnectionSettings
from ..transport.network import CancelToken
from ..wire.messages import Message, Tool
from ..wire.models import LocalModel, ModelInfo, RunningModel
from ..wire.requests import Prompt, check_call
from ..wire.responses import ChatChunk, ChatResult, EmbedResult, RerankResult
from ..wire.streaming import ChatDecoder
from . import operations
from .chat import ask
from .operations import CommonClient, CommonStream, PullDecoder, PullProgress, mark_begun, pull_request
from .request import Request
from .session import ModelCache, chat_settings

if TYPE_CHECKING:
    from ..tokens.counter import TokenCounter
    from ..tokens.tokenizer import TokenCount
    from ..transport.asynchronous import AsyncNetwork, AsyncTransport
    from .embed import Kind, Progress
else:
    # What counts and what embeds is imported by the calls that need it; `get_type_hints` knows the names.
    Kind = Progress = TokenCount = TokenCounter = Any

__all__ = ["AsyncChatStream", "AsyncOllamaClient"]


class AsyncChatStream(CommonStream[AsyncGenerator[ChatChunk, None]]):
    """The async twin of `ChatStream`."""

    def __init__(self, client: AsyncOllamaClient, request: Request) -> None:
        begun: list[ChatDecoder] = []
        token = CancelToken()
        super().__init__(_async_chunks(client, request, begun, token), begun, token)

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

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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


class AsyncOllamaClient(CommonClient["AsyncTransport"]):
    """The async twin of `OllamaClient`; usable from several event loops, each with its own connections."""

    def __init__(self, settings: ConnectionSettings, *, caches: dict[str, ModelCache] | None = None) -> None:
        super().__init__(settings, caches=caches)
        self._transports: WeakKeyDictionary[
            asyncio.AbstractEventLoop, dict[tuple[int, tuple[Any, ...]], AsyncTransport]
        ] = WeakKeyDictionary()

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        tool_choice: str | None = None,
        **call: Any,
    ) -> ChatResult:
        """Answer a conversation, in one piece (`stream:false`).

        tool_choice: None or "auto", "none", "required", or a tool's name.
        call: settings for this call only, such as temperature=0 or num_predict=64.
        """
        request = self._request(messages, call, tools=tools, tool_choice=tool_choice, streamed=False)
        return await self.ask(request)

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

    async def generate(self, prompt: str | Prompt, **call: Any) -> ChatResult:
        """Complete a prompt (/api/generate)."""
        return await self.ask(self._request(Prompt.of(prompt), call, streamed=False))

    def generate_stream(self, prompt: str | Prompt, **call: Any) -> AsyncChatStream:
        """Complete a prompt, piece by piece."""
        return self.ask_stream(self._request(Prompt.of(prompt), call, streamed=True))

    async def ask(self, request: Request) -> ChatResult:
        """Answer a request that was made before, in one piece."""
        session = self._session(request.settings)
        return await ask(session, request, session.complete)

    def ask_stream(self, request: Request) -> AsyncChatStream:
        """Answer a request that was made before with `streamed=True`, piece by piece."""
        return AsyncChatStream(self, request)

    async def embed(
        self,
        texts: Sequence[str],
        *,
        kind: Kind | None = None,
        progress: Progress | None = None,
        skip_failed: bool = False,
    ) -> EmbedResult:
        """The vectors of texts, in order.

        kind: "query" or "document", for models with prefixes (`prefixes=True`). progress: called after each
        batch with how many more texts are done. skip_failed: None in the place of a text without a vector,
        whose position is in the result's `failed`, instead of an error.
        Raises EmbeddingError naming the positions of texts without a usable vector.
        """
        return await operations.embed(
            self._session(), texts, kind=kind, progress=progress, skip_failed=skip_failed
        )

    async def rerank(self, query: str, documents: Sequence[str]) -> RerankResult:
        """How relevant each document is to the query, from 0 to 1: the chance of a yes."""
        return await operations.rerank(self._session(), query, documents)

    async def embedding_fingerprint(self) -> str:
        """A short name for all that decides what vectors mean, to store beside an index: see `fingerprint`.

        Asks the server for the model's digest and for one vector.
        """
        return await operations.embedding_fingerprint(self._session())

    async def model_info(self, model: str | None = None) -> ModelInfo:
        """What the server says of a model, looked up once per digest."""
        return await self._session().model_info(model)

    async def show(self, model: str | None = None, *, verbose: bool = False) -> dict[str, Any]:
        """The server's own description of a model; verbose adds its vocabulary."""
        return await self._session().show(model, verbose=verbose)

    async def tags(self) -> list[LocalModel]:
        """The models the server has."""
        return await self._session().tags()

    async def ps(self) -> list[RunningModel]:
        """The models that are loaded."""
        return await self._session().ps()

    async def version(self) -> str:
        """The server's version."""
        return await self._session().version()

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

    async def count_tokens(
        self, counted: str | Sequence[Message], *, tools: Sequence[Tool] = (), **call: Any
    ) -> TokenCount:
        """Tokens as the model counts them: of a text sent raw, or of a conversation's whole prompt."""
        settings = self.settings
        if not isinstance(counted, str):
            settings = check_call(chat_settings(settings), call)
        return await operations.count_tokens(self._session(settings), counted, tools)

    async def counter(self) -> TokenCounter:
        """The model's counter: counts texts, and bounds conversations, without network."""
        return await operations.counter(self._session())

    async def warmup(self) -> ModelInfo:
        """Look the model up, get its vocabulary and have the server load it: the first call is quick."""
        return await operations.warmup(self._session())

    async def aclose(self) -> None:
        """Close this event loop's connections; the client connects again when it is used again."""
        for transport in list(self._transports.get(asyncio.get_running_loop(), {}).values()):
            await transport.aclose()
        self._transports.pop(asyncio.get_running_loop(), None)

    async def __aenter__(self) -> AsyncOllamaClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

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
