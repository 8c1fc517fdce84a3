"""The session of one call: retries, cached look-ups, and requests that need no particular settings."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import (
    ConfigurationError,
    EmptyResponseError,
    ModelNotFoundError,
    OllamaError,
    RequestTimeoutError,
)
from ..settings import ChatSettings, ConnectionSettings, EmbeddingSettings, RerankSettings
from ..transport.network import ANSWER_LIMIT, Network
from ..wire.models import (
    LocalModel,
    ModelInfo,
    RunningModel,
    read_local_models,
    read_model_info,
    read_running_models,
    read_version,
)
from ..wire.requests import WireRequest
from ..wire.responses import ChatChunk, ChatResult, load_json
from ..wire.streaming import MAX_LINE, ChatDecoder
from .retry import RetryBudget, retry_delay

if TYPE_CHECKING:
    from ..tokens.counter import TokenCounter


S = TypeVar("S", bound=ConnectionSettings)
T = TypeVar("T")
PULL_S = 6 * 3600.0
Decoding = Callable[[], ChatDecoder]
Opened = tuple[Any, ChatDecoder, list[ChatChunk]]


class ModelCache:
    """Cached information about one server's models, looked up once per digest."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}
        self.models: dict[str, ModelInfo] = {}
        self.counters: dict[tuple[str, str], TokenCounter] = {}
        self.warned: set[tuple[str, str]] = set()
        # Digests, or names, of models for which the server ignores `format`.
        self.ignoring_format: set[str] = set()

    def model(self, name: str) -> ModelInfo | None:
        """The server's information about a model; cached only, no network."""
        return self.models.get(self.digests.get(full_name(name), ""))

    def counter(self, settings: ConnectionSettings, name: str) -> TokenCounter | None:
        """A model's counter, with the probes for the settings' `think` if they were rendered; no network."""
        key = self.digests.get(full_name(name), name)
        return self.counters.get((key, think_name(settings))) or self.counters.get((key, ""))


