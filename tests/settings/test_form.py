"""Dify's credentials form: strings in, settings out, and back without loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_dify import ChatSettings, EmbeddingSettings
from ollama_dify.errors import ConfigurationError
from ollama_dify.settings.dify_form import FORM_FIELDS, PARAMETERS, form_from_values, values_from_form

FULL = {
    "base_url": "http://192.168.1.100:11434",
    "api_key": "s3cret",
    "mode": "completion",
    "context_size": "8192",
    "max_tokens": "2048",
    "vision_support": "true",
    "function_call_support": "false",
}
NAMES = ("model", *FULL)
GIVEN = ("llava", "http://192.168.1.100:11434", "s3cret", "completion", 8192, 2048, True, False)
FULL_VALUES: dict[str, Any] = dict(zip(NAMES, GIVEN, strict=True))
DEFAULTS = dict(zip(NAMES, ("llava", None, None, "chat", 4096, 4096, False, False), strict=True))
# id → (form, what differs from the defaults)
CHATS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "everything set": (FULL, FULL_VALUES),
    "nothing set": ({}, {}),
    "empty strings": (dict.fromkeys(FULL, ""), {}),
    "blank strings": (dict.fromkeys(FULL, "  "), {}),
    "nulls": (dict.fromkeys(FULL), {}),
    "the bound follows the size": ({"context_size": "8192"}, {"context_size": 8192, "max_tokens": 8192}),
    "bound alone": ({"max_tokens": "128"}, {"max_tokens": 128}),
    "JSON's own types": (
        {"context_size": 2048, "max_tokens": 64, "vision_support": True, "function_call_support": 1},
        {"context_size": 2048, "max_tokens": 64, "vision_support": True, "function_call_support": True},
    ),
    "blanks and capitals": (
        {"base_url": " http://h:1\n", "api_key": " k ", "max_tokens": " 9 ", "vision_support": " Yes "},
        {"base_url": "http://h:1", "api_key": "k", "max_tokens": 9, "vision_support": True},
    ),
    "mode in capitals": ({"mode": " Completion"}, {"mode": "completion"}),
    "Dify's notes": ({"__model_type": "llm", "__model_name": "m"}, {}),
    "num_ctx": ({"context_size": "2048", "num_ctx": "8192"}, {"context_size": "8192", "max_tokens": "8192"}),
}


@pytest.mark.parametrize(("form", "changed"), CHATS.values(), ids=CHATS)
def test_chat(form: dict[str, Any], changed: dict[str, Any]) -> None:
    before = dict(form)
    assert values_from_form(" llava\n", form, "llm") == {**DEFAULTS, **changed}
    assert form == before


# id → (form, base_url, api_key, context_size)
EMBEDDINGS: dict[str, tuple[dict[str, Any], Any, Any, Any]] = {
    "nothing set": ({}, None, None, 512),
    "empty string": ({"context_size": ""}, None, None, 512),
    "all": ({"base_url": "http://h:1", "api_key": "k", "context_size": "2048"}, "http://h:1", "k", 2048),
    "a blank field of LLMs": ({"context_size": "2048", "max_tokens": ""}, None, None, 2048),
    "a mode left behind": ({"mode": "chat", "__model_type": "text-embedding"}, None, None, 512),
    "num_ctx": ({"num_ctx": 1024}, None, None, 1024),
}


@pytest.mark.parametrize(("form", "base_url", "key", "size"), EMBEDDINGS.values(), ids=EMBEDDINGS)
def test_embedding(form: dict[str, Any], base_url: Any, key: Any, size: Any) -> None:
    values = {"base_url": base_url, "api_key": key, "context_size": size}
    assert values_from_form("m", form, "text-embedding") == {"model": "m", **values}


@pytest.mark.parametrize("field", ["vision_support", "function_call_support"])
@pytest.mark.parametrize(
    ("word", "expected"),
    [
        *((word, True) for word in ("true", "supported", "yes", "1", "True", "SUPPORTED")),
        *((word, False) for word in ("false", "unsupported", "no", "0", "off", "disabled", "FALSE", "No")),
    ],
)
def test_truth_values(field: str, word: str, expected: bool) -> None:
    assert values_from_form("m", {field: word}, "llm")[field] is expected


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "negative": ({"context_size": "-1"}, "コンテキスト長"),
    "zero": ({"context_size": "0"}, "Model context size"),
    "fraction": ({"context_size": "4096.0"}, "context_size"),
    "words": ({"max_tokens": "four"}, "Upper bound for max tokens"),
    "underscore": ({"max_tokens": "4_096"}, "max_tokens"),
    "5,000 digits": ({"max_tokens": "9" * 5000}, "最大トークン上限"),
    "a huge integer": ({"max_tokens": 10**5000}, "max_tokens"),
    "a float": ({"max_tokens": 1.5}, "max_tokens"),
    "a truth value as number": ({"context_size": True}, "context_size"),
    "wrong mode": ({"mode": "chats"}, "Completion mode"),
    "mode of a wrong type": ({"mode": 10**5000}, "mode"),
    "maybe": ({"vision_support": "maybe"}, "Vision support"),
    "two": ({"vision_support": 2}, "ビジョン対応"),
    "a list": ({"function_call_support": ["true"]}, "是否支持函数调用"),
    "address of a wrong type": ({"base_url": 5}, "Base URL"),
    "key of a wrong type": ({"api_key": ["s3cret"]}, "API Key"),
    "unknown key": ({"vision": "true"}, "'vision_support'"),
    "misspelt key": ({"contextsize": "1"}, "'context_size'"),
    "unlike any": ({"zzz": "1"}, "no field 'zzz'"),
    "no string": ({5: "1"}, "no field '5'"),
}


@pytest.mark.parametrize(("form", "named"), BAD.values(), ids=list(BAD))
def test_bad_fields_are_named_with_their_label(form: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        values_from_form("m", form, "llm")
    assert named in caught.value.message
    assert "s3cret" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("kind", "form", "said"),
    [
        *((EmbeddingSettings, {field: FULL[field]}, f"'{field}'.*LLM") for field in [*FULL][4:]),
        (ChatSettings, {"__model_type": "text-embedding"}, "'text-embedding', not 'llm'"),
        (EmbeddingSettings, {"temperature": 1}, "no field 'temperature'"),
    ],
)
def test_the_form_of_another_type_of_model(kind: Any, form: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        kind.from_dify("m", form)


def test_there_and_back() -> None:
    settings = ChatSettings.from_dify("llava", FULL, temperature=0)
    assert (settings.mode, settings.token_bound, settings.temperature) == ("completion", 2048, 0)
    assert settings.to_dify() == FULL
    assert settings.to_dify(secrets=False) == {name: text for name, text in FULL.items() if name != "api_key"}
    with_password = ChatSettings(model="m", base_url="http://me:p%3Aw@h:1", temperature=0)
    assert ChatSettings.from_dify("m", with_password.to_dify()).address == with_password.address
    # What is unset, and what the form does not have, is not in it.
    bare = {"base_url": "http://h:1", "mode": "chat", "context_size": "4096"}
    assert with_password.to_dify(secrets=False) == bare
    embedding = EmbeddingSettings.from_dify("e", {"base_url": "http://h:1"})
    assert embedding.to_dify() == {"base_url": "http://h:1", "context_size": "512"}


# Blanks around a value do not count.
TEXT = st.text(min_size=1).map(str.strip).filter(bool)
COUNTS = st.integers(1, 999_999_999)
VALUES = st.fixed_dictionaries(
    {
        "model": TEXT,
        "base_url": TEXT | st.none(),
        "api_key": TEXT | st.none(),
        "mode": st.sampled_from(["chat", "completion"]),
        "context_size": COUNTS,
        "max_tokens": COUNTS,
        "vision_support": st.booleans(),
        "function_call_support": st.booleans(),
    }
)


@given(VALUES, st.sampled_from(["llm", "text-embedding", "rerank"]))
def test_values_survive_the_form(values: dict[str, Any], kind: Any) -> None:
    form = form_from_values(values, kind)
    assert all(isinstance(value, str) for value in form.values())
    read = values_from_form(values["model"], form, kind)
    assert read == (values if kind == "llm" else {name: values[name] for name in read})
    assert form_from_values(read, kind) == form


PARAMETERS_GO: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as they are": ({"temperature": 0.2, "top_k": 40, "seed": 7, "stop": ["a"]},) * 2,
    "num_ctx": ({"num_ctx": "8192"}, {"context_size": "8192"}),
    "num_predict": ({"num_predict": -2}, {"num_predict": -2}),
    "keep_alive for ever": ({"keep_alive": "-1"}, {"keep_alive": -1}),
    "keep_alive unloads": ({"keep_alive": " 0 "}, {"keep_alive": 0}),
    "keep_alive as a duration": ({"keep_alive": "24h"}, {"keep_alive": "24h"}),
    "mirostat": ({"mirostat": "2"}, {"mirostat": 2}),
    "format": ({"format": "json"}, {"format": "json"}),
    "schema": ({"format": "json", "json_schema": '{"type": "object"}'}, {"format": {"type": "object"}}),
    "parsed schema": ({"json_schema": {"type": "object"}}, {"format": {"type": "object"}}),
    "think": ({"think": False}, {"think": False}),
    "think_level": ({"think_level": "high", "think": False}, {"think": "high"}),
    "blanks": ({"think_level": " ", "json_schema": "", "keep_alive": None, "format": "\n"}, {}),
}


@pytest.mark.parametrize(("given_params", "expected"), PARAMETERS_GO.values(), ids=list(PARAMETERS_GO))
def test_parameters(given_params: dict[str, Any], expected: dict[str, Any]) -> None:
    values = {"base_url": "http://h:1", "context_size": 4096, **expected}
    settings = ChatSettings(model="m", vision_support=False, function_call_support=False, **values)
    settings.max_tokens = settings.context_size
    for made in (
        ChatSettings.from_dify("m", {"base_url": "http://h:1"}, given_params),
        # As a stored form may hold them.
        ChatSettings.from_dify("m", {"base_url": "http://h:1", **given_params}),
    ):
        assert made.model_dump() == settings.model_dump()


def test_every_parameter_is_a_setting_and_in_the_table() -> None:
    assert set(PARAMETERS.values()) <= set(ChatSettings.model_fields)
    table = (Path(__file__).parents[2] / "docs" / "dify.md").read_text(encoding="utf-8")
    assert [name for name in [*PARAMETERS, *FULL] if f"`{name}`" not in table] == []


@pytest.mark.parametrize(
    ("given_params", "said"),
    [
        ({"json_schema": "{"}, "json_schema"),
        ({"json_schema": "[1]"}, "json_schema"),
        ({"json_schema": 5}, "json_schema"),
        ({"temprature": 1}, "did you mean 'temperature'"),
        ({"num_predict": 9999}, "num_predict=9999"),
        ({"keep_alive": "soon"}, "keep_alive"),
    ],
)
def test_bad_parameters(given_params: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"(?i){said}"):
        ChatSettings.from_dify("m", {}, given_params)


def test_labels() -> None:
    by_name = {field.variable: field for field in FORM_FIELDS}
    assert list(by_name) == ["model", "model_type", *FULL]
    assert by_name["base_url"].labels == {"en": "Base URL", "ja": "基本 URL", "zh": "基础 URL"}
    assert by_name["model"].labels["ja"] == "モデル名称"
    assert by_name["vision_support"].options[0] == ("true", {"en": "Yes", "ja": "はい", "zh": "是"})
    for field in FORM_FIELDS:
        assert set(field.labels) == {"en", "ja", "zh"}
        assert all(set(labels) == {"en", "ja", "zh"} for _, labels in field.options)
        assert field.default is None or not field.options or field.default in dict(field.options)
