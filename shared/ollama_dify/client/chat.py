"""How a request gets its answer: capabilities, images, context, retries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import ContextOverflowError
from ..settings.model import ChatSettings
from ..transport.network import Compute, Flow
from ..wire.messages import Content, ImageUrl, Message, system, user
from ..wire.requests import WireRequest, generate_request
from .images import fetch_image
from .request import Request
from .session import Context, Decoding, check_capability, warn_of_disagreement
from .trim import drop_oldest, kept, prompt_limit, with_numbers

if TYPE_CHECKING:
    from ..tokens.tokenizer import TokenCount
    from .count import Counter

__all__ = ["ask", "known_counter"]

T = TypeVar("T")


def ask(
    context: Context, request: Request, run: Callable[[Context, WireRequest, Decoding], Flow[T]]
) -> Flow[T]:
    """Get a request answered; run: `flows.complete` or `flows.begin`.

    With `context_overflow="trim"` the oldest exchanges are dropped until the prompt fits: first by our own
    count, so that the answer's reserve stays free, and again should the server refuse what is left.
    """
    yield from _check_capabilities(context, request)
    request = yield from _fetched(request)
    request = yield from _counted(context, request)
    warn_of_disagreement(context, request.settings)
    while True:
        try:
            return (yield from run(context, request.wire, partial(request.decoder, context.lookups.warned)))
        except ContextOverflowError as error:
            smaller = request.smaller(error)
            if smaller is None:
                with_numbers(error, request.settings.context_size, request.expected)
                raise
            request = smaller


def _fetched(request: Request) -> Flow[Request]:
    """Replace image addresses by the images."""
    settings, prompt = request.settings, request.prompt
    if prompt is not None and any(isinstance(part, ImageUrl) for part in prompt.images):
        images = yield from _with_images(prompt.images, settings)
        prompt = replace(prompt, images=images)
        wire = generate_request(settings, prompt, streamed=request.wire.streamed)
        return replace(request, prompt=prompt, wire=wire)
    if not any(isinstance(part, ImageUrl) for message in request.messages for part in message.content):
        return request
    messages = []
    for message in request.messages:
        content = yield from _with_images(message.content, settings)
        messages.append(replace(message, content=content))
    return replace(request, messages=tuple(messages)).without(request.dropped)


def _with_images(parts: Sequence[Content], settings: ChatSettings) -> Flow[tuple[Any, ...]]:
    """The parts with what the addresses among them lead to."""
    found: list[Content] = []
    for part in parts:
        found.append((yield from fetch_image(part, settings)) if isinstance(part, ImageUrl) else part)
    return tuple(found)


def _check_capabilities(context: Context, request: Request) -> Flow[None]:
    """Ask the server about what the settings leave open, when it comes up."""
    settings = request.settings
    if request.has_images and settings.vision_support is None:
        yield from check_capability(context, settings.model, "vision", "vision_support")
    if request.plan.tools and settings.function_call_support is None:
        yield from check_capability(context, settings.model, "tools", "function_call_support")


def _counted(context: Context, request: Request) -> Flow[Request]:
    """Count the prompt where the settings need that; by default nothing is counted before sending."""
    settings = request.settings
    if settings.context_overflow == "error" or settings.context_size is None:
        return replace(request, counter=known_counter(context, settings.model))
    # Most calls count nothing, so they do not import what counts either.
    from .count import load_counter

    request = replace(request, counter=(yield from load_counter(context, settings.model)))
    if settings.context_overflow == "truncate":
        return replace(request, expected=(yield from _tokens(context, request, settings.context_size - 1)))
    limit = prompt_limit(settings.context_size, settings.answer_reserve)
    while request.messages and limit is not None:
        expected = yield from _tokens(context, request, limit)
        request = replace(request, expected=expected)
        if expected is None or expected.tokens <= limit:
            break
        dropped = yield Compute(partial(_next_dropped, request, expected.tokens - limit))
        if dropped is None:
            break
        request = request.without(dropped)
    return request


def _next_dropped(request: Request, excess: int) -> tuple[int, ...] | None:
    """What to drop to be rid of about `excess` tokens; rather too little, since it is counted again."""
    counter = request.counter
    size = None if counter is None else lambda group: counter.bound(group).tokens
    return drop_oldest(request.messages, request.dropped, excess, size)


def _tokens(context: Context, request: Request, limit: int) -> Flow[TokenCount | None]:
    """The tokens of a request's prompt; None where nothing tells.

    Our own upper bound settles it where that is within the limit. Else the server is asked to render the
    prompt, since the bound may be far off for templates that are programs.
    """
    settings, counter, prompt = request.settings, request.counter, request.prompt
    if counter is None:
        return None
    messages: Sequence[Message] = kept(request.messages, request.dropped)
    if prompt is not None:
        if prompt.raw and not prompt.images:
            return counter.text(prompt.text)
        if prompt.raw or prompt.template is not None or prompt.suffix is not None:
            return None
        before = [] if prompt.system is None else [system(prompt.system)]
        messages = [*before, user(prompt.text, *prompt.images)]
    # Off the event loop: a text that is far too long takes longer than others may wait.
    bound: TokenCount = yield Compute(lambda: counter.bound(messages, request.plan.tools, settings.think))
    if bound.tokens <= limit:
        return bound
    from .count import count_conversation

    return (yield from count_conversation(context, settings, messages, request.plan.tools))


def known_counter(context: Context, model: str) -> Counter | None:
    """The counter if it was loaded before; asks nobody, and imports what counts only if something did."""
    if not context.lookups.counter_names:
        return None
    from . import count as counting

    return counting.known_counter(context, model)
