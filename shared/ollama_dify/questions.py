"""A question to the model, checked, and the flow that gets it answered: capabilities, context, retries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from .context import ContextReport, drop_oldest, kept, prompt_limit
from .counting import Counter, known_counter, load_counter
from .errors import ConfigurationError, ContextOverflowError
from .flows import Context, Decoding, Flow, check_capability
from .images import Image
from .messages import Content, ImageUrl, Message, Tool
from .pictures import fetch_picture
from .requests import Prompt, WireRequest, chat_request, check_call, generate_request
from .settings import ChatSettings
from .streaming import ChatDecoder, ChunkFilter
from .think_tags import ThinkTags
from .tool_choice import CallsOrAnswer, ForcedCalls, ToolPlan, plan_calls_or_answer, plan_tools

__all__ = ["Question", "ask", "chat_question", "prompt_question"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and all that is needed to read the answer.

    messages: the caller's conversation; empty for a prompt, which cannot be trimmed.
    dropped: positions in it that are left out of the request.
    expected: an upper bound of the prompt's tokens, where one was counted.
    """

    settings: ChatSettings
    request: WireRequest
    plan: ToolPlan
    has_images: bool
    messages: tuple[Message, ...] = ()
    dropped: tuple[int, ...] = ()
    expected: int | None = None
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
            limit=prompt_limit(settings.context_size, 0),
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
        excess = None
        if error.prompt_tokens and error.limit:
            room = error.limit - (self.settings.answer_reserve or 0)
            excess = 1 - room / error.prompt_tokens
        dropped = drop_oldest(self.messages, self.dropped, excess)
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
    request = chat_request(settings, messages, tools=plan.tools, streamed=streamed)
    pictures = (Image, ImageUrl)
    has_images = any(isinstance(part, pictures) for message in messages for part in message.content)
    return Question(settings, request, plan, has_images, tuple(messages))


def prompt_question(
    settings: ChatSettings, prompt: str | Prompt, call: Mapping[str, Any], *, streamed: bool
) -> Question:
    """Check a prompt for /api/generate and what the call overrides; nothing is sent."""
    settings = check_call(settings, call)
    prompt = Prompt(prompt) if isinstance(prompt, str) else prompt
    request = generate_request(settings, prompt, streamed=streamed)
    return Question(settings, request, ToolPlan(), bool(prompt.images))


def ask(
    context: Context, question: Question, run: Callable[[Context, WireRequest, Decoding], Flow[T]]
) -> Flow[T]:
    """Get a question answered; run: `flows.complete` or `flows.begin`.

    With `context_overflow="trim"` the oldest exchanges are dropped until the prompt fits: first by our own
    count, so that the answer's reserve stays free, and again should the server refuse what is left.
    """
    question = yield from _fetched(question)
    yield from _check_capabilities(context, question)
    question = yield from _counted(context, question)
    while True:
        try:
            return (yield from run(context, question.request, question.decoder))
        except ContextOverflowError as error:
            smaller = question.smaller(error)
            if smaller is None:
                raise
            question = smaller


def _fetched(question: Question) -> Flow[Question]:
    """Replace picture addresses by the pictures; the settings allowed it when the messages were made."""
    if not any(isinstance(part, ImageUrl) for message in question.messages for part in message.content):
        return question
    messages = []
    for message in question.messages:
        content: list[Content] = []
        for part in message.content:
            if isinstance(part, ImageUrl):
                content.append((yield from fetch_picture(part, question.settings)))
            else:
                content.append(part)
        messages.append(replace(message, content=tuple(content)))
    return replace(question, messages=tuple(messages)).without(question.dropped)


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
    if settings.context_overflow == "error" or not question.messages or settings.context_size is None:
        return replace(question, counter=known_counter(context, settings.model))
    counter = yield from load_counter(context, settings.model)
    question = replace(question, counter=counter)
    limit = prompt_limit(settings.context_size, settings.answer_reserve)
    while True:
        left = kept(question.messages, question.dropped)
        expected = counter.bound(left, question.plan.tools, settings.think).tokens
        question = replace(question, expected=expected)
        if settings.context_overflow == "truncate" or limit is None or expected <= limit:
            return question
        dropped = drop_oldest(question.messages, question.dropped, 1 - limit / expected)
        if dropped is None:
            return question
        question = question.without(dropped)
