"""The blocking client; `asynchronous` is its twin. Both give the same logic their network."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import OllamaError
from ..settings import ChatSettings
from ..transport.network import run
from ..wire.messages import Message, Tool
from ..wire.models import LocalModel, ModelInfo, RunningModel
from ..wire.requests import Prompt, check_call
from ..wire.responses import ChatChunk, ChatResult, EmbedResult, RerankResult
from .chat import ask
from .operations import CommonClient, CommonStream, PullProgress, mark_begun, warmup
from .request import Request
from .session import settings_of

if TYPE_CHECKING:
    from ..tokens.counter import TokenCounter
    from ..tokens.tokenizer import TokenCount
    from .embed import Progress
    from .prefixes import Kind
else:
    # Counting and embedding are imported on first use; these names are for `get_type_hints`.
    Kind = Progress = TokenCount = TokenCounter = Any


T = TypeVar("T")


class ChatStream(CommonStream[Generator[ChatChunk, None, None]], AbstractContextManager["ChatStream"]):
    """A streamed answer: iterate for its chunks; leaving the loop early closes the connection.

    The request is sent when iteration begins. `result` is the answer so far, complete at the end. An error
    has the received part in `partial`.
    """

    def __init__(self, client: OllamaClient, request: Request) -> None:
        super().__init__(client, request, _chunks)

    def __iter__(self) -> Iterator[ChatChunk]:
        return self._handed_over() or iter(())

    def __next__(self) -> ChatChunk:
        chunks = self._known()
        if chunks is None:
            raise StopIteration
        return next(chunks)

    def close(self) -> None:
        """Stop: the server sees the disconnect and stops generating.

        If another thread iterates, that thread gets a ConnectionFailedError.
        """
        chunks = self._known()
        try:
            if chunks is not None:
                chunks.close()
        except ValueError:  # the other thread is inside the generator
            self._token.cancel()

    def __exit__(self, *error: object) -> None:
        self.close()


def _chunks(opening: Callable[[], Coroutine[Any, Any, Any]], begun: list[Any]) -> Generator[Any, None, None]:
    """The chunks of a stream. opening: returns stream, decoder and first chunks; begun: gets the decoder."""
    stream, decoder, first = run(opening())
    begun.append(decoder)
    try:
        yield from first
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
        mark_begun(error, decoder)
        raise
    finally:
        stream.close()


class OllamaClient(CommonClient, AbstractContextManager["OllamaClient"]):
    """A client for one server: `with OllamaClient(ChatSettings(model="llava")) as client: …`.

    settings: `ChatSettings` for chat and generate, `EmbeddingSettings` for embed, `RerankSettings` for
    rerank, any of them for the rest.
    Safe to share between threads and to use after a fork. Raises the errors of `ollama_dify.errors`.
    """

    def chat(
        self,
        /,
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
        return self.ask(request)

    def chat_stream(
        self,
        /,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        tool_choice: str | None = None,
        **call: Any,
    ) -> ChatStream:
        """Answer a conversation, piece by piece."""
        request = self._request(messages, call, tools=tools, tool_choice=tool_choice, streamed=True)
        return self.ask_stream(request)

    def generate(self, /, prompt: str | Prompt, **call: Any) -> ChatResult:
        """Complete a prompt (/api/generate)."""
        return self.ask(self._request(Prompt.of(prompt), call, streamed=False))

    def generate_stream(self, /, prompt: str | Prompt, **call: Any) -> ChatStream:
        """Complete a prompt, piece by piece."""
        return self.ask_stream(self._request(Prompt.of(prompt), call, streamed=True))

    def ask(self, request: Request) -> ChatResult:
        """Answer a request that was built before, in one piece."""
        session = self._session(request.settings)
        return self._run(ask(session, request, session.complete))

    def ask_stream(self, request: Request) -> ChatStream:
        """Answer a request built with `streamed=True`, piece by piece."""
        return ChatStream(self, request)

    def embed(
        self,
        texts: Sequence[str],
        *,
        kind: Kind | None = None,
        progress: Progress | None = None,
        skip_failed: bool = False,
    ) -> EmbedResult:
        """The vectors of texts, in order.

        kind: "query" or "document", for models with prefixes (`prefixes=True`). progress: called after each
        batch with the number of texts it finished, one call at a time, in this or a worker thread.
        skip_failed: a text without a vector gets None, and its position is in the result's `failed`, instead
        of an error.
        Raises EmbeddingError with the positions of texts without a usable vector.
        """
        from .embed import embed

        logic = embed(self._session(), texts, kind=kind, progress=progress, skip_failed=skip_failed)
        return self._run(logic)

    def rerank(self, query: str, documents: Sequence[str]) -> RerankResult:
        """How relevant each document is to the query, from 0 to 1: the probability of the answer yes.

        One request per document, `max_concurrency` at once. Raises ContextOverflowError for a document that
        does not fit (`overflow="error"`), CapabilityError for a server without log probabilities.
        """
        from .rerank import rerank

        return self._run(rerank(self._session(), query, documents))

    def embedding_fingerprint(self) -> str:
        """A short text that identifies how vectors are made, to store with an index: see `fingerprint`.

        Asks the server for the model's digest and for one vector.
        """
        from .embed import embedding_fingerprint

        return self._run(embedding_fingerprint(self._session()))

    def model_info(self, model: str | None = None) -> ModelInfo:
        """The server's information about a model, looked up once per digest."""
        return self._run(self._session().model_info(model))

    def show(self, model: str | None = None, *, verbose: bool = False) -> dict[str, Any]:
        """The server's own description of a model; verbose adds its vocabulary."""
        return self._run(self._session().show(model, verbose=verbose))

    def tags(self) -> list[LocalModel]:
        """The models the server has."""
        return self._run(self._session().tags())

    def ps(self) -> list[RunningModel]:
        """The models that are loaded."""
        return self._run(self._session().ps())

    def version(self) -> str:
        """The server's version."""
        return self._run(self._session().version())

    def pull(self, model: str | None = None) -> Iterator[PullProgress]:
        """Have the server download a model, by default the settings' model.

        Iterate for its progress to the end; leaving the loop early ends the download.
        """
        return _chunks(partial(self._pulled, model), [])

    def count_tokens(
        self, /, counted: str | Sequence[Message], *, tools: Sequence[Tool] = (), **call: Any
    ) -> TokenCount:
        """Tokens as the model counts them: of a text sent raw, or of a conversation's whole prompt.

        A text is counted offline once the vocabulary is loaded. A conversation's count is exact if the server
        renders its prompt and it has no image, else an upper bound.
        """
        from .count import count_tokens

        settings = self.settings
        if not isinstance(counted, str):
            settings = check_call(settings_of(settings, ChatSettings), call)
        return self._run(count_tokens(self._session(settings), counted, tools))

    def counter(self) -> TokenCounter:
        """The model's counter: counts texts, and bounds conversations, without network."""
        from .count import load_counter

        session = self._session()
        return self._run(load_counter(session, session.settings))

    def warmup(self) -> ModelInfo:
        """Look the model up, get its vocabulary and have the server load it: the first call is quick.

        Also notices that a model was pulled again under the same name.
        """
        return self._run(warmup(self._session()))

    def close(self) -> None:
        """Close the connections; the client connects again when it is used again."""
        for transport in list(self._transports.values()):
            transport.close()
        self._transports.clear()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self, logic: Coroutine[Any, Any, T]) -> T:
        """Run the logic and return its result; the async twin returns the coroutine instead."""
        return run(logic)

    def _connect(self) -> Any:
        from ..transport.transports import Transport

        return Transport(self.settings)
