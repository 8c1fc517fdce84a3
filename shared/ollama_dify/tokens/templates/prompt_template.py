"""The prompts that a server may make of a conversation, rendered here from what it shows of the model.

Where versions or settings that are not known here make a difference, there are several.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .go_prompt import GoPrompt
from .go_values import Ordered, go_json
from .jinja_render import JinjaTemplate, Refused
from .rendering import DearestDate, NotRendered, Work
from .tool_schema import api_tool

__all__ = ["PromptTemplate", "template_of"]

WireMessage = Mapping[str, Any]
Think = bool | str | None

_DATES = {"datetime": "%b %d %Y", "date_string": "%d %b %Y"}
_TYPED = re.compile(r"\btext\b")
_PLACE = re.compile(r"\[img\]")


_FAILURES = (NotRendered, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""A template can be anything, so whatever Python says of one is that it was not understood."""


def template_of(show: Mapping[str, Any], count: Callable[[str], int]) -> PromptTemplate | None:
    """The template that a `/api/show` answer holds; None where it is not understood."""
    try:
        return PromptTemplate(show, count)
    except _FAILURES:
        return None


class PromptTemplate:
    """A model's template. Raises `NotRendered` for one that is not understood."""

    def __init__(self, show: Mapping[str, Any], count: Callable[[str], int]) -> None:
        template = show.get("template")
        if not isinstance(template, str) or show.get("renderer"):
            # Models with a renderer inside the server have a template that is not used.
            raise NotRendered("no template")
        self._text = template
        self._date = DearestDate(count)
        self._thinks = _thinks(show)
        self._names = _special_tokens(show)
        self._template = JinjaTemplate(template) if "{%" in template else GoPrompt(template)

    def prompts(
        self, messages: Sequence[WireMessage], tools: Sequence[Mapping[str, Any]], think: Think
    ) -> list[str]:
        """Every prompt that the server may make, none where that cannot be told.

        Images are `[img-0]`, `[img-1]` … in it.
        """
        try:
            return list(self._prompts(messages, tools, think))
        except _FAILURES:
            return []

    def _prompts(
        self, messages: Sequence[WireMessage], tools: Sequence[Mapping[str, Any]], think: Think
    ) -> Iterator[str]:
        read = [_message(message) for message in messages]
        template = self._template
        size = sum(len(message["content"]) for message in read) + len(str(tools))
        work = Work(len(read) + len(tools), size)
        if isinstance(template, GoPrompt):
            with_images = list(_with_places(read))
            for known in self._thinking(think):
                yield template.render(with_images, tools, known, self._date, work)
        else:
            yield from self._native(template, read, tools, think, work)

    def _thinking(self, think: Think) -> list[Think]:
        """Where it is left out, the server thinks if the model can."""
        if think is not None:
            return [think]
        return [True] if self._thinks else [None] if self._thinks is False else [None, True]

    def _native(
        self,
        template: JinjaTemplate,
        messages: Sequence[WireMessage],
        tools: Sequence[Mapping[str, Any]],
        think: Think,
        work: Work,
    ) -> Iterator[str]:
        """llama.cpp's own rendering: `common/chat.cpp` there, `llm/llama_server.go` in Ollama."""
        names = {
            **self._names,
            **{name: self._date(form) for name, form in _DATES.items() if name in self._text},
            **({"tools": [_native_tool(tool) for tool in tools]} if tools else {}),
        }
        turns = [_native_message(message, "<|channel|>" in self._text) for message in _with_images(messages)]
        thinkings = [known for known in self._thinking(think) if known is not None] or [True]
        for known in thinkings:
            told = {**names, "enable_thinking": bool(known)}
            if isinstance(known, str):
                told["reasoning_effort"] = known
            yield from self._asked(template, turns, told, work)

    def _asked(
        self, template: JinjaTemplate, turns: list[dict[str, Any]], names: dict[str, Any], work: Work
    ) -> Iterator[str]:
        asked = {**names, "add_generation_prompt": True}
        if turns[-1]["role"] != "assistant":
            yield from self._shaped(template, turns, asked, work)
            return
        # An answer begun is gone on with: the prompt is the whole up to its end, or the start of an answer
        # with the begun one behind it.
        yield from self._shaped(template, turns, names, work)
        if len(turns) > 1:
            for prompt in self._shaped(template, turns[:-1], asked, work):
                yield prompt + turns[-1]["content"]

    def _shaped(
        self, template: JinjaTemplate, turns: list[dict[str, Any]], names: dict[str, Any], work: Work
    ) -> Iterator[str]:
        """With the messages in each form that the template may want them in; at least one must do."""
        made = False
        try:
            prompt = self._tried(template, turns, names, work)
            made = True
            yield prompt
        except NotRendered:
            prompt = ""
        lost = any(turn["role"] == "system" and turn["content"].strip() not in prompt for turn in turns)
        forms = [_joined_system(turns)] if lost else []
        forms += [[_typed(turn) for turn in turns]] if _TYPED.search(self._text) else []
        for form in forms:
            try:
                yield self._tried(template, form, names, work)
                made = True
            except NotRendered:
                continue
        if not made:
            raise NotRendered("no form of the messages fits")

    def _tried(
        self, template: JinjaTemplate, turns: list[dict[str, Any]], names: dict[str, Any], work: Work
    ) -> str:
        """Arguments of calls are maps, or texts for a template that cannot do with maps."""
        try:
            return template.render({**names, "messages": turns}, self._date, work)
        except Refused:
            raise
        except NotRendered:
            if not any(turn.get("tool_calls") for turn in turns):
                raise
            return template.render({**names, "messages": list(map(_flat, turns))}, self._date, work)


