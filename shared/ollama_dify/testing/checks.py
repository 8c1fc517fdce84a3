"""What the server checks in a request, with the texts of its errors."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, Literal

import orjson

from . import wire
from .responses import nested, refuse

Body = dict[str, Any]
# Go type → the kind of JSON that it takes, and the request fields of that type.
_GO_TYPES: Mapping[str, tuple[str, str]] = {
    "string": (
        "string",
        "model prompt suffix system template role content thinking tool_name",
    ),
    "bool": ("bool", "stream truncate shift logprobs raw verbose insecure"),
    "int": ("number", "top_logprobs dimensions"),
    "[]api.Message": ("array", "messages"),
    "api.Tools": ("array", "tools"),
    "map[string]interface {}": ("object", "options"),
}
_TYPE_OF = {name: go_type for go_type, (_, names) in _GO_TYPES.items() for name in names.split()}
_ANSWERED = "model stream options truncate shift logprobs top_logprobs"
_FIELDS: Mapping[str, str] = {
    "ChatRequest": f"{_ANSWERED} messages tools",
    "GenerateRequest": f"{_ANSWERED} prompt suffix system template raw",
    "EmbedRequest": "model truncate dimensions options",
    "ShowRequest": "model verbose",
    "PullRequest": "model insecure stream",
    "Alias": "role content thinking tool_name",
}
_INTEGERS = """
num_keep seed num_predict top_k repeat_last_n num_ctx num_batch num_gpu main_gpu num_thread draft_num_predict
"""
_FLOATS = "temperature top_p min_p typical_p repeat_penalty presence_penalty frequency_penalty"
_OPTIONS: Mapping[str, Literal["integer", "float32", "boolean", "array"]] = {
    **dict.fromkeys(_INTEGERS.split(), "integer"),
    **dict.fromkeys(_FLOATS.split(), "float32"),
    "use_mmap": "boolean",
    "stop": "array",
}
_GO_KINDS = {"integer": "number", "float32": "number", "boolean": "bool", "array": "array"}
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")
# A grammar too large: unrecorded; texts and limits are those that users report of 0.21 and 0.32.
_COUNTED = ("minItems", "maxItems", "minLength", "maxLength")
_OLD_REPETITIONS, _MODERN_REPETITIONS = 2000, 1999
_NO_VOCABULARY = "failed to load model vocabulary required for format"
_NO_GRAMMAR = "Failed to initialize samplers: failed to parse grammar"
THINK_LEVELS = ("high", "medium", "low", "max")


def parse_body(raw: bytes, kind: str) -> Body:
    """The request's JSON object, its fields of the right types."""
    if not raw.strip():
        raise refuse(400, "missing request body")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise refuse(400, _syntax_error(raw)) from None
    if body is None:
        return {}
    if not isinstance(body, dict):
        found = wire.go_kind(body)
        raise refuse(400, f"json: cannot unmarshal {found} into Go value of type api.{kind}")
    _check_fields(body, kind)
    return body


def _syntax_error(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace")
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        at = error.pos
        if at >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
            return "unexpected EOF"
        return f"invalid character {text[at]!r} looking for beginning of value"
    except (RecursionError, ValueError):
        return "exceeded max depth"
    return "invalid UTF-8 in request"


def _check_fields(body: Mapping[str, Any], struct: str) -> None:
    for name in _FIELDS[struct].split():
        value, go_type = body.get(name), _TYPE_OF[name]
        found = wire.go_kind(value)
        if value is not None and found != _GO_TYPES[go_type][0]:
            where = f"Go struct field {struct}.{name} of type {go_type}"
            raise refuse(400, f"json: cannot unmarshal {found} into {where}")


def check_messages(messages: list[Any]) -> None:
    """Every message's fields, as the decoder reports them."""
    for message in messages:
        if not isinstance(message, dict):
            found = wire.go_kind(message)
            raise refuse(400, f"json: cannot unmarshal {found} into Go struct field ChatRequest.messages")
        _check_fields(message, "Alias")
        check_images(message.get("images"), "Alias.images")
        for call in message.get("tool_calls") or ():
            arguments = (call.get("function") or {}).get("arguments") if isinstance(call, dict) else None
            if isinstance(arguments, str):
                raise refuse(400, "Value looks like object, but can't find closing '}' symbol")


def check_images(images: Any, where: str) -> None:
    """Go's base64 forgives line breaks, and nothing else."""
    for number, image in enumerate(images or ()):
        if not isinstance(image, str):
            raise refuse(400, f"json: cannot unmarshal {wire.go_kind(image)} into {where}.{number}")
        text = image.replace("\n", "").replace("\r", "")
        stray = re.search(r"[^A-Za-z0-9+/]", text.rstrip("="))
        try:
            if stray is not None:
                raise binascii.Error
            base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))
        except binascii.Error:
            at = len(text) if stray is None else stray.start()
            message = (
                f"json: cannot unmarshal string into {where}.{number} of type api.ImageData: "
                f"illegal base64 data at input byte {at}"
            )
            raise refuse(400, message) from None


