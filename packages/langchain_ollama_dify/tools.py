"""LangChain's tools and tool choices in the core's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.utils.function_calling import convert_to_openai_tool

from ollama_dify import ConfigurationError, Tool

__all__ = ["ToolLike", "core_tool", "core_tool_choice", "openai_tools"]

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

    ToolLike = dict[str, Any] | type | Callable[..., Any] | BaseTool
else:
    # LangChain's base class of tools takes long to import, and whoever has a tool has imported it.
    ToolLike = Any

# Of a tool given as a dict: OpenAI's, Anthropic's, and a JSON schema's own.
_OWN_TYPES = ("function", "custom", "object")
_RESERVED = {"any": "required", "required": "required", "auto": "auto", "none": "none"}


def openai_tools(tools: Sequence[ToolLike], *, strict: bool | None = None) -> list[dict[str, Any]]:
    """Any tool LangChain knows in OpenAI's form, which traces and caches show.

    strict: narrow each schema as OpenAI's strict mode does; Ollama has no field for the flag itself.
    Raises ConfigurationError for a tool that only another provider's servers run.
    """
    return [_openai_tool(tool, strict) for tool in tools]


def core_tool(tool: Any) -> Tool:
    """A tool in any of LangChain's forms in the core's words."""
    function = _openai_tool(tool, None)["function"]
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    return Tool(function["name"], function.get("description") or "", parameters)


def _openai_tool(tool: Any, strict: bool | None) -> dict[str, Any]:
    kind = tool.get("type", "custom") if isinstance(tool, Mapping) else "custom"
    try:
        if kind not in _OWN_TYPES:
            raise ValueError("it runs on another provider's servers")
        converted = convert_to_openai_tool(tool, strict=strict)
        if not isinstance(converted["function"]["name"], str):
            raise TypeError("it has no name")
        return converted
    except (KeyError, TypeError, ValueError) as error:
        label = f"type {kind!r}" if kind != "custom" else type(tool).__name__
        raise ConfigurationError(
            f"This tool ({label}) cannot be offered to an Ollama model: {error}.",
            hint="Pass a function, a pydantic class, a BaseTool or a dict with name and parameters.",
        ) from error


def core_tool_choice(choice: Any, names: Sequence[str]) -> str | None:
    """None, "auto", "none", "required" or a tool's name, out of any provider's way to say it.

    True asks for a call, False leaves it to the model. Raises ConfigurationError for an unknown name.
    """
    if choice is None or choice is False:
        return None
    if choice is True:
        return "required"
    name = _named(choice) if isinstance(choice, Mapping) else choice
    if isinstance(name, str):
        if name in names:
            return name
        if name in _RESERVED:
            return _RESERVED[name]
    known = ", ".join(names) if names else "there are none"
    raise ConfigurationError(
        f"tool_choice={choice!r} names no tool; the tools: {known}.",
        hint='Use a tool\'s name, "any" (or "required", True), "auto" or "none".',
    )


def _named(choice: Mapping[str, Any]) -> Any:
    """The name: OpenAI has it in `function`, Anthropic beside `type`, which alone may be the choice."""
    function = choice.get("function")
    if isinstance(function, Mapping):
        return function.get("name")
    return choice.get("name", choice.get("type"))
