"""How many tokens a conversation costs: exactly from the prompt that the server rendered, else as a bound.

The bound comes from the model's template, rendered here as the server does it; where that template is not
understood to the letter, from its literal text.

Messages and tools are plain wire JSON, so that nothing else of the core is needed. Images are given apart, as
(width, height) in pixels or None where unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .image_cost import UNKNOWN_IMAGE_TOKENS, image_tokens
from .tokenizer import TokenCount, TokenizerLike

if TYPE_CHECKING:
    from .templates.literal_cost import TemplateCost
    from .templates.prompt_template import PromptTemplate

__all__ = ["UNKNOWN_IMAGE_TOKENS", "ChatOverhead", "count_rendered", "image_tokens"]

WireMessage = Mapping[str, Any]

_IMAGE_TAG = re.compile(r"\[img-(\d+)\]")
_OBSERVATIONS = 64
_JSON_SLACK = 2
"""Tokens that a server may add to one tool or call when it writes it anew."""
_CHANGED_SLACK = 2
"""Tokens that a changed text may gain where it meets its neighbours."""
_MESSAGES_PER_SLACK = 6
"""Texts counted apart can be a token cheaper than joined, about once in a hundred joints."""
_GUARD, _GUARD_SHARE = 4, 50
"""Tokens, and one in so many, added to a prompt rendered here: servers differ in a blank here and there."""
_RENDERER, _RENDERER_MESSAGE, _RENDERER_TOOLS, _RENDERER_TIMES = 64, 24, 600, 3
"""For a prompt that the server builds in code, which no template shows: tokens around it, around each message
and around the tools, and how many times as long as in JSON it may write these and the calls."""
_CUT_SLACK = 3
"""Tokens that a text may gain where an image cuts it."""


def count_rendered(tokenizer: TokenizerLike, rendered: str, image_costs: Sequence[int] = ()) -> TokenCount:
    """Tokens of a prompt that the server rendered (`_debug_render_only`); exact where no image is in it.

    The server puts `[img-N]` for each image and reads the texts between them apart.
    """
    texts, images = _cut_at_images(rendered, image_costs)
    if len(texts) == 1:
        return TokenCount(tokenizer.count(rendered), tokenizer.exact)
    return TokenCount(_around(tokenizer) + sum(map(tokenizer.count_text, texts)) + images, exact=False)


def _cut_at_images(rendered: str, image_costs: Sequence[int]) -> tuple[list[str], int]:
    """The texts between the images, and what these images cost."""
    texts = [""]
    images = 0
    at = 0
    for tag in _IMAGE_TAG.finditer(rendered):
        if int(tag.group(1)) < len(image_costs):
            texts[-1] += rendered[at : tag.start()]
            texts.append("")
            images += image_costs[int(tag.group(1))]
            at = tag.end()
    texts[-1] += rendered[at:]
    return texts, images


def _around(tokenizer: TokenizerLike) -> int:
    """Tokens that the server puts before and after any prompt."""
    return max(0, tokenizer.count_embedding("a") - tokenizer.count_text("a"))


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A conversation in numbers: what is known of each message and the tokens of its texts."""

    roles: tuple[str, ...]
    facts: tuple[Mapping[str, bool | str | None], ...]
    sizes: tuple[Mapping[str, int], ...]
    tools: str
    think: bool | str | None


@dataclass(frozen=True, slots=True)
class _Observation:
    prompt: _Prompt
    tokens: int


