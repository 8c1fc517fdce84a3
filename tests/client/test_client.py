"""Both clients over a real socket: one table, run sync and async."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import pickle
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from ollama_dify import (
    AsyncOllamaClient,
    ChatChunk,
    ChatResult,
    ChatSettings,
    ConfigurationError,
    ConnectionFailedError,
    ConnectionSettings,
    EmbeddingSettings,
    ModelNotFoundError,
    OllamaClient,
    OllamaError,
    Prompt,
    RequestTimeoutError,
    ServerBusyError,
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

    def stream(self, name: str, *args: Any, **values: Any) -> tuple[list[ChatChunk], Any, OllamaError | None]:
        """All chunks, the stream, and the error that ended it."""
        stream, chunks = getattr(self.client, name)(*args, **values), []
        try:
            for chunk in stream:
                chunks.append(chunk)
        except OllamaError as error:
            return chunks, stream, error
        return chunks, stream, None

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

    def meanwhile(self) -> None:
        """What a running program does anyway."""

    def close(self) -> None:
        self.client.close()


class Async:
    """A client whose methods are awaited, on a loop of its own."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.client = AsyncOllamaClient(settings)
        self.loop = asyncio.new_event_loop()

    def call(self, name: str, *args: Any, **values: Any) -> Any:
        return self.loop.run_until_complete(getattr(self.client, name)(*args, **values))

    def stream(self, name: str, *args: Any, **values: Any) -> tuple[list[ChatChunk], Any, OllamaError | None]:
        async def run() -> tuple[list[ChatChunk], Any, OllamaError | None]:
            stream, chunks = getattr(self.client, name)(*args, **values), []
            try:
                async for chunk in stream:
                    chunks.append(chunk)
            except OllamaError as error:
                return chunks, stream, error
            return chunks, stream, None

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

    def meanwhile(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0.01))

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
        if side is not None:
            side.meanwhile()
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
    chunks, stream, error = connect().stream("chat_stream", HI)
    assert error is None
    assert [chunk.text for chunk in chunks if chunk.text] == PIECES
    assert [chunk.finish is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert stream.result.text == "Hello there"
    assert stream.result.finish == chunks[-1].finish
    assert server.requests[0].body["stream"] is True


def test_generate(server: SimulatedOllama, connect: Connect) -> None:
    server.script([Reply("one"), Reply(pieces=PIECES)])
    side = connect()
    assert side.call("generate", "Hi").text == "one"
    _, stream, error = side.stream("generate_stream", Prompt("Hi", system="Brief.", raw=False))
    assert (stream.result.text, error) == ("Hello there", None)
    assert [request.path for request in server.requests] == ["/api/generate"] * 2
    assert [request.body["prompt"] for request in server.requests] == ["Hi", "Hi"]


def test_thinking_and_tools(server: SimulatedOllama, connect: Connect) -> None:
    server.reply(Reply("done", thinking="hm", tool_calls=[{"name": "f", "arguments": {"a": 1}}]), times=2)
    side = connect(model="qwen3", think=True)
    whole = side.call("chat", HI, tools=[Tool("f")])
    _, stream, _ = side.stream("chat_stream", HI, tools=[Tool("f")])
    for result in (whole, stream.result):
        assert result.thinking == "hm"
        assert [(call.name, call.arguments) for call in result.tool_calls] == [("f", {"a": 1})]


def test_embed(server: SimulatedOllama, connect: Connect) -> None:
    side = connect(EmbeddingSettings, batch_size=2)
    texts = [f"text {number}" for number in range(7)]
    result = side.call("embed", texts)
    assert [len(vector) for vector in result.vectors] == [384] * 7
    assert side.call("embed", [texts[3]]).vectors[0] == pytest.approx(result.vectors[3])
    assert sorted(len(request.body["input"]) for request in server.requests) == [1, 1, 2, 2, 2]


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


def test_a_stream_that_is_never_read_sends_nothing(server: SimulatedOllama, connect: Connect) -> None:
    side = connect()
    stream = side.client.chat_stream(HI)
    assert stream.result == ChatResult()
    del stream
    gc.collect()
    assert server.requests == []


def test_a_stream_read_twice_is_over(server: SimulatedOllama, connect: Connect) -> None:
    server.reply(Reply(pieces=PIECES))
    side = connect()
    chunks, stream, _ = side.stream("chat_stream", HI)
    assert chunks

    async def again() -> list[ChatChunk]:
        return [chunk async for chunk in stream]

    assert (list(stream) if isinstance(side, Sync) else side.loop.run_until_complete(again())) == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("streamed", [False, True])
def test_cancelling_frees_connection_and_slot(server: SimulatedOllama, streamed: bool) -> None:
    server.fault(Fault("stall", chunks=1 if streamed else None), times=1)

    async def run() -> None:
        settings = ChatSettings(model="llama3.2", base_url=server.base_url, max_connections=1, max_retries=0)
        async with AsyncOllamaClient(settings) as client:

            async def ask() -> None:
                if not streamed:
                    await client.chat(HI)
                async for _ in client.chat_stream(HI):
                    pass

            task = asyncio.create_task(ask())
            await asyncio.to_thread(eventually, lambda: bool(server.requests))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await asyncio.wait_for(client.chat(HI), WAIT_S)).text

    asyncio.run(run())
    eventually(lambda: server.connections.open == 0)


