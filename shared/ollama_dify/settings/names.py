"""Error messages for unknown argument names and for pydantic's validation errors. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

from ..errors import ConfigurationError

__all__ = ["FOREIGN_NAMES", "configuration_error", "unknown_name"]

# Names in other libraries and in Ollama's options → our fields.
FOREIGN_NAMES: Mapping[str, str] = {
    "api_base": "base_url",
    "api_key_from_env": 'api_key_env="OLLAMA_API_KEY"',
    "baseURL": "base_url",
    "base_uri": "base_url",
    "host": "base_url",
    "ollama_host": "base_url",
    "url": "base_url",
    "client_kwargs": "headers, timeout, verify or proxy",
    "sync_client_kwargs": "headers, timeout, verify or proxy",
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
    "ollama_additional_kwargs": "options",
    "reasoning": "think",
    "thinking": "think",
    "request_timeout": "timeout",
    "validate_model_on_init": "warmup() after construction",
}


# Fields of several types, for which pydantic lists one error per type.
_TAKES: Mapping[str, str] = {
    "timeout": "a number of seconds greater than 0, a Timeouts, or None",
    "keep_alive": 'seconds as a number, or a text with a unit such as "10m"',
    "think": 'True, False, "low", "medium", "high" or "max"',
    "format": '"json" or a JSON schema as a dict',
    "allow_image_paths": "True, False or a directory",
    "stop": "a text or a list of texts",
}

# Names that are given elsewhere, or do not exist here.
_ELSEWHERE: Mapping[str, str] = {
    "images": "images go into the messages, as content blocks or as user(text, Image.from_path(…))",
    "skip_failed": "it is an argument of embed(texts, skip_failed=True)",
    "http_backend": "the library has one HTTP transport of its own; leave it out",
    "prompt_key": "a prompt template is filled before the call; leave it out",
}

# A longer text may be a secret in the wrong place.
_SHOWN_LENGTH = 12


def configuration_error(cls: type[BaseModel], error: ValidationError) -> ConfigurationError:
    """Pydantic's validation error as ours; values that may be secret are not shown."""
    by_field: dict[str, list[ErrorDetails]] = {}
    for found in error.errors(include_url=False):
        by_field.setdefault(str(found["loc"][0]) if found["loc"] else "", []).append(found)
    said = {line: None for name, found in by_field.items() for line in _lines(cls, name, found)}
    # Only an error of ours has a second line, its hint.
    message, _line, hint = "; ".join(sorted(said, key=lambda line: "\n" in line)).partition("\n")
    return ConfigurationError(f"{cls.__name__}: {message}", hint=hint or None)


def _lines(cls: type[BaseModel], name: str, found: list[ErrorDetails]) -> list[str]:
    """The errors of one field; the name "" means the whole object."""
    if found[0]["type"] == "extra_forbidden":
        return [unknown_name(name, cls.model_fields)]
    ours = [one for one in found if one["type"] == "value_error"]
    inner = [one for one in found if len(one["loc"]) > 2]
    if name in _TAKES and not ours and not inner:
        return [f"{name}: takes {_TAKES[name]}{_shown(cls, name, found[0]['input'])}"]
    lines = []
    for one in ours or inner or found:
        text = one["msg"].removeprefix("Value error, ").partition(", unable to")[0]
        # Our own errors, passed through pydantic, already begin with a class name.
        text = text.removeprefix(f"{cls.__name__}: ").removeprefix("Timeouts: ")
        if one["type"] not in ("value_error", "missing"):
            text += _shown(cls, name, one["input"])
        place = ".".join(map(str, (name, *one["loc"][2 if name in _TAKES else 1 :]))).strip(".")
        lines.append(text if not place or text.startswith(f"{place} ") else f"{place}: {text}")
    return lines


def _shown(cls: type[BaseModel], name: str, value: Any) -> str:
    """The refused value, if it is short and its field is not secret."""
    field = cls.model_fields.get(name)
    if field is None or not field.repr or name in ("base_url", "api_key_env"):
        return ""
    is_short = isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 10**_SHOWN_LENGTH)
    if is_short or (isinstance(value, str) and len(value) <= _SHOWN_LENGTH):
        return f", not {value!r}"
    if isinstance(value, str):
        return f", not a text of {len(value)} characters"
    return f", not a value of type {type(value).__name__}"


def unknown_name(name: str, known: Mapping[str, Any]) -> str:
    """The message for an unknown argument, with the closest known name."""
    if name in _ELSEWHERE:
        return f"{name!r} is no setting: {_ELSEWHERE[name]}"
    ours = FOREIGN_NAMES.get(name, "")
    # Not every kind of settings has each of these fields.
    if re.split(r"\W", ours)[0] in (*known, "warmup"):
        return f"unknown argument {name!r}: here it is called {ours}"
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(known))}"
    return f"unknown argument {name!r}{hint}"
