"""Credentials reach the server they were given for and no other, whichever way the address changes."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.load import dumpd, load
from langchain_core.runnables import ConfigurableField

from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings, OllamaDifyLLM
from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding
from ollama_dify import (
    AsyncOllamaClient,
    ChatSettings,
    ConfigurationError,
    EmbeddingSettings,
    OllamaClient,
    user,
)
from ollama_dify.testing import SimulatedOllama

SECRET = "sk-canary-5eCr3t"
BASIC = "bWU6c2stY2FuYXJ5LTVlQ3IzdA"
EMBEDDERS = (EmbeddingSettings, OllamaDifyEmbeddings, OllamaDifyEmbedding)
LANGCHAIN = (ChatOllamaDify, OllamaDifyLLM)
KINDS: list[Any] = [
    ChatSettings,
    EmbeddingSettings,
    ChatOllamaDify,
    OllamaDifyLLM,
    OllamaDifyEmbeddings,
    OllamaDify,
    OllamaDifyEmbedding,
]


def assigned(made: Any, url: str) -> Any:
    made.base_url = url
    return made


def configured(made: Any, url: str) -> Any:
    field = ConfigurableField(id="url")
    return made.configurable_fields(base_url=field).with_config(configurable={"url": url})


def loaded(made: Any, url: str) -> Any:
    dumped = json.loads(json.dumps(dumpd(made)))
    dumped["kwargs"]["base_url"] = url
    dumped["kwargs"].pop("api_key_env", None)  # Edited in one dictionary with the address.
    dumped["kwargs"].pop("api_key", None)
    return load(dumped, allowed_objects=[type(made)], valid_namespaces=["langchain_ollama_dify"])


# Way to another address → the classes that have it.
DOORS: dict[str, tuple[Callable[[Any, str], Any], list[Any]]] = {
    "constructor": (lambda made, url: type(made)(**{**made.explicit(), "base_url": url}), KINDS),
    "dump": (
        lambda made, url: type(made)(**{**made.model_dump(exclude_unset=True), "base_url": url}),
        KINDS[:2],
    ),
    "assignment": (assigned, KINDS),
    "assignment of a pickle": (lambda made, url: assigned(pickle.loads(pickle.dumps(made)), url), KINDS),
    "assignment of a copy": (lambda made, url: assigned(copy.deepcopy(made), url), KINDS[::3]),
    "from_settings": (lambda made, url: type(made).from_settings(made, base_url=url), KINDS),
    "for_embedding": (lambda made, url: made.for_embedding("nomic-embed-text", base_url=url), KINDS),
    "model_copy": (lambda made, url: made.model_copy(update={"base_url": url}), KINDS),
    "configurable_fields": (configured, list(LANGCHAIN)),
    "load": (loaded, [*LANGCHAIN, OllamaDifyEmbeddings]),
    "from_dict": (lambda made, url: type(made).from_dict(made.to_dict(), base_url=url), KINDS[5:]),
    "from_json": (
        lambda made, url: type(made).from_dict(json.loads(made.to_json()), base_url=url),
        KINDS[5:],
    ),
}
EACH = [
    pytest.param(door, kind, id=f"{name}-{kind.__name__}")
    for name, (door, kinds) in DOORS.items()
    for kind in kinds
]
GIVEN: dict[str, dict[str, Any]] = {
    "api_key": {"api_key": SECRET},
    "api_key_env": {"api_key_env": "CANARY_KEY"},
    "headers": {"headers": {"X-Token": SECRET}},
    "userinfo": {},
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_KEY", SECRET)
    monkeypatch.delenv("OLLAMA_HOST", raising=False)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[SimulatedOllama, SimulatedOllama]]:
    with SimulatedOllama() as first, SimulatedOllama() as second:
        yield first, second


@pytest.fixture
def servers(
    running: tuple[SimulatedOllama, SimulatedOllama],
) -> tuple[SimulatedOllama, SimulatedOllama]:
    for server in running:
        server.requests.clear()
    return running


def make(kind: Any, way: str, url: str) -> Any:
    if way == "userinfo":
        url = url.replace("http://", f"http://me:{SECRET}@")
    return kind(model=model_of(kind), base_url=url, **GIVEN[way])


def model_of(kind: Any) -> str:
    return "nomic-embed-text" if kind in EMBEDDERS else "llama3.2"


METHODS = {
    OllamaDifyEmbedding: ("get_query_embedding", "aget_query_embedding"),
    OllamaDifyEmbeddings: ("embed_query", "aembed_query"),
    OllamaDify: ("complete", "acomplete"),
}


async def use(made: Any, awaited: bool) -> None:
    """One call."""
    if type(made) in (ChatSettings, EmbeddingSettings):
        client: Any = AsyncOllamaClient(made) if awaited else OllamaClient(made)
        answer = client.embed(["a"]) if isinstance(made, EmbeddingSettings) else client.chat([user("a")])
    else:
        answer = getattr(made, METHODS.get(type(made), ("invoke", "ainvoke"))[awaited])("a")
    if awaited:
        await answer


def received(server: SimulatedOllama) -> str:
    return " ".join(str(request.headers) for request in server.requests)


@pytest.mark.filterwarnings("ignore:The function `load` is in beta")
@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("way", GIVEN)
@pytest.mark.parametrize(("door", "kind"), EACH)
async def test_another_server_receives_no_credentials(
    servers: Any, door: Callable[[Any, str], Any], kind: Any, way: str, awaited: bool
) -> None:
    first, second = servers
    made = make(kind, way, first.base_url)
    await use(made, awaited)
    assert SECRET in received(first) or BASIC in received(first)
    before = len(first.requests)
    # A dump holds neither; a password goes with its address.
    gone = way == "userinfo" or door is loaded or (way != "api_key_env" and door in NOT_IN_DUMPS)
    if gone:
        await use(door(made, second.base_url), awaited)
        assert second.requests
        assert SECRET not in received(second)
        assert BASIC not in received(second)
    else:
        with pytest.raises(ConfigurationError) as refused:
            await use(door(made, second.base_url), awaited)
        assert f"{way} was given for {first.base_url}" in str(refused.value).replace("were", "was")
        assert f"base_url=…, {way}=…" in str(refused.value)
        assert SECRET not in str(refused.value)
        assert not second.requests
    assert len(first.requests) == before
    if getattr(made, "base_url", None) == first.base_url:
        # What was refused changed nothing.
        await use(made, awaited)
        assert len(first.requests) > before


NOT_IN_DUMPS = [DOORS[name][0] for name in ("dump", "from_dict", "from_json")]


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", KINDS)
async def test_both_in_one_step(servers: Any, kind: Any, awaited: bool) -> None:
    first, second = servers
    made = make(kind, "api_key", first.base_url)
    for again in (
        kind.from_settings(made, base_url=second.base_url, api_key="new"),
        made.model_copy(update={"base_url": second.base_url, "api_key": "new"}),
        made.for_embedding("nomic-embed-text", base_url=second.base_url, api_key="new"),
    ):
        await use(again, awaited)
        assert second.requests[-1].header("authorization") == "Bearer new"
    await use(kind.from_settings(made, base_url=second.base_url, api_key=None), awaited)
    assert second.requests[-1].header("authorization") is None
    assert not first.requests


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", LANGCHAIN)
@pytest.mark.parametrize("way", GIVEN)
async def test_a_rebuilt_object_keeps_its_credentials(
    servers: Any, kind: Any, way: str, awaited: bool
) -> None:
    first, _ = servers
    made = make(kind, way, first.base_url)
    again = made.configurable_fields(temperature=ConfigurableField(id="t"))
    await use(again.with_config(configurable={"t": 0.5}), awaited)
    assert SECRET in received(first) or BASIC in received(first)
    with pytest.raises(ConfigurationError, match="belongs to the connection"):
        await use(made.bind(base_url="http://other.example"), awaited)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", GIVEN)
def test_fields_hold_nothing_derived(monkeypatch: pytest.MonkeyPatch, kind: Any, way: str) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", SECRET)
    made = make(kind, way, "https://ollama.com")
    sent = str(made.sent_headers())
    assert SECRET in sent or BASIC in sent
    if way != "headers":
        assert SECRET not in str(vars(made))
    assert BASIC not in str(vars(made))
    # The variable's value is not in a pickle; what was given is.
    bare = kind(model=model_of(kind), base_url="https://ollama.com")
    assert bare.sent_headers() == {"authorization": f"Bearer {SECRET}"}
    assert SECRET.encode() not in pickle.dumps(bare)
    bare.base_url = "https://other.example"
    assert bare.sent_headers() == {}
