"""One call of chat or generate, checked, and all that is needed to read its answer. Pure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, MutableSet, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import CapabilityError, ConfigurationError, ContextOverflowError, IncompleteResponseError
from ..media.image import Image, ImageUrl
from ..media.load import check_fetching_allowed
from ..settings import ChatSettings
from ..wire.messages import Content, Message, TextPart, Tool
from ..wire.requests import Prompt, WireRequest, chat_request, check_call, generate_request
from ..wire.responses import ChatChunk, ChatResult
from ..wire.streaming import ChatDecoder
from ..wire.think_tags import ThinkTags, thinking_apart
from ..wire.tool_choice import SpelledCalls, ToolPlan, plan_calls_or_answer, plan_tools
from .trim import check_uncut, drop_oldest, kept, length, was_cut

if TYPE_CHECKING:
    from ..tokens.tokenizer import TokenCount


logger = logging.getLogger("ollama_dify")

# What is asked: a conversation for /api/chat, a prompt for /api/generate.
Asked = Sequence[Message] | Prompt

# Arguments of a call that belong to the prompt of /api/generate, not to the settings.
_PROMPT_ARGUMENTS = ("raw", "suffix", "system", "template")


@dataclass(frozen=True, slots=True)
class Request:
    """One call, and all that is needed to read its answer.

    settings: those of this call. messages: the caller's conversation for /api/chat.
    prompt: for /api/generate, instead of messages; it cannot be trimmed.
    dropped: positions of messages that are left out of the request.
    expected: the tokens of the prompt, if they were counted.
    own_limit: whether the call itself limits the length of the answer.
    wire: what goes over HTTP.
    """

    settings: ChatSettings
    plan: ToolPlan = field(default_factory=ToolPlan)
    messages: tuple[Message, ...] = ()
    prompt: Prompt | None = None
    streamed: bool = False
    dropped: tuple[int, ...] = ()
    expected: TokenCount | None = None
    own_limit: bool = False
    wire: WireRequest = field(init=False)

    def __post_init__(self) -> None:
        if self.prompt is not None:
            wire = generate_request(self.settings, self.prompt, streamed=self.streamed)
        else:
            messages = kept(self.messages, self.dropped)
            wire = chat_request(self.settings, messages, tools=self.plan.tools, streamed=self.streamed)
        object.__setattr__(self, "wire", wire)

    @classmethod
    def of_call(
        cls,
        settings: ChatSettings,
        read: Callable[[ChatSettings], Asked],
        call: Mapping[str, Any],
        *,
        tools: Sequence[Tool] = (),
        tool_choice: str | None = None,
        streamed: bool = False,
    ) -> Request:
        """Build the request of one call. Raises for content that cannot be sent.

        settings: of the object. read: takes the settings of the call, which say what images are accepted, and
        returns messages or prompt. call: overrides of settings, and arguments of the prompt (`raw`, `suffix`,
        `system`, `template`). With mode="completion" a conversation becomes one prompt, tools are refused.
        """
        extra = {name: call[name] for name in _PROMPT_ARGUMENTS if name in call}
        call = {name: value for name, value in call.items() if name not in extra}
        own_limit = call.get("num_predict") is not None or call.get("max_tokens") is not None
        settings = check_call(settings, call)
        asked = read(settings)
        if isinstance(asked, Prompt) or settings.mode != "chat":
            if tools or tool_choice not in (None, "auto", "none"):
                raise CapabilityError(
                    f'{len(tools)} tool(s) given, but mode="completion" uses /api/generate, without tools.',
                    model=settings.model,
                    hint='Use mode="chat" for tools.',
                )
            prompt = replace(asked if isinstance(asked, Prompt) else as_prompt(asked), **extra)
            request = cls(settings, prompt=prompt, streamed=streamed, own_limit=own_limit)
        elif extra:
            raise ConfigurationError(
                f"{min(extra)!r} belongs to /api/generate, and mode='chat' uses /api/chat.",
                hint='Use mode="completion", or leave it out.',
            )
        else:
            plan, settings = _planned(settings, tools, tool_choice)
            request = cls(settings, plan, tuple(asked), streamed=streamed, own_limit=own_limit)
        for part in request.parts():
            if isinstance(part, ImageUrl):
                check_fetching_allowed(settings, part.where)
        return request

    def parts(self) -> list[Content]:
        """All texts, images and recordings."""
        if self.prompt is not None:
            return list(self.prompt.images)
        return [part for message in self.messages for part in message.content]

    def with_images(self, images: Mapping[ImageUrl, Image | ImageUrl]) -> Request:
        """The same request with image addresses replaced by the images."""

        def loaded(parts: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(images[part] if isinstance(part, ImageUrl) else part for part in parts)

        if self.prompt is not None:
            return replace(self, prompt=replace(self.prompt, images=loaded(self.prompt.images)))
        messages = [replace(message, content=loaded(message.content)) for message in self.messages]
        return replace(self, messages=tuple(messages))

    def decoder(self, warned: MutableSet[tuple[str, str]]) -> ChatDecoder:
        """A new decoder for one attempt; warned: the warnings already given for this object."""
        settings = self.settings
        step: ThinkTags | SpelledCalls | None = None
        if self.plan.format is not None:
            step = SpelledCalls(self.plan)
        elif settings.format is None:
            step = ThinkTags()
        return ChatDecoder(
            generated=self.prompt is not None,
            model=settings.model,
            step=step,
            last=self._reported,
            check=partial(self._check_length, warned),
        )

    def _reported(self, chunk: ChatChunk) -> ChatChunk:
        """The last chunk, with the limit that ended the answer and whether the prompt was cut."""
        settings, finish = self.settings, chunk.finish
        if finish is None:
            return chunk
        truncated = None
        if settings.context_overflow == "truncate":
            truncated = was_cut(finish.usage.input_tokens, settings.context_size, self.expected)
        else:
            check_uncut(chunk, settings.context_size)
        written, limit, cut_by = finish.usage.output_tokens, settings.answer_limit, finish.cut_by
        if finish.reason == "length" and written and limit is not None:
            cut_by = "max_tokens" if written >= limit else "context_size"
        if (cut_by, truncated, self.dropped) == (finish.cut_by, finish.truncated, finish.dropped):
            return chunk
        return chunk._replace(
            finish=replace(finish, cut_by=cut_by, truncated=truncated, dropped=self.dropped)
        )

    def _check_length(self, warned: MutableSet[tuple[str, str]], result: ChatResult) -> None:
        """Warn or raise for an answer that ended at a limit, as `on_length` says."""
        finish, settings = result.finish, self.settings
        if finish is None or finish.reason != "length" or settings.on_length == "return":
            return
        what = {
            "max_tokens": f"its limit of {settings.answer_limit} tokens (max_tokens, num_predict)",
            "context_size": f"the end of the context (context_size={settings.context_size})",
        }.get(finish.cut_by or "", "a limit")
        if settings.on_length == "error":
            raise IncompleteResponseError(
                f"The answer of {settings.model!r} reached {what}.",
                partial=result,
                hint="Raise the limit, or take the answer as it is with on_length='return'. What had arrived "
                "is in the error's `partial`.",
            )
        if not self.own_limit and ("", "length") not in warned:
            warned.add(("", "length"))
            logger.warning(
                "The answer of %r reached %s and may end in the middle of a sentence. Raise the limit, or "
                "set on_length='return' or 'error'. This is said once.",
                settings.model,
                what,
            )

    def smaller(self, error: ContextOverflowError) -> Request | None:
        """The request with more of its oldest turns dropped; None if not wanted or not possible."""
        if self.settings.context_overflow != "trim":
            return None
        wanted = 0.0
        if error.prompt_tokens and error.limit:
            room = error.limit - (self.settings.answer_reserve or 0)
            wanted = (1 - room / error.prompt_tokens) * length(kept(self.messages, self.dropped))
        dropped = drop_oldest(self.messages, self.dropped, wanted)
        return None if dropped is None else replace(self, dropped=dropped)


def _planned(
    settings: ChatSettings, tools: Sequence[Tool], tool_choice: str | None
) -> tuple[ToolPlan, ChatSettings]:
    """The plan for tools, and the settings with the answer's format that it needs."""
    plan = plan_tools(tools, tool_choice)
    if plan.forced and settings.format is not None:
        raise ConfigurationError(
            f"tool_choice={tool_choice!r} and format= exclude each other: both say what the answer is. "
            "Leave one out."
        )
    if plan.tools and settings.format is not None:
        plan = plan_calls_or_answer(plan, settings.format)
    return plan, settings if plan.format is None else check_call(settings, {"format": plan.format})


def as_prompt(messages: Sequence[Message], write: Callable[[], str] | None = None) -> Prompt:
    """A conversation as one prompt for /api/generate: system separate, the other turns line by line.

    A single user turn is sent unchanged, because the server puts the model's template around it. Several
    become `user: …`, `assistant: …`, and a final `assistant:` for the model to continue.
    write: returns the text instead, in the user's own prompt format.
    Raises CapabilityError for tool calls.
    """
    if any(turn.role == "tool" or turn.tool_calls for turn in messages):
        raise CapabilityError(
            'The conversation holds tool calls, which mode="completion" cannot express.',
            hint='Use mode="chat" for tools.',
        )
    system = [turn.text for turn in messages if turn.role == "system"]
    turns = [thinking_apart(turn) for turn in messages if turn.role != "system"]
    if write is not None and turns:
        text = write()
    elif [turn.role for turn in turns] == ["user"]:
        text = turns[0].text
    else:
        text = "\n".join([*(f"{turn.role}: {turn.text}" for turn in turns), "assistant:"]) if turns else ""
    images = tuple(part for turn in messages for part in turn.content if not isinstance(part, TextPart))
    return Prompt(text, system="\n\n".join(system) if system else None, images=images)
