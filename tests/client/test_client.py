"""Both clients over a real socket: one table, run sync and async."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ollama_dify import (
    AsyncOllamaClient,
    ChatChunk,
    ChatSettings,
    ConfigurationError,
    ConnectionFailedError,
    ConnectionSettings,
    EmbeddingSettings,
    ModelNotFoundError,
    OllamaClient,
    Prompt,
    RequestTimeoutError,
    Timeouts,
    Tool,
    system,
    user,
)
from ollama_dify.testing import Fault, Reply, SimulatedOllama

HI = [user("Hi")]
STORY = "Once upon a time there was a mirror that nobody had cleaned for years."
PIECES = ["Hel", "lo", " there"]
WAIT_S = 5.0


class Sync:
    """A client whose methods return."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.client = OllamaClient(settings)

    def call(self, name: str, *args: Any, **values: Any) -> Any:
        return getattr(self.client, name)(*args, **values)

    def stream(self, name: str, *args: Any, **values: Any) -> tuple[list[ChatChunk], Any]:
        stream = getattr(self.client, name)(*args, **values)
        return list(stream), stream

    def leave(self, name: str, *args: Any, how: str) -> Any:
        """Take one chunk and leave; the stream stays alive."""
        stream = getattr(self.client, name)(*args)
        if how == "break":
            for _ in stream:
                break
        elif how == "close":
            next(stream)
            stream.close()
        else:
            with stream as entered:
                next(entered)
        return stream

    def close(self) -> None:
        self.client.close()


class Async:
    """A client whose methods are awaited, on a loop of its own."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.client = AsyncOllamaClient(settings)
        self.loop = asyncio.new_event_loop()

    def call(self, name: str, *args: Any, **values: Any) -> Any:
        return self.loop.run_until_complete(getattr(self.client, name)(*args, **values))

    def stream(self, name: str, *args: Any, **values: Any) -> tuple[list[ChatChunk], Any]:
        async def run() -> tuple[list[ChatChunk], Any]:
            stream = getattr(self.client, name)(*args, **values)
            return [chunk async for chunk in stream], stream

        return self.loop.run_until_complete(run())

    def leave(self, name: str, *args: Any, how: str) -> Any:
        async def run() -> Any:
            stream = getattr(self.client, name)(*args)
            if how == "break":
                async for _ in stream:
                    break
            elif how == "close":
                await stream.__anext__()
                await stream.aclose()
            else:
                async with stream as entered:
                    await entered.__anext__()
            return stream

        return self.loop.run_until_complete(run())

    def close(self) -> None:
        self.loop.run_until_complete(self.client.aclose())
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


Side = Sync | Async
Connect = Callable[..., Side]


@pytest.fixture
def server() -> Iterator[SimulatedOllama]:
    with SimulatedOllama() as running:
        yield running


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest, server: SimulatedOllama) -> Iterator[Connect]:
    """Make clients, closed at the end; retries do not wait."""
    made: list[Side] = []

    def make(kind: type[ConnectionSettings] = ChatSettings, **values: Any) -> Side:
        values = {"base_url": server.base_url, "max_retries": 0, **values}
        if kind is not ConnectionSettings:
            values = {"model": "llama3.2" if kind is ChatSettings else "all-minilm", **values}
        settings = kind(**values)
        made.append(Sync(settings) if request.param == "sync" else Async(settings))
        return made[-1]

    yield make
    for side in made:
        side.close()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)


def eventually(condition: Callable[[], bool], side: Side | None = None) -> None:
    """Wait for something that happens soon on another thread."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it never happened"
        if isinstance(side, Async):
            side.loop.run_until_complete(asyncio.sleep(0.01))
        time.sleep(0.005)


# What every method does.


def test_chat(server: SimulatedOllama, connect: Connect) -> None:
    server.reply(Reply(STORY, thinking=None))
    result = connect(temperature=0).call("chat", [system("Brief."), user("Hi")], num_predict=64)
    assert (result.text, result.finish.reason, result.finish.model) == (STORY, "stop", "llama3.2")
    assert result.usage.input_tokens > 0
    assert result.usage.output_tokens > 0
    (request,) = server.requests
    assert request.body == {
        "model": "llama3.2",
        "messages": [{"role": "system", "content": "Brief."}, {"role": "user", "content": "Hi"}],
        "stream": False,
        "options": {"temperature": 0, "num_ctx": 4096, "num_predict": 64},
        "truncate": False,
        "shift": False,
    }


