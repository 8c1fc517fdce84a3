"""Any schema LangChain knows, as the value of Ollama's `format`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic
from langchain_core.utils.function_calling import convert_to_json_schema

from ollama_dify import ConfigurationError

__all__ = ["answer_format", "is_model", "response_format"]


def is_model(schema: Any) -> bool:
    """Whether the schema is a pydantic class, of version 2 or 1."""
    return isinstance(schema, type) and (
        issubclass(schema, pydantic.BaseModel) or (hasattr(schema, "parse_obj") and hasattr(schema, "schema"))
    )


def answer_format(schema: Any, *, strict: bool | None = None) -> Any:
    """The value of Ollama's `format`: "json" or a JSON schema.

    schema: "json", a JSON schema, an OpenAI or Anthropic function dict (unwrapped), a pydantic class of
    either version, or a TypedDict. strict: narrow the schema as OpenAI's strict mode does.
    """
    if schema is None or isinstance(schema, str):
        return schema
    if isinstance(schema, Mapping):
        inner = _unwrapped(schema)
        return convert_to_json_schema(dict(schema), strict=True) if strict else inner
    if strict or not is_model(schema):
        return convert_to_json_schema(schema, strict=strict)
    if issubclass(schema, pydantic.BaseModel):
        return schema.model_json_schema()
    return schema.schema()


def _unwrapped(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema inside a provider's way to name it."""
    for key in ("function", "json_schema"):
        if isinstance(schema.get(key), Mapping) and schema.get("type") in ("function", "json_schema"):
            return _unwrapped(schema[key])
    if isinstance(schema.get("name"), str):
        for key in ("parameters", "schema", "input_schema"):
            if isinstance(schema.get(key), Mapping):
                return dict(schema[key])
    return dict(schema)


def response_format(value: Any) -> Any:
    """OpenAI's `response_format`, which LangChain's agents pass on, as Ollama's `format`."""
    if isinstance(value, Mapping):
        kind = value.get("type")
        if kind == "text":
            return None
        if kind == "json_object":
            return "json"
        schema = value.get("json_schema")
        if (
            kind == "json_schema"
            and isinstance(schema, Mapping)
            and isinstance(schema.get("schema"), Mapping)
        ):
            return answer_format(schema["schema"])
        if kind == "json_schema":
            raise ConfigurationError(
                "response_format of type json_schema holds no schema.",
                hint='Write {"type": "json_schema", "json_schema": {"schema": {…}}}, or use format=.',
            )
    return answer_format(value)
