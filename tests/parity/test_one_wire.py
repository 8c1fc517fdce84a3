"""One wire: the same call through either framework, sync and async, sends the same bytes."""

from __future__ import annotations

from enum import Enum
from typing import Any

import pytest
from langchain_core.exceptions import OutputParserException
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel

from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings
from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding
from ollama_dify import ConfigurationError
from ollama_dify.testing import SimulatedOllama

from .adapters import LangChain, LlamaIndex
from .cases import CASES, HELLO, PERSON, WEATHER, Case, Turn, said

COMPLETION = {"mode": "completion"}
WRAPPED = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}}
NO_PARAMETERS = {"name": "now", "description": "The time", "parameters": {}}
EMPTY = {"type": "object", "properties": {}}
NESTED = {
    "name": "book",
    "description": "Book a room",
    "parameters": {
        "$defs": {"Room": {"type": "object", "properties": {"beds": {"type": "integer"}}}},
        "type": "object",
        "properties": {"room": {"$ref": "#/$defs/Room"}},
    },
}
THOUGHT = (*said("2+2?"), Turn("assistant", ("<think>\nTwo and two.\n</think>\n\n4",)), *said("Sure?"))
TALK = (
    Turn("system", ("Be brief.",)),
    *said("Hello"),
    Turn("assistant", ("Hi.",)),
    Turn("system", ("Be kind.",)),
    *said("Bye"),
)

SETTINGS = {"context_size": 2048, "max_tokens": 100, "temperature": 0, "think": False, "keep_alive": "10m"}

# A case, and what the last body holds.
WIRE: list[tuple[Case, dict[str, Any]]] = [
    (
        Case("the whole body", (Turn("system", ("Be brief.",)), *HELLO), SETTINGS, {"seed": 7}),
        {
            "model": "llama3.2",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
            "stream": False,
            "options": {"temperature": 0.0, "seed": 7, "num_ctx": 2048, "num_predict": 100},
            "keep_alive": "10m",
            "think": False,
            "truncate": False,
            "shift": False,
        },
    ),
    (
        Case("tool without parameters", HELLO, tools=(NO_PARAMETERS,)),
        {"tools": [{"type": "function", "function": {**NO_PARAMETERS, "parameters": EMPTY}}]},
    ),
    (Case("tool with references", HELLO, tools=(NESTED,)), {}),
    (Case("forced tool without parameters", HELLO, tools=(NO_PARAMETERS,), tool_choice="now"), {}),
    (Case("tools and a form", HELLO, {}, {"format": PERSON}, tools=(WEATHER,)), {}),
    (Case("completion", HELLO, COMPLETION), {"prompt": "Hello"}),
    (
        Case("completion, several messages", TALK, COMPLETION),
        {
            "prompt": "user: Hello\nassistant: Hi.\nuser: Bye\nassistant:",
            "system": "Be brief.\n\nBe kind.",
        },
    ),
    (
        Case("completion, thinking in history", THOUGHT, COMPLETION),
        {"prompt": "user: 2+2?\nassistant: 4\nuser: Sure?\nassistant:"},
    ),
    (Case("completion, arguments", HELLO, COMPLETION, {"raw": True}), {"raw": True}),
    (Case("completion, own system", TALK, COMPLETION, {"system": "Sing."}), {"system": "Sing."}),
    (Case("form, wrapped", HELLO, {}, {"format": WRAPPED}), {"format": PERSON}),
    (Case("form, wrapped in settings", HELLO, {"format": WRAPPED}), {"format": PERSON}),
    (Case("response_format", HELLO, {}, {"response_format": WRAPPED}), {"format": PERSON}),
    (
        Case("response_format, JSON", HELLO, {}, {"response_format": {"type": "json_object"}}),
        {"format": "json"},
    ),
    (
        Case("response_format, text", HELLO, {"format": "json"}, {"response_format": {"type": "text"}}),
        {},
    ),
    (
        Case("thinking in history", THOUGHT),
        {
            "messages": [
                {"role": "user", "content": "2+2?"},
                {"role": "assistant", "content": "4", "thinking": "Two and two."},
                {"role": "user", "content": "Sure?"},
            ]
        },
    ),
    (Case("tag that is never closed", (*HELLO, Turn("assistant", ("<think> is a tag",)), *HELLO)), {}),
    (Case("tag in a question", said("<think>a</think>b")), {}),
    (Case("limit of the call", HELLO, {}, {"max_tokens": 7}), {}),
    (Case("on_length", HELLO, {"on_length": "error"}, {"num_predict": 5, "on_length": "return"}), {}),
    (Case("options of the call", HELLO, {"options": {"a": 1}}, {"options": {"b": 2}}), {}),
]
OPTIONS = {"num_ctx": 4096, "num_predict": 4096}
# Of the cases of the larger table.
SENT = {
    "temperature per call": {"options": {**OPTIONS, "temperature": 0.0}},
    "stop per call": {"options": {**OPTIONS, "stop": ["5", "7"]}},
    "keep alive per call": {"keep_alive": 0},
    "think off per call": {"think": False},
    "other model per call": {"model": "qwen3"},
    "json": {"format": "json"},
}
WIRE += [(case, SENT.get(case.name, {})) for case in CASES if case.error is None]


