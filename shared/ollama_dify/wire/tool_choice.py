"""Tool choice: Ollama has no `tool_choice`, so a forced call is written as a `format`.

The answer is constrained to an object with one key, the tool's name, whose value is the arguments. The
name is the key because some servers reorder properties, so a `name` property could arrive last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ..errors import ConfigurationError, IncompleteResponseError, ProtocolError
from .json_schema import inline_refs, tool_parameters
from .messages import Tool, ToolCall
from .responses import ChatChunk, ChatResult, Finish, new_call_id

# The start of a JSON object up to the end of its first key; and a text that cannot become one.
_FIRST_KEY = re.compile(r'\s*\{\s*"((?:[^"\\]|\\.)*)"')
_NO_KEY = re.compile(r'\s*(?:[^\s{]|\{\s*[^\s"])')
_RESERVED = {"any": "required", "required": "required", "auto": "auto", "none": "none"}


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """What to send for a choice: the tools to offer, and the format that forces one of `names`.

    may_answer: the format also allows an answer, by a schema of its own.
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


def read_tool_choice(choice: Any, names: Sequence[str]) -> str | None:
    """Any provider's tool choice as None, "auto", "none", "required" or a tool's name.

    True requires a call, False leaves it to the model. Raises ConfigurationError for an unknown name.
    """
    if choice is None or choice is False:
        return None
    name = "required" if choice is True else choice
    if isinstance(choice, Mapping):
        # OpenAI has the name in `function`, Anthropic next to `type`; without a name, `type` is the choice.
        function = choice.get("function")
        name = (function if isinstance(function, Mapping) else choice).get("name", choice.get("type"))
    if isinstance(name, str) and (name in names or name in _RESERVED):
        return name if name in names else _RESERVED[name]
    raise _unknown(choice, names)


def _unknown(choice: Any, names: Sequence[str]) -> ConfigurationError:
    known = ", ".join(names) if names else "there are none"
    return ConfigurationError(
        f"tool_choice={choice!r} names no tool; the tools: {known}.",
        hint='Use a tool\'s name, "any" (or "required", True), "auto" or "none".',
    )


def plan_tools(tools: Sequence[Tool], choice: str | None) -> ToolPlan:
    """The plan for a choice, as `read_tool_choice` takes it; ConfigurationError for two tools of one name."""
    names = [tool.name for tool in tools]
    if double := {name for name in names if names.count(name) > 1}:
        raise ConfigurationError(
            f"Two tools are called {min(double)!r}; their calls could not be told apart. Rename one."
        )
    choice = read_tool_choice(choice, names)
    if choice is None or choice == "auto":
        return ToolPlan(tuple(tools))
    if choice == "none":
        return ToolPlan()
    chosen = tuple(tool for tool in tools if choice in (tool.name, "required"))
    if not chosen:
        raise _unknown(choice, names)
    forms = _forms(chosen)
    return ToolPlan(chosen, forms[0] if len(forms) == 1 else {"anyOf": forms})


def plan_calls_or_answer(plan: ToolPlan, answer: Any) -> ToolPlan:
    """The plan for tools that the model may call together with a `format` for its answer.

    With a format the server allows no calls, so the format that is sent allows either a call or the answer.
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


class SpelledCalls:
    """A chunk filter that turns the constrained text of a plan into a tool call.

    held: the text, held back until its first key shows whether it is a call or an answer (if both are
    allowed). An answer is returned as it arrives, a call at the end.
    """

    def __init__(self, plan: ToolPlan) -> None:
        self.done = False
        self._names = plan.names
        self._is_call = plan.forced
        self._texts: list[str] = []
        self._called = False

    @property
    def held(self) -> str:
        return "".join(self._texts)

    def feed(self, chunk: ChatChunk) -> ChatChunk:
        """The chunk of an answer unchanged; of a call without its text, and at the end with the call."""
        self._texts.append(chunk.text)
        if not self._is_call:
            key = _FIRST_KEY.match(self.held)
            self._is_call = bool(key and key[1] in self._names and not chunk.tool_calls)
            if not self._is_call:
                self.done = bool(key or chunk.tool_calls or chunk.finish or _NO_KEY.match(self.held))
                return chunk._replace(text=self.held if self.done else "")
        for call in chunk.tool_calls:
            self._called = True
            if call.name not in self._names:
                raise self._refused(f"it called {call.name!r}")
        if chunk.finish is None or self._called or chunk.finish.reason in ("load", "unload"):
            return chunk._replace(text="")
        return chunk._replace(text="", tool_calls=(self._spelled(chunk.finish),))

    def _spelled(self, finish: Finish) -> ToolCall:
        text = self.held
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            if finish.reason == "length":
                raise IncompleteResponseError(
                    f"The call of {' or '.join(self._names)} was cut off by the token limit.",
                    partial=ChatResult(text, finish=finish),
                    hint="Raise max_tokens or num_predict, or lower think.",
                ) from error
            value = None
        if isinstance(value, dict) and len(value) == 1:
            ((name, arguments),) = value.items()
            if name in self._names and isinstance(arguments, dict):
                return ToolCall(name, arguments, new_call_id())
        raise self._refused(f"it answered {text[:80]!r}")

    def _refused(self, what: str) -> ProtocolError:
        return ProtocolError(
            f"The model was to call {' or '.join(self._names)}, but {what}.",
            partial=ChatResult(self.held),
            hint="The server may not enforce `format` for this model (cloud models do not). "
            "Leave tool_choice unset, or choose another model.",
        )
