"""What each class owes the settings it inherits: the traps of mixing two pydantic families."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import cloudpickle
import pytest
from langchain_core.documents import Document
from langchain_core.load import dumpd, dumps, load
from pydantic import SecretStr

import ollama_dify
from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings, OllamaDifyLLM, OllamaDifyRerank
from ollama_dify.testing import SimulatedOllama

KEY = "sk-very-secret"
CLASSES: dict[str, tuple[Any, Any]] = {
    "chat": (ChatOllamaDify, ollama_dify.ChatSettings),
    "llm": (OllamaDifyLLM, ollama_dify.ChatSettings),
    "embeddings": (OllamaDifyEmbeddings, ollama_dify.EmbeddingSettings),
    "rerank": (OllamaDifyRerank, ollama_dify.RerankSettings),
}
each = pytest.mark.parametrize(("kind", "settings"), CLASSES.values(), ids=CLASSES)
COPIES: dict[str, Any] = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "cloudpickle": lambda model: pickle.loads(cloudpickle.dumps(model)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "model_copy": lambda model: model.model_copy(),
}


def secretive(kind: Any, **values: Any) -> Any:
    return kind(model="m", api_key=KEY, headers={"X-Token": KEY}, proxy=f"http://u:{KEY}@p.example", **values)


@each
def test_an_unknown_argument_is_an_error(kind: Any, settings: Any) -> None:
    with pytest.raises(ollama_dify.ConfigurationError, match="did you mean 'keep_alive'"):
        kind(model="m", keepalive=1)


@each
def test_a_wrong_value_is_an_error_without_the_value(kind: Any, settings: Any) -> None:
    with pytest.raises(ollama_dify.ConfigurationError) as caught:
        kind(model="m", api_key=f"{KEY}\n", context_size=-1)

    assert "context_size" in str(caught.value)
    assert "sk-very" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


@each
def test_an_assignment_is_checked(kind: Any, settings: Any) -> None:
    model = kind(model="m")

    with pytest.raises(ollama_dify.ConfigurationError, match="context_size"):
        model.context_size = 0
    assert model.context_size == 4096
    model.context_size = 1024
    assert model.context_size == 1024


@each
def test_fields_and_defaults_are_those_of_the_settings(kind: Any, settings: Any) -> None:
    model, plain = kind(model="m"), settings(model="m")

    assert {name: getattr(model, name) for name in settings.model_fields} == {
        name: getattr(plain, name) for name in settings.model_fields
    }


@each
def test_from_settings(kind: Any, settings: Any) -> None:
    given = settings(model="m", api_key=KEY, headers={"A": "b"}, context_size=1024, keep_alive=5)

    model = kind.from_settings(given, context_size=2048)

    assert (model.model, model.context_size, model.keep_alive) == ("m", 2048, 5)
    assert model.api_key == SecretStr(KEY)
    assert model.headers == {"A": "b"}


@each
def test_secrets_are_not_shown(kind: Any, settings: Any) -> None:
    model = secretive(kind)

    shown = [repr(model), str(model), model.model_dump_json(), dumps(model), str(dumpd(model))]

    assert [text for text in shown if KEY in text] == []


@each
@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_a_copy_keeps_its_secrets_and_works(
    server: SimulatedOllama, kind: Any, settings: Any, duplicate: Any
) -> None:
    name = "nomic-embed-text" if kind is OllamaDifyEmbeddings else "all-round"
    model = kind(model=name, base_url=server.base_url, api_key=KEY, headers={"X-Token": KEY})
    use(model)

    other = duplicate(model)
    use(other)

    assert other.explicit() == model.explicit()
    request = server.requests[-1]
    assert request.header("authorization") == f"Bearer {KEY}"
    assert request.header("x-token") == KEY
    assert other.client is not model.client


def use(model: Any) -> None:
    if isinstance(model, OllamaDifyEmbeddings):
        model.embed_query("Hello")
    elif isinstance(model, OllamaDifyRerank):
        model.compress_documents([Document("Hello")], "Hello")
    else:
        model.invoke("Hello")


@each
@pytest.mark.filterwarnings("ignore:The function `load` is in beta")
def test_the_round_trip_of_dumpd_and_load(kind: Any, settings: Any) -> None:
    values: dict[str, Any] = {"context_size": None, "keep_alive": 0, "options": {"low_vram": True}}
    values["timeout"] = ollama_dify.Timeouts(connect=1, total=9)
    model = secretive(kind, base_url="http://one.example:1", **values)

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
    monkeypatch: pytest.MonkeyPatch, kind: Any, settings: Any, values: dict[str, Any], dumped_values: Any
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


@each
def test_repr_shows_what_was_set(kind: Any, settings: Any) -> None:
    made = kind(model="m", api_key=KEY, keep_alive=5)
    assert repr(made) == f"{kind.__name__}(model='m', keep_alive=5)"


@each
def test_settings_of_another_kind_of_model(kind: Any, settings: Any) -> None:
    wrong = (
        ollama_dify.EmbeddingSettings
        if issubclass(kind, ollama_dify.ChatSettings)
        else ollama_dify.ChatSettings
    )
    named = {OllamaDifyEmbeddings: "for_embedding", OllamaDifyRerank: "for_rerank"}.get(kind, "ChatSettings")
    with pytest.raises(ollama_dify.ConfigurationError, match=named):
        kind.from_settings(wrong(model="m"))


@each
async def test_a_model_can_be_closed_and_used_again(
    server: SimulatedOllama, kind: Any, settings: Any
) -> None:
    name = "nomic-embed-text" if kind is OllamaDifyEmbeddings else "all-round"
    with kind(model=name) as model:
        use(model)
    use(model)
    async with model:
        if kind is OllamaDifyRerank:
            await model.acompress_documents([Document("a")], "a")
        else:
            await (model.aembed_query("a") if kind is OllamaDifyEmbeddings else model.ainvoke("a"))
    model.close()

    assert len(server.requests) == 3
