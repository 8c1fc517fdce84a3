"""Answer a request: check capabilities, fetch images, fit the context, retry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ..errors import CapabilityError, ContextOverflowError, OllamaError
from ..media.image import Audio, Image, ImageUrl
from ..media.load import load_image
from ..media.source import DEFAULT_LIMITS
from ..wire.messages import Message, system, user
from ..wire.requests import WireRequest
from .request import Request
from .session import Decoding, Session
from .trim import add_numbers, drop_oldest, kept

if TYPE_CHECKING:
    from ..tokens.tokenizer import TokenCount


T = TypeVar("T")


async def ask(session: Session, request: Request, run: Callable[[WireRequest, Decoding], Awaitable[T]]) -> T:
    """Answer a request; run: the session's `complete` or `begin`.

    With `context_overflow="trim"` the oldest exchanges are dropped until the prompt fits: first by our own
    count, so that the answer's reserve stays free, and again if the server refuses the rest.
    """
    await _check_capabilities(session, request)
    request = await _fetched(session, request)
    request = await _counted(session, request)
    while True:
        try:
            return await run(request.wire, partial(request.decoder, session.cache.warned))
        except ContextOverflowError as error:
            smaller = request.smaller(error)
            if smaller is None:
                counted = request.expected
                if error.prompt_tokens is None and counted is None:
                    # Servers before 0.30 do not say how many tokens a refused prompt has.
                    with suppress(OllamaError):
                        counted = await _tokens(session, request, 0, probed=False)
                add_numbers(error, request.settings.context_size, counted)
                if request.settings.context_overflow == "trim":
                    from ..advice import advice

                    error.hint = advice("trimmed")
                raise
            request = smaller


async def _fetched(session: Session, request: Request) -> Request:
    """Replace image addresses by the images."""
    images: dict[ImageUrl, Image | ImageUrl] = {}
    for part in request.parts():
        if isinstance(part, ImageUrl) and part not in images:
            limit, where = DEFAULT_LIMITS.max_bytes, part.where
            body = await session.network.fetch_image(part.url, limit=limit, where=where)
            load = partial(load_image, body, request.settings, where=where)
            images[part] = await session.network.compute(load)
    return request.with_images(images) if images else request


async def _check_capabilities(session: Session, request: Request) -> None:
    """Ask the server about capabilities that are needed and not set; if it does not say, they are assumed."""
    model, kinds = request.settings.model, {type(part) for part in request.parts()}
    for capability, setting, is_needed in (
        ("vision", "vision_support", bool(kinds & {Image, ImageUrl})),
        ("audio", None, Audio in kinds),
        ("tools", "function_call_support", bool(request.plan.tools)),
    ):
        if not is_needed or (setting and getattr(request.settings, setting) is not None):
            continue
        info = await session.model_info(model)
        if info.can(capability) is False:
            from ..advice import capability_advice  # imported only for an error

            raise CapabilityError(
                f"The server says that {model!r} cannot do this: it lacks the capability {capability!r} and "
                f"has {', '.join(sorted(info.capabilities or ()))}.",
                model=model,
                hint=capability_advice(model, capability, setting),
            )


async def _counted(session: Session, request: Request) -> Request:
    """Count the prompt if the settings need it; by default nothing is counted before sending."""
    settings = request.settings
    if settings.context_overflow == "error" or settings.context_size is None:
        return request
    from .count import load_counter

    if settings.context_overflow == "truncate":
        return replace(request, expected=await _tokens(session, request, settings.context_size - 1))
    counter = await load_counter(session, settings)
    # The server already cuts a prompt of exactly the context's size, so the limit is one less.
    limit = max(settings.context_size - 1 - (settings.answer_reserve or 0), 1)
    while True:
        expected = await _tokens(session, request, limit)
        request = replace(request, expected=expected)
        if not request.messages or expected is None or expected.tokens <= limit:
            return request
        # `bound` is an upper bound, so too little may be dropped; the rest is counted again.
        excess, size = expected.tokens - limit, lambda group: counter.bound(group).tokens
        drop = partial(drop_oldest, request.messages, request.dropped, excess, size)
        dropped = await session.network.compute(drop)
        if dropped is None:
            return request
        request = replace(request, dropped=dropped)


async def _tokens(
    session: Session, request: Request, limit: int, *, probed: bool = True
) -> TokenCount | None:
    """The tokens of a request's prompt; None if unknown.

    Our own upper bound is enough if it is within the limit. Else the server is asked to render the
    prompt, because the bound may be far too high for complex templates.
    """
    # Imported here, because most calls count nothing.
    from .count import count_conversation, load_counter

    settings, prompt = request.settings, request.prompt
    if any(isinstance(part, Audio) for part in request.parts()):
        return None
    counter = await load_counter(session, settings, probed=probed)
    messages: Sequence[Message] = kept(request.messages, request.dropped)
    if prompt is not None:
        if prompt.raw and not prompt.images:
            return counter.text(prompt.text)
        if prompt.raw or prompt.template is not None or prompt.suffix is not None:
            return None
        before = [] if prompt.system is None else [system(prompt.system)]
        messages = [*before, user(prompt.text, *prompt.images)]
    # Off the event loop, because counting a very long text would block other tasks.
    bound = await session.network.compute(lambda: counter.bound(messages, request.plan.tools))
    if bound.tokens <= limit:
        return bound
    return await count_conversation(session, settings, messages, request.plan.tools)
