"""Counting through both clients: what is asked of the server, what is kept, and what a bad server can do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from ollama_dify import (
    AsyncOllamaClient,
    ChatSettings,
    ImageUrl,
    Message,
    OllamaClient,
    TokenCounter,
    Tool,
    ToolCall,
    assistant,
    system,
    user,
)
from ollama_dify.errors import ConfigurationError, ProtocolError
from ollama_dify.testing import RecordedRequest, SimulatedOllama
from ollama_dify.tokens import cache
from ollama_dify.tokens.probes import PROBES
from ollama_dify.tokens.vocabulary.vocabulary import byte_characters

ADD = Tool("add", "Adds two numbers", {"type": "object", "properties": {}})
LOOK = Tool("look", "Looks at a thing", {"type": "object", "properties": {"thing": {"type": "string"}}})
TALK = [system("Be brief."), user("Hello"), assistant("Hi! What is it?"), user("The weather, please.")]
LOOP = [
    user("What is in the box?"),
    assistant(tool_calls=[ToolCall("look", {"thing": "box"}, "c1")]),
    Message("tool", user("a cat").content, tool_name="look", tool_call_id="c1"),
]
Run = Callable[[ChatSettings, str, Any], Any]


def run_sync(settings: ChatSettings, name: str, *arguments: Any, **named: Any) -> Any:
    with OllamaClient(settings) as client:
        return getattr(client, name)(*arguments, **named)


def run_async(settings: ChatSettings, name: str, *arguments: Any, **named: Any) -> Any:
    async def run() -> Any:
        async with AsyncOllamaClient(settings) as client:
            return await getattr(client, name)(*arguments, **named)

    return asyncio.run(run())


BOTH = pytest.mark.parametrize("run", [run_sync, run_async], ids=["sync", "async"])


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ollama-dify" / "tokenizers"


@pytest.fixture
def server() -> Iterator[SimulatedOllama]:
    with SimulatedOllama() as running:
        yield running


def settings(server: SimulatedOllama, model: str = "qwen3", **values: Any) -> ChatSettings:
    return ChatSettings(model=model, base_url=server.base_url, max_retries=0, **values)


def renders(server: SimulatedOllama) -> list[RecordedRequest]:
    return [request for request in server.requests if (request.body or {}).get("_debug_render_only")]


def verbose(server: SimulatedOllama) -> int:
    return sum(bool((request.body or {}).get("verbose")) for request in server.requests)


CONVERSATIONS = {
    "a word": ([user("Hello")], []),
    "talk": (TALK, []),
    "tools": (TALK, [LOOK, ADD]),
    "tool loop": (LOOP, [LOOK]),
    "long": ([*TALK[:1], *TALK[1:3] * 9, *TALK[3:]], []),
}


@BOTH
@pytest.mark.parametrize("talk", CONVERSATIONS)
@pytest.mark.parametrize("think", [None, True, False])
def test_a_conversation_counts_what_the_server_reports_and_the_bound_holds(
    server: SimulatedOllama, run: Run, talk: str, think: bool | None
) -> None:
    messages, tools = CONVERSATIONS[talk]
    asked = settings(server, think=think)
    counted = run(asked, "count_tokens", messages, tools=tools)
    reported = run(asked, "chat", messages, tools=tools).finish.usage.input_tokens
    bound = run(asked, "counter").bound(messages, tools)
    assert (counted.tokens, counted.exact) == (reported, True)
    assert not bound.exact
    assert reported <= bound.tokens <= reported + (150 if tools else 30)


@BOTH
def test_the_server_is_asked_to_render_only(server: SimulatedOllama, run: Run) -> None:
    run(settings(server, context_size=2048, max_tokens=99), "count_tokens", TALK)
    (request,) = renders(server)
    assert request.path == "/api/chat"
    assert (request.body["truncate"], request.body["stream"]) == (False, False)
    # As every other call, so that the server does not load the model anew.
    assert request.body["options"] == {"num_ctx": 2048, "num_predict": 1}


@BOTH
def test_probes_are_rendered_once_for_each_model_and_think_value(server: SimulatedOllama, run: Run) -> None:
    run(settings(server), "counter")
    assert (len(renders(server)), verbose(server)) == (len(PROBES), 1)
    run(settings(server), "counter")
    run(settings(server), "count_tokens", "Hello")
    assert (len(renders(server)), verbose(server)) == (len(PROBES), 1)
    run(settings(server, think=False), "counter")
    assert (len(renders(server)), verbose(server)) == (2 * len(PROBES), 1)
    run(settings(server, "llava"), "counter")
    without_tools = sum(not probe.tools for probe in PROBES)
    assert (len(renders(server)), verbose(server)) == (2 * len(PROBES) + without_tools, 2)
    with SimulatedOllama() as other:  # what one server said is not believed of another
        run(settings(other), "counter")
        assert (len(renders(other)), verbose(other)) == (len(PROBES), 1)


@BOTH
def test_a_text_needs_no_probes_and_a_second_one_no_network(server: SimulatedOllama, run: Run) -> None:
    assert run(settings(server), "count_tokens", "Hello").exact
    assert renders(server) == []
    with OllamaClient(settings(server)) as client:
        client.warmup()
        asked = len(server.requests)
        known = client.cache.counter(client.settings, "qwen3")
        assert known is not None
        assert known.bound(TALK).tokens
        assert client.counter() is known
        assert client.count_tokens("Hello there").exact
        assert len(server.requests) == asked


@BOTH
def test_an_image_still_to_be_fetched_is_counted_and_not_fetched(server: SimulatedOllama, run: Run) -> None:
    asked = settings(server, "llava", allow_image_urls=True)
    plain = run(asked, "count_tokens", [user("a")])
    counted = run(asked, "count_tokens", [user("a", ImageUrl("https://example.com/cat.png"))])
    assert not counted.exact
    assert counted.tokens >= plain.tokens + 16


@BOTH
def test_a_damaged_cache_is_asked_for_anew(server: SimulatedOllama, run: Run, own_cache: Path) -> None:
    bound = run(settings(server), "counter").bound(TALK)
    before = {path.name: path.read_bytes() for path in own_cache.iterdir()}
    assert len(before) == 2  # a vocabulary, and renderings
    for path, content in zip(own_cache.iterdir(), before.values(), strict=True):
        path.write_bytes(content.replace(b'"a"', b'"b"'))
    assert run(settings(server), "counter").bound(TALK) == bound
    assert {path.name: path.read_bytes() for path in own_cache.iterdir()} == before


@BOTH
def test_warmup_heals_a_cache_that_is_whole_and_wrong(
    server: SimulatedOllama, run: Run, own_cache: Path
) -> None:
    """As after an update of the server, whose own renderers change without the model's digest."""
    counter = run(settings(server), "counter")
    digest = run(settings(server), "model_info").digest
    wrong = {"model_info": {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["a"]}}
    assert cache.store(server.base_url, digest, "show", wrong)
    assert len(list(own_cache.iterdir())) == 2
    assert run(settings(server), "counter").bound(TALK) != counter.bound(TALK)
    run(settings(server), "warmup")
    assert run(settings(server), "counter").bound(TALK) == counter.bound(TALK)


