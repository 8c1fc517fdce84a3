"""Structured answers: what of one is JSON, and what to say to a model whose answer is not valid. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

_MOST_PROBLEMS = 10
_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*?)(?:\n[ \t]*)?```", re.DOTALL | re.IGNORECASE)


def read_json(text: str) -> Any:
    """The value of an answer: what stands in its first fence (```json), else all of it. ValueError."""
    text = text.strip()
    fence = None if text.startswith(("{", "[", '"')) else _FENCE.search(text)
    # Models write line breaks into JSON texts, which is the only thing that is let pass.
    return json.loads(text if fence is None else fence[1].strip(), strict=False)


def correction(problem: BaseException, schema: Mapping[str, Any] | None = None) -> str:
    """The request to answer again, which names what was wrong.

    problem: pydantic's ValidationError, of either version, is told place by place, ten places at most; of
    another error, the first line. schema: told too, where the server did not hold the answer to it. Both
    frameworks send this text.
    """
    told = "\n".join(f"- {line}" for line in _problems(problem))
    said = f"That is not valid:\n{told}\nAnswer again with the whole corrected JSON and nothing else."
    return said if schema is None else f"{said}\n{schema_request(schema)}"


def schema_request(schema: Mapping[str, Any]) -> str:
    """The schema as words for the model, for servers that ignore `format` (cloud models, some engines)."""
    written = orjson.dumps(schema).decode()
    return f"Answer with one JSON value that satisfies this JSON schema, and nothing else:\n{written}"


def _problems(problem: BaseException) -> list[str]:
    list_errors: Any = getattr(problem, "errors", None)
    if not callable(list_errors):
        return [str(problem).partition("\n")[0] or type(problem).__name__]
    found = list_errors()
    lines = []
    for one in found[:_MOST_PROBLEMS]:
        place = ".".join(map(str, one["loc"]))
        lines.append(f"{place}: {one['msg']}" if place else str(one["msg"]))
    left = len(found) - len(lines)
    return [*lines, f"{left} more"] if left else lines
