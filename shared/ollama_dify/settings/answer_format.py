"""Convert any provider's description of the answer's format to the value of Ollama's `format`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from ..errors import ConfigurationError

__all__ = ["answer_format"]


def answer_format(value: Any) -> Any:
    """The value of Ollama's `format`: "json", a JSON schema, or None.

    value: also a pydantic class, OpenAI's `response_format`, a schema inside a function or another named
    wrapper. Any other value is returned unchanged. Raises ConfigurationError for a wrapper without a schema.
    """
    if isinstance(value, type) and issubclass(value, BaseModel):
        return value.model_json_schema()
    if not isinstance(value, Mapping):
        return value
    kind = value.get("type")
    if kind in ("text", "json_object"):
        return None if kind == "text" else "json"
    if kind in ("json_schema", "function") and isinstance(value.get(kind), Mapping):
        return answer_format(value[kind])
    for key in ("schema", "parameters", "input_schema"):
        if isinstance(value.get(key), Mapping) and ("name" in value or key == "schema"):
            return dict(value[key])
    if kind in ("json_schema", "function"):
        raise ConfigurationError(
            f"The answer's form of type {kind} holds no schema.",
            hint='Write {"type": "json_schema", "json_schema": {"schema": {…}}}, or give the schema itself.',
        )
    return dict(value)