def keep_alive(body: Mapping[str, Any], default_s: float) -> float:
    """Seconds to stay loaded; negative means for ever."""
    value = body.get("keep_alive")
    if value is None:
        return default_s
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise refuse(400, "invalid type")
    if isinstance(value, (int, float)):
        return float(value)
    return _go_duration(value)


def _go_duration(text: str) -> float:
    sign = -1.0 if text.startswith("-") else 1.0
    bare = text.lstrip("+-")
    if bare == "0":
        return 0.0
    if re.fullmatch(r"\d+\.?\d*|\.\d+", bare):
        raise refuse(400, f'time: missing unit in duration "{text}"')
    parts = list(_DURATION.finditer(bare))
    if not parts or "".join(part.group() for part in parts) != bare:
        raise refuse(400, f'time: invalid duration "{text}"')
    return sign * sum(float(part[1]) * _UNITS[part[2]] for part in parts)


def think(body: Mapping[str, Any]) -> bool | None:
    """The think switch: levels count as true; None means not given."""
    value = body.get("think")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value in THINK_LEVELS:
        return True
    if isinstance(value, str):
        levels = ", ".join(f'"{level}"' for level in THINK_LEVELS)
        raise refuse(400, f"invalid think value: {wire.quoted(value)} (must be {levels}, true, or false)")
    raise refuse(400, 'think must be a boolean or string ("high", "medium", "low", "max", true, or false)')


def options(given: Any) -> dict[str, Any]:
    """Known options with the server's types; unknown ones and nulls are skipped, wrong types are a 500."""
    checked: dict[str, Any] = {}
    for name, value in (given or {}).items():
        kind = _OPTIONS.get(name)
        if kind is None or value is None:
            continue
        if wire.go_kind(value) != _GO_KINDS[kind]:
            raise refuse(500, f'option "{name}" must be of type {kind}')
        if kind == "array" and not all(isinstance(item, str) for item in value):
            raise refuse(500, f'option "{name}" must be of an array of strings')
        checked[name] = int(value) if kind == "integer" else value
    return checked


def format_of(body: Mapping[str, Any], *, modern: bool, late_stream: bool) -> Any:
    """None, "json" or a JSON schema; what the grammar cannot be made of is refused as the version does it."""
    wanted = body.get("format")
    if wanted in (None, ""):
        return None
    if wanted == "json":
        return "json"
    if not isinstance(wanted, dict):
        shown = wire.quoted(wire.dumps(wanted).decode())
        text = f'invalid format: {shown}; expected "json" or a valid JSON Schema object'
        raise refuse(500, text, late_stream=late_stream)
    problem = schema_problem(wanted, wanted)
    if problem is not None:
        text = f"Field 'json_schema': \"json_schema\": JSON schema conversion failed:\n{problem}"
        error = nested(400, text, "invalid_request_error") if modern else "invalid JSON schema in format"
        raise refuse(400 if modern else 500, error, late_stream=late_stream)
    if _most_repeated(wanted) > (_MODERN_REPETITIONS if modern else _OLD_REPETITIONS):
        error = nested(400, _NO_GRAMMAR, "invalid_request_error") if modern else _NO_VOCABULARY
        raise refuse(400 if modern else 500, error, late_stream=late_stream)
    return wanted


def _most_repeated(schema: Any) -> int:
    """The highest count that a schema asks for, which the grammar writes out item by item."""
    if isinstance(schema, list):
        return max(map(_most_repeated, schema), default=0)
    if not isinstance(schema, Mapping):
        return 0
    own = [schema[key] for key in _COUNTED if isinstance(schema.get(key), int)]
    return max([*own, *map(_most_repeated, schema.values())], default=0)


_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


def schema_problem(schema: Any, root: Mapping[str, Any]) -> str | None:
    """What keeps a schema from becoming a grammar, None if nothing does."""
    if not isinstance(schema, Mapping):
        return None
    shown = orjson.dumps(dict(schema)).decode()
    kind = schema.get("type")
    if isinstance(kind, str) and kind not in _TYPES:
        return f"Unrecognized schema: {shown}"
    target = schema.get("$ref")
    if isinstance(target, str):
        missing = _missing_step(target, root)
        return f"Error resolving ref {target}: {missing} not in {shown}" if missing else None
    inner: list[Any] = [*(schema.get("properties") or {}).values(), schema.get("items")]
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        inner.extend(schema.get(key) or ())
    return next((problem for part in inner if (problem := schema_problem(part, root)) is not None), None)


def _missing_step(target: str, root: Mapping[str, Any]) -> str | None:
    node: Any = root
    for step in target.removeprefix("#/").split("/"):
        if not isinstance(node, Mapping) or step not in node:
            return step
        node = node[step]
    return None
