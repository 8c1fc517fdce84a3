"""What the simulated model says by rule: tools, schemas, images, contexts, conversations."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from ollama_dify.testing.rules.answers import Question, compose

jsonschema = pytest.importorskip("jsonschema")

IMAGES = Path(__file__).parent.parent / "data" / "images"
TEXT = {"type": "string"}
WHOLE = {"type": "integer"}
NUMBER = {"type": "number"}


def user(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **more}


def tool(
    name: str, description: str, required: list[str] | None = None, /, **properties: Any
) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "required": list(properties) if required is None else required,
        "properties": properties,
    }
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


WEATHER = tool("get_weather", "Get the current weather for a city", city=TEXT)
TIME = tool("get_current_time", "Get the current time")
ADD = tool("add_numbers", "Add two numbers", a=WHOLE, b=WHOLE)
TRIPLE = tool("triple", "Multiply a number by three", n=WHOLE)
UNITS = tool(
    "forecast",
    "Weather forecast",
    ["place"],
    place=TEXT,
    unit={"type": "string", "enum": ["celsius", "fahrenheit"]},
)
TABLE = tool(
    "book_table",
    "Book a table in a restaurant",
    restaurant=TEXT,
    date={"type": "string", "format": "date"},
    guests={"type": "object", "properties": {"people": WHOLE}, "required": ["people"]},
)

CALLS: dict[str, tuple[str, list[Any], list[Any]]] = {
    "city": ("What is the weather in Oslo?", [WEATHER, TIME], [("get_weather", {"city": "Oslo"})]),
    "comma-state": (
        "How is the weather in New York, NY?",
        [WEATHER],
        [("get_weather", {"city": "New York, NY"})],
    ),
    "several-things": (
        "Compare the weather in Oslo, Rome and Lima",
        [WEATHER],
        [("get_weather", {"city": city}) for city in ("Oslo", "Rome", "Lima")],
    ),
    "several-tools": (
        "What is the weather in Rome and what time is it?",
        [WEATHER, TIME],
        [("get_weather", {"city": "Rome"}), ("get_current_time", {})],
    ),
    "no-arguments": ("What time is it?", [WEATHER, TIME], [("get_current_time", {})]),
    "arithmetic": ("What is 17 + 4", [ADD], [("add_numbers", {"a": 17, "b": 4})]),
    "call-syntax": ("Evaluate triple(14). Use the tool.", [TRIPLE], [("triple", {"n": 14})]),
    "enum": (
        "forecast for Cairo in fahrenheit",
        [UNITS],
        [("forecast", {"place": "Cairo", "unit": "fahrenheit"})],
    ),
    "optional-left-out": ("forecast for Cairo", [UNITS], [("forecast", {"place": "Cairo"})]),
    "nested-date-quoted": (
        'Book a table for 4 people at "Chez Nous" on 2026-03-05',
        [TABLE],
        [("book_table", {"restaurant": "Chez Nous", "date": "2026-03-05", "guests": {"people": 4}})],
    ),
    "greeting": ("Hello", [WEATHER], []),
    "nothing-to-do-with-it": ("Who painted the Mona Lisa?", [WEATHER, ADD], []),
}


@pytest.mark.parametrize(("text", "tools", "expected"), CALLS.values(), ids=list(CALLS))
def test_tool_calls(text: str, tools: list[Any], expected: list[Any]) -> None:
    reply = compose(Question([user(text)], tools))
    assert [(call["name"], call["arguments"]) for call in reply.tool_calls] == expected
    assert bool(reply.text) is not bool(expected)


CALLED = {"role": "assistant", "tool_calls": [{"function": {"name": "get_weather", "arguments": {}}}]}
RESULT = {"role": "tool", "content": "Oslo has -3 degrees"}
REPORT = tool("WeatherReport", "The report", city=TEXT, degrees=WHOLE)


def test_result_is_quoted_and_not_asked_for_again() -> None:
    reply = compose(Question([user("What is the weather in Oslo?"), CALLED, RESULT], [WEATHER]))
    assert reply.text == "The tool answered: Oslo has -3 degrees"
    assert not reply.tool_calls


def test_form_of_the_final_answer_is_filled_last() -> None:
    asked = user("How is it in Oslo? I want the weather.")
    (filled,) = compose(Question([asked, CALLED, RESULT], [WEATHER, REPORT])).tool_calls
    assert (filled["name"], filled["arguments"]) == ("WeatherReport", {"city": "Oslo", "degrees": -3})
    assert not compose(Question([user("Hello")], [REPORT])).tool_calls


SCHEMAS = {
    "plain": {"type": "object", "properties": {"name": TEXT, "age": WHOLE}, "required": ["name", "age"]},
    "refs": {
        "$defs": {
            "Pet": {"type": "object", "properties": {"kind": {"enum": ["cat", "dog"]}}, "required": ["kind"]}
        },
        "type": "object",
        "properties": {"pets": {"type": "array", "items": {"$ref": "#/$defs/Pet"}, "minItems": 2}},
        "required": ["pets"],
    },
    "union": {
        "type": "object",
        "properties": {"value": {"anyOf": [{"type": "number"}, {"type": "null"}]}, "mark": {"const": "x"}},
        "required": ["value", "mark"],
    },
    "bounds": {
        "type": "object",
        "properties": {
            "low": {"type": "integer", "minimum": 50, "maximum": 60},
            "open": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "short": {"type": "string", "maxLength": 4, "minLength": 4},
            "flag": {"type": "boolean"},
        },
        "required": ["low", "open", "short", "flag"],
    },
    "recursive": {
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {
                    "label": TEXT,
                    "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
                },
                "required": ["label"],
            }
        },
        "$ref": "#/$defs/Node",
    },
    "array": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 3, "maxItems": 5},
    "all-of": {"allOf": [{"type": "object", "properties": {"a": TEXT}, "required": ["a"]}]},
    "scalar": {"type": "boolean"},
}


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("text", ["Bob is 32 years old and has a dog.", "", "数字は 7 です"])
def test_instances_are_valid(name: str, text: str) -> None:
    made = json.loads(compose(Question([user(text)], format=SCHEMAS[name])).text)
    jsonschema.validate(made, SCHEMAS[name])


def test_values_come_from_the_text() -> None:
    text = "The parcel 4711 goes to Alice Smith, e-mail alice@example.org, on 2026-05-01."
    found = {"recipient": "Alice Smith", "email": "alice@example.org", "date": "2026-05-01", "parcel": 4711}
    kinds = {name: WHOLE if name == "parcel" else TEXT for name in found}
    schema = {"type": "object", "properties": kinds, "required": ["recipient"]}
    assert json.loads(compose(Question([user(text)], format=schema)).text) == found


def test_forced_choice_of_a_tool_takes_the_best_one() -> None:
    options = [
        {
            "type": "object",
            "properties": {name: {"type": "object", "properties": inner, "required": list(inner)}},
        }
        for name, inner in (("add_numbers", {"a": WHOLE, "b": WHOLE}), ("get_weather", {"city": TEXT}))
    ]
    made = compose(Question([user("What is the weather in Oslo?")], format={"anyOf": options})).text
    assert json.loads(made) == {"get_weather": {"city": "Oslo"}}


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("Describe a cat. Return JSON with 'size' and 'colour' keys.", {"size", "colour"}),
        ("Give me a JSON object with name and age", {"name", "age"}),
        ('Describe a cat. Follow this schema: {"properties": {"legs": {"type": "integer"}}}', {"legs"}),
        ("Something in JSON please", {"answer"}),
    ],
)
def test_json_without_a_schema(text: str, keys: set[str]) -> None:
    assert set(json.loads(compose(Question([user(text)], format="json")).text)) == keys


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "png_10x2000.png",
            "The image is a PNG image, 10 by 2000 pixels: mostly red; of medium brightness.",
        ),
        ("jpeg_exif6.jpg", "The image is a JPEG image, 112 by 56 pixels."),
        ("gif_static.gif", "The image is a GIF image, 56 by 56 pixels."),
        ("webp_lossless.webp", "The image is a WebP image, 56 by 56 pixels."),
    ],
)
def test_images_are_described_by_their_header(name: str, expected: str) -> None:
    image = base64.b64encode((IMAGES / name).read_bytes()).decode()
    assert compose(Question([user("What is this?", images=[image])])).text == expected


STORY = (
    "# The harbour\n\nThe lighthouse was built in 1887 by Anna Berg. It is 32 metres tall.\n\n"
    "The harbour has three piers. Tea is served from 9 to 5."
)
QA = (
    "Context information is below.\n---------------------\nfile_path: a.md\n\n{story}\n"
    "---------------------\n"
    "Given the context information and not prior knowledge, answer the query.\nQuery: {question}\nAnswer: "
)
STUFF = (
    "Use the following pieces of context to answer the question at the end. If you don't know the answer, "
    "just say that you don't know.\n\n{story}\n\nQuestion: {question}\nHelpful Answer:"
)
SYSTEM = "Use the following pieces of context to answer the user's question.\n----------------\n{story}"


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("When was the lighthouse built?", "The lighthouse was built in 1887 by Anna Berg."),
        ("How many piers does the harbour have?", "The harbour has three piers."),
    ],
)
@pytest.mark.parametrize("form", ["qa", "stuff", "system", "loose"])
def test_answers_are_extracted_from_the_context(form: str, question: str, expected: str) -> None:
    messages = {
        "qa": [user(QA.format(story=STORY, question=question))],
        "stuff": [user(STUFF.format(story=STORY, question=question))],
        "system": [{"role": "system", "content": SYSTEM.format(story=STORY)}, user(question)],
        "loose": [user(f"{STORY}\n\n{question}")],
    }
    assert compose(Question(messages[form])).text == expected


def test_context_without_the_answer_is_said() -> None:
    text = compose(Question([user(QA.format(story=STORY, question="Who won the chess match?"))])).text
    assert text == "The given context does not answer this question: Who won the chess match?"


def test_conversation_is_remembered_and_the_rest_is_mentioned() -> None:
    told = [user("My name is Bob."), {"role": "assistant", "content": "Nice to meet you!"}]
    assert compose(Question([*told, user("What is my name?")])).text == "My name is Bob."
    assert "the moon" in compose(Question([user("How far is the moon?")])).text
