"""The form, field by field: defaults, what is refused and how, what survives, and what never shows."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import ssl
import traceback
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from ollama_dify import (
    AsyncOllamaClient,
    ChatSettings,
    ConfigurationError,
    ConnectionSettings,
    EmbeddingSettings,
    ModelSettings,
    OllamaClient,
    RerankSettings,
    Timeouts,
)
from ollama_dify.adapter import ClientOwner
from ollama_dify.settings.names import FOREIGN_NAMES

CANARY = "sk-CANARY-9f3b"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OLLAMA_HOST", "OLLAMA_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def chat(**values: Any) -> ChatSettings:
    return ChatSettings(**{"model": "llava", "base_url": "http://h:1", **values})


def embedding(**values: Any) -> EmbeddingSettings:
    return EmbeddingSettings(**{"model": "nomic-embed-text", "base_url": "http://h:1", **values})


# S1: names and defaults, once.

# Fields whose default is not None.
CONNECTION = {"headers": {}, "max_retries": 2, "max_connections": 100, "verify": True, "trust_env": True}
MODEL = {**CONNECTION, "follow_redirects": False, "context_size": 4096, "options": {}}
CHAT = {
    **MODEL,
    "mode": "chat",
    "context_overflow": "error",
    "on_length": "warn",
    "allow_image_paths": True,
    **dict.fromkeys(("allow_image_urls", "convert_images"), False),
}
EMBEDDING = {
    **MODEL,
    "batch_size": 64,
    "max_concurrency": 4,
    "overflow": "error",
    "prefixes": False,
    "on_empty": "embed",
}
RERANK = {**MODEL, "max_concurrency": 4, "overflow": "error"}


@pytest.mark.parametrize(
    ("kind", "defaults"),
    [(ModelSettings, MODEL), (ChatSettings, CHAT), (EmbeddingSettings, EMBEDDING), (RerankSettings, RERANK)],
)
def test_defaults(kind: Any, defaults: dict[str, Any]) -> None:
    made = kind(model="m")
    values = {name: getattr(made, name) for name in kind.model_fields}
    assert {name: value for name, value in values.items() if value is not None} == {**defaults, "model": "m"}


@pytest.mark.parametrize("name", ChatSettings.model_fields)
def test_every_chat_field_is_described_or_ollamas_own(name: str) -> None:
    field = ChatSettings.model_fields[name]
    assert field.description or name in ChatSettings.option_fields


@pytest.mark.parametrize(
    ("values", "bound", "limit", "reserve"),
    [
        pytest.param({}, 4096, 4096, 1024, id="defaults"),
        pytest.param({"max_tokens": 100}, 100, 100, 100, id="small bound"),
        pytest.param({"context_size": 100, "max_tokens": 9999}, 9999, 9999, 25, id="bound over the context"),
        pytest.param({"context_size": None}, None, None, None, id="nothing known"),
        pytest.param({"context_size": None, "max_tokens": 7}, 7, 7, None, id="bound alone"),
        pytest.param({"context_size": None, "num_predict": 7}, None, 7, None, id="limit without a bound"),
        pytest.param({"num_predict": 7}, 4096, 7, 1024, id="limit"),
        pytest.param({"num_predict": 4096}, 4096, 4096, 1024, id="limit at the bound"),
        pytest.param({"num_predict": 0}, 4096, 4096, 1024, id="0"),
        pytest.param({"num_predict": -1}, 4096, 4096, 1024, id="-1"),
        pytest.param({"num_predict": -2}, 4096, 4096, 1024, id="-2"),
    ],
)
def test_limits(values: dict[str, Any], bound: int | None, limit: int | None, reserve: int | None) -> None:
    settings = chat(**values)
    assert (settings.token_bound, settings.answer_limit, settings.answer_reserve) == (bound, limit, reserve)


# What is taken, and as what.


@pytest.mark.parametrize(
    ("name", "given_value", "value"),
    [
        pytest.param("model", "  llava ", "llava", id="model trimmed"),
        pytest.param("context_size", "8192", 8192, id="number as text"),
        pytest.param("stop", "a", ["a"], id="one stop word"),
        pytest.param("stop", ["a", "b"], ["a", "b"], id="stop words"),
        pytest.param("stop", [], [], id="no stop words"),
        *[
            pytest.param("keep_alive", v, v, id=f"keep_alive {v!r}")
            for v in (300, 0, -1, 1.5, "300s", "1h30m", "-1s")
        ],
        *[
            pytest.param("keep_alive", v, v, id=f"keep_alive {v!r}")
            for v in ("0", "1.5h", "100ms", "5µs", ".5s")
        ],
        *[
            pytest.param("think", v, v, id=f"think {v!r}")
            for v in (True, False, "low", "medium", "high", "max")
        ],
        pytest.param("format", {"type": "object"}, {"type": "object"}, id="schema"),
        pytest.param("timeout", 5, 5, id="timeout"),
        pytest.param("timeout", {"idle": 5}, Timeouts(idle=5), id="timeouts as a mapping"),
        pytest.param("options", {"temperature_last": 1}, {"temperature_last": 1}, id="an option of tomorrow"),
        pytest.param("options", {"low_vram": True}, {"low_vram": True}, id="an option of yesterday"),
    ],
)
def test_taken(name: str, given_value: Any, value: Any) -> None:
    got = getattr(chat(**{name: given_value}), name)
    assert got == value
    assert isinstance(got, bool) is isinstance(value, bool)


BAD: list[tuple[str, Any]] = [
    *[("model", v) for v in ("", "  ", "m\n", "m\x00", "a\nb", 5, None)],
    *[("context_size", v) for v in (0, -1, "x", 1.5, "4k")],
    *[("max_tokens", v) for v in (0, -1, "x")],
    *[("num_predict", v) for v in (-3, 4097, "x")],
    *[("temperature", v) for v in (-0.1, float("nan"), float("inf"), "hot")],
    *[(name, v) for name in ("top_p", "min_p", "typical_p") for v in (-0.1, 1.1, float("nan"))],
    *[("top_k", -1), ("repeat_last_n", -2), ("num_keep", -2), ("mirostat", 3), ("seed", 1.5)],
    *[("repeat_penalty", float("inf")), ("stop", 5), ("stop", [5])],
    *[("keep_alive", v) for v in ("", "300", "5 m", "m", "abc", "1y", float("inf"), float("nan"), [5])],
    *[("think", v) for v in ("extreme", 5, "")],
    *[("format", v) for v in ("xml", "", 5)],
    *[("top_logprobs", -1), ("top_logprobs", 21), ("mode", "talk"), ("context_overflow", "cut")],
    *[("timeout", v) for v in (0, -1, float("nan"), "soon", {"idle": 0}, {"patience": 1})],
    *[("max_retries", -1), ("max_retries", 101), ("max_connections", 0)],
    *[("num_thread", -1), ("num_batch", 0), ("main_gpu", -1), ("use_mmap", "perhaps"), ("max_image_edge", 0)],
    *[("options", v) for v in (5, {"num_ctx": 1}, {"num_predict": 1}, {"temperature": 1}, {"num_gpu": 1})],
    *[("options", {name: 1}) for name in ("temprature", "Temperature", "repeat_last", "num_ctxx")],
    *[("headers", {"X": v}) for v in ("a\r\nb", "a\x00", " a", "a ", "ä", "鏡")],
    *[
        ("headers", {name: "a"})
        for name in ("", "a b", "a:", "ä", "a\n", "Content-Length", "transfer-encoding")
    ],
    *[("headers", {"Accept-Encoding": "gzip"}), ("headers", {"A": "1", "a": "2"}), ("headers", 5)],
    *[("api_key", v) for v in ("a b", "a\n", "ä", 5)],
    *[("api_key_env", v) for v in ("", "A B", "A=b", "1A", "Ä", 5)],
    *[("base_url", v) for v in ("ftp://x", "http://", "gpu-box:70000", "http://x?y", "", 5)],
]


@pytest.mark.parametrize(("name", "value"), [pytest.param(*bad, id=f"{bad[0]}={bad[1]!r}") for bad in BAD])
def test_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        chat(**{name: value})
    assert name in str(caught.value)
    assert isinstance(caught.value, ValueError)
    settings = chat()
    before = (settings.model_dump(), settings.headers, settings.api_key, settings.address)
    set_before = set(settings.model_fields_set)
    with pytest.raises(ConfigurationError):
        setattr(settings, name, value)
    assert (settings.model_dump(), settings.headers, settings.api_key, settings.address) == before
    assert settings.model_fields_set == set_before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            ("batch_size", 0),
            ("batch_size", 4096),
            ("max_concurrency", 0),
            ("dimensions", 0),
            ("overflow", "trim"),
        ],
        *[("temperature", 1), ("mode", "chat"), ("num_predict", 5), ("options", {"num_ctx": 5})],
    ],
)
def test_refused_for_embeddings(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        embedding(**{name: value})


def test_an_option_without_a_field_there_is_an_option() -> None:
    assert embedding(options={"temperature": 1}).options == {"temperature": 1}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param({"num_predict": 5000}, ("num_predict=5000", "max_tokens=4096"), id="both numbers"),
        pytest.param({"temprature": 1}, ("'temprature'", "did you mean 'temperature'?"), id="misspelt"),
        pytest.param({"zzz": 1}, ("'zzz'", "known are", "context_size", "temperature"), id="far off"),
        pytest.param({"a_b": 1, "temprature": 1}, ("'a_b'", "'temprature'"), id="all of them"),
        pytest.param({"options": {"num_ctx": 1}}, ("set context_size=",), id="option with a field"),
        pytest.param({"options": {"temprature": 1}}, ("did you mean 'temperature'?",), id="misspelt option"),
        pytest.param({"keep_alive": "300"}, ("'300'", "300s"), id="duration"),
        pytest.param({"context_size": "4k"}, ("context_size: ", ", not '4k'"), id="value"),
        pytest.param({"context_size": "x" * 13}, ("not a text of 13 characters",), id="long value"),
        pytest.param({"mode": "talk"}, ("mode: ", "'chat' or 'completion', not 'talk'"), id="choice"),
        pytest.param(
            {"timeout": "soon"},
            ("timeout: takes a number of seconds greater than 0, a Timeouts",),
            id="union",
        ),
        pytest.param({"timeout": {"idle": 0}}, ("timeout: idle: Input should be", "not 0"), id="in a union"),
        pytest.param({"temperature": "hot"}, ("should be a valid number, not 'hot'",), id="number"),
        pytest.param({"think": 5}, ("think: takes True, False, ", "not 5"), id="think"),
        pytest.param({"base_url": "ftp://x"}, ("ChatSettings: base_url 'ftp://x' begins",), id="address"),
        pytest.param({"http_backend": "aiohttp"}, ("one HTTP transport", "leave it out"), id="http_backend"),
        pytest.param({"api_key_from_env": True}, ('api_key_env="OLLAMA_API_KEY"',), id="api_key_from_env"),
    ],
)
def test_errors_say_what_to_do(values: dict[str, Any], said: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        chat(**values)
    assert str(caught.value).startswith("ChatSettings: ")
    assert str(caught.value).count("ChatSettings") == 1
    assert "literal" not in str(caught.value)
    assert ".float" not in str(caught.value)
    for part in said:
        assert part in str(caught.value)


@pytest.mark.parametrize("name", FOREIGN_NAMES)
def test_other_libraries_names_are_named(name: str) -> None:
    make = EmbeddingSettings if name == "embed_batch_size" else ChatSettings
    with pytest.raises(ConfigurationError, match=f"unknown argument '{name}': here it is called") as caught:
        make(**{"model": "m", name: 1})
    assert FOREIGN_NAMES[name] in str(caught.value)


def test_a_missing_model() -> None:
    with pytest.raises(ConfigurationError, match="model: Field required"):
        ChatSettings()


@pytest.mark.parametrize(
    "values", [{"connect": 0}, {"idle": -1}, {"total": float("nan")}, {"pool": "x"}, {"x": 1}]
)
def test_bad_timeouts(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"Timeouts: .*{next(iter(values))}"):
        Timeouts(**values)


@pytest.mark.parametrize(
    ("timeout", "phases"),
    [
        pytest.param(None, (5, 900, 600, 300, 60, None), id="unset"),
        pytest.param(60, (5, 900, 600, 300, 60, 60), id="a number is the total"),
        pytest.param(Timeouts(idle=None, total=9), (5, 900, 600, None, 60, 9), id="phases"),
    ],
)
def test_timeouts(timeout: Any, phases: tuple[float | None, ...]) -> None:
    told = chat(timeout=timeout).timeouts
    assert tuple(told.model_dump().values()) == phases


# Assignment.


@pytest.mark.parametrize(
    ("name", "value", "anew"),
    [
        pytest.param("temperature", 0.5, False, id="of the model"),
        pytest.param("max_retries", 5, False, id="retries"),
        pytest.param("timeout", 3, True, id="timeout"),
        pytest.param("base_url", "other", True, id="address"),
        pytest.param("base_url", "http://h:1/", False, id="the same address"),
        pytest.param("api_key", "k", True, id="key"),
        pytest.param("api_key_env", "K", True, id="name of a key"),
        pytest.param("headers", {"A": "b"}, True, id="headers"),
        pytest.param("proxy", "http://p:1", True, id="proxy"),
        pytest.param("verify", False, True, id="verification"),
        pytest.param("http_client", object(), True, id="own client"),
    ],
)
def test_a_client_connects_anew_when_the_connection_changed(name: str, value: Any, anew: bool) -> None:
    settings = chat()
    before = settings.connection_values()
    setattr(settings, name, value)
    assert (settings.connection_values() != before) is anew
    assert hash(before) is not None


def test_assignment_is_validated() -> None:
    settings = chat()
    settings.temperature = "0.5"  # type: ignore[assignment]
    assert settings.temperature == 0.5
    settings.base_url = "other"
    assert (settings.address.url, settings.base_url) == ("http://other:11434", "http://other:11434")


def test_a_copy_with_other_values_is_checked() -> None:
    settings = chat(num_predict=100)
    made = settings.model_copy(update={"context_size": "2048", "base_url": "http://o:2"})
    assert (made.context_size, made.address.url, made.num_predict) == (2048, "http://o:2", 100)
    assert made.model_fields_set == {"model", "base_url", "num_predict", "context_size"}
    assert (settings.context_size, settings.address.url) == (4096, "http://h:1")
    for update, said in (({"context_size": 50}, "num_predict=100"), ({"contxt_size": 1}, "context_size")):
        with pytest.raises(ConfigurationError, match=said):
            settings.model_copy(update=update)


@pytest.mark.parametrize(
    ("good", "field", "bad", "said"),
    [
        ({"num_predict": 100}, "context_size", 50, "num_predict=100 asks for more"),
        ({"num_predict": 100}, "num_predict", 5000, "num_predict=5000 asks for more"),
        (
            {"max_image_edge": 512, "convert_images": True},
            "convert_images",
            False,
            "needs convert_images=True",
        ),
    ],
)
def test_a_check_across_fields_rolls_back(good: Any, field: str, bad: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        chat(**{**good, field: bad})
    settings = chat(**good)
    before = settings.explicit()
    with pytest.raises(ConfigurationError, match=said):
        setattr(settings, field, bad)
    assert settings.explicit() == before


@pytest.mark.parametrize(("name", "said"), [("temprature", "temperature"), ("num_ctx", "context_size")])
def test_assignment_to_an_unknown_name(name: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        setattr(chat(), name, 1)


def test_arguments_are_copied() -> None:
    headers, options = {"X": "1"}, {"numa": True}
    settings = chat(headers=headers, options=options)
    headers["X"] = "2"
    options["numa"] = False
    assert (settings.headers, settings.options) == ({"X": "1"}, {"numa": True})
    chat(headers=headers, base_url="http://u:p@h:1")
    assert headers == {"X": "2"}


# S7, S8: the address, the key and the environment.


@pytest.mark.parametrize(
    ("base_url", "host", "url", "source"),
    [
        pytest.param(None, None, "http://localhost:11434", "default", id="nothing"),
        pytest.param(None, "", "http://localhost:11434", "default", id="empty OLLAMA_HOST"),
        pytest.param(None, "0.0.0.0:1234", "http://127.0.0.1:1234", "OLLAMA_HOST", id="OLLAMA_HOST"),
        pytest.param("gpu-box", "0.0.0.0:1234", "http://gpu-box:11434", "base_url", id="base_url wins"),
        pytest.param("http://h:1/p/api/", None, "http://h:1/p", "base_url", id="forgiven"),
    ],
)
def test_addresses(
    monkeypatch: pytest.MonkeyPatch, base_url: str | None, host: str | None, url: str, source: str
) -> None:
    if host is not None:
        monkeypatch.setenv("OLLAMA_HOST", host)
    settings = ChatSettings(model="m", base_url=base_url)
    assert (settings.address.url, settings.address.source) == (url, source)
    assert settings.base_url == (None if base_url is None else url)


def test_the_environment_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "one")
    settings = ChatSettings(model="m")
    monkeypatch.setenv("OLLAMA_HOST", "two")
    settings.temperature = 0
    assert settings.address.url == "http://one:11434"
    assert ChatSettings(model="m").address.url == "http://two:11434"


def test_a_bad_environment_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "ftp://x")
    with pytest.raises(ConfigurationError, match="OLLAMA_HOST"):
        ChatSettings(model="m")


def key_of(settings: ConnectionSettings) -> str | None:
    return None if settings.api_key is None else settings.api_key.get_secret_value()


def sent(settings: ConnectionSettings) -> str | None:
    """The key that is sent."""
    value = settings.sent_headers().get("authorization")
    return None if value is None else value.removeprefix("Bearer ")


@pytest.mark.parametrize(
    ("values", "environment", "key"),
    [
        pytest.param({"base_url": "https://ollama.com"}, CANARY, CANARY, id="ollama.com"),
        pytest.param({"base_url": "ollama.com"}, f" {CANARY}\n", CANARY, id="trimmed"),
        pytest.param({"base_url": "https://api.ollama.com"}, CANARY, CANARY, id="below ollama.com"),
        pytest.param({"base_url": "https://ollama.com.evil.example"}, CANARY, None, id="not a lookalike"),
        pytest.param({"base_url": "https://evilollama.com"}, CANARY, None, id="not another lookalike"),
        pytest.param({"base_url": "http://h:1"}, CANARY, None, id="nowhere else"),
        pytest.param({"base_url": "http://ollama.com"}, CANARY, None, id="not unencrypted"),
        pytest.param(
            {"base_url": "http://h:1", "api_key_env": "OLLAMA_API_KEY"}, CANARY, CANARY, id="when asked for"
        ),
        pytest.param({"base_url": "ollama.com", "api_key": "mine"}, CANARY, "mine", id="a given key wins"),
        pytest.param({"base_url": "ollama.com"}, "", None, id="empty variable"),
        pytest.param({"base_url": "ollama.com", "api_key": ""}, CANARY, CANARY, id="empty key"),
        pytest.param({"base_url": "ollama.com", "api_key": None}, CANARY, CANARY, id="no key"),
        pytest.param({"api_key": SecretStr("mine")}, None, "mine", id="secret"),
    ],
)
def test_keys(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], environment: str | None, key: str | None
) -> None:
    if environment is not None:
        monkeypatch.setenv("OLLAMA_API_KEY", environment)
    settings = ChatSettings(model="m", **values)
    assert sent(settings) == key
    assert CANARY not in str(vars(settings))


@pytest.mark.parametrize("values", [{"base_url": "ollama.com"}, {"api_key_env": "OLLAMA_API_KEY"}])
def test_an_unusable_key_in_the_environment(monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", f"{CANARY}\nX-Injected: 1")
    settings = ChatSettings(model="m", **values)
    with pytest.raises(ConfigurationError, match="variable OLLAMA_API_KEY holds") as caught:
        settings.sent_headers()
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("kind", [OllamaClient, AsyncOllamaClient])
async def test_the_variable_of_a_key_is_read_at_the_first_request(
    monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    settings = ConnectionSettings(base_url="http://127.0.0.1:9", api_key_env="OF_MINE")
    for blank in (None, "", " "):
        if blank is not None:
            monkeypatch.setenv("OF_MINE", blank)
        with pytest.raises(ConfigurationError, match="environment variable OF_MINE is not set"):
            answer = kind(settings).version()
            if kind is AsyncOllamaClient:
                await answer
    monkeypatch.setenv("OF_MINE", CANARY)
    assert sent(settings) == CANARY
    assert CANARY.encode() not in pickle.dumps(settings)
    assert sent(pickle.loads(pickle.dumps(settings))) == CANARY


def test_what_comes_past_validation_is_checked_before_it_is_sent() -> None:
    settings = chat(api_key=CANARY)
    settings.__dict__["base_url"] = "http://other:1"
    with pytest.raises(ConfigurationError, match="api_key was given for http://h:1"):
        OllamaClient(settings).version()
    made = ChatSettings.model_construct(model="m", base_url="http://h:1/api", api_key=SecretStr(CANARY))
    assert (made.address.url, sent(made)) == ("http://h:1", CANARY)


def test_two_ways_to_give_a_key() -> None:
    with pytest.raises(ConfigurationError, match="api_key and api_key_env are two ways"):
        chat(api_key="k", api_key_env="K")
    with pytest.raises(ConfigurationError, match="no name of an environment variable") as caught:
        chat(api_key_env=CANARY)
    assert CANARY not in str(caught.value)


def test_userinfo_becomes_a_header() -> None:
    settings = chat(base_url="http://me:secret@h:1")
    assert (settings.base_url, settings.headers) == ("http://h:1", {})
    settings.temperature = 0
    assert sent(settings) == "Basic bWU6c2VjcmV0"
    for made in (ChatSettings.from_settings(settings), settings.for_embedding("e")):
        assert sent(made) == "Basic bWU6c2VjcmV0"


def test_a_given_authorization_wins_over_userinfo() -> None:
    made = chat(base_url="http://me:secret@h:1", headers={"Authorization": "Mine"}, api_key="k")
    assert made.sent_headers() == {"authorization": "Mine"}


# Secrets never show.


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"api_key": CANARY}, id="key"),
        pytest.param({"headers": {"Authorization": f"Bearer {CANARY}"}}, id="header"),
        pytest.param({"base_url": f"http://me:{CANARY}@h:1"}, id="userinfo"),
        pytest.param({"proxy": f"http://me:{CANARY}@proxy:1"}, id="proxy"),
    ],
)
def test_secrets_do_not_show(values: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    settings = chat(**values)
    shown = [repr(settings), str(settings), repr(settings.model_dump()), settings.model_dump_json()]
    shown += [repr(settings.address), json.dumps(settings.to_dify(secrets=False)), str(vars(settings))]
    for bad in ({"temprature": 1}, {"context_size": -1}, {"num_predict": 9999}, {"base_url": "http://x?y"}):
        with pytest.raises(ConfigurationError) as caught:
            chat(**{**values, **bad})
        shown.append("".join(traceback.format_exception(caught.value)))
        shown.append(repr(caught.value.__cause__))
    shown.append(caplog.text)
    # The header itself is in `__dict__`, for those who look there.
    assert CANARY not in "\n".join(shown).replace(f"'Authorization': 'Bearer {CANARY}'", "")
    again = pickle.loads(pickle.dumps(settings))
    assert again.explicit() == settings.explicit()


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"api_key": f"{CANARY} x"}, id="key with a space"),
        pytest.param({"headers": {"Authorization": f"{CANARY}\r\n"}}, id="header with a line break"),
        pytest.param({"base_url": f"http://me:{CANARY}@h:99999"}, id="userinfo of a bad address"),
        pytest.param({"base_url": f"http://me:{CANARY}@h?x"}, id="userinfo of an address with a query"),
        pytest.param({"api_key": [CANARY]}, id="key of another type"),
        pytest.param({"headers": CANARY}, id="headers of another type"),
        pytest.param({"proxy": [CANARY]}, id="proxy of another type"),
    ],
)
def test_refused_secrets_do_not_show(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        chat(**values)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    settings = chat()
    ((name, value),) = values.items()
    with pytest.raises(ConfigurationError) as caught:
        setattr(settings, name, value)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


# Copies and conversions.

FULL: dict[str, Any] = {
    "base_url": "http://me:pw@h:1/p",
    "api_key": CANARY,
    "headers": {"X": "1"},
    "timeout": Timeouts(total=3),
    "proxy": "http://proxy:1",
    "temperature": 0,
    "stop": ["a"],
    "options": {"numa": True},
    "format": {"type": "object"},
}


def test_a_deep_copy_shares_what_cannot_be_copied() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with httpx.Client(verify=context) as client:
        settings = chat(http_client=client, verify=context)
        again = copy.deepcopy(settings)
        assert again.http_client is client
        assert again.verify is context
        assert again.options is not settings.options


def test_from_settings_takes_what_was_set() -> None:
    settings = chat(temperature=0)
    made = ChatSettings.from_settings(settings, temperature=1, seed=2)
    assert (made.temperature, made.seed, made.base_url) == (1, 2, "http://h:1")
    assert made.model_fields_set == {"model", "base_url", "temperature", "seed"}
    model = ModelSettings.from_settings(settings)
    assert (model.model, type(model)) == ("llava", ModelSettings)


def test_for_embedding_keeps_the_server_and_nothing_else() -> None:
    settings = chat(**FULL, context_size=999, max_retries=7)
    made = settings.for_embedding("e", batch_size=8)
    assert type(made) is EmbeddingSettings
    assert (made.model, made.batch_size, made.context_size) == ("e", 8, 4096)
    assert (made.address.url, key_of(made), made.timeouts.total, made.max_retries) == (
        "http://h:1/p",
        CANARY,
        3,
        7,
    )
    assert made.headers == settings.headers
    with pytest.raises(ConfigurationError, match="temperature"):
        settings.for_embedding("e", temperature=0)


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        pytest.param(EmbeddingSettings, chat(), "for_embedding", id="chat for embedding"),
        pytest.param(ChatSettings, embedding(), "ChatSettings\\(model=", id="embedding for chat"),
        pytest.param(ChatSettings, {"model": "m"}, "from_settings takes ChatSettings, not dict", id="dict"),
        pytest.param(ConnectionSettings, None, "not NoneType", id="None"),
    ],
)
def test_settings_of_another_kind(kind: Any, given: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        kind.from_settings(given)


class Framework(ClientOwner, ChatSettings):
    """What an adapter is, less its framework."""

    extra_field: int = 5


def test_a_class_of_an_adapter() -> None:
    settings = chat(temperature=0, api_key=CANARY)
    made = Framework.from_settings(settings, extra_field=6)
    assert (made.temperature, made.extra_field, key_of(made)) == (0, 6, CANARY)
    assert ChatSettings.from_settings(made).explicit() == settings.explicit()
    with pytest.raises(ConfigurationError, match="extra_field"):
        Framework(model="m", extra_feld=1)
    with made as entered:
        assert entered is made


@given(
    values=st.dictionaries(
        st.sampled_from([*sorted(ChatSettings.model_fields), "num_ctx", "nonsense"]),
        st.none()
        | st.booleans()
        | st.integers(-3, 5000)
        | st.floats()
        | st.text(max_size=5)
        | st.just({})
        | st.just([]),
        max_size=6,
    )
)
def test_no_argument_escapes_the_error_tree(values: dict[str, Any]) -> None:
    try:
        settings = ChatSettings(**values)
    except ConfigurationError:
        return
    assert settings.timeouts
    assert settings.model_fields_set <= set(values)
