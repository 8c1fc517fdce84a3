"""Control flow with I/O in its middle, written once.

A flow is a generator: it yields a step, the driver does it and sends the result back, or throws our
error in. `OllamaClient` and `AsyncOllamaClient` drive the same flows, one by calling, one by awaiting.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..errors import CapabilityError, CapabilityWarning, EmptyResponseError, ModelNotFoundError, OllamaError
from ..transport.network import Close, Flow, OpenStream, Send, Sleep
from ..wire.requests import WireRequest
from ..wire.responses import (
    ChatChunk,
    ChatResult,
    ModelInfo,
    load_json,
    read_local_models,
    read_model_info,
)
from ..wire.streaming import MAX_LINE, ChatDecoder
from .retry import RetryQuota, retry_delay

if TYPE_CHECKING:
    from ..settings.model import ChatSettings
    from .count import Counter

__all__ = [
    "Context",
    "Decoding",
    "Lookups",
    "Stream",
    "begin",
    "check_capability",
    "complete",
    "fetch",
    "model_info",
    "warn_of_disagreement",
    "with_retries",
]

T = TypeVar("T")


@dataclass(slots=True)
class Lookups:
    """What one client knows of its server: looked up once per digest."""

    digests: dict[str, str] = field(default_factory=dict)
    models: dict[str, ModelInfo] = field(default_factory=dict)
    counters: dict[str, Counter] = field(default_factory=dict)
    counter_names: dict[str, str] = field(default_factory=dict)
    warned: set[tuple[str, str]] = field(default_factory=set)
    # Digests, or names, of models whose server does not hold answers to `format`.
    ignoring_format: set[str] = field(default_factory=set)


class Context(NamedTuple):
    """What every flow of a client needs."""

    max_retries: int
    quota: RetryQuota
    lookups: Lookups


def with_retries(context: Context, attempt_flow: Callable[[], Flow[T]]) -> Flow[T]:
    """Run a flow until it succeeds, fails for good, or the retries are used up.

    attempt_flow: a function that makes a fresh flow for one attempt.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            result = yield from attempt_flow()
        except OllamaError as error:
            delay = retry_delay(
                error, attempt=attempt, max_retries=context.max_retries, spread=random.random()
            )
            error.attempts = attempt
            if delay is None or not context.quota.take():
                if isinstance(error, ModelNotFoundError):
                    yield from _name_models(error)
                raise
        else:
            context.quota.refund(retried=attempt > 1)
            return result
        yield Sleep(delay)


def _name_models(error: ModelNotFoundError) -> Flow[None]:
    """Put the names that the server does have into the advice; without them the error is good enough."""
    try:
        answer = yield Send(WireRequest("GET", "/api/tags"))
        names = [model.name for model in read_local_models(load_json(answer.body))]
    except OllamaError:
        return
    from ..advice import model_missing_advice  # what advises is imported when something went wrong

    error.hint = model_missing_advice(error.model or "MODEL", names)


def fetch(context: Context, request: WireRequest) -> Flow[Any]:
    """Send a request, retried, and parse the JSON of its response."""

    def attempt() -> Flow[Any]:
        answer = yield Send(request)
        return load_json(answer.body)

    return (yield from with_retries(context, attempt))


Decoding = Callable[[], ChatDecoder]


def complete(context: Context, request: WireRequest, decoding: Decoding) -> Flow[ChatResult]:
    """An answer in one piece. decoding: makes the decoder of one attempt."""

    def attempt() -> Flow[ChatResult]:
        # In one piece it is no longer than a line of a streamed answer may be.
        answer = yield Send(request, MAX_LINE)
        return decoding().whole(answer.body)

    return (yield from with_retries(context, attempt))


@dataclass(slots=True)
class Stream:
    """A streamed answer that has begun: chunks already decoded, and where the rest comes from."""

    opened: Any
    decoder: ChatDecoder
    chunks: list[ChatChunk]


def begin(context: Context, request: WireRequest, decoding: Decoding) -> Flow[Stream]:
    """Open a stream. What fails before the first chunk is retried; nothing after it is."""

    def attempt() -> Flow[Stream]:
        opened = yield OpenStream(request)
        decoder = decoding()
        try:
            if not opened.first:
                raise EmptyResponseError(
                    "The server said 200 and sent nothing.",
                    model=request.model,
                    hint="The model may have failed to start, or a proxy swallowed the answer; see the "
                    "server's log.",
                )
            chunks = decoder.feed(opened.first)
        except OllamaError:
            yield Close(opened)
            raise
        return Stream(opened, decoder, chunks)

    return (yield from with_retries(context, attempt))


def model_info(context: Context, name: str) -> Flow[ModelInfo]:
    """What the server says of a model: /api/tags for the digest, /api/show once per digest."""
    known = context.lookups
    full_name = _full_name(name)
    if full_name not in known.digests:
        tags = yield from fetch(context, WireRequest("GET", "/api/tags"))
        known.digests.update({model.name: model.digest for model in read_local_models(tags)})
    digest = known.digests.get(full_name)
    if digest is not None and digest in known.models:
        return known.models[digest]
    shown = yield from fetch(context, WireRequest("POST", "/api/show", {"model": name}, name))
    info = read_model_info(shown, name, digest)
    if digest is not None:
        known.models[digest] = info
    return info


def known_model(context: Context, name: str) -> ModelInfo | None:
    """What `model_info` found out earlier; asks nobody."""
    return context.lookups.models.get(context.lookups.digests.get(_full_name(name), ""))


def _full_name(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def check_capability(context: Context, model: str, capability: str, setting: str) -> Flow[None]:
    """Ask the server, once, whether the model can do what is about to be sent.

    Raises CapabilityError when it says no. A server that does not say is believed able.
    """
    info = yield from model_info(context, model)
    if info.can(capability) is False:
        from ..advice import capability_advice

        raise CapabilityError(
            f"The server says that {model!r} cannot do this: it lacks the capability {capability!r} and has "
            f"{', '.join(sorted(info.capabilities or ()))}.",
            model=model,
            hint=f"{capability_advice(model, capability)}\nIf you know better, set {setting}=True.",
        )


def warn_of_disagreement(context: Context, settings: ChatSettings) -> None:
    """Warn, once per model, of a capability that the settings claim and the server denies; asks nobody.

    What the settings say is done all the same: the server may be wrong about its model.
    """
    info = known_model(context, settings.model)
    if info is None:
        return
    for setting, capability in (("vision_support", "vision"), ("function_call_support", "tools")):
        key = (info.digest or info.name, setting)
        if getattr(settings, setting) is not True or info.can(capability) is not False:
            continue
        if key in context.lookups.warned:
            continue
        context.lookups.warned.add(key)
        warnings.warn(
            f"The settings say {setting}=True, but the server says that {settings.model!r} has "
            f"{', '.join(sorted(info.capabilities or ()))} and lacks {capability!r}. Unset {setting} to go "
            "by the server, or choose a model that can.",
            CapabilityWarning,
            stacklevel=2,
        )
