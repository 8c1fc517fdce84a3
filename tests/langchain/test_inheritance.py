"""What each class owes the settings it inherits: the traps of mixing two pydantic families."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.load import dumpd, load
from pydantic import SecretStr

import ollama_dify
from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings, OllamaDifyLLM, OllamaDifyRerank

KEY = "sk-very-secret"
CLASSES: dict[str, tuple[Any, Any]] = {
    "chat": (ChatOllamaDify, ollama_dify.ChatSettings),
    "llm": (OllamaDifyLLM, ollama_dify.ChatSettings),
    "embeddings": (OllamaDifyEmbeddings, ollama_dify.EmbeddingSettings),
    "rerank": (OllamaDifyRerank, ollama_dify.RerankSettings),
}
each = pytest.mark.parametrize(("kind", "settings"), CLASSES.values(), ids=CLASSES)


def secretive(kind: Any, **values: Any) -> Any:
    return kind(model="m", api_key=KEY, headers={"X-Token": KEY}, proxy=f"http://u:{KEY}@p.example", **values)


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
