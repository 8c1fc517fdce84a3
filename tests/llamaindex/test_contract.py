"""What both classes inherit: the settings' rules, and LlamaIndex's."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import cloudpickle
import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.types import MessageRole
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import LLM

import llamaindex_ollama_dify
from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding, OllamaDifyRerank
from ollama_dify import ChatSettings, ConfigurationError, EmbeddingSettings

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
@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"modell": "x"}, "unknown argument 'modell'; did you mean 'model'"),
        ({"num_ctx": 2048}, "'num_ctx': here it is called context_size"),
        ({"request_timeout": 3}, "here it is called timeout"),
        ({"context_window": 1}, "here it is called context_size"),
        ({"context_size": 0}, "context_size"),
        ({"base_url": "http://:bad"}, "bad"),
        ({"api_key": f"{SECRET}\n2"}, "api_key"),
        ({"options": {"num_ctx": 1}}, "set context_size="),
    ],
    ids=["unknown", "num_ctx", "request_timeout", "context_window", "range", "address", "key", "options"],
)
def test_what_cannot_work_is_a_configuration_error(cls: Any, values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        make(cls, **values)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).count(cls.__name__) == 1
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@both
def test_assignment_is_validated_and_undone(cls: Any) -> None:
    model = make(cls)
    with pytest.raises(ConfigurationError, match="context_size"):
        model.context_size = -1
    assert model.context_size == 4096
    with pytest.raises(ConfigurationError, match="unknown argument 'contextsize'"):
        model.contextsize = 3


@both
def test_secrets_are_hidden(cls: Any) -> None:
    model = make(cls, **SECRETS)
    shown = [
        repr(model),
        str(model),
        json.dumps(model.to_dict(), default=str),
        model.to_json(),
        # A postprocessor has none.
        str(getattr(model, "to_payload", dict)()),
    ]
    for text in shown:
        assert not any(secret in text for secret in (SECRET, "header-secret", "proxy-secret"))


@both
@pytest.mark.parametrize(
    "copied",
    [
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: cloudpickle.loads(cloudpickle.dumps(model)),
        copy.copy,
        copy.deepcopy,
        lambda model: model.model_copy(),
    ],
    ids=["pickle", "cloudpickle", "copy", "deepcopy", "model_copy"],
)
def test_copies_keep_everything(cls: Any, copied: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "first.example:1234")
    model = cls(model="some-model", context_size=512, keep_alive="5m", **SECRETS)
    client = model.client
    # The environment of another process may differ; the copy asks the same server.
    monkeypatch.setenv("OLLAMA_HOST", "second.example:1234")
    twin = copied(model)
    assert type(twin) is cls
    assert twin.address == model.address
    assert twin.explicit() == model.explicit()
    assert twin.api_key.get_secret_value() == SECRET
    assert twin.headers == SECRETS["headers"]
    assert isinstance(twin.callback_manager, CallbackManager)
    assert model.client is client
    assert twin.client is not client


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


@both
def test_context_manager_closes(cls: Any) -> None:
    with make(cls) as model:
        first = model.client
    assert model.client is first


@both
def test_repr_shows_what_was_set(cls: Any) -> None:
    assert repr(cls(model="m", api_key=SECRET, keep_alive=5)) == f"{cls.__name__}(model='m', keep_alive=5)"


@both
def test_settings_of_another_kind_of_model(cls: Any) -> None:
    wrong = EmbeddingSettings if cls is OllamaDify else ChatSettings
    named = {OllamaDifyEmbedding: "for_embedding", OllamaDifyRerank: "for_rerank"}.get(cls, "ChatSettings")
    with pytest.raises(ConfigurationError, match=named):
        cls.from_settings(wrong(model="m"))


def test_from_settings() -> None:
    settings = ChatSettings(
        model="llava", base_url="http://server.example", context_size=2048, api_key=SECRET
    )
    llm = OllamaDify.from_settings(settings, temperature=0)
    assert (llm.model, llm.context_size, llm.temperature) == ("llava", 2048, 0)
    assert llm.explicit(fields=ChatSettings) == {**settings.explicit(), "temperature": 0}
    form = {"base_url": "http://server.example", "context_size": "512"}
    embedding = OllamaDifyEmbedding.from_settings(
        EmbeddingSettings.from_dify("nomic-embed-text", form), batch_size=8
    )
    assert (embedding.context_size, embedding.model_name, embedding.embed_batch_size) == (
        512,
        "nomic-embed-text",
        8,
    )


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


def test_tokenizer_counts_as_the_model(make_llm: Any) -> None:
    llm = make_llm()
    tokenize = llm.tokenizer
    ids = tokenize("Hello there, how are you?")
    assert len(ids) == llm.client.count_tokens("Hello there, how are you?").tokens
    assert all(isinstance(number, int) for number in ids)
    assert pickle.loads(pickle.dumps(tokenize))("Hello") == tokenize("Hello")
