"""The server's JSON made into values; what is not Ollama's is a ProtocolError, never anything else."""

from __future__ import annotations

import dataclasses
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_dify import (
    ChatChunk,
    ChatResult,
    Finish,
    LocalModel,
    OllamaError,
    ProtocolError,
    RunningModel,
    ToolCall,
    Usage,
)
from ollama_dify.wire.models import read_local_models, read_model_info, read_running_models, read_version
from ollama_dify.wire.responses import load_json, printable, read_chunk

FINAL = {
    "model": "llava",
    "created_at": "2026-01-02T03:04:05Z",
    "done": True,
    "done_reason": "length",
    "total_duration": 5,
    "load_duration": 4,
    "prompt_eval_count": 3,
    "prompt_eval_duration": 2,
    "eval_count": 1,
    "eval_duration": 7,
}
FINISH = Finish("length", "llava", "2026-01-02T03:04:05Z", Usage(3, 1), 5, 4, 2, 7)


def said(done: bool = False, **message: Any) -> dict[str, Any]:
    return {"model": "m", "message": {"role": "assistant", **message}, "done": done}


CHUNKS = {
    "text": (said(content="Hi"), ChatChunk("Hi")),
    "thinking": (said(content="", thinking="hm"), ChatChunk(thinking="hm")),
    "null thinking": (said(content="a", thinking=None), ChatChunk("a")),
    "logprobs": (
        {**said(content="a"), "logprobs": [{"token": "a"}]},
        ChatChunk("a", logprobs=[{"token": "a"}]),
    ),
    "thinking without a role": (
        {"message": {"content": "a", "thinking": "hm"}, "done": False},
        ChatChunk("a", "hm"),
    ),
    "final": ({**FINAL, "message": {"content": ""}}, ChatChunk(finish=FINISH)),
    "final with nothing known": (
        {"message": {"content": ""}, "done": True},
        ChatChunk(finish=Finish("", "")),
    ),
    "generated text": ({"response": "Hi", "done": False}, ChatChunk("Hi")),
    "generated thinking": ({"response": "", "thinking": "hm", "done": False}, ChatChunk(thinking="hm")),
    "generated final": ({**FINAL, "response": "", "context": [1, 2]}, ChatChunk(finish=FINISH)),
}


@pytest.mark.parametrize(("data", "chunk"), CHUNKS.values(), ids=CHUNKS)
def test_chunks(data: dict[str, Any], chunk: ChatChunk) -> None:
    assert read_chunk(data, generated="response" in data) == chunk


def call(**function: Any) -> dict[str, Any]:
    return said(content="", tool_calls=[{"id": "c1", "function": {"name": "f", **function}}])


STRANGE = {"text": '{"a": "[1, 2"}', "brackets": "[" * 3000, "nested": {"json": '{"x":1}'}, "none": None}


@pytest.mark.parametrize(
    "arguments", [{"city": "Oslo"}, {}, None, STRANGE], ids=lambda given: str(given)[:20]
)
def test_arguments_are_never_parsed_again(arguments: Any) -> None:
    assert read_chunk(call(arguments=arguments)).tool_calls == (ToolCall("f", arguments or {}, "c1"),)


@pytest.mark.parametrize("call_id", [None, "", 7])
def test_a_missing_id_is_made_unique(call_id: Any) -> None:
    one = {"id": call_id, "function": {"name": "f", "arguments": {}}}
    ids = {made.id for made in read_chunk(said(content="", tool_calls=[one] * 50)).tool_calls}
    assert len(ids) == 50
    assert all(isinstance(made, str) and made for made in ids)


WRONG: list[Any] = [
    None,
    5,
    "x",
    [],
    {},
    [1],
    said(),
    {"message": None, "done": False},
    {"message": "x", "done": False},
    {"message": [], "done": False},
    said(content=5),
    said(content=None),
    {"message": {"role": "assistant", "content": "x"}},
    {**said(content="x"), "done": "true"},
    {**said(content="x"), "done": None},
    {**said(content="x"), "done": 0},
    {**said(content="x"), "done": 1},
    said(content="x", thinking=5),
    said(content="", tool_calls=5),
    said(content="", tool_calls="x"),
    said(content="", tool_calls=[5]),
    said(content="", tool_calls=[{}]),
    said(content="", tool_calls=[{"function": None}]),
    said(content="", tool_calls=[{"function": {"name": 5}}]),
    call(arguments="{}"),
    call(arguments=[1]),
    {**said(content="x"), "logprobs": 5},
    {**said(content="x"), "logprobs": [5]},
    {**said(content="x", done=True), "done_reason": 5},
    {**said(content="x", done=True), "model": []},
    {**said(content="x", done=True), "eval_count": "5"},
    {**said(content="x", done=True), "eval_count": True},
    {**said(content="x", done=True), "prompt_eval_count": 1.5},
    {**said(content="x", done=True), "total_duration": {}},
]


