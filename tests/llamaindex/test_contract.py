"""What both classes inherit: the settings' rules, and LlamaIndex's."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.types import MessageRole
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import LLM

import llamaindex_ollama_dify
from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding, OllamaDifyRerank
from ollama_dify import ConfigurationError

CLASSES: list[Any] = [OllamaDify, OllamaDifyEmbedding, OllamaDifyRerank]
both = pytest.mark.parametrize("cls", CLASSES, ids=["llm", "embedding", "rerank"])
SECRET = "sk-very-secret"
SECRETS: dict[str, Any] = {
    "api_key": SECRET,
    "headers": {"X-Token": "header-secret"},
    "proxy": "http://user:proxy-secret@proxy.example:3128",
}


def make(cls: Any, **values: Any) -> Any:
    return cls(**{"model": "some-model", "base_url": "http://server.example:11434", **values})


def test_public_names() -> None:
    assert llamaindex_ollama_dify.__all__ == [
        "OllamaDify",
        "OllamaDifyEmbedding",
        "OllamaDifyRerank",
        "prompt_template",
    ]


@both
def test_pickling_drops_no_setting_and_leaves_the_object_alone(cls: Any) -> None:
    manager = CallbackManager([])
    manager.on_event_start = lambda *args, **kwargs: ""  # type: ignore[method-assign]
    model = make(cls, callback_manager=manager)
    assert pickle.loads(pickle.dumps(model)).callback_manager is not manager
    assert model.callback_manager is manager
    unmovable = make(cls, http_client=lambda: None)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(unmovable)


@both
def test_to_dict_and_back(cls: Any) -> None:
    model = make(cls, context_size=512, keep_alive="5m", options={"penalize_newline": True}, **SECRETS)
    data = model.to_dict()
    assert data["class_name"] == cls.class_name() == cls.__name__
    again = cls.from_dict(data, api_key=SECRET)
    assert again.to_dict() == data
    assert again.api_key.get_secret_value() == SECRET
    assert cls.from_json(model.to_json()).to_dict() == data
    assert "class_name" in data


@pytest.mark.parametrize(
    ("values", "window", "reserve"),
    [
        ({}, 4096, 1024),
        ({"context_size": 8192, "max_tokens": 300}, 8192, 300),
        ({"context_size": 1000, "max_tokens": 4096}, 1000, 250),
        ({"context_size": None}, 3900, 975),
        ({"context_size": None, "max_tokens": 100}, 3900, 100),
    ],
    ids=["defaults", "bound", "quarter", "server-decides", "server-decides-bound"],
)
def test_metadata_asks_nobody(values: dict[str, Any], window: int, reserve: int) -> None:
    metadata = make(OllamaDify, **values).metadata
    assert (metadata.context_window, metadata.num_output) == (window, reserve)
    assert (metadata.is_chat_model, metadata.is_function_calling_model) == (True, True)
    assert (metadata.model_name, metadata.system_role) == ("some-model", MessageRole.SYSTEM)


@pytest.mark.parametrize(
    ("values", "chats", "calls"),
    [
        ({"mode": "completion"}, False, False),
        ({"mode": "completion", "function_call_support": True}, False, False),
        ({"function_call_support": False}, True, False),
        ({"function_call_support": True}, True, True),
    ],
)
def test_metadata_by_settings(values: dict[str, Any], chats: bool, calls: bool) -> None:
    metadata = make(OllamaDify, **values).metadata
    assert (metadata.is_chat_model, metadata.is_function_calling_model) == (chats, calls)


def test_metadata_learns_from_the_server(make_llm: Any) -> None:
    llm = make_llm("gemma3")
    assert llm.metadata.is_function_calling_model
    llm.client.model_info()
    assert not llm.metadata.is_function_calling_model
    assert make_llm("gemma3", function_call_support=True).metadata.is_function_calling_model


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"model": "m"}, ("m", 64, 4)),
        ({"model_name": "m", "embed_batch_size": 5, "num_workers": 2}, ("m", 5, 2)),
        ({"model": "m", "model_name": "m", "batch_size": 5, "max_concurrency": 2}, ("m", 5, 2)),
    ],
    ids=["defaults", "theirs", "ours"],
)
def test_two_words_for_one_setting(values: dict[str, Any], expected: tuple[str, int, int]) -> None:
    embedding = OllamaDifyEmbedding(base_url="http://server.example", **values)
    assert (embedding.model_name, embedding.embed_batch_size, embedding.num_workers) == expected
    assert (embedding.model, embedding.batch_size, embedding.max_concurrency) == expected


def test_two_words_follow_each_other_on_assignment() -> None:
    embedding = OllamaDifyEmbedding(model="m", base_url="http://server.example")
    embedding.embed_batch_size = 7
    assert embedding.batch_size == embedding.embed_batch_size == 7
    embedding.model = "n"
    assert embedding.model_name == "n"
    embedding.max_concurrency = 9
    assert embedding.num_workers == 9
    with pytest.raises(ConfigurationError, match="two words for one setting"):
        OllamaDifyEmbedding(model="m", batch_size=1, embed_batch_size=2, base_url="http://server.example")
    with pytest.raises(ConfigurationError, match="batch_size"):
        embedding.embed_batch_size = 0
    assert embedding.embed_batch_size == 7


def test_global_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_llm", "_embed_model"):
        monkeypatch.setattr(Settings, name, None)
    llm, embedding = make(OllamaDify), make(OllamaDifyEmbedding)
    Settings.llm, Settings.embed_model = llm, embedding
    assert Settings.llm is llm
    assert Settings.embed_model is embedding
    assert isinstance(llm, LLM)
