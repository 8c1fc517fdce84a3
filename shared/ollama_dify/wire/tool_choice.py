"""Making the model call a tool, or not: Ollama has no `tool_choice`, so a forced one becomes a `format`.

The answer is constrained to an object with one key, the tool's name, whose value is the arguments. The
name is the key because some servers reorder properties, so a `name` property could arrive last.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ..errors import ConfigurationError, IncompleteResponseError, ProtocolError
from .json_schema import inline_refs, tool_parameters
from .messages import Tool, ToolCall
from .responses import ChatChunk, ChatResult

__all__ = [
    "CallsOrAnswer",
    "ForcedCalls",
    "ToolPlan",
    "plan_calls_or_answer",
    "plan_tools",
    "read_tool_choice",
]

# The start of a JSON object up to the end of its first key.
_FIRST_KEY = re.compile(r'\s*\{\s*"((?:[^"\\]|\\.)*)"')
_RESERVED = {"any": "required", "required": "required", "auto": "auto", "none": "none"}
_NO_KEY = re.compile(r'\s*(?:[^\s{]|\{\s*[^\s"])')


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """What to send for a choice: the tools to offer, and the format that forces one of `names`.

    may_answer: the format also allows an answer in a form of its own.
    """

    tools: tuple[Tool, ...] = ()
    format: dict[str, Any] | None = None
    may_answer: bool = False

    @property
    def forced(self) -> bool:
        return self.format is not None and not self.may_answer

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(tool.name for tool in self.tools)


def plan_tools(tools: Sequence[Tool], choice: str | None) -> ToolPlan:
    """The plan for a choice: None or "auto", "none", "required" (or "any"), or a tool's name.

    Raises ConfigurationError for two tools of one name, a choice without tools and an unknown name.
    """
    names = [tool.name for tool in tools]
    if double := {name for name in names if names.count(name) > 1}:
        raise ConfigurationError(
            f"Two tools are called {min(double)!r}; their calls could not be told apart. Rename one."
        )
    if choice is None or choice == "auto":
        return ToolPlan(tuple(tools))
    if choice == "none":
        return ToolPlan()
    chosen = tuple(tools) if choice in ("required", "any") else tuple(t for t in tools if t.name == choice)
    if not chosen:
        known = ", ".join(names) if names else "there are none"
        raise ConfigurationError(f"tool_choice={choice!r} names no tool; the tools: {known}.")
    forms = _forms(chosen)
    return ToolPlan(chosen, forms[0] if len(forms) == 1 else {"anyOf": forms})


def read_tool_choice(choice: Any, names: Sequence[str]) -> str | None:
    """None, "auto", "none", "required" or a tool's name, out of any provider's way to say it.

    True asks for a call, False leaves it to the model. Raises ConfigurationError for an unknown name.
    """
    if choice is None or choice is False:
        return None
    if choice is True:
        return "required"
    name = choice
    if isinstance(choice, Mapping):
        # OpenAI has the name in `function`, Anthropic beside `type`, which alone may be the choice.
        function = choice.get("function")
        name = (function if isinstance(function, Mapping) else choice).get("name", choice.get("type"))
    if isinstance(name, str) and (name in names or name in _RESERVED):
        return name if name in names else _RESERVED[name]
    known = ", ".join(names) if names else "there are none"
    raise ConfigurationError(
        f"tool_choice={choice!r} names no tool; the tools: {known}.",
        hint='Use a tool\'s name, "any" (or "required", True), "auto" or "none".',
    )


def plan_calls_or_answer(plan: ToolPlan, answer: Any) -> ToolPlan:
    """The plan for tools the model may call and a `format` its answer must have.

    A server with a format allows no calls beside it, so what is sent allows a call's form or the answer's.
    Raises ConfigurationError for a property named like a tool.
    """
    schema = {"type": "object"} if answer == "json" else inline_refs(answer)
    if clash := set(plan.names) & set(schema.get("properties", ())):
        raise ConfigurationError(
            f"A tool and a property of format= are both called {min(clash)!r}, so a call could not be told "
            "from an answer. Rename one."
        )
    return ToolPlan(plan.tools, {"anyOf": [*_forms(plan.tools), schema]}, may_answer=True)


def _forms(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    return [
        {
            "type": "object",
            "properties": {tool.name: tool_parameters(tool.parameters)},
            "required": [tool.name],
            "additionalProperties": False,
        }
        for tool in tools
    ]


class ForcedCalls:
    """A chunk filter that holds the constrained text back and gives the call it spells at the end."""

    done = False

    def __init__(self, plan: ToolPlan) -> None:
        self._plan = plan
        self._text: list[str] = []
        self._called = False

    @property
    def held(self) -> str:
        return "".join(self._text)

    def feed(self, chunk: ChatChunk) -> ChatChunk:
        """The chunk without its text; the last one carries the call.

        Raises IncompleteResponseError for an answer that was cut, ProtocolError for one without the call.
        """
        if chunk.text:
            self._text.append(chunk.text)
        if chunk.tool_calls:
            self._called = True
            for call in chunk.tool_calls:
                if call.name not in self._plan.names:
                    raise self._refused(f"it called {call.name!r}")
        if chunk.finish is None or self._called or chunk.finish.reason in ("load", "unload"):
            return chunk._replace(text="")
        return chunk._replace(text="", tool_calls=(self._spelled(chunk),))

    def _spelled(self, last: ChatChunk) -> ToolCall:
        text = "".join(self._text)
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            if last.finish is not None and last.finish.reason == "length":
                raise IncompleteResponseError(
                    f"The call of {' or '.join(self._plan.names)} was cut off by the token limit.",
                    partial=ChatResult(text, finish=last.finish),
                    hint="Raise max_tokens or num_predict, or lower think.",
                ) from error
            raise self._refused(f"it answered {text[:80]!r}") from error
        if isinstance(value, dict) and len(value) == 1:
            ((name, arguments),) = value.items()
            if name in self._plan.names and isinstance(arguments, dict):
                return ToolCall(name, arguments, f"call_{uuid.uuid4().hex[:12]}")
        raise self._refused(f"it answered {text[:80]!r}")

    def _refused(self, what: str) -> ProtocolError:
        return ProtocolError(
            f"The model was to call {' or '.join(self._plan.names)}, but {what}.",
            partial=ChatResult("".join(self._text)),
            hint="The server may not enforce `format` for this model (cloud models do not). "
            "Leave tool_choice unset, or choose another model.",
        )


class CallsOrAnswer:
    """A chunk filter for `plan_calls_or_answer`: holds the text back until its first key tells a call from an
    answer, then gives the one as a call at the end, the other as it comes."""

    def __init__(self, plan: ToolPlan) -> None:
        self._plan = plan
        self._held = ""
        self._calls: ForcedCalls | None = None
        self.done = False

    @property
    def held(self) -> str:
        return self._held if self._calls is None else self._calls.held

    def feed(self, chunk: ChatChunk) -> ChatChunk:
        """The chunk as a part of the answer, or without its text and, at the end, with the call."""
        if self._calls is not None:
            return self._calls.feed(chunk)
        self._held += chunk.text
        key = _FIRST_KEY.match(self._held)
        if key and not chunk.tool_calls and key[1] in self._plan.names:
            self._calls = ForcedCalls(self._plan)
            return self._calls.feed(chunk._replace(text=self._held))
        if key or chunk.tool_calls or chunk.finish or _NO_KEY.match(self._held):
            self.done = True
            return chunk._replace(text=self._held)
        return chunk._replace(text="")
