"""Every public object of the three packages moves: pickled, copied, into a fork, into a process pool."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import os
import pickle
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from langchain_core.documents import Document
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel

import langchain_ollama_dify
import llamaindex_ollama_dify
import ollama_dify as od
from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings, OllamaDifyLLM
from langchain_ollama_dify.errors import as_langchain
from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding
from ollama_dify.testing import SimulatedOllama

PACKAGES = (od, langchain_ollama_dify, llamaindex_ollama_dify)
PIXEL = (Path(__file__).parents[1] / "data" / "images" / "png_rgb.png").read_bytes()
KEY = "sk-portable"
MESSAGE = od.user("Hello", od.Image.from_bytes(PIXEL), od.ImageUrl("https://example.com/a.png"))
CALL = od.ToolCall("look", {"at": [1, {"b": "c"}]}, "call_1")
FINISH = od.Finish("stop", "m", usage=od.Usage(3, 4), total_duration=5, dropped=(1, 2))
RESULT = od.ChatResult("Hi", "Hm", (CALL,), ({"token": "Hi", "logprob": -0.5},), FINISH)

COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda made: pickle.loads(pickle.dumps(made)),
    "cloudpickle": lambda made: pickle.loads(cloudpickle.dumps(made)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}
each_way = pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)

NODE = od.DifyNode("1", "Ask", "llm", "llava", parameters={"seed": 1}, variables={"topic": "1.topic"})
VALUES: dict[str, Any] = {
    "Address": od.ConnectionSettings(base_url="http://me:secret@gpu:1234/ollama").address,
    "Audio": od.Audio.from_bytes(b"ID3" + bytes(20)),
    "ChatChunk": od.ChatChunk("Hi", finish=FINISH),
    "ChatResult": RESULT,
    "DifyApp": od.DifyApp("a", "chat", (NODE,), (), (), ("note",)),
    "DifyNode": NODE,
    "EmbedResult": od.EmbedResult([[0.5, -1.0], None], "m", failed=(1,), reasons={1: "NaN"}),
    "Finish": FINISH,
    "Image": MESSAGE.content[1],
    "ImageLimits": od.ImageLimits(max_count=2),
    "ImageUrl": MESSAGE.content[2],
    "LocalModel": od.LocalModel("m:latest", "abc", 5, "llama"),
    "Message": od.Message("assistant", MESSAGE.content, "Hm", (CALL,), "look", "call_1"),
    "ModelInfo": od.ModelInfo(
        "m", frozenset({"tools"}), 4096, 8, "llama", "{{ .Prompt }}", "abc", {"a": [1]}
    ),
    "Prompt": od.Prompt("Hi", system="Be brief.", images=(od.Image.from_bytes(PIXEL),)),
    "PullProgress": od.PullProgress("pulling", "sha256:abc", 10, 5),
    "RerankResult": od.RerankResult((0.5, 0.0), (0, 1), od.Usage(3, 2), (1,)),
    "RunningModel": od.RunningModel("m:latest", "abc", 5, 4, 4096, "2026-01-01T00:00:00Z"),
    "TextPart": od.TextPart("Hi"),
    "Timeouts": od.Timeouts(connect=1, total=9),
    "TokenCount": od.TokenCount(7, True),
    "Tool": od.Tool("look", "Look.", {"type": "object", "properties": {"at": {"type": "array"}}}),
    "ToolCall": CALL,
    "Usage": od.Usage(3, 4),
}
SETTINGS: dict[str, Any] = {
    "ChatSettings": od.ChatSettings,
    "ConnectionSettings": od.ConnectionSettings,
    "EmbeddingSettings": od.EmbeddingSettings,
    "ModelSettings": od.ModelSettings,
    "RerankSettings": od.RerankSettings,
}
MODELS: dict[str, Any] = {
    "ChatOllamaDify": ChatOllamaDify,
    "OllamaDify": OllamaDify,
    "OllamaDifyEmbedding": OllamaDifyEmbedding,
    "OllamaDifyEmbeddings": OllamaDifyEmbeddings,
    "OllamaDifyLLM": OllamaDifyLLM,
    "OllamaDifyRerank": langchain_ollama_dify.OllamaDifyRerank,
}
CLIENTS: dict[str, Any] = {"AsyncOllamaClient": od.AsyncOllamaClient, "OllamaClient": od.OllamaClient}
ERRORS: dict[str, Any] = {
    name: kind
    for name, kind in vars(od).items()
    if isinstance(kind, type) and issubclass(kind, od.OllamaError)
}
WARNINGS: dict[str, Any] = {
    name: kind for name, kind in vars(od).items() if isinstance(kind, type) and issubclass(kind, Warning)
}
COUNTED = {"TokenCounter"}
# Half of an answer and the connection it comes over; what has arrived, `result`, moves.
STREAMS = {"AsyncChatStream", "ChatStream"}


class City(BaseModel):
    """A city."""

    name: str


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatedOllama]:
    with SimulatedOllama() as running:
        yield running


def test_every_public_class_is_in_a_table() -> None:
    public = {
        name for package in PACKAGES for name in package.__all__ if isinstance(getattr(package, name), type)
    }
    tables: list[Any] = [VALUES, SETTINGS, MODELS, CLIENTS, ERRORS, WARNINGS, COUNTED, STREAMS]
    assert {name for table in tables for name in table} == public


@each_way
@pytest.mark.parametrize("name", VALUES)
def test_values(name: str, copied: Callable[[Any], Any]) -> None:
    made = VALUES[name]
    again = copied(made)
    assert type(again) is type(made)
    assert again == made
    assert repr(again) == repr(made)


@each_way
@pytest.mark.parametrize("kind", SETTINGS.values(), ids=SETTINGS)
def test_settings(kind: Any, copied: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "first.example:1234")
    given = (
        {} if kind is od.ConnectionSettings else {"model": "m", "context_size": 512, "options": {"x": [1]}}
    )
    made = kind(api_key=KEY, headers={"X-Token": KEY}, proxy=f"http://u:{KEY}@p:1", timeout=9, **given)
    monkeypatch.setenv("OLLAMA_HOST", "second.example:1234")
    again = copied(made)
    assert type(again) is kind
    assert again.explicit() == made.explicit()
    assert again.address == made.address
    assert (again.api_key.get_secret_value(), again.headers) == (KEY, {"X-Token": KEY})
    assert KEY not in repr(again) + str(again.model_dump())
    again.max_retries = 7
    assert made.max_retries == 2


@pytest.mark.parametrize("name", [*SETTINGS, *MODELS])
def test_what_is_shown_is_what_was_set(name: str) -> None:
    kind = (SETTINGS | MODELS)[name]
    made = kind(
        base_url="http://h:1", api_key=KEY, **({} if name == "ConnectionSettings" else {"model": "m"})
    )
    set_fields = {"base_url='http://h:1'"} | (set() if name == "ConnectionSettings" else {"model='m'"})
    assert set(repr(made).removeprefix(f"{name}(").removesuffix(")").split(", ")) == set_fields
    assert len(str(made)) <= len(repr(made))


@pytest.mark.parametrize("kind", SETTINGS.values(), ids=SETTINGS)
def test_what_belongs_to_a_process_is_named(kind: Any) -> None:
    given = {} if kind is od.ConnectionSettings else {"model": "m"}
    made = kind(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), **given)
    with pytest.raises(TypeError, match="SSLContext"):
        pickle.dumps(made)


@each_way
@pytest.mark.parametrize("world", [lambda error: error, as_langchain], ids=["core", "langchain"])
@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str, world: Any, copied: Callable[[Any], Any]) -> None:
    more = {"indexes": (1,)} if name == "EmbeddingError" else {}
    made = world(ERRORS[name]("It broke.", hint="Mend it.", attempts=3, partial=RESULT, **more))
    again = copied(made)
    assert type(again) is type(made)
    assert (str(again), vars(again)) == (str(made), vars(made))


@each_way
@pytest.mark.parametrize("kind", WARNINGS.values(), ids=WARNINGS)
def test_warnings(kind: Any, copied: Callable[[Any], Any]) -> None:
    again = copied(kind("It may break."))
    assert (type(again), str(again)) == (kind, "It may break.")


def use(made: Any) -> Any:
    """Ask through an object of any kind; runs in other processes too."""
    if isinstance(made, od.AsyncOllamaClient | od.OllamaClient):
        answer = made.chat([od.user("Hello")])
        return answer.text if isinstance(answer, od.ChatResult) else asyncio.run(_awaited(made, answer)).text
    if isinstance(made, OllamaDifyEmbeddings):
        return made.embed_query("Hello")
    if isinstance(made, OllamaDifyEmbedding):
        return made.get_text_embedding("Hello")
    if isinstance(made, langchain_ollama_dify.OllamaDifyRerank):
        return made.compress_documents([Document("Hello")], "Hello")
    if isinstance(made, OllamaDify):
        return made.complete("Hello").text
    answer = made.invoke("Hello")
    return getattr(answer, "text", answer)


async def _awaited(client: od.AsyncOllamaClient, answer: Any) -> Any:
    async with client:
        return await answer


def connected(server: SimulatedOllama) -> dict[str, Any]:
    """Every object that has connections, used once, so that there is something to leave behind."""
    settings = od.ChatSettings(model="llama3.2", base_url=server.base_url, api_key=KEY)
    made = {name: kind(settings) for name, kind in CLIENTS.items()}
    for name, kind in MODELS.items():
        model = "nomic-embed-text" if "Embedding" in name else "llama3.2"
        made[name] = kind(model=model, base_url=server.base_url, api_key=KEY)
    for one in made.values():
        use(one)
    chat = made["ChatOllamaDify"]
    return made | {
        "bound": chat.bind(temperature=0),
        "structured": chat.with_structured_output(City),
        "repaired": chat.with_structured_output(City, repair=True),
        "with tools": chat.bind_tools([City], tool_choice="any"),
    }


def close(made: dict[str, Any]) -> None:
    for one in made.values():
        if hasattr(one, "close") and not isinstance(one, od.AsyncOllamaClient):
            one.close()


NAMES = [*CLIENTS, *MODELS, "bound", "structured", "repaired", "with tools"]


@pytest.fixture(scope="module")
def objects(server: SimulatedOllama) -> Iterator[dict[str, Any]]:
    made = connected(server)
    yield made
    close(made)


def test_the_list_is_whole(objects: dict[str, Any]) -> None:
    assert list(objects) == NAMES


@each_way
@pytest.mark.parametrize("name", NAMES)
def test_a_copy_works_with_its_key(
    server: SimulatedOllama, objects: dict[str, Any], name: str, copied: Callable[[Any], Any]
) -> None:
    again = copied(objects[name])
    assert type(again) is type(objects[name])
    assert use(again) == use(objects[name])
    assert {request.header("authorization") for request in server.requests} == {f"Bearer {KEY}"}
    close({"copy": again})


# The simulated server runs in a thread of this process, which Python warns of.
forked = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@forked
@pytest.mark.parametrize("name", NAMES)
def test_after_a_fork(objects: dict[str, Any], name: str) -> None:
    made = objects[name]
    before = use(made)
    child = os.fork()
    if child == 0:
        try:
            good = use(made) == before
        except BaseException:
            good = False
        os._exit(0 if good else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert use(made) == before


@forked
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_a_process_pool(objects: dict[str, Any], method: str) -> None:
    context = multiprocessing.get_context(method)
    expected = [use(objects[name]) for name in NAMES]
    with ProcessPoolExecutor(2 if method == "fork" else 1, mp_context=context) as pool:
        assert list(pool.map(use, [objects[name] for name in NAMES])) == expected


def fail(made: Any) -> None:
    made.invoke("Hello", model="absent")


@forked
def test_an_error_comes_back_from_a_process_pool(objects: dict[str, Any]) -> None:
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool,
        pytest.raises(od.ModelNotFoundError, match="absent") as caught,
    ):
        pool.submit(fail, objects["ChatOllamaDify"]).result()
    assert (caught.value.model, caught.value.status) == ("absent", 404)


@each_way
def test_counters(server: SimulatedOllama, copied: Callable[[Any], Any]) -> None:
    with od.OllamaClient(od.ChatSettings(model="llama3.2", base_url=server.base_url)) as client:
        made = client.counter()
    again = copied(made)
    assert again.text("Hello there.") == made.text("Hello there.")
    assert again.bound([od.user("Hello there.")]) == made.bound([od.user("Hello there.")])
    assert again.token_ids("Hello") == made.token_ids("Hello")


@each_way
def test_a_tokenizer_of_llamaindex(objects: dict[str, Any], copied: Callable[[Any], Any]) -> None:
    tokenizer = objects["OllamaDify"].tokenizer
    assert copied(tokenizer)("Hello there.") == tokenizer("Hello there.")


def test_a_stream_stays_and_its_result_moves(server: SimulatedOllama) -> None:
    with od.OllamaClient(od.ChatSettings(model="llama3.2", base_url=server.base_url)) as client:
        stream = client.chat_stream([od.user("Hello")])
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(stream)
        assert list(stream)
        assert pickle.loads(pickle.dumps(stream.result)) == stream.result


@each_way
def test_a_llamaindex_structured_model(
    server: SimulatedOllama, objects: dict[str, Any], copied: Callable[[Any], Any]
) -> None:
    again = copied(objects["OllamaDify"]).as_structured_llm(City)
    server.script(['{"name": "Oslo"}'])
    assert again.complete("Which?").raw == City(name="Oslo")
    server.script(['{"name": 1}', '{"name": "Oslo"}'])
    made = again.llm.structured_predict(City, PromptTemplate("Which?"), {"repair": True})
    assert made == City(name="Oslo")
    again.llm.close()
