"""What the simulated model says when no script tells it: rules over what was really sent."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import images
from ..faults import Reply
from . import calling, looking, reading, sources, values

_GREETING = re.compile(
    r"^\W*(?:hello|hi|hey|good (?:morning|evening|day)|greetings)\b[^?]{0,40}$", re.IGNORECASE
)
_THANKS = re.compile(r"\b(?:thanks|thank you)\b", re.IGNORECASE)
_LOOKS = re.compile(
    r"\b(?:image|image|photo|see|shown?|logo|colou?r|drawing|chart)\b|画像|写真|图", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Question:
    """A request as the model sees it."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    format: Any = None
    thinking: bool = False


def compose(question: Question) -> Reply:
    """The answer to a question: JSON if asked for, tool results, tool calls, else text."""
    asked = _last_user(question.messages)
    if question.format is not None:
        text = _formatted(question, asked)
        return _with_thought(f"The user wants JSON about: {_short(asked)}", text, question)
    results = _results_since_asked(question.messages)
    if question.tools:
        done = _called_since_asked(question.messages) if results else ()
        calls = calling.calls_for(asked, question.tools, done)
        if not calls and not _GREETING.match(asked):
            calls = calling.form_for(asked, question.tools, done, results)
        if calls:
            names = ", ".join(dict.fromkeys(call["name"] for call in calls))
            return Reply(thinking=f"To answer this I call {names}.\n", tool_calls=tuple(calls))
    if results:
        label = "The tool answered" if len(results) == 1 else "The tools answered"
        return _with_thought("The tool has answered.", f"{label}: {'; '.join(results)}", question)
    return _with_thought(f"The user asks: {_short(asked)}", _plain(question, asked), question)


def _with_thought(thought: str, text: str, question: Question) -> Reply:
    return Reply(text, thinking=f"{thought}\n" if question.thinking else None)


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""


def _last_user(messages: Sequence[Mapping[str, Any]]) -> str:
    return next((_text(message) for message in reversed(messages) if message.get("role") == "user"), "")


