"""Convert LangChain's tools to the core's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.utils.function_calling import convert_to_openai_tool

from ollama_dify import ConfigurationError, Tool

__all__ = ["NOT_OBJECTS", "ToolLike", "core_tool", "openai_tools"]

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

    ToolLike = dict[str, Any] | type | Callable[..., Any] | BaseTool
else:
    # LangChain's base class of tools takes long to import, and a program with tools has imported it.
    ToolLike = Any

# JSON schemas that are no object.
NOT_OBJECTS = ("array", "string", "integer", "number", "boolean", "null")
# Of a tool given as a dict: OpenAI's, Anthropic's, and a JSON schema's own.
_OWN_TYPES = ("function", "custom", "object")


def openai_tools(tools: Sequence[ToolLike], *, strict: bool | None = None) -> list[dict[str, Any]]:
    """Any tool LangChain knows in OpenAI's form, which traces and caches show.

    strict: narrow each schema as OpenAI's strict mode does; Ollama has no field for the flag itself.
    Raises ConfigurationError for a tool that only another provider's servers run.
    """
    return [_openai_tool(tool, strict) for tool in tools]


def core_tool(tool: Any) -> Tool:
    """A tool in any of LangChain's forms as the core's `Tool`."""
    function = _openai_tool(tool, None)["function"]
    return Tool(function["name"], function.get("description") or "", function.get("parameters") or {})


def _openai_tool(tool: Any, strict: bool | None) -> dict[str, Any]:
    kind = tool.get("type", "custom") if isinstance(tool, Mapping) else "custom"
    try:
        if kind in NOT_OBJECTS:
            raise ValueError("a tool's arguments are an object")
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