@pytest.mark.parametrize(("case", "body"), WIRE, ids=lambda value: getattr(value, "name", ""))
async def test_bodies(simulated_ollama: SimulatedOllama, case: Case, body: dict[str, Any]) -> None:
    seen = []
    for kind in (LangChain, LlamaIndex):
        adapter = kind(simulated_ollama.base_url, case)
        for awaited in (False, True):
            simulated_ollama.reset()
            await adapter.ask(awaited=awaited)
            answers = ("/api/chat", "/api/generate")
            asked = [request for request in simulated_ollama.requests if request.path in answers]
            # How the template renders marks is looked up once.
            sent = [(request.path, request.raw) for request in asked]
            seen.append([one for one in sent if b"_debug_render_only" not in one[1]])
        adapter.close()
        await adapter.aclose()
    last = simulated_ollama.requests[-1].body
    assert all(sent == seen[0] for sent in seen)
    assert len(seen[0]) == 1
    assert {key: last[key] for key in body} == body
    assert case.name != "the whole body" or last.keys() == body.keys()
    if case.name == "response_format, text":
        assert "format" not in last


def test_the_table_is_long_enough() -> None:
    assert len(WIRE) >= 40
    assert len({case.name for case, _ in WIRE}) == len(WIRE)


class Person(BaseModel):
    name: str
    age: int


ANN = '{"name": "Ann", "age": 3}'


async def test_the_raw_answer_stands_beside_a_parsing_error(simulated_ollama: SimulatedOllama) -> None:
    values: dict[str, Any] = {"model": "llama3.2", "base_url": simulated_ollama.base_url}
    with ChatOllamaDify(**values) as chain, OllamaDify(**values) as llm:
        simulated_ollama.script(["{}", "{}", "{}"])
        given = chain.with_structured_output(Person, include_raw=True).invoke("Ann?")
        assert (given["raw"].text, given["parsed"]) == ("{}", None)
        with pytest.raises(OutputParserException) as theirs:
            chain.with_structured_output(Person).invoke("Ann?")
        assert theirs.value.llm_output == "{}"
        with pytest.raises(ValueError, match="Field required") as raised:
            llm.structured_predict(Person, PromptTemplate("Ann?"))
        assert raised.value.response.message.content == "{}"  # type: ignore[attr-defined]  # our class


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


PLAIN: dict[str, tuple[Any, str, Any]] = {
    "Enum": (Mood, '"good"', Mood.GOOD),
    "list": (list[int], "[1, 2]", [1, 2]),
    "plain type": (int, "3", 3),
    "list of objects": (list[Person], f"[{ANN}]", [Person(name="Ann", age=3)]),
    "JSON schema of a list": ({"type": "array", "items": {"type": "integer"}}, "[1, 2]", [1, 2]),
}


@pytest.mark.parametrize(("schema", "text", "made"), PLAIN.values(), ids=PLAIN)
async def test_what_is_no_class_of_fields(
    simulated_ollama: SimulatedOllama, schema: Any, text: str, made: Any
) -> None:
    """LangChain's methods give an object; where an object is needed, and in LlamaIndex, it is said."""
    values: dict[str, Any] = {"model": "llama3.2", "base_url": simulated_ollama.base_url}
    with ChatOllamaDify(**values) as chain, OllamaDify(**values) as llm:
        simulated_ollama.script([text, text])
        assert chain.with_structured_output(schema).invoke("?") == made
        assert await chain.with_structured_output(schema).ainvoke("?") == made
        with pytest.raises(ConfigurationError, match="arguments of a call are an object"):
            chain.with_structured_output(schema, method="function_calling")
        with pytest.raises(ConfigurationError, match="no pydantic class"):
            llm.structured_predict(schema, PromptTemplate("?"))
        with pytest.raises(ConfigurationError, match="no pydantic class"):
            await llm.astructured_predict(schema, PromptTemplate("?"))
        await chain.aclose()


@pytest.mark.parametrize("kind", ["document", "query"])
async def test_embedding_reports(simulated_ollama: SimulatedOllama, kind: Any) -> None:
    """Tokens, and which texts were cut, split or failed, in both frameworks."""
    values: dict[str, Any] = {
        "model": "nomic-embed-text",
        "base_url": simulated_ollama.base_url,
        "context_size": 16,
        "overflow": "split",
    }
    texts = ["a cat", "one two three four five six seven eight nine ten " * 4]
    one, two = OllamaDifyEmbeddings(**values), OllamaDifyEmbedding(**values)
    found = []
    for model in (one, two):
        found += [model.embed(texts, kind=kind), await model.aembed(texts, kind=kind)]
        model.close()
        await model.aclose()
    for result in found:
        assert (result.split, result.truncated, result.failed) == ((1,), (), ())
        assert result.input_tokens == found[0].input_tokens > 0
        assert result.vectors == found[0].vectors
