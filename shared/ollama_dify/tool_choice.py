"""Making the model call a tool, or not: Ollama has no `tool_choice`, so a forced one becomes a `format`.

The answer is constrained to an object with one key, the tool's name, whose value is the arguments. The
name is the key because some servers reorder properties, so a `name` property could arrive last.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from .errors import ConfigurationError, IncompleteResponseError, ProtocolError
from .messages import Tool, ToolCall
from .responses import ChatChunk, ChatResult
from .schema import inline_refs

__all__ = ["ForcedCalls", "ToolPlan", "plan_tools"]


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """What to send for a choice: the tools to offer, and the format that forces one of `names`."""

    tools: tuple[Tool, ...] = ()
    format: dict[str, Any] | None = None

    @property
    def forced(self) -> bool:
        return self.format is not None

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
    forms = [
        {
            "type": "object",
            "properties": {tool.name: inline_refs(tool.parameters)},
            "required": [tool.name],
            "additionalProperties": False,
        }
        for tool in chosen
    ]
    return ToolPlan(chosen, forms[0] if len(forms) == 1 else {"anyOf": forms})


class ForcedCalls:
    """A chunk filter that holds the constrained text back and gives the call it spells at the end."""

    done = False

    def __init__(self, plan: ToolPlan) -> None:
        self._plan = plan
        self._text: list[str] = []
        self._called = False

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