@pytest.mark.parametrize("data", [pytest.param(data, id=repr(data)[:70]) for data in WRONG])
def test_what_ollama_never_sends(data: Any) -> None:
    with pytest.raises(ProtocolError):
        read_chunk(data)


KEYS = "message content done response thinking tool_calls function name models details family model_info"
MORE_KEYS = ("capabilities", "embeddings", "version", "logprobs", "role")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*KEYS.split(), *MORE_KEYS]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(data=JSON)
def test_no_json_at_all_escapes_the_error_tree(data: Any) -> None:
    readers = (
        read_chunk,
        lambda data: read_chunk(data, generated=True),
        read_local_models,
        read_running_models,
        read_version,
        lambda data: read_model_info(data, "m"),
    )
    for reader in readers:
        try:
            reader(data)
        except OllamaError:
            continue


def test_duplicate_keys_take_the_last() -> None:
    assert load_json(b'{"a":1,"a":2}') == {"a": 2}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("plain", "plain", id="plain"),
        pytest.param("a\r\n\tb\x1b[31m", "a b [31m", id="controls"),
        pytest.param("a\u2028b\u0085c\u202ed", "a b c d", id="separators and direction marks"),
        pytest.param("x" * 501, "x" * 499 + "…", id="long"),
        pytest.param("\n" * 100_000 + "x", "", id="a flood of blanks"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_metadata_leaves_out_what_is_unknown() -> None:
    assert Finish("stop", "m").metadata() == {
        "model": "m",
        "model_name": "m",
        "model_provider": "ollama",
        "created_at": "",
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 0,
        "eval_count": 0,
    }
    told = dataclasses.replace(FINISH, truncated=False, dropped=(1, 2)).metadata()
    assert told["truncated"] is False
    assert told["dropped_messages"] == [1, 2]
    assert told["total_duration"] == 5


def test_usage() -> None:
    assert ChatResult("x").usage == Usage(0, 0)
    assert ChatResult("x", finish=FINISH).usage.total_tokens == 4


SHOW = {
    "capabilities": ["completion", "vision"],
    "details": {"family": "llama"},
    "model_info": {
        "general.architecture": "clip",
        "clip.context_length": 32768,
        "clip.embedding_length": 128,
        "llama.context_length": 1,
    },
    "template": "{{ .Prompt }}",
}


def test_model_info() -> None:
    info = read_model_info(SHOW, "llava", "abc")
    assert (info.name, info.digest, info.family, info.template) == ("llava", "abc", "llama", "{{ .Prompt }}")
    assert (info.context_length, info.embedding_length) == (32768, 128)
    assert (info.can("vision"), info.can("tools")) == (True, False)
    assert info.raw is SHOW


@pytest.mark.parametrize(
    "show", [{}, {"capabilities": None, "model_info": None, "details": 5}, {"model_info": []}]
)
def test_a_model_that_tells_nothing(show: dict[str, Any]) -> None:
    info = read_model_info(show, "m")
    assert (info.capabilities, info.context_length, info.embedding_length) == (None, None, None)
    assert (info.family, info.can("vision")) == ("", None)


@pytest.mark.parametrize("length", [0, -1, 1.5, "4096", True, None])
def test_a_context_length_that_is_none(length: Any) -> None:
    info = read_model_info({"model_info": {"general.architecture": "a", "a.context_length": length}}, "m")
    assert info.context_length is None


def test_lists_of_models() -> None:
    row = {"name": "m:latest", "digest": "d", "size": 5, "details": {"family": "f"}}
    assert read_local_models({"models": [row]}) == [LocalModel("m:latest", "d", 5, "f")]
    running = {**row, "size_vram": 4, "context_length": 4096, "expires_at": "2026"}
    assert read_running_models({"models": [running]}) == [RunningModel("m:latest", "d", 5, 4, 4096, "2026")]
    assert read_running_models({"models": [row]}) == [RunningModel("m:latest", "d", 5, 0, None, "")]


@pytest.mark.parametrize("data", [{"models": []}, {"models": None}, {}])
def test_no_models(data: Any) -> None:
    assert read_local_models(data) == read_running_models(data) == []


@pytest.mark.parametrize(
    "data", [None, [], "x", 5, {"models": 5}, {"models": "x"}, {"models": [5]}, {"models": {}}]
)
def test_no_list_of_models(data: Any) -> None:
    for reader in (read_local_models, read_running_models):
        with pytest.raises(ProtocolError):
            reader(data)


@pytest.mark.parametrize("details", [None, "x", 5, [], {"family": None}])
def test_a_model_with_strange_details(details: Any) -> None:
    assert read_local_models({"models": [{"name": "m", "details": details}]}) == [LocalModel("m", "", 0, "")]


def test_version() -> None:
    assert read_version(orjson.loads('{"version":"0.33.0"}')) == "0.33.0"
    for data in (None, [], {}, {"version": 5}):
        with pytest.raises(ProtocolError):
            read_version(data)