# Failing before anything arrived. What ends too early or is no answer of Ollama is in the fault table.


def test_retries_end(server: SimulatedOllama, connect: Connect) -> None:
    server.fault(Fault("status", status=503, data=b'{"error":"server busy"}'), times=None)
    with pytest.raises(ServerBusyError, match="after 3 attempts") as caught:
        connect(max_retries=2).call("chat", HI)
    assert (caught.value.attempts, caught.value.status, len(server.requests)) == (3, 503, 3)


def test_a_call_may_retry_more(server: SimulatedOllama, connect: Connect) -> None:
    server.fault(Fault("status", status=503, data=b""), times=3)
    assert connect().call("chat", HI, max_retries=3).text
    assert len(server.requests) == 4


@pytest.mark.parametrize("streamed", [False, True])
def test_a_missing_model(server: SimulatedOllama, connect: Connect, streamed: bool) -> None:
    side = connect(model="lava")
    if streamed:
        error = side.stream("chat_stream", HI)[2]
    else:
        with pytest.raises(ModelNotFoundError) as caught:
            side.call("chat", HI)
        error = caught.value
    assert type(error) is ModelNotFoundError
    assert (error.status, error.model) == (404, "lava")
    assert "Closest of the server's" in str(error)
    assert "llava" in str(error)
    assert "ollama pull lava" not in str(error), "a misspelt name is not one to pull"


def test_nobody_listens(connect: Connect) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    side = connect(base_url=f"http://127.0.0.1:{port}", max_retries=1)
    with pytest.raises(ConnectionFailedError, match="connection refused") as caught:
        side.call("chat", HI)
    assert type(caught.value) is ConnectionFailedError
    assert (caught.value.attempts, caught.value.retryable) == (2, True)
    assert pickle.loads(pickle.dumps(caught.value)).message == caught.value.message
    assert type(side.stream("chat_stream", HI)[2]) is ConnectionFailedError


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


def test_two_event_loops_in_a_row(server: SimulatedOllama) -> None:
    client = AsyncOllamaClient(ChatSettings(model="llama3.2", base_url=server.base_url))
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def ask() -> str:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        async for _ in client.chat_stream(HI):
            break
        return (await client.chat(HI)).text

    for _ in range(3):
        assert asyncio.run(ask())
    gc.collect()  # an unclosed socket would warn here
    eventually(lambda: server.connections.open == 0)
    assert sum(loop() is not None for loop in loops) <= 1


def test_threads_share_a_client(server: SimulatedOllama) -> None:
    server_answers: list[str] = []
    with OllamaClient(ChatSettings(model="llama3.2", base_url=server.base_url, max_connections=3)) as client:

        def ask() -> None:
            for _ in range(5):
                server_answers.append(client.chat(HI).text)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert len(server_answers) == 30
    assert len(set(server_answers)) == 1
    assert server.connections.total <= 3


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


def test_userinfo_is_sent_as_a_header(server: SimulatedOllama, connect: Connect) -> None:
    connect(base_url=server.base_url.replace("://", "://me:secret@")).call("version")
    assert server.requests[0].header("authorization") == "Basic bWU6c2VjcmV0"


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


@pytest.mark.parametrize("proxy", ["::::", "http://[", "http://x:99999", "http://x:0", "ftp://x"])
def test_a_bad_proxy_variable(connect: Connect, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(ConfigurationError, match=r"(?i)proxy"):
        connect(base_url="http://ollama.example.com:1", timeout=0.5).call("version")


# A client of the user's own.


def test_an_own_sync_client(server: SimulatedOllama) -> None:
    with httpx.Client(headers={"X-Own": "1", "User-Agent": "own"}) as own:
        settings = ChatSettings(
            model="llama3.2", base_url=server.base_url, http_client=own, headers={"x-team": "a"}
        )
        with OllamaClient(settings) as client:
            assert client.chat(HI).text
            assert [chunk.text for chunk in client.chat_stream(HI)]
        assert not own.is_closed
    check_own(server)


def test_an_own_async_client(server: SimulatedOllama) -> None:
    async def run() -> None:
        async with httpx.AsyncClient(headers={"X-Own": "1", "User-Agent": "own"}) as own:
            settings = ChatSettings(
                model="llama3.2", base_url=server.base_url, http_async_client=own, headers={"x-team": "a"}
            )
            async with AsyncOllamaClient(settings) as client:
                assert (await client.chat(HI)).text
                assert [chunk.text async for chunk in client.chat_stream(HI)]
            assert not own.is_closed

    asyncio.run(run())
    check_own(server)


def check_own(server: SimulatedOllama) -> None:
    for request in server.requests:
        names = [name for name, _ in request.headers]
        assert len(names) == len(set(names))
        assert request.header("x-own") == "1"
        assert request.header("x-team") == "a"
        assert request.header("accept-encoding") == "identity"
