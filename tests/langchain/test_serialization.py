"""What LangChain expects of a model beside answers: traces, caches, profiles, events, counts."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.load import dumpd, load
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import ConfigurableField
from pydantic import SecretStr

import ollama_dify
from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings, OllamaDifyLLM, OllamaDifyRerank
from ollama_dify.testing import Reply, SimulatedOllama
from tests.langchain.asking import ask, chat, ways

PARAMS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "defaults": ({}, {}, {"ls_max_tokens": 4096}),
    "settings": (
        {"temperature": 0, "max_tokens": 99, "stop": ["x"]},
        {},
        {"ls_temperature": 0.0, "ls_max_tokens": 99, "ls_stop": ["x"]},
    ),
    "a call": (
        {"temperature": 0, "stop": ["x"]},
        {"model": "other", "temperature": 1, "num_predict": 5, "stop": ["y"]},
        {"ls_model_name": "other", "ls_temperature": 1.0, "ls_max_tokens": 5, "ls_stop": ["y"]},
    ),
}


@pytest.mark.parametrize(("settings", "call", "expected"), PARAMS.values(), ids=PARAMS)
@pytest.mark.parametrize(("kind", "type_"), [(ChatOllamaDify, "chat"), (OllamaDifyLLM, "llm")])
def test_tracing_parameters(
    kind: Any, type_: str, settings: dict[str, Any], call: dict[str, Any], expected: dict[str, Any]
) -> None:
    params = kind(model="m", **settings)._get_ls_params(**call)

    always = {"ls_provider": "ollama", "ls_model_type": type_, "ls_model_name": "m"}
    assert params == {**always, **expected}


PROFILES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "input less the reserve": ({"context_size": 8000, "max_tokens": 500}, {"max_input_tokens": 7500}),
    "reserve of a quarter": ({"context_size": 8000}, {"max_input_tokens": 6000, "max_output_tokens": 8000}),
    "server decides": ({"context_size": None}, {"max_input_tokens": None, "max_output_tokens": None}),
    "unknown capabilities": ({}, {"image_inputs": None, "tool_calling": None}),
    "known": (
        {"vision_support": True, "function_call_support": False},
        {"image_inputs": True, "tool_calling": False, "image_url_inputs": False},
    ),
    "addresses": ({"vision_support": True, "allow_image_urls": True}, {"image_url_inputs": True}),
    "completion": ({"mode": "completion", "function_call_support": True}, {"tool_calling": False}),
    "structured output": ({}, {"structured_output": True}),
}


@pytest.mark.parametrize(("settings", "expected"), PROFILES.values(), ids=PROFILES)
def test_the_profile_holds_what_is_known(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    profile: dict[str, Any] = dict(chat(**settings).profile or {})

    assert {key: profile.get(key) for key in expected} == expected


async def test_the_profile_follows(server: SimulatedOllama) -> None:
    model = chat(context_size=8000)
    model.context_size = 4000
    assert model.profile is not None
    assert model.profile["max_input_tokens"] == 3000

    model.warmup()
    assert (model.profile["image_inputs"], model.profile["tool_calling"]) == (True, True)

    other = chat(model="llava", profile={"max_input_tokens": 7})
    await other.awarmup()
    assert other.profile is not None
    assert (other.profile["image_inputs"], other.profile["tool_calling"]) == (True, False)


DIFFERENT: dict[str, dict[str, Any]] = {
    "model": {"model": "llama3.2"},
    "temperature": {"temperature": 0},
    "context": {"context_size": 2048},
    "max_tokens": {"max_tokens": 5},
    "mode": {"mode": "completion"},
    "think": {"think": False},
    "format": {"format": "json"},
    "options": {"options": {"low_vram": True}},
    "stop": {"stop": ["x"]},
    "seed": {"seed": 0},
}


@pytest.mark.parametrize("change", DIFFERENT.values(), ids=DIFFERENT)
async def test_models_do_not_share_cached_answers(server: SimulatedOllama, change: dict[str, Any]) -> None:
    cache = InMemoryCache()
    one = chat(cache=cache)
    one.invoke("Hello")
    one.invoke("Hello")
    assert len(server.requests) == 1

    chat(cache=cache, **change).invoke("Hello")
    assert len(server.requests) == 2

    if "model" not in change and "mode" not in change and change.keys() <= {"temperature", "think", "seed"}:
        await one.ainvoke("Hello", **change)
        assert len(server.requests) == 3


def test_an_assignment_changes_the_cache_key(server: SimulatedOllama) -> None:
    model = chat(cache=InMemoryCache())
    model.invoke("Hello")
    model.temperature = 0
    model.invoke("Hello")

    assert len(server.requests) == 2


def test_completions_do_not_share_cached_answers(server: SimulatedOllama) -> None:
    cache = InMemoryCache()
    for settings in ({}, {}, {"temperature": 0}, {"model": "llama3.2"}):
        OllamaDifyLLM(**{"model": "all-round", "cache": cache, **settings}).invoke("Hello")

    assert len(server.requests) == 3


def test_configurable_fields(server: SimulatedOllama) -> None:
    model = chat().configurable_fields(
        temperature=ConfigurableField(id="heat"), model=ConfigurableField(id="which")
    )

    model.with_config(configurable={"heat": 0.25, "which": "llama3.2"}).invoke("Hello")
    list(model.with_config(configurable={"heat": 0.5}).stream("Hello"))

    bodies = [request.body for request in server.requests]
    assert [(body["model"], body["options"]["temperature"], body["stream"]) for body in bodies] == [
        ("llama3.2", 0.25, False),
        ("all-round", 0.5, True),
    ]


class Gate(BaseRateLimiter):
    def __init__(self) -> None:
        self.passed = 0

    def acquire(self, *, blocking: bool = True) -> bool:
        self.passed += 1
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        self.passed += 1
        return True


@ways
async def test_the_rate_limiter_is_asked_once(server: SimulatedOllama, way: str) -> None:
    gate = Gate()

    await ask(chat(rate_limiter=gate), way, "Hello")

    assert gate.passed == 1


@ways
async def test_usage_is_collected_once(server: SimulatedOllama, way: str) -> None:
    usage = UsageMetadataCallbackHandler()

    answer = await ask(chat(), way, "Hello", config={"callbacks": [usage]})

    assert usage.usage_metadata == {"all-round": answer.usage_metadata}


async def test_events_of_version_2(server: SimulatedOllama) -> None:
    server.reply(Reply(pieces=["Good", " day"]))

    events = [event async for event in chat().astream_events("Hello", version="v2")]

    assert [event["event"] for event in events] == [
        "on_chat_model_start",
        *["on_chat_model_stream"] * 3,
        "on_chat_model_end",
    ]
    assert events[-1]["data"]["output"].text == "Good day"


THOUGHTFUL = Reply("Yes.", thinking="Hm.", tool_calls=[{"name": "look", "arguments": {"at": "sky"}}] * 2)
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


@pytest.mark.filterwarnings("ignore:.*is in beta")
@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("awaited", [False, True])
async def test_events_of_version_3(server: SimulatedOllama, awaited: bool, version: str) -> None:
    server.reply(THOUGHTFUL)
    model = chat(model="qwen3", output_version=version)

    if awaited:
        stream = await model.astream_events("Hello", version="v3", tools=[LOOK])
        events = [event async for event in stream]
        message = await stream.output
    else:
        plain = model.stream_events("Hello", version="v3", tools=[LOOK])
        events = list(plain)
        message = plain.output

    finished = [event["content"] for event in events if event["event"] == "content-block-finish"]
    assert [(block["type"], block.get("args")) for block in finished] == [
        ("reasoning", None),
        ("text", None),
        ("tool_call", {"at": "sky"}),
        ("tool_call", {"at": "sky"}),
    ]
    assert events[0]["metadata"]["provider"] == "ollama"
    assert [call["name"] for call in message.tool_calls] == ["look", "look"]
    assert message.usage_metadata["output_tokens"] > 0
    assert message.response_metadata["done_reason"] == "stop"


@pytest.mark.parametrize("kind", [ChatOllamaDify, OllamaDifyLLM])
def test_a_custom_tokenizer_wins(kind: Any) -> None:
    model = kind(model="m", custom_get_token_ids=lambda text: list(range(len(text))))

    assert model.get_token_ids("abc") == [0, 1, 2]
    assert model.get_num_tokens("abc") == 3


@ways
async def test_the_model_used_is_the_one_of_the_call(server: SimulatedOllama, way: str) -> None:
    answer = await ask(chat(), way, "Hello", model="llama3.2")

    assert answer.response_metadata["model_name"] == "llama3.2"


KEY = "sk-very-secret"
each = pytest.mark.parametrize(
    "kind", [ChatOllamaDify, OllamaDifyLLM, OllamaDifyEmbeddings, OllamaDifyRerank]
)


@each
@pytest.mark.filterwarnings("ignore:The function `load` is in beta")
def test_the_round_trip_of_dumpd_and_load(kind: Any) -> None:
    values: dict[str, Any] = {"context_size": None, "keep_alive": 0, "options": {"low_vram": True}}
    values["timeout"] = ollama_dify.Timeouts(connect=1, total=9)
    model = kind(model="m", api_key=KEY, base_url="http://one.example:1", **values)

    dumped = dumpd(model)
    again = load(
        dumped,
        allowed_objects=[kind],
        valid_namespaces=["langchain_ollama_dify"],
        secrets_map={"OLLAMA_API_KEY": KEY},
    )

    assert dumped["kwargs"]["api_key"] == {"lc": 1, "type": "secret", "id": ["OLLAMA_API_KEY"]}
    assert {name: getattr(again, name) for name in values} == values
    assert (again.base_url, again.api_key) == ("http://one.example:1", SecretStr(KEY))


@each
@pytest.mark.filterwarnings("ignore:The function `load` is in beta")
@pytest.mark.parametrize(
    ("values", "dumped_values"),
    [
        ({"base_url": "https://ollama.com"}, {"base_url": "https://ollama.com"}),
        ({"base_url": "https://me:pw@h"}, {"base_url": "https://h"}),
        ({"api_key_env": "OF_MINE"}, {"api_key_env": "OF_MINE"}),
    ],
    ids=["the cloud's variable", "password", "variable"],
)
def test_a_dump_holds_no_key_that_was_not_given(
    monkeypatch: pytest.MonkeyPatch, kind: Any, values: dict[str, Any], dumped_values: Any
) -> None:
    for name in ("OLLAMA_API_KEY", "OF_MINE"):
        monkeypatch.setenv(name, KEY)
    dumped = dumpd(kind(model="m", **values))
    kept = {name: dumped["kwargs"].get(name) for name in ("base_url", "api_key", "api_key_env", "headers")}
    assert {name: value for name, value in kept.items() if value is not None} == dumped_values
    again = load(
        dumped,
        allowed_objects=[kind],
        valid_namespaces=["langchain_ollama_dify"],
        secrets_map={"OLLAMA_API_KEY": "sk-of-the-map"},
    )
    assert again.api_key is None
    assert "sk-of-the-map" not in str(again.sent_headers())
