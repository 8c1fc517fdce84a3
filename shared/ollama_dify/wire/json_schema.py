"""JSON schemas as Ollama accepts them: without references."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UnsupportedContentError

# Pydantic repeats each name as a title, which the server drops.
_SAYS_NOTHING = "title"
_FIRST = ("type", "description", "enum", "items", "properties", "required")


def inline_refs(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with each local `$ref` replaced by its target, and without `$defs`.

    The server drops `$defs` of a tool's parameters, so a reference would point nowhere. Keywords next to
    a reference win over those of its target. Raises UnsupportedContentError for a reference that is not
    local and for a schema that contains itself, which cannot be written without references.
    """
    try:
        resolved = _resolve(schema, schema, ())
    except RecursionError:
        deep = "The schema is nested too deeply to be sent.\nGive the deeper levels a schema of their own."
        raise UnsupportedContentError(deep) from None
    return {key: value for key, value in resolved.items() if key not in _DEFINITIONS}


def tool_parameters(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A tool's parameters as they are sent; a tool without parameters gets an empty object."""
    return inline_refs({"type": "object", "properties": {}, **schema})


_DEFINITIONS = ("$defs", "definitions")
# Keywords whose value is data or definitions, not a schema.
_NOT_SCHEMAS = (*_DEFINITIONS, "const", "default", "enum", "examples")
# Keywords whose value is an object with the user's own names as keys.
_NAMED_SCHEMAS = ("properties", "patternProperties", "dependentSchemas")


def _resolve(node: Any, root: Mapping[str, Any], path: tuple[str, ...], keyword: str = "") -> Any:
    if isinstance(node, list) and keyword not in _NOT_SCHEMAS:
        return [_resolve(item, root, path) for item in node]
    if not isinstance(node, Mapping) or keyword in _NOT_SCHEMAS:
        return node
    if keyword in _NAMED_SCHEMAS:
        return {name: _resolve(schema, root, path) for name, schema in node.items()}
    reference = node.get("$ref")
    if not isinstance(reference, str):
        # Always in the same order, so that the same tool makes the same prompt.
        first = [key for key in _FIRST if key in node]
        order = [*first, *(key for key in node if key not in (*_FIRST, _SAYS_NOTHING))]
        return {key: _resolve(node[key], root, path, key) for key in order}
    if reference in path:
        raise UnsupportedContentError(
            f"The schema contains itself through {reference!r}, which Ollama cannot take.\n"
            "Limit the depth: give the nested level a schema of its own."
        )
    target = _resolve(_lookup(root, reference), root, (*path, reference))
    beside = {key: _resolve(value, root, path, key) for key, value in node.items() if key != "$ref"}
    return {**target, **beside} if isinstance(target, dict) else target


def _lookup(root: Mapping[str, Any], reference: str) -> Any:
    """The part of the schema that a JSON pointer such as `#/$defs/City` names (RFC 6901)."""
    node: Any = root
    first, *steps = reference.split("/")
    try:
        for step in steps if first == "#" else [reference]:
            key = step.replace("~1", "/").replace("~0", "~")
            node = node[int(key)] if isinstance(node, list) else node[key]
    except (LookupError, TypeError, ValueError):
        raise UnsupportedContentError(
            f"The schema refers to {reference!r}, which is not in it.\n"
            "Only references within the schema (#/$defs/…) can be sent."
        ) from None
    return node
