"""A question to the model, checked, and how it is answered: capabilities, context, retries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import ConfigurationError, ContextOverflowError
from ..media.file import DEFAULT_LIMITS
from ..media.image import ImageUrl
from ..media.load import check_fetching_allowed, load_image
from ..settings.model import ChatSettings, ConnectionSettings
from ..wire.messages import Content, Message, TextPart, Tool, system, user
from ..wire.requests import Prompt, WireRequest, chat_request, check_call, generate_request
from ..wire.streaming import ChatDecoder, ChunkFilter
from ..wire.think_tags import ThinkTags
from ..wire.tool_choice import CallsOrAnswer, ForcedCalls, ToolPlan, plan_calls_or_answer, plan_tools
from .session import Decoding, Session, chat_settings
from .trim import ContextReport, drop_oldest, kept, length, prompt_limit, with_numbers

if TYPE_CHECKING:
    from ..tokens.tokenizer import TokenCount
    from .count import Counter

__all__ = ["Question", "ask", "chat_question", "prompt_question"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and all that is needed to read the answer.

    messages: the caller's conversation; empty for a prompt, which cannot be trimmed.
    prompt: what /api/generate is asked instead.
    dropped: positions of messages that are left out of the request.
    expected: the tokens of what is asked, where they were counted.
    """

    settings: ChatSettings
    request: WireRequest
    plan: ToolPlan
    has_images: bool
    messages: tuple[Message, ...] = ()
    prompt: Prompt | None = None
    dropped: tuple[int, ...] = ()
    expected: TokenCount | None = None
    counter: Counter | None = None

    def decoder(self) -> ChatDecoder:
        """A fresh decoder for one attempt."""
        settings = self.settings
        filters: list[ChunkFilter] = []
        if self.plan.forced:
            filters.append(ForcedCalls(self.plan))
        elif self.plan.may_answer:
            filters.append(CallsOrAnswer(self.plan))
        elif settings.format is None:
            filters.append(ThinkTags())
        report = ContextReport(
            context_size=settings.context_size,
            may_cut=settings.context_overflow == "truncate",
            dropped=self.dropped,
            expected=self.expected,
            learn=self._learn if self.counter is not None else None,
        )
        return ChatDecoder(
            generated=self.request.path == "/api/generate",
            model=settings.model,
            filters=filters,
            last=report.feed,
        )

    def without(self, dropped: tuple[int, ...]) -> Question:
        """The same question without these messages."""
        request = chat_request(
            self.settings,
            kept(self.messages, dropped),
            tools=self.plan.tools,
            streamed=self.request.streamed,
        )
        return replace(self, request=request, dropped=dropped)

    def smaller(self, error: ContextOverflowError) -> Question | None:
        """The question with more of its oldest turns dropped, where that is wanted and possible."""
        if self.settings.context_overflow != "trim":
            return None
        wanted = 0.0
        if error.prompt_tokens and error.limit:
            room = error.limit - (self.settings.answer_reserve or 0)
            wanted = (1 - room / error.prompt_tokens) * length(kept(self.messages, self.dropped))
        dropped = drop_oldest(self.messages, self.dropped, wanted)
        return None if dropped is None else self.without(dropped)

    def _learn(self, prompt_tokens: int) -> None:
        if self.counter is not None and self.messages:
            sent = kept(self.messages, self.dropped)
            self.counter.learn(sent, self.plan.tools, self.settings.think, prompt_tokens)


def chat_question(
    settings: ConnectionSettings,
    messages: Sequence[Message],
    tools: Sequence[Tool],
    tool_choice: str | None,
    call: Mapping[str, Any],
    *,
    streamed: bool,
) -> Question:
    """Check a conversation and what the call overrides; nothing is sent."""
    settings = check_call(chat_settings(settings), call)
    plan = plan_tools(tools, tool_choice)
    if plan.forced:
        if settings.format is not None:
            raise ConfigurationError(
                f"tool_choice={tool_choice!r} and format= exclude each other: both say what the answer is. "
                "Leave one out."
            )
        settings = check_call(settings, {"format": plan.format})
    elif plan.tools and settings.format is not None:
        plan = plan_calls_or_answer(plan, settings.format)
        settings = check_call(settings, {"format": plan.format})
    _check_addresses(settings, [part for message in messages for part in message.content])
    request = chat_request(settings, messages, tools=plan.tools, streamed=streamed)
    has_images = any(not isinstance(part, TextPart) for message in messages for part in message.content)
    return Question(settings, request, plan, has_images, tuple(messages))