@dataclass(frozen=True, slots=True)
class ChatOverhead:
    """An upper bound for the prompt tokens of a conversation that the server did not render.

    It is the cost of the prompt as rendered here, or else of the literal text of the model's template. Each
    answer's count tightens it: a conversation that continues or resembles an observed one costs at most what
    that one cost, plus what is longer or new. An answer that cost more than the prompt as rendered here ends
    the trust in that.
    """

    _tokenizer: TokenizerLike
    _template: TemplateCost
    _rendering: PromptTemplate | None
    _show: Mapping[str, Any]
    _observations: tuple[_Observation, ...] = ()

    @classmethod
    def from_show(cls, show: Mapping[str, Any], tokenizer: TokenizerLike) -> ChatOverhead:
        """From what a `/api/show` answer says of the template and the model's own messages."""
        # Imported when something is counted, which most programs never do.
        from .templates.literal_cost import TemplateCost
        from .templates.prompt_template import template_of

        template = show.get("template")
        cost = TemplateCost(template if isinstance(template, str) else "", tokenizer.count_text)
        return cls(tokenizer, cost, template_of(show, tokenizer.count_text), show)

    def bound(
        self,
        messages: Sequence[WireMessage],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | str | None = None,
        image_costs: Sequence[int] = (),
    ) -> TokenCount:
        """At least as many tokens as the server will report. Never exact."""
        messages = self._with_own(messages)
        prompt = self._prompt(messages, tools, think)
        rendered = self._rendered(messages, tools, think, image_costs)
        images = sum(image_costs) + _CUT_SLACK * len(image_costs)
        candidates = [self._start(prompt) + images if rendered is None else rendered]
        for observation in self._observations:
            continued = self._continued(observation, prompt)
            if continued is not None:
                candidates.append(continued + images)
        return TokenCount(min(candidates), exact=False)

    def observe(
        self,
        messages: Sequence[WireMessage],
        prompt_tokens: int,
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | str | None = None,
        image_costs: Sequence[int] = (),
    ) -> ChatOverhead:
        """The same with one more answer's `prompt_eval_count` taken in; the oldest of many are forgotten.

        Not for prompts that the server may have cut, whose count says nothing about the whole. With images,
        nothing is learned: their costs are bounds themselves.
        """
        if image_costs or prompt_tokens <= 0:
            return self
        messages = self._with_own(messages)
        rendered = self._rendered(messages, tools, think, ())
        trusted = rendered is None or prompt_tokens <= rendered
        prompt = self._prompt(messages, tools, think)
        kept = tuple(seen for seen in self._observations if seen.prompt != prompt)
        return replace(
            self,
            _rendering=self._rendering if trusted else None,
            _observations=(*kept, _Observation(prompt, prompt_tokens))[-_OBSERVATIONS:],
        )

    def _with_own(self, messages: Sequence[WireMessage]) -> Sequence[WireMessage]:
        """The messages behind those that the model brings along, as the server puts them."""
        own, system = self._show.get("messages"), self._show.get("system")
        asked = [*(own if isinstance(own, list) else ()), *messages]
        if isinstance(system, str) and system and not (messages and messages[0].get("role") == "system"):
            asked = [{"role": "system", "content": system}, *asked]
        return asked

    def _rendered(
        self,
        messages: Sequence[WireMessage],
        tools: Sequence[Mapping[str, Any]],
        think: bool | str | None,
        image_costs: Sequence[int],
    ) -> int | None:
        """Tokens of the dearest prompt rendered here, with a guard; None where none can be."""
        if self._rendering is None or not messages:
            return None
        prompts = self._rendering.prompts(messages, tools, think)
        if not prompts:
            return None
        texts = max(self._text_tokens(prompt, image_costs) for prompt in prompts)
        return texts + _GUARD + texts // _GUARD_SHARE + sum(image_costs)

    def _text_tokens(self, prompt: str, image_costs: Sequence[int]) -> int:
        texts, _ = _cut_at_images(prompt, image_costs)
        if len(texts) == 1:
            return self._tokenizer.count(prompt)
        return _around(self._tokenizer) + sum(map(self._tokenizer.count_text, texts))

    def _prompt(
        self, messages: Sequence[WireMessage], tools: Sequence[Mapping[str, Any]], think: bool | str | None
    ) -> _Prompt:
        # Where `think` is left out, the server thinks if the model can.
        capabilities = self._show.get("capabilities")
        able = "thinking" in capabilities if isinstance(capabilities, Sequence) else None
        shared: dict[str, bool | str | None] = {
            "tools": bool(tools),
            "system": any(message.get("role") == "system" and message.get("content") for message in messages),
            "think": able if think is None else bool(think),
            "think_set": True if think is not None else able,
            "messages": True,
            "generation": True,
            "suffix": False,
        }
        size_of = _Sizes(self._tokenizer.count_text, go=not self._template.jinja)
        whole = size_of.whole(messages, tools)
        return _Prompt(
            roles=tuple(str(message.get("role", "")) for message in messages),
            facts=tuple({**shared, **facts} for facts in _message_facts(messages)),
            sizes=tuple({**whole, **size_of.message(message)} for message in messages),
            tools=json.dumps(tools, ensure_ascii=False, sort_keys=True, default=str),
            think=think,
        )

    def _start(self, prompt: _Prompt) -> int:
        total = _around(self._tokenizer)
        if not prompt.roles:
            return total
        facts = {
            **prompt.facts[-1],
            **dict.fromkeys(("role", "first", "last", "last_user", "calls", "content")),
        }
        total += self._template.fixed(facts, prompt.sizes[-1])
        if not self._template.placed & {"tool", "function"}:
            total += prompt.sizes[-1]["tool"]
        if self._show.get("renderer"):
            total += self._built_in_code(prompt)
        return total + self._messages(prompt, 0) + 2 + len(prompt.roles) // _MESSAGES_PER_SLACK

    def _built_in_code(self, prompt: _Prompt) -> int:
        """What a renderer inside the server may add."""
        tools = prompt.sizes[-1]["tool"]
        calls = sum(sizes["call"] + sizes["thinking"] + sizes["named"] for sizes in prompt.sizes)
        around = _RENDERER + _RENDERER_MESSAGE * len(prompt.roles) + _RENDERER_TOOLS * bool(tools)
        return around + _RENDERER_TIMES * (tools + calls)

    def _messages(self, prompt: _Prompt, first: int) -> int:
        placed = self._template.placed
        elsewhere = [name for name in ("content", "thinking") if name not in placed]
        # An output such as `.ID` or a whole call among the calls counts as the whole call.
        elsewhere += [] if placed & {"call", "name", "arguments"} else ["call"]
        elsewhere += ["named"] if self._template.names_tools else []
        return sum(
            sum(prompt.sizes[index][name] for name in elsewhere)
            + self._template.of_message(prompt.facts[index], prompt.sizes[index])
            for index in range(first, len(prompt.roles))
        )

    def _continued(self, observation: _Observation, prompt: _Prompt) -> int | None:
        """The observed count plus growth. What shrank earns nothing: the template may never have shown it."""
        seen = observation.prompt
        size = len(seen.roles)
        if (seen.tools, seen.think, seen.roles) != (prompt.tools, prompt.think, prompt.roles[:size]):
            return None
        # A system text moves to the front of many templates and opens a part of its own.
        had, has = ((p.facts[0]["system"] if p.facts else False) for p in (seen, prompt))
        if had != has or "system" in prompt.roles[size:]:
            return None
        growth = _CHANGED_SLACK if size < len(prompt.roles) else 0
        for index in range(size):
            old, new = seen.sizes[index], prompt.sizes[index]
            if old["call_count"] != new["call_count"]:
                return None
            if any(old[name] != new[name] for name in _TEXTS):
                growth += _CHANGED_SLACK + sum(max(0, new[name] - old[name]) for name in _TEXTS)
            # What was the last message may get an ending now.
            around = self._template.of_message(prompt.facts[index], {**new, **_NO_TEXTS})
            growth += max(0, around - self._template.of_message(seen.facts[index], {**new, **_NO_TEXTS}))
        return observation.tokens + growth + self._messages(prompt, size)


