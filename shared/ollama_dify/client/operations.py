"""What both clients share: construction, streams, warming up and pulling."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, cast

from ..errors import ConfigurationError, IncompleteResponseError, ModelNotFoundError, OllamaError
from ..language import _
from ..settings import ChatSettings, ConnectionSettings, EmbeddingSettings, ModelSettings
from ..transport.network import CancelToken
from ..wire.messages import Message
from ..wire.models import ModelInfo
from ..wire.requests import Prompt, WireRequest, load_request
from ..wire.responses import ChatResult, load_json
from ..wire.server_errors import error_in_stream
from ..wire.streaming import ChatDecoder, LineSplitter
from .chat import ask
from .request import Asked, Request
from .retry import budget_for
from .session import ModelCache, Opened, Session, settings_of

G = TypeVar("G")


class CommonStream(Generic[G]):
    """A streamed answer. generator: creates the generator that sends the request and yields chunks."""

    def __init__(self, client: CommonClient, request: Request, generator: Callable[..., G]) -> None:
        self._begun: list[ChatDecoder] = []
        self._token = CancelToken()
        chunks = generator(partial(client._opened, request, self._token), self._begun)
        # The generator has no reference to this object, so it is closed when the loop that uses it ends.
        self._chunks: G | None = chunks
        self._known = weakref.ref(chunks)

    @property
    def result(self) -> ChatResult:
        """The answer so far, whole at the end."""
        return self._begun[0].result() if self._begun else ChatResult()

    def _handed_over(self) -> G | None:
        """The generator; from here on only the caller's loop references it, so leaving the loop closes it."""
        chunks, self._chunks = self._known(), None
        return chunks


def mark_begun(error: OllamaError, decoder: ChatDecoder | PullDecoder) -> None:
    """Add the received part of the answer to an error."""
    if isinstance(decoder, PullDecoder):
        return  # a pull may be repeated: the server keeps what it has
    if error.partial is None:
        error.partial = decoder.result()
    # The caller has seen chunks, so the same request would repeat them.
    error.retryable = False
    error.attempts = max(error.attempts, 1)


class CommonClient:
    """The settings of a client, its transports, and what was looked up."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.settings = settings
        self._transports: Any = {}
        self._caches: dict[str, ModelCache] = {}

    @property
    def cache(self) -> ModelCache:
        """What was looked up of the server, by this client and its twin."""
        return self._caches.setdefault(self.settings.address.url, ModelCache())

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle or a copy has only the settings, and makes its own connections."""
        return type(self), (self.settings,)

    def _request(self, asked: Asked, call: Mapping[str, Any], **how: Any) -> Request:
        """A request for a conversation or a prompt; how: see `Request.of_call`."""
        if not isinstance(asked, Prompt) and not all(isinstance(one, Message) for one in asked):
            raise ConfigurationError(
                "chat() takes a list of messages made by user(), system() and assistant().",
                hint='For one question: chat([user("…")]).',
            )
        return Request.of_call(settings_of(self.settings, ChatSettings), lambda _: asked, call, **how)

    def _session(
        self, settings: ConnectionSettings | None = None, token: CancelToken | None = None
    ) -> Session:
        """The session of a call that begins now. settings: those of the call."""
        settings = self.settings if settings is None else settings
        token = CancelToken() if token is None else token
        token.start(settings.timeouts.total)
        transport = self._transport()
        network = transport.network(settings.timeouts, token)
        return Session(settings, network, self.cache, budget_for(transport.url))

    async def _opened(self, request: Request, token: CancelToken) -> Opened:
        """The stream of an answer, its decoder, and its first chunks."""
        session = self._session(request.settings, token)
        return await ask(session, request, session.begin)

    async def _pulled(self, model: str | None) -> tuple[Any, PullDecoder, list[PullProgress]]:
        """The stream of a download, its decoder, and its first progress."""
        timeouts = self.settings.timeouts
        # Checking a large layer takes minutes without a line, so a line may take as long as an answer.
        patient = timeouts.model_copy(update={"first_byte": timeouts.answer, "idle": timeouts.answer})
        name = model or getattr(self.settings, "model", None)
        body = {"model": name, "stream": True}
        request = WireRequest("POST", "/api/pull", body, name, streamed=True, timeouts=patient)
        stream, decoder = await self._session().network.open(request), PullDecoder(name or "")
        try:
            return stream, decoder, decoder.feed(stream.first)
        except BaseException:
            await stream.aclose()
            raise

    def _transport(self) -> Any:
        """This process's transport: one inherited by a fork is not touched, one with old settings is
        replaced."""
        here = self._transports_here()
        key = (os.getpid(), self.settings.connection_values())
        transport = here.get(key)
        if transport is None:
            transport = here.setdefault(key, self._connect())
            for stale in [other for other in list(here) if other != key]:
                # Not closed, because a stream of it may be open. It closes itself without references.
                here.pop(stale, None)
        return transport

    def _transports_here(self) -> Any:
        """The transports by process and connection values."""
        return self._transports

    def _connect(self) -> Any:
        """A new transport; its import is expensive, so it is done only when a server is asked."""
        raise NotImplementedError


async def warmup(session: Session) -> ModelInfo:
    """See `OllamaClient.warmup`: asks for the digest again and replaces the cached counter."""
    from .count import load_counter

    session.cache.digests.clear()
    info = await session.model_info()
    await load_counter(session, session.settings, fresh=True)
    if isinstance(session.settings, EmbeddingSettings):
        from .embed import embed

        await embed(session, ["warm up"], kind="document")
    else:
        await session.fetch(load_request(cast(ModelSettings, session.settings)))
    return info


@dataclass(frozen=True, slots=True)
class PullProgress:
    """Progress of a download. status: the server's text. total, completed: bytes of the layer `digest`."""

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None

    @property
    def share(self) -> float | None:
        """How much of the layer is there, from 0 to 1."""
        return None if not self.total else min(1.0, (self.completed or 0) / self.total)


class PullDecoder:
    """Bytes of the answer → progress; `close` raises unless the server said success, which is `finished`."""

    error = None  # an error is raised at once

    def __init__(self, model: str) -> None:
        self._model = model
        self._lines = LineSplitter()
        self.finished = False

    def feed(self, data: bytes) -> list[PullProgress]:
        return [self._read(line) for line in self._lines.feed(data)]

    def close(self) -> list[PullProgress]:
        rest = self.feed(b"\n")
        if not self.finished:
            raise IncompleteResponseError(
                f"The download of {self._model!r} ended before its end.",
                model=self._model,
                retryable=True,
                hint=_("Pull again: what is there already is kept."),
            )
        return rest

    def _read(self, line: bytes) -> PullProgress:
        value: Any = load_json(line)
        error = value.get("error") if isinstance(value, dict) else ""
        if error is not None and "file does not exist" in str(error):
            raise ModelNotFoundError(
                f"The registry has no model {self._model!r}: {error}.",
                model=self._model,
                hint=_("Check the name: models are listed at https://ollama.com/library"),
            )
        if error is not None:
            raise error_in_stream(line, model=self._model)
        status = str(value.get("status", ""))
        self.finished = self.finished or status == "success"
        numbers = [value.get(key) for key in ("total", "completed")]
        total, completed = (number if isinstance(number, int) else None for number in numbers)
        digest = value.get("digest")
        return PullProgress(status, digest if isinstance(digest, str) else None, total, completed)