def _thinks(show: Mapping[str, Any]) -> bool | None:
    capabilities = show.get("capabilities")
    return "thinking" in capabilities if isinstance(capabilities, Sequence) else None


def _special_tokens(show: Mapping[str, Any]) -> dict[str, str]:
    """`bos_token` and `eos_token`; empty where the vocabulary is not there."""
    info = show.get("model_info") or {}
    tokens = info.get("tokenizer.ggml.tokens")
    names = {"bos_token": "", "eos_token": ""}
    for name in ("bos", "eos"):
        index = info.get(f"tokenizer.ggml.{name}_token_id")
        if isinstance(tokens, Sequence) and isinstance(index, int) and 0 <= index < len(tokens):
            names[f"{name}_token"] = str(tokens[index])
    return names


def _message(message: WireMessage) -> dict[str, Any]:
    """A wire message with everything that a server may see of it."""
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        raise NotRendered("a content that is no text")
    return {
        "role": str(message.get("role", "")).lower(),
        "content": content if content is not None else "",
        "thinking": message.get("thinking") or "",
        "images": list(message.get("images") or ()),
        "tool_name": message.get("tool_name") or "",
        "tool_call_id": message.get("tool_call_id") or "",
        "tool_calls": [_call(call) for call in message.get("tool_calls") or ()],
    }


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, Mapping):
        raise NotRendered("arguments that are no object")
    return {
        "id": call.get("id") or "",
        "index": function.get("index") or 0,
        "name": function.get("name") or "",
        "arguments": dict(arguments or {}),
    }


def _with_places(messages: Sequence[WireMessage]) -> Iterator[WireMessage]:
    """Images in the places of `[img]`, the others before the text, as the server numbers them."""
    number = 0
    for message in messages:
        content, before = message["content"], ""
        for _ in message["images"]:
            tag = f"[img-{number}]"
            number += 1
            if _PLACE.search(content):
                content = _PLACE.sub(tag, content, count=1)
            else:
                before += tag
        yield {**message, "content": before + content}


def _with_images(messages: Sequence[WireMessage]) -> Iterator[WireMessage]:
    """Images behind the text."""
    number = 0
    for message in messages:
        tags = [f"[img-{number + index}]" for index in range(len(message["images"]))]
        number += len(tags)
        yield {**message, "content": message["content"] + "".join(tags)}


def _native_message(message: WireMessage, knows_developer: bool) -> dict[str, Any]:
    """What Ollama hands to llama.cpp: no thinking, arguments in their order."""
    role = message["role"]
    turn: dict[str, Any] = {
        "role": "system" if role == "developer" and not knows_developer else role,
        "content": message["content"],
    }
    if message["tool_name"]:
        turn["name"] = message["tool_name"]
    if message["tool_call_id"]:
        turn["tool_call_id"] = message["tool_call_id"]
    if message["tool_calls"]:
        turn["tool_calls"] = [
            {
                "type": "function",
                "function": {
                    "name": call["name"],
                    "arguments": json.loads(go_json(Ordered(call["arguments"]))),
                },
                **({"id": call["id"]} if call["id"] else {}),
            }
            for call in message["tool_calls"]
        ]
    return turn


def _native_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    read = json.loads(go_json(api_tool(tool)))
    function = read["function"]
    return {
        "type": "function",
        "function": {
            "name": function["name"],
            "description": function.get("description", ""),
            "parameters": function["parameters"],
        },
    }


def _flat(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn whose calls have their arguments as text."""
    calls = [
        {
            **call,
            "function": {
                **call["function"],
                "arguments": json.dumps(
                    call["function"]["arguments"], ensure_ascii=False, separators=(",", ":")
                ),
            },
        }
        for call in turn.get("tool_calls", ())
    ]
    return {**turn, "tool_calls": calls} if calls else turn


def _typed(turn: dict[str, Any]) -> dict[str, Any]:
    return {**turn, "content": [{"type": "text", "text": turn["content"]}]}


def _joined_system(turns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """System texts at the head of the message behind them, for templates that know no system role."""
    joined: list[dict[str, Any]] = []
    held: list[str] = []
    for turn in turns:
        if turn["role"] == "system":
            held.append(turn["content"])
        else:
            joined.append({**turn, "content": "\n".join([*held, turn["content"]])})
            held = []
    return [*joined, {"role": "user", "content": "\n".join(held)}] if held else joined
