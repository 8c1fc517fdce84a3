"""How a request is answered: capabilities, images, context, retries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import ContextOverflowError, OllamaError
from ..media.image import ImageUrl
from ..media.load import load_image
from ..media.source import DEFAULT_LIMITS
from ..settings import ChatSettings
from ..wire.messages import Content, Message, system, user
from ..wire.requests import WireRequest, generate_request
from .request import Request
from .session import Decoding, Session
from .trim import drop_oldest, kept, prompt_limit, with_numbers

if TYPE_CHECKING:
    from ..tokens.tokenizer import TokenCount

__all__ = ["ask"]

T = TypeVar("T")


async def ask(session: Session, request: Request, run: Callable[[WireRequest, Decoding], Awaitable[T]]) -> T:
    """Get a request answered; run: the session's `complete`, or its `begin` with the network's `open`.

    With `context_overflow="trim"` the oldest exchanges are dropped until the prompt fits: first by our own
    count, so that the answer's reserve stays free, and again should the server refuse what is left.
    """
    await _check_capabilities(session, request)
    request = await _fetched(session, request)
    request = await _counted(session, request)
    session.warn_of_disagreement(request.settings)
    while True:
        try:
            return await run(request.wire, partial(request.decoder, session.cache.warned))
        except ContextOverflowError as error:
            smaller = request.smaller(error)
            if smaller is None:
                if error.prompt_tokens is None and request.expected is None:
                    request = await _counted_late(session, request)
                with_numbers(error, request.settings.context_size, request.expected)
                if request.settings.context_overflow == "trim":
                    from ..advice import advice  # what advises is imported when something went wrong

                    error.hint = advice("trimmed")
                raise
            request = smaller


async def _fetched(session: Session, request: Request) -> Request:
    """Replace image addresses by the images."""
    settings, prompt = request.settings, request.prompt
    if prompt is not None and any(isinstance(part, ImageUrl) for part in prompt.images):
        images: tuple[Any, ...] = await _with_images(session, prompt.images, settings)
        prompt = replace(prompt, images=images)
        wire = generate_request(settings, prompt, streamed=request.wire.streamed)
        return replace(request, prompt=prompt, wire=wire)
    if not any(isinstance(part, ImageUrl) for message in request.messages for part in message.content):
        return request
    messages = tuple(
        [
            replace(message, content=await _with_images(session, message.content, settings))
            for message in request.messages
        ]
    )
    return replace(request, messages=messages).without(request.dropped)


async def _with_images(
    session: Session, parts: Sequence[Content], settings: ChatSettings
) -> tuple[Content, ...]:
    """The parts with what the addresses among them lead to."""
    return tuple(
        [
            await _fetch_image(session, part, settings) if isinstance(part, ImageUrl) else part
            for part in parts
        ]
    )


async def _fetch_image(session: Session, address: ImageUrl, settings: ChatSettings) -> Content:
    network, where = session.network, address.where
    body = await network.fetch_image(address.url, limit=DEFAULT_LIMITS.max_bytes, where=where)
    return await network.compute(partial(load_image, body, settings, where=where))


async def _check_capabilities(session: Session, request: Request) -> None:
    """Ask the server about what the settings leave open, when it comes up."""
    settings = request.settings
    if "vision" in request.needs and settings.vision_support is None:
        await session.check_capability(settings.model, "vision", "vision_support")
    if "audio" in request.needs:
        await session.check_capability(settings.model, "audio")
    if request.plan.tools and settings.function_call_support is None:
        await session.check_capability(settings.model, "tools", "function_call_support")


async def _counted(session: Session, request: Request) -> Request:
    """Count the prompt where the settings need that; by default nothing is counted before sending."""
    settings = request.settings
    if settings.context_overflow == "error" or settings.context_size is None:
        return request
    # Most calls count nothing, so they do not import what counts either.
    from .count import load_counter

    request = replace(request, counter=await load_counter(session, settings, settings.model))
    if settings.context_overflow == "truncate":
        return replace(request, expected=await _tokens(session, request, settings.context_size - 1))
    limit = prompt_limit(settings.context_size, settings.answer_reserve)
    while request.messages and limit is not None:
        expected = await _tokens(session, request, limit)
        request = replace(request, expected=expected)
        if expected is None or expected.tokens <= limit:
            break
        dropped = await session.network.compute(partial(_next_dropped, request, expected.tokens - limit))
        if dropped is None:
            break
        request = request.without(dropped)
    return request


async def _counted_late(session: Session, request: Request) -> Request:
    """Count a prompt that a server before 0.30 refused without saying its tokens; uncounted if that fails."""
    from .count import load_counter

    settings = request.settings
    try:
        counter = await load_counter(session, settings, settings.model, probed=False)
        expected = await _tokens(session, replace(request, counter=counter), 0)
    except OllamaError:
        return request
    return replace(request, expected=expected)


def _next_dropped(request: Request, excess: int) -> tuple[int, ...] | None:
    """What to drop to be rid of about `excess` tokens; rather too little, since it is counted again."""
    counter = request.counter
    size = None if counter is None else lambda group: counter.bound(group).tokens
    return drop_oldest(request.messages, request.dropped, excess, size)


async def _tokens(session: Session, request: Request, limit: int) -> TokenCount | None:
    """The tokens of a request's prompt; None where nothing tells.

    Our own upper bound settles it where that is within the limit. Else the server is asked to render the
    prompt, since the bound may be far off for templates that are programs.
    """
    settings, counter, prompt = request.settings, request.counter, request.prompt
    if counter is None or "audio" in request.needs:
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
    bound = await session.network.compute(lambda: counter.bound(messages, request.plan.tools))
    if bound.tokens <= limit:
        return bound
    from .count import count_conversation

    return await count_conversation(session, settings, messages, request.plan.tools)
