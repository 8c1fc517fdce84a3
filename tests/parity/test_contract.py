"""What each class of both frameworks owes its settings: the traps of mixing two pydantic families."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import cloudpickle
import pytest
from langchain_core.documents import Document
from langchain_core.load import dumpd, dumps
from llama_index.core.schema import NodeWithScore, TextNode

import langchain_ollama_dify as langchain
import llamaindex_ollama_dify as llamaindex
from ollama_dify import ChatSettings, ConfigurationError, EmbeddingSettings, RerankSettings
from ollama_dify.testing import SimulatedOllama

KEY = "sk-very-secret"
SECRETS: dict[str, Any] = {
    "api_key": KEY,
    "headers": {"X-Token": "header-secret"},
    "proxy": "http://user:proxy-secret@proxy.example:3128",
}
DOCUMENTS, NODES = [Document("Hello")], [NodeWithScore(node=TextNode(text="Hello"))]
# The class, its settings, and its sync and async call.
CLASSES: dict[str, tuple[Any, Any, Any, Any]] = {
    "langchain chat": (
        langchain.ChatOllamaDify,
        ChatSettings,
        lambda m: m.invoke("a"),
        lambda m: m.ainvoke("a"),
    ),
    "langchain llm": (
        langchain.OllamaDifyLLM,
        ChatSettings,
        lambda m: m.invoke("a"),
        lambda m: m.ainvoke("a"),
    ),
    "langchain embeddings": (
        langchain.OllamaDifyEmbeddings,
        EmbeddingSettings,
        lambda m: m.embed_query("a"),
        lambda m: m.aembed_query("a"),
    ),
    "langchain rerank": (
        langchain.OllamaDifyRerank,
        RerankSettings,
        lambda m: m.compress_documents(DOCUMENTS, "a"),
        lambda m: m.acompress_documents(DOCUMENTS, "a"),
    ),
    "llamaindex llm": (
        llamaindex.OllamaDify,
        ChatSettings,
        lambda m: m.complete("a"),
        lambda m: m.acomplete("a"),
    ),
    "llamaindex embedding": (
        llamaindex.OllamaDifyEmbedding,
        EmbeddingSettings,
        lambda m: m.get_query_embedding("a"),
        lambda m: m.aget_query_embedding("a"),
    ),
    "llamaindex rerank": (
        llamaindex.OllamaDifyRerank,
        RerankSettings,
        lambda m: m.postprocess_nodes(NODES, query_str="a"),
        lambda m: m.apostprocess_nodes(NODES, query_str="a"),
    ),
}
each = pytest.mark.parametrize("cls", [row[0] for row in CLASSES.values()], ids=CLASSES)
with_settings = pytest.mark.parametrize(
    ("cls", "settings"), [row[:2] for row in CLASSES.values()], ids=CLASSES
)

MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"modell": "x"}, "unknown argument 'modell'; did you mean 'model'"),
    "num_ctx": ({"num_ctx": 2048}, "'num_ctx': here it is called context_size"),
    "request_timeout": ({"request_timeout": 3}, "here it is called timeout"),
    "context_window": ({"context_window": 1}, "here it is called context_size"),
    "range": ({"context_size": 0}, "context_size"),
    "address": ({"base_url": "http://:bad"}, "bad"),
    "key": ({"api_key": f"{KEY}\n2"}, "api_key"),
    "options": ({"options": {"num_ctx": 1}}, "set context_size="),
}


@each
@pytest.mark.parametrize(("values", "told"), MISTAKES.values(), ids=MISTAKES)
def test_what_cannot_work(cls: Any, values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        cls(**{"model": "m", "base_url": "http://server.example", **values})
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).count(cls.__name__) == 1
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None


@each
def test_an_assignment_is_checked_and_undone(cls: Any) -> None:
    model = cls(model="m")
    with pytest.raises(ConfigurationError, match="context_size"):
        model.context_size = -1
    assert model.context_size == 4096
    model.context_size = 1024
    assert model.context_size == 1024
    with pytest.raises(ConfigurationError, match="unknown argument 'contextsize'"):
        model.contextsize = 3


@with_settings
def test_the_settings_fields_and_values(cls: Any, settings: Any) -> None:
    def values(model: Any) -> dict[str, Any]:
        return {name: getattr(model, name) for name in settings.model_fields}

    assert values(cls(model="m")) == values(settings(model="m"))
    given = settings(model="m", context_size=1024, keep_alive=5, **SECRETS)
    assert values(cls.from_settings(given, context_size=2048)) == {**values(given), "context_size": 2048}


@with_settings
def test_settings_of_another_kind_of_model(cls: Any, settings: Any) -> None:
    wrong = EmbeddingSettings if settings is ChatSettings else ChatSettings
    named = {EmbeddingSettings: "for_embedding", RerankSettings: "for_rerank"}.get(settings, "ChatSettings")
    with pytest.raises(ConfigurationError, match=named):
        cls.from_settings(wrong(model="m"))


@each
def test_secrets_are_not_shown(cls: Any) -> None:
    model = cls(model="m", **SECRETS)
    shown = [repr(model), str(model), model.model_dump_json()]
    if cls.__module__.startswith("langchain"):
        shown += [dumps(model), str(dumpd(model))]
    else:
        # A postprocessor has no payload.
        shown += [str(model.to_dict()), model.to_json(), str(getattr(model, "to_payload", dict)())]
    for secret in (KEY, "header-secret", "proxy-secret"):
        assert [text for text in shown if secret in text] == []


COPIES: dict[str, Any] = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "cloudpickle": lambda model: pickle.loads(cloudpickle.dumps(model)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "model_copy": lambda model: model.model_copy(),
}


@each
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_keep_everything(cls: Any, copied: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "first.example:1234")
    model = cls(model="m", context_size=512, keep_alive="5m", **SECRETS)
    client = model.client
    # The environment of another process may differ; the copy asks the same server.
    monkeypatch.setenv("OLLAMA_HOST", "second.example:1234")
    twin = copied(model)
    assert type(twin) is cls
    assert twin.address == model.address
    assert twin.explicit() == model.explicit()
    assert twin.sent_headers() == model.sent_headers()
    assert KEY in str(twin.sent_headers())
    assert twin.headers == SECRETS["headers"]
    assert model.client is client
    assert twin.client is not client


@pytest.mark.parametrize("row", CLASSES.values(), ids=CLASSES)
async def test_a_model_can_be_closed_and_used_again(simulated_ollama: SimulatedOllama, row: Any) -> None:
    cls, _, ask, aask = row
    name = "nomic-embed-text" if "Embedding" in cls.__name__ else "llama3.2"
    with cls(model=name, base_url=simulated_ollama.base_url) as model:
        first = model.client
        ask(model)
    ask(model)
    async with model:
        await aask(model)
    model.close()
    assert model.client is first
    answers = ("/api/chat", "/api/generate", "/api/embed")
    assert sum(request.path in answers for request in simulated_ollama.requests) == 3
