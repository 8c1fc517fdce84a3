"""A question to the model, checked, and the flow that gets it answered: capabilities, context, retries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import ConfigurationError, ContextOverflowError
from ..media.image import ImageUrl
from ..media.load import check_fetching_allowed
from ..settings.model import ChatSettings
from ..transport.network import Compute, Flow
from ..wire.messages import Content, Message, TextPart, Tool, system, user
from ..wire.requests import Prompt, WireRequest, chat_request, check_call, generate_request
from ..wire.streaming import ChatDecoder, ChunkFilter
from ..wire.think_tags import ThinkTags
from ..wire.tool_choice import CallsOrAnswer, ForcedCalls, ToolPlan, plan_calls_or_answer, plan_tools
from .images import fetch_image
from .session import Context, Decoding, check_capability, warn_of_disagreement
from .trim import ContextReport, drop_oldest, kept, length, prompt_limit, with_numbers

if TYPE_CHECKING:
    from ..tokens.tokenizer import TokenCount
    from .count import Counter

__all__ = ["Question", "ask", "chat_question", "known_counter", "prompt_question"]

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
    settings: ChatSettings,
    messages: Sequence[Message],
    tools: Sequence[Tool],
    tool_choice: str | None,
    call: Mapping[str, Any],
    *,
    streamed: bool,
) -> Question:
    """Check a conversation and what the call overrides; nothing is sent."""
    settings = check_call(settings, call)
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
    settings: ChatSettings, prompt: str | Prompt, call: Mapping[str, Any], *, streamed: bool
) -> Question:
    """Check a prompt for /api/generate and what the call overrides; nothing is sent."""
    settings = check_call(settings, call)
    prompt = Prompt(prompt) if isinstance(prompt, str) else prompt
    _check_addresses(settings, prompt.images)
    request = generate_request(settings, prompt, streamed=streamed)
    return Question(settings, request, ToolPlan(), bool(prompt.images), prompt=prompt)


def _check_addresses(settings: ChatSettings, parts: Sequence[Content]) -> None:
    for part in parts:
        if isinstance(part, ImageUrl):
            check_fetching_allowed(settings, part.where)


def ask(
    context: Context, question: Question, run: Callable[[Context, WireRequest, Decoding], Flow[T]]
) -> Flow[T]:
    """Get a question answered; run: `flows.complete` or `flows.begin`.

    With `context_overflow="trim"` the oldest exchanges are dropped until the prompt fits: first by our own
    count, so that the answer's reserve stays free, and again should the server refuse what is left.
    """
    yield from _check_capabilities(context, question)
    question = yield from _fetched(question)
    question = yield from _counted(context, question)
    warn_of_disagreement(context, question.settings)
    while True:
        try:
            return (yield from run(context, question.request, question.decoder))
        except ContextOverflowError as error:
            smaller = question.smaller(error)
            if smaller is None:
                with_numbers(error, question.settings.context_size, question.expected)
                raise
            question = smaller


def _fetched(question: Question) -> Flow[Question]:
    """Replace image addresses by the images."""
    settings, prompt = question.settings, question.prompt
    if prompt is not None and any(isinstance(part, ImageUrl) for part in prompt.images):
        images = yield from _with_images(prompt.images, settings)
        prompt = replace(prompt, images=images)
        request = generate_request(settings, prompt, streamed=question.request.streamed)
        return replace(question, prompt=prompt, request=request)
    if not any(isinstance(part, ImageUrl) for message in question.messages for part in message.content):
        return question
    messages = []
    for message in question.messages:
        content = yield from _with_images(message.content, settings)
        messages.append(replace(message, content=content))
    return replace(question, messages=tuple(messages)).without(question.dropped)


def _with_images(parts: Sequence[Content], settings: ChatSettings) -> Flow[tuple[Any, ...]]:
    """The parts with what the addresses among them lead to."""
    found: list[Content] = []
    for part in parts:
        found.append((yield from fetch_image(part, settings)) if isinstance(part, ImageUrl) else part)
    return tuple(found)


def _check_capabilities(context: Context, question: Question) -> Flow[None]:
    """Ask the server about what the settings leave open, when it comes up."""
    settings = question.settings
    if question.has_images and settings.vision_support is None:
        yield from check_capability(context, settings.model, "vision", "vision_support")
    if question.plan.tools and settings.function_call_support is None:
        yield from check_capability(context, settings.model, "tools", "function_call_support")


def _counted(context: Context, question: Question) -> Flow[Question]:
    """Count the prompt where the settings need that; by default nothing is counted before sending."""
    settings = question.settings
    if settings.context_overflow == "error" or settings.context_size is None:
        return replace(question, counter=known_counter(context, settings.model))
    # Most calls count nothing, so they do not import what counts either.
    from .count import load_counter

    question = replace(question, counter=(yield from load_counter(context, settings.model)))
    if settings.context_overflow == "truncate":
        return replace(question, expected=(yield from _tokens(context, question, settings.context_size - 1)))
    limit = prompt_limit(settings.context_size, settings.answer_reserve)
    while question.messages and limit is not None:
        expected = yield from _tokens(context, question, limit)
        question = replace(question, expected=expected)
        if expected is None or expected.tokens <= limit:
            break
        dropped = yield Compute(partial(_next_dropped, question, expected.tokens - limit))
        if dropped is None:
            break
        question = question.without(dropped)
    return question


def _next_dropped(question: Question, excess: int) -> tuple[int, ...] | None:
    """What to drop to be rid of about `excess` tokens; rather too little, since it is counted again."""
    counter = question.counter
    size = None if counter is None else lambda group: counter.bound(group).tokens
    return drop_oldest(question.messages, question.dropped, excess, size)


def _tokens(context: Context, question: Question, limit: int) -> Flow[TokenCount | None]:
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
    bound: TokenCount = yield Compute(lambda: counter.bound(messages, question.plan.tools, settings.think))
    if bound.tokens <= limit:
        return bound
    from .count import count_conversation

    return (yield from count_conversation(context, settings, messages, question.plan.tools))


def known_counter(context: Context, model: str) -> Counter | None:
    """The counter if it was loaded before; asks nobody, and imports what counts only if something did."""
    if not context.lookups.counter_names:
        return None
    from . import count as counting

    return counting.known_counter(context, model)
