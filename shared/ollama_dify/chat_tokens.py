"""How many tokens a conversation costs: exactly from the rendered prompt, else as an upper bound.

Messages and tools are plain wire JSON, so that nothing else of the core is needed. Images are given apart, as
(width, height) in pixels or None where unknown.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .tokens import TokenCount, TokenizerLike

if TYPE_CHECKING:
    from ._vocabulary.template_cost import TemplateCost

__all__ = ["UNKNOWN_IMAGE_TOKENS", "ChatOverhead", "count_rendered", "image_tokens"]

Size = tuple[int, int]
WireMessage = Mapping[str, Any]

UNKNOWN_IMAGE_TOKENS = 4096
"""Assumed for a picture where nothing tells its cost: llama.cpp's own limit for one."""

_IMAGE_TAG = re.compile(r"\[img-(\d+)\]")
_OBSERVATIONS = 64
_JSON_SLACK = 2
"""Tokens that a server may add to one tool or call when it writes it anew."""
_CHANGED_SLACK = 2
"""Tokens that a changed text may gain where it meets its neighbours."""
_MESSAGES_PER_SLACK = 6
"""Texts counted apart can be a token cheaper than joined, about once in a hundred joints."""


def count_rendered(tokenizer: TokenizerLike, rendered: str, image_costs: Sequence[int] = ()) -> TokenCount:
    """Tokens of a prompt that the server rendered (`_debug_render_only`); exact where no picture is in it.

    The server puts `[img-N]` for each picture and reads the texts between them apart.
    """
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
    if len(texts) == 1:
        return TokenCount(tokenizer.count(rendered), tokenizer.exact)
    around = _around(tokenizer)
    return TokenCount(around + sum(map(tokenizer.count_text, texts)) + images, exact=False)


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
    """An upper bound for the prompt tokens of a conversation that nobody rendered.

    It starts from the literal text of the model's template and tightens with every answer's count: a
    conversation that continues or resembles an observed one costs at most what that one cost, plus what is
    longer or new.
    """

    _tokenizer: TokenizerLike
    _template: TemplateCost
    _system: str
    _thinks: bool | None
    _observations: tuple[_Observation, ...] = ()

    @classmethod
    def from_show(cls, show: Mapping[str, Any], tokenizer: TokenizerLike) -> ChatOverhead:
        """From the `template` and `system` of a `/api/show` answer; a missing template adds nothing."""
        # Imported when something is counted, which most programs never do.
        from ._vocabulary.template_cost import TemplateCost

        template = show.get("template")
        system = show.get("system")
        capabilities = show.get("capabilities")
        return cls(
            tokenizer,
            TemplateCost(template if isinstance(template, str) else "", tokenizer.count_text),
            system if isinstance(system, str) else "",
            "thinking" in capabilities if isinstance(capabilities, Sequence) else None,
        )

    def bound(
        self,
        messages: Sequence[WireMessage],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | str | None = None,
        image_costs: Sequence[int] = (),
    ) -> TokenCount:
        """At least as many tokens as the server will report. Never exact."""
        prompt = self._prompt(messages, tools, think)
        candidates = [self._start(prompt)]
        for observation in self._observations:
            continued = self._continued(observation, prompt)
            if continued is not None:
                candidates.append(continued)
        return TokenCount(min(candidates) + sum(image_costs), exact=False)

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

        Not for prompts that the server may have cut, whose count says nothing about the whole. With pictures,
        nothing is learned: their costs are bounds themselves.
        """
        if image_costs or prompt_tokens <= 0:
            return self
        prompt = self._prompt(messages, tools, think)
        kept = tuple(seen for seen in self._observations if seen.prompt != prompt)
        return replace(self, _observations=(*kept, _Observation(prompt, prompt_tokens))[-_OBSERVATIONS:])

    def _prompt(
        self, messages: Sequence[WireMessage], tools: Sequence[Mapping[str, Any]], think: bool | str | None
    ) -> _Prompt:
        if self._system and not any(message.get("role") == "system" for message in messages):
            messages = [{"role": "system", "content": self._system}, *messages]
        # Where `think` is left out, the server thinks if the model can.
        thinks = self._thinks if think is None else bool(think)
        shared: dict[str, bool | str | None] = {
            "tools": bool(tools),
            "system": any(message.get("role") == "system" and message.get("content") for message in messages),
            "think": thinks,
            "think_set": True if think is not None else self._thinks,
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
        return total + self._messages(prompt, 0) + 2 + len(prompt.roles) // _MESSAGES_PER_SLACK

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


def image_tokens(show: Mapping[str, Any], size: Size | None = None) -> int:
    """Tokens that one picture of `size` (width, height in pixels) costs at most.

    From `projector_info`, or the `<architecture>.vision.*` keys of `model_info` where the model brings its
    own picture encoder. Geometry as in llama.cpp; `UNKNOWN_IMAGE_TOKENS` where the projector is unknown.
    """
    projector = show.get("projector_info") or {}
    info = show.get("model_info") or {}
    architecture = str(info.get("general.architecture", ""))
    prefix, source = ("clip", projector) if projector else (architecture, info)

    def number(name: str, default: int) -> int:
        value = source.get(f"{prefix}.{name}")
        return value if isinstance(value, int) and value > 0 else default

    kind = str(projector.get("clip.projector_type", "") or architecture)
    patch = number("vision.patch_size", 14)
    edge = number("vision.image_size", 0)
    grid = math.ceil(edge / patch) ** 2
    if kind.startswith("gemma3"):
        return number("mm.tokens_per_image", 256) + 4
    if kind.startswith(("qwen2vl", "qwen2.5vl", "qwen25vl", "qwen3vl")):
        return _by_pixels(size, patch * number("vision.spatial_merge_size", 2)) + 2
    if kind in ("pixtral", "mistral3"):
        merge = number("vision.spatial_merge_size", number("spatial_merge_size", 1))
        side = math.ceil((edge or 1540) / (patch * merge))
        return side * (side + 1)
    if not edge:
        return UNKNOWN_IMAGE_TOKENS
    if kind in ("mlp", "mlp_norm"):
        pinpoints = source.get("clip.vision.image_grid_pinpoints")
        return grid * (1 + _tiles(pinpoints, edge))
    if kind in ("ldp", "ldpv2"):
        return math.ceil(grid / 4)
    return max(UNKNOWN_IMAGE_TOKENS, grid)


def _by_pixels(size: Size | None, cell: int) -> int:
    """One token per cell of pixels; small pictures are enlarged, large ones reduced by the server."""
    if size is None:
        return UNKNOWN_IMAGE_TOKENS
    width, height = (math.ceil(edge / cell) + 1 for edge in size)
    return min(UNKNOWN_IMAGE_TOKENS, max(64, width * height))


def _tiles(pinpoints: Any, edge: int) -> int:
    """Tiles of the largest picture size in a list of width, height, width, height …"""
    if not isinstance(pinpoints, Sequence) or isinstance(pinpoints, str):
        return 0
    pairs = zip(pinpoints[::2], pinpoints[1::2], strict=False)
    return max((math.ceil(width / edge) * math.ceil(height / edge) for width, height in pairs), default=0)
