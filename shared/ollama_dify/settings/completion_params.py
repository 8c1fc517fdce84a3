"""An app's parameters for a model, Dify's `completion_params` → keyword arguments of the settings. Pure.

    {"num_ctx": 8192, "think_level": "high"}  →  {"context_size": 8192, "think": "high"}

The table of which parameter goes where is in docs/dify.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigurationError

__all__ = ["PARAMETERS", "is_missing", "settings_from_completion_params"]

# Parameter → our setting. A later one wins: `think_level` over `think`, as in Dify, a schema over `format`.
PARAMETERS: Mapping[str, str] = {
    **{
        name: name
        for name in (
            *("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "repeat_last_n", "seed", "stop"),
            *("mirostat", "mirostat_eta", "mirostat_tau", "tfs_z", "num_gpu", "num_thread", "num_predict"),
            *("keep_alive", "format", "think"),
        )
    },
    "num_ctx": "context_size",
    "json_schema": "format",
    "think_level": "think",
}


def settings_from_completion_params(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keyword arguments of ChatSettings, and the parameters for which there is none.

    None and blank values are left out. Raises ConfigurationError for a `json_schema` that is none; the
    settings check the other values.
    """
    values: dict[str, Any] = {}
    for name, setting in PARAMETERS.items():
        if name in params and not is_missing(params[name]):
            values[setting] = _value(name, params[name])
    return values, {name: value for name, value in params.items() if name not in PARAMETERS}


def is_missing(value: Any) -> bool:
    """None and a blank text: the form's field was left empty."""
    return value is None or (isinstance(value, str) and not value.strip())


def _value(name: str, value: Any) -> Any:
    if name == "json_schema":
        return _schema(value)
    if not isinstance(value, str) or name == "stop":
        return value
    text = value.strip()
    if name in ("keep_alive", "mirostat") and re.fullmatch(r"[+-]?[0-9]{1,12}", text):
        # Ollama takes seconds as a number only.
        return int(text)
    return text


def _schema(value: Any) -> dict[str, Any]:
    schema = value
    if isinstance(value, str):
        try:
            schema = json.loads(value)
        except (ValueError, RecursionError):
            schema = None
    if not isinstance(schema, dict):
        raise ConfigurationError(
            "The parameter 'json_schema' is no JSON object.",
            hint='It holds a schema as text, for example {"type": "object", "properties": {…}}.',
        )
    return schema
