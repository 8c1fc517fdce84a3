"""Values for a JSON schema, drawn from a text where it has any that fit. `pattern` is not obeyed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import reading
from .sources import DATE, EMAIL, NUMBER, QUOTED, TIME, URL, WIDE, Source

Schema = Mapping[str, Any]
_WHOLE_TEXT = re.compile(
    r"^(?:q|query|question|input|prompt|text|search\w*|message|request|content|task|topic)$|_(?:query|text|question)$"
)
_SHAPED = (
    (EMAIL, {"email", "mail"}),
    (URL, {"uri", "url", "link"}),
    (DATE, {"date", "day", "date-time"}),
    (TIME, {"time"}),
)
_DEPTH = 6


@dataclass(frozen=True, slots=True)
class Filler:
    """Fills schemas from one source; `eager` also fills what is optional."""

    source: Source
    root: Schema
    eager: bool = True

    def fill(self, schema: Any, name: str = "", depth: int = 0) -> Any:
        """A value that fits the schema."""
        schema = resolve(schema, self.root)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._choice(schema["enum"])
        options = schema.get("anyOf") or schema.get("oneOf")
        if options:
            return self._option(schema, options, name, depth)
        for part in schema.get("allOf") or ():
            schema = {**schema, **resolve(part, self.root)}
        kind = schema.get("type") or ("object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = next((one for one in kind if one != "null"), "null")
        if kind == "object":
            return self.object(schema, depth)
        if kind == "array":
            return self._array(schema, name, depth)
        if kind in ("integer", "number"):
            return self._number(schema, name, whole=kind == "integer")
        fixed: dict[str, Any] = {"boolean": True, "null": None}
        return fixed[kind] if kind in fixed else self._string(schema, name)

    def object(self, schema: Schema, depth: int = 0) -> dict[str, Any]:
        """An object: what is required, and what is optional if eager or evident."""
        properties, required = schema.get("properties") or {}, set(schema.get("required") or ())
        return {
            name: self.fill(inner, name, depth + 1)
            for name, inner in properties.items()
            if name in required or (self.eager and depth < _DEPTH) or self._is_evident(inner, name)
        }

    def _is_evident(self, schema: Any, name: str) -> bool:
        words = resolve(schema, self.root).get("enum") or _name_words(name)
        text = self.source.text.lower()
        return any(re.search(rf"\b{re.escape(str(word).lower())}\b", text) for word in words)

    def _option(self, schema: Schema, options: list[Any], name: str, depth: int) -> Any:
        real = [resolve(option, self.root) for option in options]
        real = [option for option in real if option.get("type") != "null"]
        if not real or (depth >= _DEPTH and len(real) < len(options)):
            return None
        described = [
            spread_name(" ".join([option.get("title", ""), *(option.get("properties") or {})]))
            for option in real
        ]
        return self.fill(real[reading.most_alike(self.source.text, described)], name, depth)

    def _choice(self, values: list[Any]) -> Any:
        text = self.source.text.lower()
        at = {index: text.find(str(value).lower()) for index, value in enumerate(values)}
        found = [index for index, place in at.items() if place >= 0]
        return values[min(found, key=lambda index: at[index])] if found else values[0]

    def _array(self, schema: Schema, name: str, depth: int) -> list[Any]:
        items = resolve(schema.get("items") or {}, self.root)
        kind, made = items.get("type"), list[Any]()
        if kind in ("integer", "number"):
            while (found := self.source.take(NUMBER)) is not None:
                made.append(_as_number(found, whole=kind == "integer"))
        elif kind == "string" and not items.get("enum"):
            while (found := self.source.take(QUOTED) or self.source.take_proper()) is not None:
                made.append(found)
        wanted = max(int(schema.get("minItems", 0)), 0 if depth >= _DEPTH else 1)
        while len(made) < wanted:
            made.append(self.fill(items, name.removesuffix("s"), depth + 1))
        return made[: schema.get("maxItems")]

    def _number(self, schema: Schema, name: str, *, whole: bool) -> int | float:
        found = self.source.take(NUMBER, near=next(iter(_name_words(name)), ""))
        value = _as_number(found, whole=whole) if found is not None else schema.get("default", 1)
        step = 1 if whole else 0.5
        low = schema.get("minimum", schema.get("exclusiveMinimum", value - step) + step)
        high = schema.get("maximum", schema.get("exclusiveMaximum", value + step) - step)
        value = min(max(value, low), high)
        return int(value) if whole else value

    def _string(self, schema: Schema, name: str) -> str:
        value = self._found_string(schema, name)
        if value is None:
            what = " ".join(_name_words(name)) or "value"
            topic = reading.topic([self.source.text]) or "nothing to say"
            value = str(schema.get("default") or f"Simulated {what}: {topic}")
        value = value + "." * max(0, int(schema.get("minLength", 0)) - len(value))
        return value[: schema.get("maxLength")]

    def _found_string(self, schema: Schema, name: str) -> str | None:
        shapes = {str(schema.get("format", "")), *_name_words(name)}
        for pattern, hints in _SHAPED:
            if shapes & hints and (found := self.source.take(pattern)) is not None:
                return found
        assigned = self._assigned(name)
        if assigned is not None:
            return assigned
        quoted = self.source.take(QUOTED)
        if quoted is not None:
            return quoted
        if _WHOLE_TEXT.search(name.lower()):
            return self.source.text.strip()
        return self.source.take(WIDE) or self.source.take_proper()

    def _assigned(self, name: str) -> str | None:
        """What stands behind the name: `city: Oslo`, `a dog named Rex`."""
        for word in (name, name.replace("_", " "), *_name_words(name)):
            found = re.search(
                rf"\b{re.escape(word)}\b(?:\s*[:=]\s*|\s+(?:is|as|named|called)\s+)[\"']?"
                r"([^\"'\n,.;?]{1,80}?)[\"']?(?=[\n,.;?\"']|\s+and\b|$)",
                self.source.text,
                re.IGNORECASE,
            )
            if found and not found[1].isspace():
                self.source.used.add(found.span(1))
                return found[1].strip()
        return None


def resolve(schema: Any, root: Schema) -> Schema:
    """The schema behind a $ref; `true` and what is no schema allow anything."""
    for _ in range(16):
        if not isinstance(schema, Mapping) or not isinstance(schema.get("$ref"), str):
            break
        node: Any = root
        for step in schema["$ref"].removeprefix("#").strip("/").split("/"):
            node = node.get(step, {}) if step and isinstance(node, Mapping) else node
        schema = node
    return schema if isinstance(schema, Mapping) else {}


def schema_in(text: str) -> tuple[dict[str, Any], str] | None:
    """The last JSON schema written out in a text, and the text without it."""
    decoder, found, at = json.JSONDecoder(), None, text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError):
            end = at + 1
        else:
            # Instructions of both frameworks show a schema with a property "foo" as an example.
            if isinstance(value.get("properties"), dict) and "foo" not in value["properties"]:
                found = value, text[:at] + text[end:]
        at = text.find("{", end)
    return found


def spread_name(text: str) -> str:
    """`getWeather_now` → `get Weather now`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_\-.]+", " ", text)


def _name_words(name: str) -> list[str]:
    return [word for word in spread_name(name).lower().split() if len(word) > 1]


def _as_number(text: str, *, whole: bool) -> int | float:
    value = float(text.replace(",", ""))
    return int(value) if whole or (value.is_integer() and "." not in text) else value
