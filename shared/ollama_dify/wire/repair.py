"""Structured answers: find the JSON in one, and write the request to correct an invalid one. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

_MOST_PROBLEMS = 10
_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*?)(?:\n[ \t]*)?```", re.DOTALL | re.IGNORECASE)


def read_json(text: str) -> Any:
    """The JSON value of an answer: of its first fence (```json), else of all text. Raises ValueError."""
    text = text.strip()
    fence = None if text.startswith(("{", "[", '"')) else _FENCE.search(text)
    # strict=False: models write line breaks into JSON strings; only this error is accepted.
    return json.loads(text if fence is None else fence[1].strip(), strict=False)


def correction(problem: BaseException, schema: Mapping[str, Any] | None = None) -> str:
    """The request to answer again, which says what was wrong.

    problem: a ValidationError of pydantic 1 or 2 is listed by location, at most ten; of any other error, the
    first line. schema: added to the text, for a server that did not enforce it. Both frameworks send this
    text.
    """
    told = "\n".join(f"- {line}" for line in _problems(problem))
    said = f"That is not valid:\n{told}\nAnswer again with the whole corrected JSON and nothing else."
    return said if schema is None else f"{said}\n{schema_request(schema)}"


def schema_request(schema: Mapping[str, Any]) -> str:
    """The schema as text for the model, for servers that ignore `format` (cloud models, some engines)."""
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
