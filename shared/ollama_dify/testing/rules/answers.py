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
    done, results = _since_asked(question.messages)
    if question.tools:
        calls = [] if done else calling.calls_for(asked, question.tools)
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


def _since_asked(messages: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """The tools called since the last user message and their results; none unless a result is last."""
    called: list[str] = []
    results: list[str] = []
    for message in messages:
        if message.get("role") == "user":
            called, results = [], []
        elif message.get("role") == "tool":
            results.append(_text(message))
        called += [(call.get("function") or {}).get("name", "") for call in message.get("tool_calls") or ()]
    return (called, results) if messages and messages[-1].get("role") == "tool" else ([], [])


def _short(text: str) -> str:
    line = " ".join(reading.take_apart(text)[0].split())
    return line if len(line) <= 200 else f"{line[:197]}..."


def _formatted(question: Question, asked: str) -> str:
    _, results = _since_asked(question.messages)
    seen = _seen(question.messages, asked)
    source = "\n".join([*results, asked, *([seen] if seen else [])])
    if question.format == "json":
        return json.dumps(_any_object(source), ensure_ascii=False)
    made = values.Filler(sources.Source(source), question.format).fill(question.format)
    return json.dumps(made, ensure_ascii=False)


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
    return f"{'; '.join(f'Image {number} is {text}' for number, text in enumerate(known, 1))}."


def _plain(question: Question, asked: str) -> str:
    seen = _seen(question.messages, asked)
    if seen is not None:
        return seen
    system = "\n\n".join(_text(message) for message in question.messages if message.get("role") == "system")
    if values.schema_in(asked) is not None and re.search(r"json", asked, re.IGNORECASE):
        return json.dumps(_any_object(asked), ensure_ascii=False)
    if _GREETING.match(asked):
        return "Hello! How can I help you today?"
    wanted, context = reading.take_apart(asked)
    found = reading.best_sentences(wanted, context) or reading.best_sentences(wanted, system)
    if found:
        return " ".join(found)
    return _remembered(question.messages, wanted) or _polite(asked, has_context=bool(context))


def _remembered(messages: Sequence[Mapping[str, Any]], asked: str) -> str | None:
    """What an earlier turn said about it, the user's turns first."""
    told = [
        (reading.overlap(asked, sentence), message["role"] == "user", place, sentence)
        for place, message in enumerate(messages[:-1])
        if message.get("role") in ("user", "assistant")
        for sentence in reading.sentences(_text(message))
        if not sentence.endswith(("?", "？"))
    ]
    score, *_, best = max(told, default=(0, None))
    return best if score else None


def _polite(asked: str, *, has_context: bool) -> str:
    line = _short(asked)
    if has_context:
        return f"The given context does not answer this question: {line}"
    ending = "" if line.endswith((".", "?", "!", "。", "？")) else "."
    return f"I am a simulated model, so here is a simulated answer to: {line}{ending}"
