"""Dify's credentials form: strings in, settings out, and back without loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_dify import ChatSettings, EmbeddingSettings
from ollama_dify.errors import ConfigurationError
from ollama_dify.settings.completion_params import PARAMETERS, settings_from_completion_params
from ollama_dify.settings.dify_form import (
    FORM_FIELDS,
    chat_form,
    chat_values_from_form,
    embedding_form,
    embedding_values_from_form,
)

FULL = {
    "base_url": "http://192.168.1.100:11434",
    "api_key": "s3cret",
    "mode": "completion",
    "context_size": "8192",
    "max_tokens": "2048",
    "vision_support": "true",
    "function_call_support": "false",
}
FULL_VALUES: dict[str, Any] = {
    "model": "llava",
    "base_url": "http://192.168.1.100:11434",
    "api_key": "s3cret",
    "mode": "completion",
    "context_size": 8192,
    "max_tokens": 2048,
    "vision_support": True,
    "function_call_support": False,
}
DEFAULTS: dict[str, Any] = {
    "model": "llava",
    "base_url": None,
    "api_key": None,
    "mode": "chat",
    "context_size": 4096,
    "max_tokens": 4096,
    "vision_support": False,
    "function_call_support": False,
}


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        pytest.param(FULL, FULL_VALUES, id="everything set"),
        pytest.param({}, DEFAULTS, id="nothing set"),
        pytest.param(dict.fromkeys(FULL, ""), DEFAULTS, id="empty strings"),
        pytest.param(dict.fromkeys(FULL, "  "), DEFAULTS, id="blank strings"),
        pytest.param(dict.fromkeys(FULL), DEFAULTS, id="nulls"),
        pytest.param(
            {"context_size": "8192"},
            {**DEFAULTS, "context_size": 8192, "max_tokens": 8192},
            id="the bound follows the context size",
        ),
        pytest.param({"max_tokens": "128"}, {**DEFAULTS, "max_tokens": 128}, id="bound alone"),
        pytest.param(
            {"context_size": 2048, "max_tokens": 64, "vision_support": True, "function_call_support": 1},
            {
                **DEFAULTS,
                "context_size": 2048,
                "max_tokens": 64,
                "vision_support": True,
                "function_call_support": True,
            },
            id="JSON's own types",
        ),
        pytest.param(
            {"context_size": " 2048 ", "mode": "Chat", "vision_support": " Yes "},
            {**DEFAULTS, "context_size": 2048, "max_tokens": 2048, "vision_support": True},
            id="spaces and capitals",
        ),
    ],
)
def test_chat(form: dict[str, Any], expected: dict[str, Any]) -> None:
    before = dict(form)
    assert chat_values_from_form("llava", form) == expected
    assert form == before


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        pytest.param({}, (None, None, 512), id="nothing set"),
        pytest.param({"context_size": ""}, (None, None, 512), id="empty string"),
        pytest.param(
            {"base_url": "http://h:1", "api_key": "k", "context_size": "2048"},
            ("http://h:1", "k", 2048),
            id="all",
        ),
        pytest.param(
            {"context_size": "2048", "max_tokens": ""}, (None, None, 2048), id="blank field of LLMs"
        ),
    ],
)
def test_embedding(form: dict[str, Any], expected: tuple[Any, ...]) -> None:
    values = embedding_values_from_form("nomic-embed-text", form)
    assert values.pop("model") == "nomic-embed-text"
    assert values == dict(zip(("base_url", "api_key", "context_size"), expected, strict=True))


@pytest.mark.parametrize("field", ["vision_support", "function_call_support"])
@pytest.mark.parametrize(
    ("word", "expected"),
    [
        *((word, True) for word in ("true", "supported", "yes", "1", "True", "SUPPORTED")),
        *((word, False) for word in ("false", "unsupported", "no", "0", "off", "disabled", "FALSE", "No")),
    ],
)
def test_truth_values(field: str, word: str, expected: bool) -> None:
    assert chat_values_from_form("m", {field: word})[field] is expected


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
        chat_values_from_form("m", form)
    assert named in caught.value.message
    assert "s3cret" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("field", ["max_tokens", "vision_support", "function_call_support"])
def test_fields_of_llms_are_refused_for_embeddings(field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'{field}'.*LLM"):
        embedding_values_from_form("m", {field: FULL[field]})


def test_unset_values_and_other_settings_are_not_exported() -> None:
    assert chat_form({}) == {}
    assert chat_form({**dict.fromkeys(FULL), "model": "m", "temperature": 0.5}) == {}
    assert chat_form(FULL_VALUES) == FULL
    assert embedding_form(FULL_VALUES) == {
        name: FULL[name] for name in ("base_url", "api_key", "context_size")
    }


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


@given(VALUES)
def test_values_survive_the_form(values: dict[str, Any]) -> None:
    form = chat_form(values)
    assert all(isinstance(value, str) for value in form.values())
    assert chat_values_from_form(values["model"], form) == values
    embedding = {name: values[name] for name in ("model", "base_url", "api_key", "context_size")}
    assert embedding_values_from_form(values["model"], embedding_form(values)) == embedding


@given(VALUES)
def test_the_form_survives_the_values(values: dict[str, Any]) -> None:
    form = chat_form(values)
    assert chat_form(chat_values_from_form("m", form)) == form


@given(
    st.dictionaries(st.sampled_from([*FULL, "other"]), st.none() | st.text() | st.integers() | st.floats())
)
def test_any_form_gives_values_or_a_configuration_error(form: dict[str, Any]) -> None:
    for read in (chat_values_from_form, embedding_values_from_form):
        try:
            values = read("m", form)
        except ConfigurationError:
            continue
        assert values["context_size"] >= 1


PARAMETERS_GO: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as they are": ({"temperature": 0.2, "top_k": 40, "seed": 7, "stop": ["a"]},) * 2,
    "num_ctx": ({"num_ctx": "8192"}, {"context_size": "8192"}),
    "num_predict": ({"num_predict": -2}, {"num_predict": -2}),
    "keep_alive for ever": ({"keep_alive": "-1"}, {"keep_alive": -1}),
    "keep_alive unloads": ({"keep_alive": " 0 "}, {"keep_alive": 0}),
    "keep_alive": ({"keep_alive": "24h"}, {"keep_alive": "24h"}),
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
    assert settings_from_completion_params(given_params) == (expected, {})
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


def test_unknown_parameters_are_handed_back() -> None:
    assert settings_from_completion_params({"seed": 1, "response_format": "text"}) == (
        {"seed": 1},
        {"response_format": "text"},
    )


LEFTOVERS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "blanks": (
        ChatSettings,
        {"base_url": " http://h:1\n", "api_key": " k ", "mode": " Completion ", "context_size": " 8192 "},
        {"base_url": "http://h:1", "mode": "completion", "context_size": 8192, "max_tokens": 8192},
    ),
    "Dify's notes": (ChatSettings, {"__model_type": "llm", "__model_name": "m"}, {"context_size": 4096}),
    "num_ctx": (ChatSettings, {"context_size": "2048", "num_ctx": "8192"}, {"context_size": 8192}),
    "a stray mode": (
        EmbeddingSettings,
        {"mode": "chat", "__model_type": "text-embedding"},
        {"context_size": 512},
    ),
    "embedding": (
        EmbeddingSettings,
        {"num_ctx": 1024, "keep_alive": "-1"},
        {"context_size": 1024, "keep_alive": -1},
    ),
}


@pytest.mark.parametrize(("kind", "form", "expected"), LEFTOVERS.values(), ids=list(LEFTOVERS))
def test_leftovers_of_a_stored_form(kind: Any, form: dict[str, Any], expected: dict[str, Any]) -> None:
    made = kind.from_dify(" m ", form)
    assert {name: getattr(made, name) for name in expected} == expected
    assert made.model == "m"


def test_the_form_of_another_type_of_model() -> None:
    with pytest.raises(ConfigurationError, match="'text-embedding', not 'llm'"):
        ChatSettings.from_dify("m", {"__model_type": "text-embedding"})


def test_labels() -> None:
    by_name = {field.variable: field for field in FORM_FIELDS}
    assert list(by_name) == [
        "model",
        "model_type",
        "base_url",
        "api_key",
        "mode",
        "context_size",
        "max_tokens",
        "vision_support",
        "function_call_support",
    ]
    assert by_name["base_url"].labels == {"en": "Base URL", "ja": "基本 URL", "zh": "基础 URL"}
    assert by_name["model"].labels["ja"] == "モデル名称"
    assert by_name["vision_support"].options[0] == ("true", {"en": "Yes", "ja": "はい", "zh": "是"})
    for field in FORM_FIELDS:
        assert set(field.labels) == {"en", "ja", "zh"}
        assert all(set(labels) == {"en", "ja", "zh"} for _, labels in field.options)
        assert field.default is None or not field.options or field.default in dict(field.options)