def prompt_question(
    settings: ConnectionSettings, prompt: str | Prompt, call: Mapping[str, Any], *, streamed: bool
) -> Question:
    """Check a prompt for /api/generate and what the call overrides; nothing is sent."""
    settings = check_call(chat_settings(settings), call)
    prompt = Prompt(prompt) if isinstance(prompt, str) else prompt
    _check_addresses(settings, prompt.images)
    request = generate_request(settings, prompt, streamed=streamed)
    return Question(settings, request, ToolPlan(), bool(prompt.images), prompt=prompt)


def _check_addresses(settings: ChatSettings, parts: Sequence[Content]) -> None:
    for part in parts:
        if isinstance(part, ImageUrl):
            check_fetching_allowed(settings, part.where)


async def ask(
    session: Session, question: Question, run: Callable[[WireRequest, Decoding], Awaitable[T]]
) -> T:
    """Get a question answered; run: the session's `complete`, or its `begin` with the network's `open`.

    With `context_overflow="trim"` the oldest exchanges are dropped until the prompt fits: first by our own
    count, so that the answer's reserve stays free, and again should the server refuse what is left.
    """
    await _check_capabilities(session, question)
    question = await _fetched(session, question)
    question = await _counted(session, question)
    session.warn_of_disagreement(question.settings)
    while True:
        try:
            return await run(question.request, question.decoder)
        except ContextOverflowError as error:
            smaller = question.smaller(error)
            if smaller is None:
                with_numbers(error, question.settings.context_size, question.expected)
                raise
            question = smaller


async def _fetched(session: Session, question: Question) -> Question:
    """Replace image addresses by the images."""
    settings, prompt = question.settings, question.prompt
    if prompt is not None and any(isinstance(part, ImageUrl) for part in prompt.images):
        images: tuple[Any, ...] = await _with_images(session, prompt.images, settings)
        prompt = replace(prompt, images=images)
        request = generate_request(settings, prompt, streamed=question.request.streamed)
        return replace(question, prompt=prompt, request=request)
    if not any(isinstance(part, ImageUrl) for message in question.messages for part in message.content):
        return question
    messages = tuple(
        [
            replace(message, content=await _with_images(session, message.content, settings))
            for message in question.messages
        ]
    )
    return replace(question, messages=messages).without(question.dropped)


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


async def _check_capabilities(session: Session, question: Question) -> None:
    """Ask the server about what the settings leave open, when it comes up."""
    settings = question.settings
    if question.has_images and settings.vision_support is None:
        await session.check_capability(settings.model, "vision", "vision_support")
    if question.plan.tools and settings.function_call_support is None:
        await session.check_capability(settings.model, "tools", "function_call_support")


async def _counted(session: Session, question: Question) -> Question:
    """Count the prompt where the settings need that; by default nothing is counted before sending."""
    settings = question.settings
    if settings.context_overflow == "error" or settings.context_size is None:
        return replace(question, counter=session.cache.counter(settings.model))
    # Most calls count nothing, so they do not import what counts either.
    from .count import load_counter

    question = replace(question, counter=await load_counter(session, settings.model))
    if settings.context_overflow == "truncate":
        return replace(question, expected=await _tokens(session, question, settings.context_size - 1))
    limit = prompt_limit(settings.context_size, settings.answer_reserve)
    while question.messages and limit is not None:
        expected = await _tokens(session, question, limit)
        question = replace(question, expected=expected)
        if expected is None or expected.tokens <= limit:
            break
        dropped = await session.network.compute(partial(_next_dropped, question, expected.tokens - limit))
        if dropped is None:
            break
        question = question.without(dropped)
    return question


def _next_dropped(question: Question, excess: int) -> tuple[int, ...] | None:
    """What to drop to be rid of about `excess` tokens; rather too little, since it is counted again."""
    counter = question.counter
    size = None if counter is None else lambda group: counter.bound(group).tokens
    return drop_oldest(question.messages, question.dropped, excess, size)


async def _tokens(session: Session, question: Question, limit: int) -> TokenCount | None:
    """The tokens of a question's prompt; None where nothing tells.

    Our own upper bound settles it where that is within the limit. Else the server is asked to render the
    prompt, since the bound may be far off for templates that are programs.
    """
    settings, counter, prompt = question.settings, question.counter, question.prompt
    if counter is None:
        return None
    messages: Sequence[Message] = kept(question.messages, question.dropped)
    if prompt is not None:
        if prompt.raw and not prompt.images:
            return counter.text(prompt.text)
        if prompt.raw or prompt.template is not None or prompt.suffix is not None:
            return None
        before = [] if prompt.system is None else [system(prompt.system)]
        messages = [*before, user(prompt.text, *prompt.images)]
    # Off the event loop: a text that is far too long takes longer than others may wait.
    bound = await session.network.compute(
        lambda: counter.bound(messages, question.plan.tools, settings.think)
    )
    if bound.tokens <= limit:
        return bound
    from .count import count_conversation

    return await count_conversation(session, settings, messages, question.plan.tools)
