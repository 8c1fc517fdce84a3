"""The blocking client; `asynchronous` is its twin. Both give the same logic their network."""

from __future__ import annotations

import os
import weakref
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..errors import OllamaError
from ..settings.model import ConnectionSettings
from ..transport.network import CancelToken, run
from ..wire.messages import Message, Tool
from ..wire.requests import Prompt, check_call
from ..wire.responses import ChatChunk, ChatResult, EmbedResult, LocalModel, ModelInfo, RunningModel
from .chat import ask
from .request import Request
from .session import ModelCache, OpenedStream, Session, chat_settings

if TYPE_CHECKING:
    from ..tokens.counter import TokenCounter
    from ..tokens.tokenizer import TokenCount
    from ..transport.blocking import BlockingNetwork, BlockingStream, Transport
    from .embed import Kind, Progress
    from .pull import PullProgress
else:
    # What counts and what embeds is imported by the calls that need it; `get_type_hints` knows the names.
    Kind = Progress = PullProgress = TokenCount = TokenCounter = Any

__all__ = ["ChatStream", "OllamaClient"]


class ChatStream:
    """A streamed answer: iterate for its chunks; leaving the loop early closes the connection.

    The request is sent when iteration begins. `result` is the answer so far, whole at the end. An error on
    the way carries what had arrived in `partial`.
    """

    def __init__(self, client: OllamaClient, request: Request) -> None:
        self._begun: list[OpenedStream[BlockingStream]] = []
        self._token = CancelToken()
        # The generator holds no reference to this object, so it is closed when the loop that holds it ends.
        self._chunks: Generator[ChatChunk, None, None] | None = _chunks(
            client, request, self._begun, self._token
        )
        self._known = weakref.ref(self._chunks)

    @property
    def result(self) -> ChatResult:
        return self._begun[0].decoder.result() if self._begun else ChatResult()

    def __iter__(self) -> Iterator[ChatChunk]:
        # From here on the loop alone holds the generator, so that leaving the loop closes it.
        chunks, self._chunks = self._known(), None
        return iter(()) if chunks is None else chunks

    def __next__(self) -> ChatChunk:
        chunks = self._known()
        if chunks is None:
            raise StopIteration
        return next(chunks)

    def close(self) -> None:
        """Stop: the server sees the disconnect and stops generating.

        From another thread than the one that iterates, that one gets a ConnectionFailedError.
        """
        chunks = self._known()
        try:
            if chunks is not None:
                chunks.close()
        except ValueError:  # the other thread is inside the generator
            self._token.cancel()

    def __enter__(self) -> ChatStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _chunks(
    client: OllamaClient,
    request: Request,
    begun: list[OpenedStream[BlockingStream]],
    token: CancelToken,
) -> Generator[ChatChunk, None, None]:
    network = client._network(request.settings, token)
    session = client._session(request.settings, network)
    opened = run(ask(session, request, partial(session.begin, network.open)))
    begun.append(opened)
    stream, decoder = opened.stream, opened.decoder
    try:
        yield from opened.chunks
        if decoder.finished:
            stream.finish()
        for data in stream:
            yield from decoder.feed(data)
            if decoder.error is not None:
                break
            if decoder.finished:
                stream.finish()
        yield from decoder.close()
    except OllamaError as error:
        mark_begun(error, opened)
        raise
    finally:
        stream.close()


def mark_begun(error: OllamaError, opened: OpenedStream[Any]) -> None:
    """Add what had arrived to an error on the way."""
    if error.partial is None:
        error.partial = opened.decoder.result()
    # The caller has seen chunks, so the same request would repeat them.
    error.retryable = False
    error.attempts = max(error.attempts, 1)