def test_chat_stream(server: SimulatedOllama, connect: Connect) -> None:
    server.reply(Reply(pieces=PIECES))
    chunks, stream = connect().stream("chat_stream", HI)
    assert [chunk.text for chunk in chunks if chunk.text] == PIECES
    assert [chunk.finish is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert stream.result.text == "Hello there"
    assert stream.result.finish == chunks[-1].finish
    assert server.requests[0].body["stream"] is True


def test_generate(server: SimulatedOllama, connect: Connect) -> None:
    server.script([Reply("one"), Reply(pieces=PIECES)])
    side = connect()
    assert side.call("generate", "Hi").text == "one"
    _, stream = side.stream("generate_stream", Prompt("Hi", system="Brief.", raw=False))
    assert stream.result.text == "Hello there"
    assert [request.path for request in server.requests] == ["/api/generate"] * 2
    assert [request.body["prompt"] for request in server.requests] == ["Hi", "Hi"]


def test_thinking_and_tools(server: SimulatedOllama, connect: Connect) -> None:
    server.reply(Reply("done", thinking="hm", tool_calls=[{"name": "f", "arguments": {"a": 1}}]), times=2)
    side = connect(model="qwen3", think=True)
    whole = side.call("chat", HI, tools=[Tool("f")])
    _, stream = side.stream("chat_stream", HI, tools=[Tool("f")])
    for result in (whole, stream.result):
        assert result.thinking == "hm"
        assert [(call.name, call.arguments) for call in result.tool_calls] == [("f", {"a": 1})]


def test_what_the_server_knows(server: SimulatedOllama, connect: Connect) -> None:
    side = connect()
    assert side.call("version") == server.version
    assert {model.name for model in side.call("tags")} == set(server.models)
    assert side.call("show")["details"]["family"] == "llama"
    assert "tokenizer.ggml.tokens" in side.call("show", "llama3.2", verbose=True)["model_info"]
    info = side.call("model_info", "llava")
    assert info.can("vision") is True
    assert side.call("model_info", "llava") is info
    assert side.call("ps") == []
    side.call("chat", HI)
    (running,) = side.call("ps")
    assert (running.name, running.context_length) == ("llama3.2:latest", 4096)


def test_warming_up_sees_a_model_that_was_pulled_anew(server: SimulatedOllama, connect: Connect) -> None:
    side = connect(model="llama3.2")
    blind = side.call("warmup")
    assert blind.can("vision") is False
    seeing = ("completion", "tools", "vision")
    server.install(dataclasses.replace(server.models["llama3.2:latest"], capabilities=seeing))
    assert side.call("model_info") is blind
    assert side.call("warmup").can("vision") is True
    assert side.call("model_info").digest != blind.digest


def test_one_connection_serves_many_calls(server: SimulatedOllama, connect: Connect) -> None:
    side = connect()
    for _ in range(3):
        side.call("chat", HI)
        side.stream("chat_stream", HI)
    assert server.connections.total == 1
    side.close() if isinstance(side, Sync) else side.call("aclose")
    side.call("chat", HI)
    assert server.connections.total == 2


@pytest.mark.parametrize(
    ("kind", "name", "args"),
    [
        pytest.param(ChatSettings, "embed", (["a"],), id="embed with chat settings"),
        pytest.param(EmbeddingSettings, "chat", (HI,), id="chat with embedding settings"),
        pytest.param(ConnectionSettings, "generate", ("a",), id="generate without a model"),
        pytest.param(ConnectionSettings, "show", (), id="show without a model"),
    ],
)
def test_the_wrong_settings(
    server: SimulatedOllama,
    connect: Connect,
    kind: type[ConnectionSettings],
    name: str,
    args: tuple[Any, ...],
) -> None:
    with pytest.raises(ConfigurationError):
        connect(kind).call(name, *args)
    assert server.requests == []


def test_a_connection_alone_can_ask_around(connect: Connect) -> None:
    side = connect(ConnectionSettings)
    assert side.call("version")
    assert side.call("show", "llava")["capabilities"]


# Leaving a stream.


@pytest.mark.parametrize("how", ["break", "close", "with"])
@pytest.mark.parametrize("name", ["chat_stream", "generate_stream"])
def test_leaving_closes_the_connection(
    server: SimulatedOllama, connect: Connect, name: str, how: str
) -> None:
    server.latency.chunk_s = 0.02
    server.reply(Reply(pieces=PIECES * 1000))
    side = connect(max_connections=1, timeout=Timeouts(pool=WAIT_S))
    stream = side.leave(name, HI if name == "chat_stream" else "Hi", how=how)
    eventually(lambda: server.connections.open == 0, side)
    assert stream.result.text.startswith("Hel")
    assert stream.result.finish is None
    server.reply("again")
    assert side.call("chat", HI).text == "again"


def test_a_stream_read_twice_is_over(server: SimulatedOllama, connect: Connect) -> None:
    server.reply(Reply(pieces=PIECES))
    side = connect()
    chunks, stream = side.stream("chat_stream", HI)
    assert chunks

    async def again() -> list[ChatChunk]:
        return [chunk async for chunk in stream]

    assert (list(stream) if isinstance(side, Sync) else side.loop.run_until_complete(again())) == []
    assert len(server.requests) == 1


# Failing before anything arrived. All else, cancelling and event loops too, is in the fault table.


def test_a_call_may_retry_more(server: SimulatedOllama, connect: Connect) -> None:
    server.fault(Fault("status", status=503, data=b""), times=3)
    assert connect().call("chat", HI, max_retries=3).text
    assert len(server.requests) == 4


@pytest.mark.parametrize("streamed", [False, True])
def test_a_missing_model(server: SimulatedOllama, connect: Connect, streamed: bool) -> None:
    side = connect(model="lava")
    with pytest.raises(ModelNotFoundError) as caught:
        side.stream("chat_stream", HI) if streamed else side.call("chat", HI)
    error = caught.value
    assert (error.status, error.model) == (404, "lava")
    assert "Closest of the server's" in str(error)
    assert "llava" in str(error)
    assert "ollama pull lava" not in str(error), "a misspelt name is not one to pull"


def test_a_host_that_does_not_exist(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **values: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ConnectionFailedError, match="cannot be resolved") as caught:
        connect(base_url="http://no-such-host.invalid:1", max_retries=2).call("chat", HI)
    assert caught.value.attempts == 1


# Time, by phase, is a row of the fault table.


def test_a_timeout_of_one_call(server: SimulatedOllama, connect: Connect) -> None:
    server.fault(Fault("stall", part="response"))
    with pytest.raises(RequestTimeoutError):
        connect().call("chat", HI, timeout=0.1)


def test_a_wait_for_a_connection_without_a_limit_ends_when_one_is_free(
    server: SimulatedOllama, connect: Connect
) -> None:
    server.latency.chunk_s = 0.02
    server.reply(Reply(pieces=PIECES * 1000))
    side = connect(max_connections=1, timeout=Timeouts(pool=None))
    stream = side.client.chat_stream(HI)
    if isinstance(side, Sync):
        next(stream)
        closing = threading.Timer(0.3, stream.close)
        closing.start()
        assert side.call("chat", HI).text
        closing.join()
    else:
        side.loop.run_until_complete(stream.__anext__())
        side.loop.call_later(0.3, lambda: side.loop.create_task(stream.aclose()))
        assert side.call("chat", HI).text


# Loops, threads, processes.


def test_settings_that_change_connect_anew(server: SimulatedOllama, connect: Connect) -> None:
    side = connect()
    side.call("chat", HI)
    with SimulatedOllama() as other:
        side.client.settings.base_url = other.base_url
        side.call("chat", HI)
        assert len(other.requests) == 1
        side.client.settings.temperature = 0.5
        side.call("chat", HI)
        assert other.requests[-1].body["options"]["temperature"] == 0.5
        assert other.connections.total == 1
        side.client.settings.base_url = server.base_url
    assert len(server.requests) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("stalls", ["head", "body"])
def test_ctrl_c_leaves_no_slot_taken(server: SimulatedOllama, streamed: bool, stalls: str) -> None:
    fault = Fault("stall", part="response") if stalls == "head" else Fault("stall", chunks=1)
    server.fault(fault if streamed or stalls == "head" else Fault("stall", after=9))

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    settings = ChatSettings(
        model="llama3.2", base_url=server.base_url, max_connections=1, timeout=Timeouts(pool=WAIT_S)
    )
    try:
        with OllamaClient(settings) as client:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                list(client.chat_stream(HI)) if streamed else client.chat(HI)
            assert client.chat(HI).text
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    eventually(lambda: server.connections.open == 0)


# Headers, proxies, redirects, encodings.


def test_headers(server: SimulatedOllama, connect: Connect) -> None:
    side = connect(api_key="sk-1", headers={"x-team": "a", "User-Agent": "mine"})
    side.call("chat", HI)
    names = [name for name, _ in server.requests[0].headers]
    assert len(names) == len(set(names))
    told = dict(server.requests[0].headers)
    assert told["authorization"] == "Bearer sk-1"
    assert told["x-team"] == "a"
    assert told["user-agent"] == "mine"
    assert told["accept-encoding"] == "identity"
    assert told["content-type"] == "application/json"


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_loopback_bypasses_proxy_variables(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert connect().call("version")


@pytest.mark.parametrize(
    "proxy", ["::::", "http://", "ftp://u:secret@x", "nonsense", "http://u:secret@:99999"]
)
def test_a_proxy_that_cannot_be_used(connect: Connect, proxy: str) -> None:
    with pytest.raises(ConfigurationError, match=r"(?i)proxy") as caught:
        connect(proxy=proxy).call("version")
    assert "secret" not in str(caught.value)


def test_a_call_leaves_nothing_to_the_collector(server: SimulatedOllama) -> None:
    """Else each answer, vectors too, would stay in memory until the next collection."""
    with OllamaClient(EmbeddingSettings(model="nomic-embed-text", base_url=server.base_url)) as client:
        client.embed(["a"])
        gc.collect()
        gc.disable()
        try:
            client.embed(["a", "b"])
            kept = gc.collect()
        finally:
            gc.enable()
    assert kept == 0
