"""Names of arguments that do not exist, and pydantic's findings, said in our words. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import ConfigurationError

__all__ = ["FOREIGN_NAMES", "configuration_error", "unknown_name"]

# What other libraries, and Ollama's own options, call our fields.
FOREIGN_NAMES: Mapping[str, str] = {
    "api_base": "base_url",
    "baseURL": "base_url",
    "base_uri": "base_url",
    "host": "base_url",
    "ollama_host": "base_url",
    "url": "base_url",
    "client_kwargs": "headers, timeout, verify or proxy",
    "context_length": "context_size",
    "context_window": "context_size",
    "n_ctx": "context_size",
    "num_ctx": "context_size",
    "embed_batch_size": "batch_size",
    "json_mode": 'format="json"',
    "response_format": "format",
    "max_output_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "model_id": "model",
    "model_name": "model",
    "model_kwargs": "options",
    "additional_kwargs": "options",
    "reasoning": "think",
    "thinking": "think",
    "request_timeout": "timeout",
    "validate_model_on_init": "warmup() after construction",
}


def configuration_error(cls: type[BaseModel], error: ValidationError) -> ConfigurationError:
    """Say pydantic's findings in our words, without the values, which may be secret."""
    lines = []
    for found in error.errors(include_input=False, include_url=False):
        place = ".".join(str(step) for step in found["loc"])
        if found["type"] == "extra_forbidden":
            lines.append(unknown_name(place, cls.model_fields))
            continue
        text = found["msg"].removeprefix("Value error, ")
        lines.append(f"{place}: {text}" if place else text)
    what = f"{cls.__name__}: " + "; ".join(dict.fromkeys(lines))
    return ConfigurationError(what)


def unknown_name(name: str, known: Mapping[str, Any]) -> str:
    """Name an argument that does not exist and the closest one that does."""
    if name in FOREIGN_NAMES:
        return f"unknown argument {name!r}: here it is called {FOREIGN_NAMES[name]}"
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(known))}"
    return f"unknown argument {name!r}{hint}"