class OllamaClient:
    """A client for one server: `with OllamaClient(ChatSettings(model="llava")) as client: …`.

    settings: `ChatSettings` for chat and generate, `EmbeddingSettings` for embed, any of them for the rest.
    caches: of a twin client, to share what it looked up.
    Safe to share between threads and to use after a fork. Raises the errors of `ollama_dify.errors`.
    """

    def __init__(self, settings: ConnectionSettings, *, caches: dict[str, ModelCache] | None = None) -> None:
        self.settings = settings
        self._caches = {} if caches is None else caches
        self._transports: dict[tuple[int, tuple[Any, ...]], Transport] = {}

    def chat(
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
        request = Request.chat(self.settings, messages, tools, tool_choice, call, streamed=False)
        return self.ask(request)

    def chat_stream(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        tool_choice: str | None = None,
        **call: Any,
    ) -> ChatStream:
        """Answer a conversation, piece by piece."""
        request = Request.chat(self.settings, messages, tools, tool_choice, call, streamed=True)
        return self.ask_stream(request)

    def generate(self, prompt: str | Prompt, **call: Any) -> ChatResult:
        """Complete a prompt (/api/generate)."""
        return self.ask(Request.generate(self.settings, prompt, call, streamed=False))

    def generate_stream(self, prompt: str | Prompt, **call: Any) -> ChatStream:
        """Complete a prompt, piece by piece."""
        return self.ask_stream(Request.generate(self.settings, prompt, call, streamed=True))

    def ask(self, request: Request) -> ChatResult:
        """Answer a request that was made before, in one piece."""
        session = self._session(request.settings)
        return run(ask(session, request, session.complete))

    def ask_stream(self, request: Request) -> ChatStream:
        """Answer a request that was made before with `streamed=True`, piece by piece."""
        return ChatStream(self, request)

    def embed(
        self, texts: Sequence[str], *, kind: Kind | None = None, progress: Progress | None = None
    ) -> EmbedResult:
        """The vectors of texts, in order.

        kind: "query" or "document", for models with prefixes (`prefixes=True`). progress: called after each
        batch with how many more texts are done, one call at a time, in this or a worker thread.
        Raises EmbeddingError naming the positions of texts without a usable vector.
        """
        return run(self._session().embed(texts, kind=kind, progress=progress))

    def embedding_fingerprint(self) -> str:
        """A short name for all that decides what vectors mean, to store beside an index: see `fingerprint`.

        Asks the server for the model's digest and for one vector.
        """
        return run(self._session().embedding_fingerprint())

    def model_info(self, model: str | None = None) -> ModelInfo:
        """What the server says of a model, looked up once per digest."""
        return run(self._session().model_info(model))

    def show(self, model: str | None = None, *, verbose: bool = False) -> dict[str, Any]:
        """The server's own description of a model; verbose adds its vocabulary."""
        return run(self._session().show(model, verbose=verbose))

    def tags(self) -> list[LocalModel]:
        """The models the server has."""
        return run(self._session().tags())

    def ps(self) -> list[RunningModel]:
        """The models that are loaded."""
        return run(self._session().ps())

    def version(self) -> str:
        """The server's version."""
        return run(self._session().version())

    def pull(self, model: str | None = None) -> Iterator[PullProgress]:
        """Have the server download a model, the settings' one unless another is named.

        Iterate for its progress to the end; leaving the loop early ends the download.
        """
        from .pull import pull

        return pull(self.settings, partial(self._network, self.settings, CancelToken()), model)

    def count_tokens(
        self, counted: str | Sequence[Message], *, tools: Sequence[Tool] = (), **call: Any
    ) -> TokenCount:
        """Tokens as the model counts them: of a text sent raw, or of a conversation's whole prompt.

        A text is counted offline once the vocabulary is there. A conversation is exact where the server
        renders its prompt for us and it holds no image, else an upper bound.
        """
        settings = self.settings
        if not isinstance(counted, str):
            settings = check_call(chat_settings(settings), call)
        return run(self._session(settings).count_tokens(counted, tools))

    def counter(self) -> TokenCounter:
        """The model's counter: counts texts, and bounds conversations, without network."""
        return run(self._session().counter())

    def warmup(self) -> ModelInfo:
        """Look the model up, get its vocabulary and have the server load it: the first call is quick.

        Sees a model that was pulled anew under the same name.
        """
        return run(self._session().warmup())

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle or a copy holds the settings, and connects by itself."""
        return type(self), (self.settings,)

    def close(self) -> None:
        """Close the connections; the client connects again when it is used again."""
        for transport in list(self._transports.values()):
            transport.close()
        self._transports.clear()

    def __enter__(self) -> OllamaClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _network(self, settings: ConnectionSettings, token: CancelToken) -> BlockingNetwork:
        """The network of one call, which begins now."""
        timeouts = settings.timeouts
        token.start(timeouts.total)
        return self._transport().network(timeouts, token)

    def _session(
        self, settings: ConnectionSettings | None = None, network: BlockingNetwork | None = None
    ) -> Session:
        """The server as one call sees it. settings: those of the call."""
        settings = self.settings if settings is None else settings
        network = self._network(settings, CancelToken()) if network is None else network
        return Session(settings, network, self.cache)

    @property
    def cache(self) -> ModelCache:
        """What was looked up of the server, by this client and its twin."""
        return self._caches.setdefault(self.settings.address.url, ModelCache())

    def _transport(self) -> Transport:
        """This process's transport: what a fork inherited is left alone, what an assignment made stale is
        replaced."""
        key = (os.getpid(), self.settings.connection_values())
        known = self._transports
        transport = known.get(key)
        if transport is None:
            # Importing the network costs more than all the rest: only who asks a server pays it.
            from ..transport.blocking import Transport

            made = Transport(self.settings)
            transport = known.setdefault(key, made)
            for stale in [other for other in list(known) if other != key]:
                # Not closed: a stream of it may be open. It closes itself once nobody holds it.
                known.pop(stale, None)
        return transport
