"""Prompts whose answer has a form of its own: ReAct steps, condensed questions, choices, schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from . import calling, reading, sources, values

CONCERNING = "concerning: "
_CONDENSE = re.compile(r"standalone (?:question|message)", re.IGNORECASE)
_FOLLOW_UP = re.compile(
    r"(?:Follow[ -]Up (?:Input|Message|Question)\s*[:>]|follow up question:)\s*(?P<ask>.+?)\s*"
    r"(?:<?Standalone|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_VAGUE = re.compile(
    r"\b(?:it|its|he|she|they|them|their|that|this|those|one|there)\b|^\W*(?:and|what about|how about)\b",
    re.I,
)
_REACT_TOOL = re.compile(
    r"> Tool Name:\s*(?P<name>\S+)\s*\n\s*Tool Description:\s*(?P<text>.*?)\n\s*"
    r"Tool Args:\s*(?P<args>\{.*\})",
    re.DOTALL,
)
_REFINE = re.compile(
    r"New Context:(?P<new>.*?)\n\s*Query:(?P<ask>.*?)\n\s*Original Answer:(?P<old>.*?)\n\s*New Answer:",
    re.DOTALL,
)
_NUMBERED = re.compile(r"^\s*\(?(\d+)[).]\s+(.+?)(?=^\s*\(?\d+[).]\s|^-{3,}|\Z)", re.MULTILINE | re.DOTALL)
_ASKED_ABOUT = re.compile(r"(?:question|query)(?: is)?:?\s*['\"](.+?)['\"]\s*\n", re.DOTALL | re.IGNORECASE)


def special_answer(asked: str, system: str, messages: Sequence[Mapping[str, Any]]) -> str | None:
    """The answer to a prompt with a form of its own, None if it has none."""
    whole = f"{system}\n{asked}"
    if "Action Input:" in whole and "Thought:" in whole:
        return _react(whole, messages)
    if _CONDENSE.search(asked) and (follow_up := _FOLLOW_UP.search(asked)):
        return _condensed(asked, follow_up["ask"].strip())
    if refine := _REFINE.search(asked):
        return _refined(refine["ask"], refine["new"], refine["old"].strip())
    if "choice" in asked and re.search(r"[\"']choice[\"']|\bchoice: ", asked) and _NUMBERED.search(asked):
        number = _chosen(asked)
        return json.dumps(
            [{"choice": number, "reason": f"Choice {number} shares most words with the question."}]
        )
    if "ANSWER: <number" in asked:
        number = _chosen(asked)
        return f"ANSWER: {number}\n\nSummary {number} shares most words with the question."
    if re.search(r"\bsummar(?:y|ize|ise)\b", asked[:200], re.IGNORECASE) and len(asked) > 300:
        return _summary(asked)
    schema = schema_in(asked)
    if schema is not None and re.search(r"json", asked, re.IGNORECASE):
        filler = values.Filler(sources.Source(without_schema(asked)), schema)
        return json.dumps(filler.object(schema), ensure_ascii=False)
    return None


def _condensed(asked: str, follow_up: str) -> str:
    if not _VAGUE.search(follow_up):
        return follow_up
    before = re.findall(r"(?:^|\n)\s*(?:user|human)\s*:\s*(.+)", asked, re.IGNORECASE)
    if not before:
        return follow_up
    return f"{follow_up.rstrip('?')} ({CONCERNING}{before[-1].strip()})?"


def _refined(asked: str, context: str, answer: str) -> str:
    """The old answer, unless the new context shares more with the question."""
    found = " ".join(reading.best_sentences(asked, context))
    return found if reading.overlap(asked, found) > reading.overlap(asked, answer) else answer


def _chosen(asked: str) -> int:
    options = [(int(found[1]), found[2]) for found in _NUMBERED.finditer(asked)]
    question = _ASKED_ABOUT.search(asked)
    spoken = question[1] if question else asked
    return options[reading.most_alike(spoken, [text for _, text in options])][0] if options else 1


def _summary(asked: str) -> str:
    instructions = re.compile(r"write a summary|try to|summar|use only|information provided", re.IGNORECASE)
    told = [one for one in reading.sentences(asked) if not instructions.search(one) and len(one) > 20]
    return " ".join(told[:2]) if told else asked[:200]


def _react(whole: str, messages: Sequence[Mapping[str, Any]]) -> str:
    asked: Mapping[str, Any] = next(
        (turn for turn in reversed(messages) if turn.get("role") == "user" or _is_observation(turn)), {}
    )
    text = str(asked.get("content") or "")
    answer = (
        "Thought: I can answer without using any more tools. I'll use the user's language to answer\nAnswer: "
    )
    if _is_observation(asked):
        return answer + text.partition("Observation:")[2].strip()
    calls = calling.calls_for(text, _react_tools(whole))
    if not calls:
        found = reading.best_sentences(text, whole)
        return answer + (" ".join(found) if found else f"I cannot say more about: {text.strip()}")
    arguments = json.dumps(calls[0]["arguments"], ensure_ascii=False)
    return (
        "Thought: The current language of the user is: English. I need to use a tool to help me answer the "
        f"question.\nAction: {calls[0]['name']}\nAction Input: {arguments}"
    )


def _is_observation(message: Mapping[str, Any]) -> bool:
    return str(message.get("content") or "").lstrip().startswith("Observation:")


def _react_tools(text: str) -> list[dict[str, Any]]:
    tools: list[dict[str, Any]] = []
    for part in re.split(r"(?=> Tool Name:)", text):
        found = _REACT_TOOL.match(part)
        if found is None:
            continue
        try:
            parameters = json.JSONDecoder().raw_decode(found["args"])[0]
        except json.JSONDecodeError:
            parameters = {}
        function = {"name": found["name"], "description": found["text"], "parameters": parameters}
        tools.append({"type": "function", "function": function})
    return tools


def schema_in(text: str) -> dict[str, Any] | None:
    """The last JSON schema written out in a text."""
    found = _schema_span(text)
    return None if found is None else found[0]


def without_schema(text: str) -> str:
    """The text without the schema written out in it."""
    found = _schema_span(text)
    return text if found is None else (text[: found[1]] + text[found[2] :])


def _schema_span(text: str) -> tuple[dict[str, Any], int, int] | None:
    decoder = json.JSONDecoder()
    best: tuple[dict[str, Any], int, int] | None = None
    at = text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError):
            at = text.find("{", at + 1)
            continue
        if (
            isinstance(value, dict)
            and isinstance(value.get("properties"), dict)
            and "foo" not in value["properties"]
        ):
            best = (value, at, end)
        at = text.find("{", end)
    return best
