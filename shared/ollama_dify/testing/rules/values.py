"""Values for a JSON schema, drawn from a text where it has any that fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import reading
from .patterns import sample
from .sources import DATE, EMAIL, NUMBER, QUOTED, TIME, URL, WIDE, Source

Schema = Mapping[str, Any]
_WHOLE_TEXT = re.compile(
    r"^(?:q|query|question|input|prompt|text|search\w*|message|request|content|task|topic)$|_(?:query|text|question)$"
)
_AFTERWARDS = re.compile(r"desc|reason|summary|note|comment|detail|explan")
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
        if not isinstance(schema, Mapping):
            return None
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._choice(schema["enum"])
        options = schema.get("anyOf") or schema.get("oneOf")
        if options:
            return self._option(schema, options, name, depth)
        if schema.get("allOf"):
            return self.fill(_merged(schema, self.root), name, depth)
        return self._typed(schema, name, depth)

    def _typed(self, schema: Schema, name: str, depth: int) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((one for one in kind if one != "null"), "null")
        if kind is None:
            kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
        if kind == "object":
            return self.object(schema, depth)
        if kind == "array":
            return self._array(schema, name, depth)
        if kind in ("integer", "number"):
            return self._number(schema, name, whole=kind == "integer")
        if kind == "boolean":
            return self._truth(name)
        return None if kind == "null" else self._string(schema, name)

    def object(self, schema: Schema, depth: int = 0) -> dict[str, Any]:
        """An object: what is required, and what is optional if eager or evident."""
        properties = schema.get("properties") or {}
        required = set(schema.get("required") or ())
        made: dict[str, Any] = {}
        for name, inner in properties.items():
            if name in required or (self.eager and depth < _DEPTH) or self._is_evident(inner, name):
                made[name] = self.fill(inner, name, depth + 1)
        if not properties and isinstance(schema.get("additionalProperties"), Mapping) and depth < _DEPTH:
            made["key"] = self.fill(schema["additionalProperties"], "key", depth + 1)
        return made

    def _is_evident(self, schema: Any, name: str) -> bool:
        schema = resolve(schema, self.root)
        if not isinstance(schema, Mapping):
            return False
        text = self.source.text.lower()
        mentioned = any(re.search(rf"\b{re.escape(word)}\b", text) for word in _name_words(name))
        if schema.get("enum"):
            return any(
                isinstance(v, str) and re.search(rf"\b{re.escape(v.lower())}\b", text) for v in schema["enum"]
            )
        return mentioned

    def _option(self, schema: Schema, options: list[Any], name: str, depth: int) -> Any:
        real = [resolve(option, self.root) for option in options]
        real = [option for option in real if option.get("type") != "null"]
        if not real or (depth >= _DEPTH and len(real) < len(options)):
            return None
        if len(real) > 1:
            described = [f"{' '.join(_names_in(option))} {option.get('description', '')}" for option in real]
            best = reading.most_alike(self.source.text, [spread_name(text) for text in described])
            return self.fill(real[best], name, depth)
        return self.fill({**real[0], "title": schema.get("title", name)}, name, depth)

    def _choice(self, values: list[Any]) -> Any:
        text = self.source.text.lower()
        at = {index: text.find(str(value).lower()) for index, value in enumerate(values)}
        found = [index for index, place in at.items() if place >= 0]
        return values[min(found, key=lambda index: at[index])] if found else values[0]

    def _array(self, schema: Schema, name: str, depth: int) -> list[Any]:
        items = resolve(schema.get("items") or {}, self.root)
        least, most = int(schema.get("minItems", 0)), schema.get("maxItems")
        kind = items.get("type") if isinstance(items, Mapping) else None
        made: list[Any] = []
        if kind in ("integer", "number"):
            while (found := self.source.take(NUMBER)) is not None:
                made.append(_as_number(found, whole=kind == "integer"))
        elif kind == "string" and not items.get("enum"):
            while (quoted := self.source.take(QUOTED)) is not None:
                made.append(quoted)
            while not made or self.source.proper_names():
                proper = self.source.take_proper()
                if proper is None:
                    break
                made.append(proper)
        wanted = max(least, 0 if depth >= _DEPTH else 1)
        while len(made) < wanted:
            made.append(self.fill(items, name.removesuffix("s"), depth + 1))
        return made if most is None else made[: int(most)]

    def _number(self, schema: Schema, name: str, *, whole: bool) -> int | float:
        words = _name_words(name)
        found = self.source.take(NUMBER, near=words[0] if words else "")
        value = _as_number(found, whole=whole) if found is not None else schema.get("default", 1)
        low, high = schema.get("minimum"), schema.get("maximum")
        step = 1 if whole else 0.5
        if schema.get("exclusiveMinimum") is not None:
            low = schema["exclusiveMinimum"] + step
        if schema.get("exclusiveMaximum") is not None:
            high = schema["exclusiveMaximum"] - step
        if low is not None and value < low:
            value = low
        if high is not None and value > high:
            value = high
        multiple = schema.get("multipleOf")
        if multiple:
            value = value // multiple * multiple
            value += multiple if low is not None and value < low else 0
        return int(value) if whole else value

    def _truth(self, name: str) -> bool:
        word = _name_words(name)[0] if _name_words(name) else name
        return (
            re.search(
                rf"\b(?:no|not|without|don't|never|false)\b[^.]*\b{re.escape(word)}", self.source.text, re.I
            )
            is None
        )

    def _string(self, schema: Schema, name: str) -> str:
        value = self._found_string(schema, name)
        if value is None:
            value = (
                schema["default"] if isinstance(schema.get("default"), str) else self._invented(schema, name)
            )
        least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
        pattern = schema.get("pattern")
        if pattern is not None and re.search(pattern, value) is None:
            value = sample(pattern)
        value = value + "." * max(0, least - len(value))
        return value if most is None else value[: int(most)]

    def _found_string(self, schema: Schema, name: str) -> str | None:
        shape, lower = schema.get("format", ""), name.lower()
        for pattern, hints in ((EMAIL, ("email", "mail")), (URL, ("uri", "url", "link"))):
            if shape in hints or any(hint in lower for hint in hints):
                found = self.source.take(pattern)
                if found is not None:
                    return found
        if shape in ("date", "date-time") or "date" in lower.split("_") or "day" in lower.split("_"):
            return self.source.take(DATE) or self._assigned(name)
        if shape == "time" or "time" in lower.split("_"):
            return self.source.take(TIME) or self._assigned(name)
        assigned = self._assigned(name)
        if assigned is not None:
            return assigned
        if _AFTERWARDS.search(lower):
            return self._afterwards()
        quoted = self.source.take(QUOTED)
        if quoted is not None:
            return quoted
        if _WHOLE_TEXT.search(lower):
            return self.source.text.strip()
        return self.source.take(WIDE) or self.source.take_proper()

    def _assigned(self, name: str) -> str | None:
        for word in (name, name.replace("_", " "), *_name_words(name)):
            found = re.search(
                rf"\b{re.escape(word)}\b(?:\s*[:=]\s*|\s+(?:is|as|named|called)\s+)[\"']?([^\"'\n,.;?]{{1,80}}?)[\"']?(?=[\n,.;?\"']|\s+and\b|$)",
                self.source.text,
                re.IGNORECASE,
            )
            if found and not found[1].isspace():
                self.source.used.add(found.span(1))
                return found[1].strip()
        return None

    def _afterwards(self) -> str | None:
        found = re.search(r"(?:\s[-–—]\s|[:：]\s)(\S.*)$", self.source.text, re.DOTALL)
        return found[1].strip() if found else None

    def _invented(self, schema: Schema, name: str) -> str:
        what = " ".join(_name_words(name)) or "value"
        return f"Simulated {what}: {reading.topic([self.source.text]) or 'nothing to say'}"


def resolve(schema: Any, root: Schema) -> Any:
    """The schema behind a $ref."""
    seen = 0
    while isinstance(schema, Mapping) and isinstance(schema.get("$ref"), str) and seen < 16:
        node: Any = root
        for step in schema["$ref"].removeprefix("#").strip("/").split("/"):
            if step:
                node = node.get(step, {}) if isinstance(node, Mapping) else {}
        schema, seen = node, seen + 1
    return schema


def _merged(schema: Schema, root: Schema) -> dict[str, Any]:
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema["allOf"]:
        for key, value in resolve(part, root).items():
            if key == "properties":
                merged[key] = {**merged.get(key, {}), **value}
            elif key == "required":
                merged[key] = [*merged.get(key, ()), *value]
            else:
                merged[key] = value
    return merged


def spread_name(text: str) -> str:
    """`getWeather_now` → `get Weather now`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_\-.]+", " ", text)


def _name_words(name: str) -> list[str]:
    return [word for word in spread_name(name).lower().split() if len(word) > 1]


def _names_in(schema: Schema) -> list[str]:
    return [schema.get("title", ""), *(schema.get("properties") or {})]


def _as_number(text: str, *, whole: bool) -> int | float:
    value = float(text.replace(",", ""))
    return int(value) if whole or (value.is_integer() and "." not in text) else value