@dataclass(slots=True)
class Session:
    """One server for one call: its network, its retry budget, and the cached look-ups."""

    settings: ConnectionSettings
    network: Network
    cache: ModelCache
    budget: RetryBudget

    async def retried(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until it succeeds, fails for good, or the retries are used up."""
        tried, has_pulled = 0, False
        while True:
            tried += 1
            try:
                result = await attempt()
            except OllamaError as error:
                delay = retry_delay(
                    error, attempt=tried, max_retries=self.settings.max_retries, spread=random.random()
                )
                error.attempts = tried
                if delay is None or not self.budget.take():
                    if isinstance(error, ModelNotFoundError):
                        if not has_pulled and await self._pull(error):
                            has_pulled = True
                            continue
                        await self._name_models(error)
                    raise
                try:
                    await self.network.sleep(delay)
                except RequestTimeoutError as late:
                    late.message += f" The last try failed: {error.message}"
                    late.model, late.attempts = error.model, tried
                    raise late from error
            else:
                self.budget.refund(retried=tried > 1)
                return result

    async def _pull(self, error: ModelNotFoundError) -> bool:
        """Have the server download the missing model, if the settings say so."""
        if getattr(self.settings, "pull", None) is None:
            return False
        body = {"model": error.model, "stream": False}
        timeouts = self.settings.timeouts.model_copy(update={"answer": PULL_S})
        try:
            await self.network.send(WireRequest("POST", "/api/pull", body, error.model, timeouts=timeouts))
            self.cache.digests.update({model.name: model.digest for model in await self.tags()})
        except OllamaError as failed:
            error.message += f" Pulling it failed: {failed.message}"
            return False
        return True

    async def _name_models(self, error: ModelNotFoundError) -> None:
        """Add the server's model names to the advice; if they cannot be read, leave the error unchanged."""
        try:
            answer = await self.network.send(WireRequest("GET", "/api/tags"))
            names = [model.name for model in read_local_models(load_json(answer))]
        except OllamaError:
            return
        from ..advice import model_missing_advice  # imported only for an error

        error.hint = model_missing_advice(error.model or "MODEL", names)

    async def fetch(
        self, request: WireRequest, read: Callable[[bytes], Any] = load_json, limit: int = ANSWER_LIMIT
    ) -> Any:
        """Send a request, retried, and read its response of at most `limit` bytes, by default as JSON."""

        async def attempt() -> Any:
            return read(await self.network.send(request, limit))

        return await self.retried(attempt)

    async def complete(self, request: WireRequest, decoding: Decoding) -> ChatResult:
        """An answer in one piece. decoding: makes the decoder of one attempt."""
        # The same limit as for a line of a streamed answer.
        result: ChatResult = await self.fetch(request, lambda body: decoding().whole(body), MAX_LINE)
        return result

    async def begin(self, request: WireRequest, decoding: Decoding) -> Opened:
        """Open a stream → it, its decoder, and the chunks of its first line, before which all is retried."""

        async def attempt() -> Opened:
            stream = await self.network.open(request)
            try:
                if not stream.first:
                    raise EmptyResponseError(
                        "The server said 200 and sent nothing.",
                        model=request.model,
                        hint="The model may have failed to start, or a proxy swallowed the answer; see the "
                        "server's log.",
                    )
                decoder = decoding()
                return stream, decoder, decoder.feed(stream.first)
            except BaseException:
                await stream.aclose()
                raise

        return await self.retried(attempt)

    def model_name(self, model: str | None = None) -> str:
        """The given model, else the one of the settings."""
        name = getattr(self.settings, "model", None) if model is None else model
        if not isinstance(name, str):
            raise ConfigurationError("Which model? Pass its name.")
        return name

    async def model_info(self, model: str | None = None) -> ModelInfo:
        """The server's information about a model: /api/tags for the digest, /api/show once per digest."""
        name = self.model_name(model)
        known, full = self.cache, full_name(name)
        if full not in known.digests:
            known.digests.update({model.name: model.digest for model in await self.tags()})
        digest = known.digests.get(full)
        if digest is not None and digest in known.models:
            return known.models[digest]
        shown = await self.fetch(WireRequest("POST", "/api/show", {"model": name}, name))
        digest = known.digests.get(full)  # it may have been pulled
        info = read_model_info(shown, name, digest)
        if digest is not None:
            known.models[digest] = info
        return info

    async def show(self, model: str | None = None, *, verbose: bool = False) -> dict[str, Any]:
        """The server's own description of a model."""
        name = self.model_name(model)
        body = {"model": name, "verbose": True} if verbose else {"model": name}
        shown: dict[str, Any] = await self.fetch(WireRequest("POST", "/api/show", body, name))
        read_model_info(shown, name)  # raises if it is not a description
        return shown

    async def tags(self) -> list[LocalModel]:
        return read_local_models(await self.fetch(WireRequest("GET", "/api/tags")))

    async def ps(self) -> list[RunningModel]:
        return read_running_models(await self.fetch(WireRequest("GET", "/api/ps")))

    async def version(self) -> str:
        return read_version(await self.fetch(WireRequest("GET", "/api/version")))


def think_name(settings: ConnectionSettings) -> str:
    """What distinguishes the counters of one model: `think`, which changes what a template writes."""
    return f"think {settings.think!r}" if isinstance(settings, ChatSettings) else ""


_NEEDS: dict[type[ConnectionSettings], str] = {
    ChatSettings: "chat() and generate() need ChatSettings.",
    EmbeddingSettings: "embed() needs EmbeddingSettings; make the client from settings.for_embedding(model).",
    RerankSettings: "rerank() needs RerankSettings; make the client from settings.for_rerank(model).",
}


def settings_of(settings: ConnectionSettings, kind: type[S]) -> S:
    """The settings, checked to be of the type that a call needs."""
    if not isinstance(settings, kind):
        raise ConfigurationError(_NEEDS[kind])
    return settings


def full_name(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"
