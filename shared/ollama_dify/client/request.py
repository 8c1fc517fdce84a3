"""One call of chat or generate, checked, and all that is needed to read its answer. Pure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, MutableSet, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import CapabilityError, ConfigurationError, ContextOverflowError, IncompleteResponseError
from ..media.image import Audio, Image, ImageUrl
from ..media.load import check_fetching_allowed
from ..settings import ChatSettings
from ..wire.messages import Content, Message, TextPart, Tool
from ..wire.requests import Prompt, WireRequest, chat_request, check_call, generate_request
from ..wire.responses import ChatChunk, ChatResult, CutBy, Finish
from ..wire.streaming import ChatDecoder
from ..wire.think_tags import ThinkTags, thinking_apart
from ..wire.tool_choice import SpelledCalls, ToolPlan, plan_calls_or_answer, plan_tools
from .trim import drop_oldest, kept, length, with_report

if TYPE_CHECKING:
    from ..tokens.counter import TokenCounter
    from ..tokens.tokenizer import TokenCount

__all__ = ["Asked", "Request", "as_prompt"]

logger = logging.getLogger("ollama_dify")

# What is asked: a conversation for /api/chat, a prompt for /api/generate.
Asked = Sequence[Message] | Prompt

# Arguments of a call that belong to the prompt of /api/generate, not to the settings.
_PROMPT_ARGUMENTS = ("raw", "suffix", "system", "template")


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, and all that is needed to read the answer.

    settings: those of this call. wire: what goes over HTTP.
    needs: the model's capabilities that its contents ask for: "vision", "audio".
    messages: the caller's conversation; empty for a prompt, which cannot be trimmed.
    prompt: what /api/generate is asked instead.
    dropped: positions of messages that are left out of the request.
    expected: the tokens of what is asked, where they were counted.
    own_limit: whether the call itself said how long the answer may be.
    """

    settings: ChatSettings
    wire: WireRequest
    plan: ToolPlan
    needs: frozenset[str]
    messages: tuple[Message, ...] = ()
    prompt: Prompt | None = None
    dropped: tuple[int, ...] = ()
    expected: TokenCount | None = None
    counter: TokenCounter | None = None
    own_limit: bool = False

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
        """A request out of one call of a framework's model.

        settings: of the object. read: gives what is asked by the settings of the call, which say what images
        are taken. call: what overrides settings, and the prompt's own arguments (`raw`, `suffix`, `system`,
        `template`). With mode="completion" a conversation becomes one prompt, and tools are refused.
        """
        mode = settings.mode
        extra = {name: call[name] for name in _PROMPT_ARGUMENTS if name in call}
        call = {name: value for name, value in call.items() if name not in extra}
        of_call = check_call(settings, call)
        asked = read(of_call)
        if not isinstance(asked, Prompt) and mode == "chat":
            if extra:
                raise ConfigurationError(
                    f"{min(extra)!r} belongs to /api/generate, and mode='chat' uses /api/chat.",
                    hint='Use mode="completion", or leave it out.',
                )
            return cls.made(of_call, asked, call, tools=tools, tool_choice=tool_choice, streamed=streamed)
        if tools or tool_choice not in (None, "auto", "none"):
            raise CapabilityError(
                f'{len(tools)} tool(s) given, but mode="completion" uses /api/generate, which takes none.',
                model=settings.model,
                hint='Use mode="chat" for tools.',
            )
        prompt = asked if isinstance(asked, Prompt) else as_prompt(asked)
        return cls.made(of_call, replace(prompt, **extra), call, streamed=streamed)

    @classmethod
    def made(
        cls,
        settings: ChatSettings,
        asked: Asked,
        call: Mapping[str, Any],
        *,
        tools: Sequence[Tool] = (),
        tool_choice: str | None = None,
        streamed: bool,
    ) -> Request:
        """A request for /api/chat or, of a prompt, /api/generate.

        settings: those of the call, checked. call: what it overrides, which says whether it has an own limit.
        """
        own_limit = call.get("num_predict") is not None or call.get("max_tokens") is not None
        if isinstance(asked, Prompt):
            _check_addresses(settings, asked.images)
            wire = generate_request(settings, asked, streamed=streamed)
            needs = _capabilities(asked.images)
            return cls(settings, wire, ToolPlan(), needs, prompt=asked, own_limit=own_limit)
        plan = plan_tools(tools, tool_choice)
        if plan.forced and settings.format is not None:
            raise ConfigurationError(
                f"tool_choice={tool_choice!r} and format= exclude each other: both say what the answer is. "
                "Leave one out."
            )
        if plan.tools and settings.format is not None:
            plan = plan_calls_or_answer(plan, settings.format)
        if plan.format is not None:
            settings = check_call(settings, {"format": plan.format})
        parts = [part for message in asked for part in message.content]
        _check_addresses(settings, parts)
        wire = chat_request(settings, asked, tools=plan.tools, streamed=streamed)
        return cls(settings, wire, plan, _capabilities(parts), tuple(asked), own_limit=own_limit)

    def decoder(self, warned: MutableSet[tuple[str, str]]) -> ChatDecoder:
        """A fresh decoder for one attempt; warned: what this object was warned of already."""
        settings = self.settings
        step: ThinkTags | SpelledCalls | None = None
        if self.plan.format is not None:
            step = SpelledCalls(self.plan)
        elif settings.format is None:
            step = ThinkTags()
        return ChatDecoder(
            generated=self.wire.path == "/api/generate",
            model=settings.model,
            step=step,
            last=self._reported,
            check=partial(self._check_length, warned),
        )

    def _reported(self, chunk: ChatChunk) -> ChatChunk:
        """The last chunk, with which limit ended the answer and what became of the prompt."""
        finish = chunk.finish
        if finish is not None and finish.reason == "length":
            chunk = chunk._replace(finish=replace(finish, cut_by=self._cut_by(finish)))
        return with_report(
            chunk,
            context_size=self.settings.context_size,
            may_cut=self.settings.context_overflow == "truncate",
            dropped=self.dropped,
            expected=self.expected,
        )

    def _cut_by(self, finish: Finish) -> CutBy | None:
        """Which limit ended the answer; None where the numbers do not tell."""
        written, limit = finish.usage.output_tokens, self.settings.answer_limit
        if not written or limit is None:
            return None
        return "max_tokens" if written >= limit else "context_size"

    def _check_length(self, warned: MutableSet[tuple[str, str]], result: ChatResult) -> None:
        """Tell of an answer that ended at a limit, as `on_length` says."""
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

    def without(self, dropped: tuple[int, ...]) -> Request:
        """The same request without these messages."""
        wire = chat_request(
            self.settings,
            kept(self.messages, dropped),
            tools=self.plan.tools,
            streamed=self.wire.streamed,
        )
        return replace(self, wire=wire, dropped=dropped)

    def smaller(self, error: ContextOverflowError) -> Request | None:
        """The request with more of its oldest turns dropped, where that is wanted and possible."""
        if self.settings.context_overflow != "trim":
            return None
        wanted = 0.0
        if error.prompt_tokens and error.limit:
            room = error.limit - (self.settings.answer_reserve or 0)
            wanted = (1 - room / error.prompt_tokens) * length(kept(self.messages, self.dropped))
        dropped = drop_oldest(self.messages, self.dropped, wanted)
        return None if dropped is None else self.without(dropped)


def _capabilities(parts: Sequence[Content]) -> frozenset[str]:
    names = {Audio: "audio", Image: "vision", ImageUrl: "vision"}
    return frozenset(names[type(part)] for part in parts if not isinstance(part, TextPart))


def as_prompt(messages: Sequence[Message], write: Callable[[], str] | None = None) -> Prompt:
    """A conversation as one prompt for /api/generate: system apart, the other turns line by line.

    A lone user turn goes as it is, because the server puts the model's template around it. Several become
    `user: …`, `assistant: …`, and a last `assistant:` that the model goes on from.
    write: gives the text instead, in a prompt format of the user's own.
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


def _check_addresses(settings: ChatSettings, parts: Sequence[Content]) -> None:
    for part in parts:
        if isinstance(part, ImageUrl):
            check_fetching_allowed(settings, part.where)