_TEXTS = ("content", "thinking", "call", "named")
_NO_TEXTS = dict.fromkeys(
    ("content", "thinking", "system", "call", "name", "arguments", "tool", "function"), 0
)


def _message_facts(messages: Sequence[WireMessage]) -> list[dict[str, bool | str | None]]:
    last_user = max(
        (index for index, message in enumerate(messages) if message.get("role") == "user"), default=-1
    )
    return [
        {
            "role": str(message.get("role", "")),
            "first": index == 0,
            "last": index == len(messages) - 1,
            "last_user": index == last_user,
            "after_last_user": index > last_user,
            "calls": bool(message.get("tool_calls")),
            "content": bool(message.get("content")),
            "thinking": bool(message.get("thinking")),
        }
        for index, message in enumerate(messages)
    ]


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Tokens of the texts in messages and tools. Go templates write compact JSON with HTML escapes."""

    count: Callable[[str], int]
    go: bool

    def whole(self, messages: Sequence[WireMessage], tools: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """What belongs to the prompt: all system texts joined, all tools."""
        system = [
            str(message.get("content") or "") for message in messages if message.get("role") == "system"
        ]
        return {
            "system": self.count("\n\n".join(system)) + _CHANGED_SLACK * len(system),
            "tool": sum(map(self._json, tools)),
            "function": sum(self._json(tool.get("function", tool)) for tool in tools),
            "tool_count": len(tools),
        }

    def message(self, message: WireMessage) -> dict[str, int]:
        calls = message.get("tool_calls") or ()
        functions = [call.get("function", {}) for call in calls]
        names = (message.get("tool_name"), message.get("tool_call_id"))
        return {
            "content": self._text(message.get("content")),
            "thinking": self._text(message.get("thinking")),
            "call": sum(map(self._json, calls)),
            "name": sum(self._text(function.get("name")) for function in functions),
            "arguments": sum(self._json(function.get("arguments", {})) for function in functions),
            "call_count": len(calls),
            "named": sum(map(self._text, names)),
        }

    def _text(self, text: Any) -> int:
        return self.count(text) if isinstance(text, str) and text else 0

    def _json(self, value: Any) -> int:
        compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
        spaced = json.dumps(value, ensure_ascii=False, default=str)
        if self.go:
            return (
                self.count(re.sub(r"[<>&]", lambda found: f"\\u{ord(found.group()):04x}", compact))
                + _JSON_SLACK
            )
        return max(self.count(compact), self.count(spaced))
