"""A forced tool becomes a format; the call comes out of the constrained text."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ollama_dify import ChatChunk, Tool, ToolCall
from ollama_dify.errors import (
    ConfigurationError,
    EmptyResponseError,
    IncompleteResponseError,
    OllamaError,
    ProtocolError,
)
from ollama_dify.wire.streaming import ChatDecoder
from ollama_dify.wire.tool_choice import SpelledCalls, plan_calls_or_answer, plan_tools

CITY = {"type": "object", "properties": {"name": {"type": "string"}}}
ADD = Tool("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
GO = Tool(
    "go", "Goes.", {"type": "object", "properties": {"to": {"$ref": "#/$defs/City"}}, "$defs": {"City": CITY}}
)


def form(name: str, parameters: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: parameters},
        "required": [name],
        "additionalProperties": False,
    }


ADD_FORM = form("add", ADD.parameters)
GO_FORM = form("go", {"type": "object", "properties": {"to": CITY}})


@pytest.mark.parametrize(
    ("tools", "choice", "offered", "constraint"),
    [
        pytest.param([ADD, GO], None, (ADD, GO), None, id="unset"),
        pytest.param([ADD, GO], "auto", (ADD, GO), None, id="auto"),
        pytest.param([ADD, GO], "none", (), None, id="none"),
        pytest.param([], None, (), None, id="no tools"),
        pytest.param([], "none", (), None, id="none of no tools"),
        pytest.param([ADD, GO], "go", (GO,), GO_FORM, id="by name"),
        pytest.param([ADD, GO], "required", (ADD, GO), {"anyOf": [ADD_FORM, GO_FORM]}, id="required"),
        pytest.param([ADD, GO], "any", (ADD, GO), {"anyOf": [ADD_FORM, GO_FORM]}, id="any"),
        pytest.param([ADD], "required", (ADD,), ADD_FORM, id="required of one"),
    ],
)
def test_plans(tools: list[Tool], choice: str | None, offered: tuple[Tool, ...], constraint: Any) -> None:
    plan = plan_tools(tools, choice)
    assert (plan.tools, plan.format, plan.forced) == (offered, constraint, constraint is not None)


@pytest.mark.parametrize(
    ("tools", "choice", "said"),
    [
        pytest.param([ADD, ADD], None, "Two tools are called 'add'", id="one name twice"),
        pytest.param([ADD], "sub", "the tools: add", id="unknown"),
        pytest.param([], "required", "there are none", id="required of none"),
        pytest.param([], "add", "there are none", id="a name of none"),
    ],
)
def test_bad_plans(tools: list[Tool], choice: str | None, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        plan_tools(tools, choice)


def answer(*texts: str, reason: str = "stop", call: str | None = None, thinking: str = "") -> bytes:
    lines = []
    if thinking:
        lines.append({"message": {"role": "assistant", "content": "", "thinking": thinking}, "done": False})
    if call:
        calls = [{"id": "c1", "function": {"name": call, "arguments": {"a": 1}}}]
        lines.append({"message": {"role": "assistant", "content": "", "tool_calls": calls}, "done": False})
    lines += [{"message": {"role": "assistant", "content": text}, "done": False} for text in texts]
    lines.append({"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": reason})
    return b"\n".join(map(orjson.dumps, lines)) + b"\n"


def decoder(choice: str = "required") -> ChatDecoder:
    return ChatDecoder(model="m", step=SpelledCalls(plan_tools([ADD, GO], choice)))


SPELT = '{"add": {"a": 1, "text": "{\\"x\\": 1}"}}'
ARGUMENTS = {"a": 1, "text": '{"x": 1}'}


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_text_spells_the_call_at_the_end(size: int) -> None:
    pieces = [SPELT[at : at + size] for at in range(0, len(SPELT), size)]
    reading = decoder()
    chunks = reading.feed(answer(*pieces, thinking="hm")) + reading.close()
    assert [chunk.text for chunk in chunks] == [""] * len(chunks)
    assert [chunk.tool_calls for chunk in chunks[:-1]] == [()] * (len(chunks) - 1)
    (call,) = chunks[-1].tool_calls
    assert (call.name, call.arguments) == ("add", ARGUMENTS)
    assert call.id
    assert reading.result().thinking == "hm"
    assert reading.result().text == ""


def test_a_call_of_the_servers_own_is_kept() -> None:
    reading = decoder("add")
    reading.feed(answer(call="add"))
    reading.close()
    assert reading.result().tool_calls == (ToolCall("add", {"a": 1}, "c1"),)


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        pytest.param(answer("Sure, I will."), ProtocolError, "'Sure, I will.'", id="prose"),
        pytest.param(answer(""), ProtocolError, "answered ''", id="nothing"),
        pytest.param(answer('{"sub": {}}'), ProtocolError, "sub", id="another name"),
        pytest.param(answer('{"add": 1}'), ProtocolError, "add", id="no object"),
        pytest.param(answer('{"add": {}, "go": {}}'), ProtocolError, "go", id="two"),
        pytest.param(answer("[" * 100_000), ProtocolError, "[[[", id="deep"),
        pytest.param(answer(call="sub"), ProtocolError, "it called 'sub'", id="a call of another"),
        pytest.param(
            answer('{"add": {"a"', reason="length"), IncompleteResponseError, "token limit", id="cut"
        ),
        pytest.param(
            answer("", reason="length"), IncompleteResponseError, "token limit", id="all spent on thinking"
        ),
        pytest.param(answer(reason="load"), EmptyResponseError, "loaded the model", id="only loaded"),
    ],
)
def test_an_answer_without_the_call(body: bytes, kind: type[OllamaError], said: str) -> None:
    reading = decoder()
    with pytest.raises(OllamaError) as caught:
        reading.feed(body)
        reading.close()
    assert type(caught.value) is kind
    assert said in caught.value.message
    assert len(caught.value.message) < 300
    if kind is IncompleteResponseError:
        assert caught.value.partial.finish.reason == "length"


def test_the_filter_passes_logprobs_on() -> None:
    chunk = SpelledCalls(plan_tools([ADD], "add")).feed(ChatChunk("{", logprobs=({"token": "{"},)))
    assert chunk == ChatChunk(logprobs=({"token": "{"},))


# Tools the model may call beside a format that its answer must have.

ANSWER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("asked", "schema"),
    [pytest.param(ANSWER, ANSWER, id="schema"), pytest.param("json", {"type": "object"}, id="json")],
)
def test_a_format_beside_tools_allows_both(asked: Any, schema: Any) -> None:
    plan = plan_calls_or_answer(plan_tools([ADD, GO], None), asked)
    assert plan.format == {"anyOf": [ADD_FORM, GO_FORM, schema]}
    assert (plan.tools, plan.forced, plan.may_answer) == ((ADD, GO), False, True)


def test_a_property_named_like_a_tool() -> None:
    with pytest.raises(ConfigurationError, match="both called 'add'"):
        plan_calls_or_answer(plan_tools([ADD], None), {"type": "object", "properties": {"add": {}}})


@pytest.mark.parametrize(
    ("text", "said", "called"),
    [
        pytest.param(SPELT, "", "add", id="a call"),
        pytest.param(' \n{ "add" : {"a": 1}}', "", "add", id="a call with blanks"),
        pytest.param('{"city": "Oslo"}', '{"city": "Oslo"}', None, id="an answer"),
        pytest.param('{"city": "add"}', '{"city": "add"}', None, id="an answer that names a tool"),
        pytest.param('{"a\\"dd": 1}', '{"a\\"dd": 1}', None, id="an escaped key"),
        pytest.param("{}", "{}", None, id="an empty object"),
        pytest.param("[1]", "[1]", None, id="a list"),
        pytest.param("Oslo", "Oslo", None, id="prose"),
        pytest.param('{"ad', '{"ad', None, id="cut in the key"),
        pytest.param("", "", None, id="nothing"),
    ],
)
def test_a_call_or_an_answer_however_it_is_cut(text: str, said: str, called: str | None) -> None:
    plan = plan_calls_or_answer(plan_tools([ADD, GO], None), "json")
    for pieces in ([text], list(text), *[[text[:at], text[at:]] for at in range(len(text))]):
        reading = ChatDecoder(model="m", step=SpelledCalls(plan))
        reading.feed(answer(*pieces))
        reading.close()
        assert reading.result().text == said
        assert [call.name for call in reading.result().tool_calls] == ([] if called is None else [called])