def _since_asked(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    since: list[Mapping[str, Any]] = []
    for message in reversed(messages):
        if message.get("role") == "user":
            break
        since.insert(0, message)
    return since


def _results_since_asked(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    if not messages or messages[-1].get("role") != "tool":
        return []
    return [_text(message) for message in _since_asked(messages) if message.get("role") == "tool"]


def _called_since_asked(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        call["function"].get("name", "")
        for message in _since_asked(messages)
        for call in message.get("tool_calls") or ()
        if isinstance(call.get("function"), Mapping)
    ]


def _short(text: str) -> str:
    line = " ".join(reading.take_apart(text).question.split())
    return line if len(line) <= 200 else f"{line[:197]}..."


def _formatted(question: Question, asked: str) -> str:
    results = _results_since_asked(question.messages)
    seen = _seen(question.messages, asked)
    source = "\n".join([*results, asked, *([seen] if seen else [])])
    if question.format == "json":
        return json.dumps(_any_object(source), ensure_ascii=False)
    return json.dumps(_instance(question.format, source, asked), ensure_ascii=False)


def _instance(schema: Mapping[str, Any], source: str, asked: str) -> Any:
    choice = _named_choice(schema, asked)
    if choice is not None:
        name, arguments = choice
        functions = [
            {"function": {"name": name, "parameters": {**arguments, "$defs": schema.get("$defs", {})}}}
        ]
        calls = calling.calls_for(f"{asked}\nUse the tool {name}.", functions)
        if calls:
            return {name: calls[0]["arguments"]}
    return values.Filler(sources.Source(source), schema).fill(schema)


def _named_choice(schema: Mapping[str, Any], asked: str) -> tuple[str, Mapping[str, Any]] | None:
    """The best of several one-key objects, `{tool name: arguments}`, which is how a tool choice is forced."""
    options = schema.get("anyOf") or schema.get("oneOf") or ()
    keyed: list[tuple[str, Mapping[str, Any]]] = []
    for option in options:
        properties = values.resolve(option, schema).get("properties") or {}
        if len(properties) != 1:
            return None
        name, inner = next(iter(properties.items()))
        keyed.append((name, values.resolve(inner, schema)))
    if not keyed or not all(isinstance(inner, Mapping) and "properties" in inner for _, inner in keyed):
        return None
    spoken = [f"{values.spread_name(name)} {inner.get('description', '')}" for name, inner in keyed]
    exact = next((index for index, (name, _) in enumerate(keyed) if name in asked), None)
    return keyed[reading.most_alike(asked, spoken) if exact is None else exact]


def _any_object(text: str) -> dict[str, Any]:
    written = values.schema_in(text)
    if written is not None:
        schema, rest = written
        return values.Filler(sources.Source(rest), schema).object(schema)
    keys = re.findall(r"['\"`](\w+)['\"`](?=[^.\n]*\b(?:keys?|fields?)\b)", text)
    if not keys:
        named = re.search(r"\b(?:keys?|fields?|with|containing)\b[: ]+((?:\w+(?:,\s*|\s+and\s+))*\w+)", text)
        keys = re.split(r",\s*(?:and\s+)?|\s+and\s+", named[1]) if named else ["answer"]
    bare = re.sub("|".join(rf"['\"`]{re.escape(key)}['\"`]" for key in keys), " ", text)
    filler = values.Filler(sources.Source(bare), {})
    numeric = re.compile(r"age|count|number|year|price|amount|total|score|id$|size")
    return {
        key: filler.fill({"type": "integer" if numeric.search(key.lower()) else "string"}, key)
        for key in keys
    }


def _seen(messages: Sequence[Mapping[str, Any]], asked: str) -> str | None:
    """What there is to see: images of the last user message, or earlier ones if it is about them."""
    users = [message for message in messages if message.get("role") == "user"]
    recent = list(users[-1].get("images") or ()) if users else []
    if not recent and _LOOKS.search(asked):
        recent = [image for message in messages for image in message.get("images") or ()]
    seen = [looking.described(images.decoded(image)) for image in recent]
    known = [text for text in seen if text is not None]
    if not known:
        return None
    if len(known) == 1:
        return f"The image is {known[0]}."
    shown = "; ".join(f"image {number} is {text}" for number, text in enumerate(known, 1))
    return f"{shown[0].upper()}{shown[1:]}."


def _plain(question: Question, asked: str) -> str:
    seen = _seen(question.messages, asked)
    if seen is not None:
        return seen
    system = "\n\n".join(_text(message) for message in question.messages if message.get("role") == "system")
    if values.schema_in(asked) is not None and re.search(r"json", asked, re.IGNORECASE):
        return json.dumps(_any_object(asked), ensure_ascii=False)
    if _GREETING.match(asked):
        return "Hello! How can I help you today?"
    read = reading.take_apart(asked)
    found = reading.best_sentences(read.question, read.context) if read.context else []
    if not found and system:
        found = reading.best_sentences(read.question, system)
    if found:
        return " ".join(found)
    return _remembered(question.messages, read.question) or _polite(asked, has_context=bool(read.context))


def _remembered(messages: Sequence[Mapping[str, Any]], asked: str) -> str | None:
    """What an earlier turn said about it."""
    said: list[tuple[str, str]] = []
    for message in messages[:-1]:
        role = str(message.get("role"))
        if role in ("user", "assistant"):
            told = reading.sentences(_text(message))
            said.extend((role, sentence) for sentence in told if not sentence.endswith(("?", "？")))
    scored = [
        (reading.overlap(asked, sentence), role == "user", index)
        for index, (role, sentence) in enumerate(said)
    ]
    best = max(scored, default=(0, False, 0))
    if best[0] == 0:
        return None
    role, sentence = said[best[2]]
    return reading.to_second_person(sentence) if role == "user" else sentence


def _polite(asked: str, *, has_context: bool) -> str:
    line = _short(asked)
    if has_context:
        return f"The given context does not answer this question: {line}"
    if _THANKS.search(line):
        return "You are welcome! Is there anything else I can do for you?"
    ending = "" if line.endswith((".", "?", "!", "。", "？")) else "."
    return f"I am a simulated model, so here is a simulated answer to: {line}{ending}"