# Servers that answer strangely.

Answering = Callable[[str, dict[str, Any]], Any]


def strange(answer: Answering, **values: Any) -> tuple[ChatSettings, list[tuple[str, dict[str, Any]]]]:
    """Settings whose server answers by a function of path and body, and what it was asked."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.read() or b"{}")
        asked.append((request.url.path, body))
        answered = answer(request.url.path, body)
        if isinstance(answered, httpx.Response):
            return answered
        content = answered if isinstance(answered, bytes) else json.dumps(answered).encode()
        return httpx.Response(200, content=content)

    transport = httpx.MockTransport(handle)
    clients = {
        "http_client": httpx.Client(transport=transport),
        "http_async_client": httpx.AsyncClient(transport=transport),
    }
    return ChatSettings(model="m", base_url="http://127.0.0.1:9", max_retries=0, **clients, **values), asked


DIGEST = "ab" * 32
BYTES = list(byte_characters().values())
GOOD = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "qwen2",
    "tokenizer.ggml.tokens": [*BYTES, "ab"],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.token_type": [1] * 257,
}


def model_with(show: Any, chat: Answering | None = None) -> Answering:
    def answer(path: str, body: dict[str, Any]) -> Any:
        if path == "/api/tags":
            return {"models": [{"name": "m:latest", "digest": DIGEST, "size": 1, "details": {}}]}
        if path == "/api/show" and body.get("verbose"):
            return show
        if path == "/api/show":
            return {"capabilities": ["completion", "tools"], "model_info": {}, "details": {}}
        answered = {"model": "m", "message": {"role": "assistant", "content": "Hi"}, "done": True}
        return answered if chat is None else chat(path, body)

    return answer


ANSWERS = {
    "an answer, as of a proxy": lambda path, body: {"message": {"content": "Hi"}, "done": True},
    "no object": lambda path, body: [],
    "debug info of another type": lambda path, body: {"_debug_info": "x"},
    "a number for the prompt": lambda path, body: {"_debug_info": {"rendered_template": 7}},
    "refused": lambda path, body: httpx.Response(400, json={"error": "unknown field"}),
    "failed": lambda path, body: httpx.Response(500, json={"error": "template: panic"}),
}


@BOTH
@pytest.mark.parametrize("chat", ANSWERS)
def test_where_nothing_renders_the_count_is_an_estimate(run: Run, chat: str) -> None:
    asked_for, asked = strange(model_with({"model_info": GOOD}, ANSWERS[chat]))
    counted = run(asked_for, "count_tokens", TALK)
    assert not counted.exact
    assert counted.tokens > sum(len(turn.text) for turn in TALK)
    probes = [body for path, body in asked if path == "/api/chat"]
    # A server that does not know the question is asked once more, and only for one token.
    assert len(probes) == (2 if chat not in ("refused", "failed") else 1 + len(PROBES))
    assert {body["options"]["num_predict"] for body in probes} == {1}


@BOTH
def test_a_template_that_refuses_some_probes_is_bounded_by_the_others(run: Run) -> None:
    """Such as one that wants user and assistant to take turns."""

    def chat(path: str, body: dict[str, Any]) -> Any:
        roles = [turn["role"] for turn in body["messages"]]
        if any(one == other for one, other in pairwise(roles)) or "system" in roles:
            return httpx.Response(500, json={"error": "Conversation roles must alternate"})
        texts = "".join(f"<{turn['role']}>{turn['content']}\n" for turn in body["messages"])
        return {"_debug_info": {"rendered_template": texts + "<assistant>"}}

    asked_for, _ = strange(model_with({"model_info": GOOD}, chat))
    counter = run(asked_for, "counter")
    talk = [user("one"), assistant("two"), user("three")]
    true = len("<user>one\n<assistant>two\n<user>three\n<assistant>")
    assert true <= counter.bound(talk).tokens <= true + 10


def changed(name: str, value: Any) -> dict[str, Any]:
    return {**GOOD, f"tokenizer.ggml.{name}": value}


SENTENCES = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "a"]}
UNIGRAM = {"tokenizer.ggml.model": "t5", "tokenizer.ggml.tokens": ["<unk>", "</s>", "▁a"]}
SHOWS: dict[str, Any] = {
    "no vocabulary": changed("tokens", None),
    "tokens of numbers": changed("tokens", [1, 2, 3]),
    "tokens of lists": changed("tokens", [["a"], ["b"]]),
    "tokens as text": changed("tokens", "abc"),
    "tokens as an object": changed("tokens", {"a": 1}),
    "one token of 2000 characters": changed("tokens", [*BYTES, "a" * 2000]),
    "merges of numbers": changed("merges", [1, 2]),
    "merges as an object": changed("merges", {"a": "b"}),
    "text for types": changed("token_type", ["1"] * 257),
    "an enormous type": changed("token_type", [10**30] * 257),
    "all tokens special": changed("tokens", [f"<{n}>" for n in range(60_000)])
    | {"tokenizer.ggml.token_type": [3] * 60_000},
    "kind as a list": changed("model", ["gpt2"]),
    "an unknown kind": changed("model", "gpt9"),
    "pre as a list": changed("pre", [1]),
    "ids of the wrong type": changed("bos_token_id", "x"),
    "flags of the wrong type": changed("add_bos_token", "yes"),
    "text scores": {**SENTENCES, "tokenizer.ggml.scores": ["x"] * 4},
    "enormous scores": {**SENTENCES, "tokenizer.ggml.scores": [1e300] * 4},
    "unigram with text scores": {**UNIGRAM, "tokenizer.ggml.scores": [None, 1, 2]},
    "a character map that is no base64": {**UNIGRAM, "tokenizer.ggml.precompiled_charsmap": "%%%"},
    "a character map of texts": {**UNIGRAM, "tokenizer.ggml.precompiled_charsmap": ["a"]},
    "unigram of 4 MB": {**UNIGRAM, "tokenizer.ggml.tokens": [f"{n}".zfill(100) for n in range(40_000)]},
    "600,001 tokens": changed("tokens", ["a"] * 600_001),
    "600,001 merges": changed("merges", ["a b"] * 600_001),
    "merges of what are no tokens": changed("merges", [f"x{n} y{n}" for n in range(60_000)]),
    "junk that spells nothing": {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["\x00"]},
}
# What is odd and yet a vocabulary that counts.
ODD: dict[str, Any] = {
    "cyclic merges": changed("merges", ["a b", "b a", "ab a", "a ba", "ab ab", "a a", "a"]),
    "too few types": changed("token_type", [1]),
    "unigram without an unknown token": {**UNIGRAM, "tokenizer.ggml.unknown_token_id": -1},
}


@BOTH
@pytest.mark.parametrize("name", [*SHOWS, *ODD])
def test_a_broken_description_gives_no_foreign_error_and_no_false_exactness(run: Run, name: str) -> None:
    asked_for, _ = strange(model_with({"model_info": {**SHOWS, **ODD}[name]}))
    counted = run(asked_for, "count_tokens", "Hello")
    assert counted.exact is (name in ODD)
    assert counted.tokens >= 1
    assert not run(asked_for, "count_tokens", TALK).exact
    counter = run(asked_for, "counter")
    assert counter.bound(TALK).tokens > 0
    assert counter.image_costs([user("a", ImageUrl("https://example.com/a.png"))])
    assert run(asked_for, "warmup").name == "m"


@BOTH
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * 3_000_001, id="brackets"),
        pytest.param(b'{"model_info":{"tokenizer.ggml.tokens":[' + b"[]," * 3_000_001 + b"[]]}}", id="lists"),
        pytest.param(b'{"a":"' + b"x" * (33 * 1024 * 1024) + b'"}', id="33 MiB"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{", id="half"),
        pytest.param(b"null", id="null"),
    ],
)
def test_an_enormous_or_foreign_description_is_refused_before_it_is_built(run: Run, body: bytes) -> None:
    asked_for, _ = strange(model_with(body))
    with pytest.raises(ProtocolError):
        run(asked_for, "count_tokens", "Hello")


def test_without_a_vocabulary_there_are_bounds_and_no_ids() -> None:
    counter = TokenCounter.from_show({"template": "{{ .Prompt }}", "model_info": {}})
    assert (counter.text("Hello").tokens, counter.text("Hello").exact) == (9, False)
    with pytest.raises(ConfigurationError, match="no vocabulary of this model is known"):
        counter.token_ids("Hello")
