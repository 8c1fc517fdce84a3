"""Both clients over a real socket: one table, run sync and async."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import http.server
import os
import pickle
import signal
import socket
import socketserver
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    EmptyResponseError,
    IncompleteResponseError,
    ModelNotFoundError,
    OllamaClient,
    OllamaError,
    Prompt,
    ProtocolError,
    RequestTimeoutError,
    ServerBusyError,
    ServerError,
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
            await asyncio.sleep(0.1)
            assert len(server.requests) == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await asyncio.wait_for(client.chat(HI), WAIT_S)).text

    asyncio.run(run())
    eventually(lambda: server.connections.open == 0)


# Answers that end too early.


def cut_stream(server: SimulatedOllama, kind: str) -> None:
    if kind == "clean":
        server.reply(Reply(pieces=PIECES, done=False))
    else:
        server.reply(Reply(pieces=PIECES))
        server.fault(Fault(kind, chunks=2))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["clean", "end", "cut", "reset"])
@pytest.mark.parametrize("name", ["chat_stream", "generate_stream"])
def test_a_stream_that_is_cut(server: SimulatedOllama, connect: Connect, name: str, kind: str) -> None:
    cut_stream(server, kind)
    chunks, stream, error = connect(max_retries=2).stream(name, HI if name == "chat_stream" else "Hi")
    assert type(error) is IncompleteResponseError
    arrived = "".join(chunk.text for chunk in chunks)
    assert "Hello there".startswith(arrived)
    assert arrived
    assert error.partial == stream.result == ChatResult(arrived)
    assert (error.retryable, len(server.requests)) == (False, 1)
    if kind in ("cut", "reset"):
        assert error.__cause__ is not None
        assert (error.model, error.url) == ("llama3.2", server.base_url + server.requests[0].path)


@pytest.mark.parametrize("name", ["chat", "generate"])
def test_a_whole_answer_that_was_given_up(server: SimulatedOllama, connect: Connect, name: str) -> None:
    server.reply(Reply("Hel", done=False))
    with pytest.raises(IncompleteResponseError) as caught:
        connect(max_retries=2).call(name, HI if name == "chat" else "Hi")
    assert caught.value.partial.text == "Hel"
    assert len(server.requests) == 1


@pytest.mark.parametrize("kind", ["cut", "reset"])
def test_a_whole_answer_that_is_cut_is_asked_for_again(
    server: SimulatedOllama, connect: Connect, kind: str
) -> None:
    server.fault(Fault(kind, after=20), times=2)  # type: ignore[arg-type]
    side = connect(max_retries=2)
    assert side.call("chat", HI).text
    assert len(server.requests) == 3
    server.fault(Fault(kind, after=20), times=None)  # type: ignore[arg-type]
    with pytest.raises(IncompleteResponseError) as caught:
        side.call("chat", HI)
    assert caught.value.attempts == 3


@pytest.mark.parametrize("text", ["boom", ""])
def test_an_error_line_in_a_stream(server: SimulatedOllama, connect: Connect, text: str) -> None:
    server.reply(Reply(pieces=PIECES, error_at_end=text))
    chunks, _, error = connect(max_retries=2).stream("chat_stream", HI)
    assert type(error) is ServerError
    assert "".join(chunk.text for chunk in chunks) == "Hello there" == error.partial.text
    assert (error.retryable, error.attempts, len(server.requests)) == (False, 1, 1)


@pytest.mark.parametrize("name", ["chat", "chat_stream"])
def test_an_empty_answer(server: SimulatedOllama, connect: Connect, name: str) -> None:
    server.reply(Reply(raw=b"", content_type="application/x-ndjson"))
    side = connect(max_retries=2)
    if name == "chat":
        with pytest.raises(EmptyResponseError):
            side.call(name, HI)
    else:
        assert type(side.stream(name, HI)[2]) is EmptyResponseError


@pytest.mark.parametrize("streamed", [False, True])
def test_only_loaded_is_asked_once_more(server: SimulatedOllama, connect: Connect, streamed: bool) -> None:
    loaded = b'{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"load"}\n'
    server.script([Reply(raw=loaded), "Hello"])
    side = connect(max_retries=2)
    text = side.stream("chat_stream", HI)[1].result.text if streamed else side.call("chat", HI).text
    assert (text, len(server.requests)) == ("Hello", 2)


# Failing before anything arrived.


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("status", [502, 503])
def test_retries(server: SimulatedOllama, connect: Connect, status: int, streamed: bool) -> None:
    server.fault(Fault("status", status=status, data=b"<html>"), times=2)
    side = connect(max_retries=2)
    text = side.stream("chat_stream", HI)[1].result.text if streamed else side.call("chat", HI).text
    assert text
    assert len(server.requests) == 3


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


# Time, by phase.


def timed_out(side: Side, *, streamed: bool) -> RequestTimeoutError:
    if streamed:
        error = side.stream("chat_stream", HI)[2]
    else:
        with pytest.raises(RequestTimeoutError) as caught:
            side.call("chat", HI)
        error = caught.value
    assert isinstance(error, RequestTimeoutError)
    assert error.model == "llama3.2"
    return error


@pytest.mark.parametrize(
    ("fault", "timeouts", "streamed", "phase"),
    [
        pytest.param(
            Fault("stall", part="response"), {"first_byte": 0.1}, True, "first_byte", id="no first byte"
        ),
        pytest.param(Fault("stall", chunks=2), {"idle": 0.1}, True, "idle", id="silence between chunks"),
        pytest.param(
            Fault("stall", part="response"), {"total": 0.1}, True, "total", id="no first byte, total"
        ),
        pytest.param(
            Fault("stall", chunks=2), {"total": 0.2}, True, "total", id="silence between chunks, total"
        ),
        pytest.param(Fault("stall", part="response"), {"total": 0.1}, False, "total", id="not streamed"),
        pytest.param(Fault("stall", after=9), {"total": 0.2}, False, "total", id="not streamed, in the body"),
        pytest.param(Fault("drip", seconds=0.05), {"total": 0.3, "idle": 0.2}, True, "total", id="dripping"),
        pytest.param(
            Fault("drip", seconds=0.05), {"total": 0.3}, False, "total", id="dripping, not streamed"
        ),
    ],
)
def test_timeouts(
    server: SimulatedOllama,
    connect: Connect,
    fault: Fault,
    timeouts: dict[str, float],
    streamed: bool,
    phase: str,
) -> None:
    server.reply(Reply(pieces=PIECES), times=None)
    server.fault(fault, times=None)
    side = connect(timeout=Timeouts(**timeouts), max_retries=2)
    error = timed_out(side, streamed=streamed)
    assert error.phase == phase
    assert f"the limit for {phase} is {timeouts[phase]} s" in str(error)
    assert (error.retryable, len(server.requests)) == (False, 1)
    server.reset()
    assert side.call("chat", HI, timeout=WAIT_S).text


def test_silence_is_legal_where_only_the_total_binds(server: SimulatedOllama, connect: Connect) -> None:
    server.reply(Reply("slow", delay_s=0.3))
    assert connect(timeout=Timeouts(first_byte=0.1, idle=0.1)).call("chat", HI).text == "slow"


def test_a_timeout_of_one_call(server: SimulatedOllama, connect: Connect) -> None:
    server.fault(Fault("stall", part="response"))
    with pytest.raises(RequestTimeoutError):
        connect().call("chat", HI, timeout=0.1)


@pytest.mark.parametrize("pool", [0.1, None])
def test_no_free_connection(server: SimulatedOllama, connect: Connect, pool: float | None) -> None:
    server.latency.chunk_s = 0.02
    server.reply(Reply(pieces=PIECES * 1000))
    side = connect(max_connections=1, timeout=Timeouts(pool=pool), max_retries=2)
    stream = side.client.chat_stream(HI)
    if isinstance(side, Sync):
        next(stream)
        held = threading.Timer(0.3, stream.close)
    else:
        side.loop.run_until_complete(stream.__anext__())
        held = threading.Timer(0, lambda: None)
        if pool is None:
            side.loop.call_later(0.3, lambda: side.loop.create_task(stream.aclose()))
    if pool is None:
        held.start()
        assert side.call("chat", HI).text  # waits as long as it takes
        held.join()
        return
    error = timed_out(side, streamed=False)
    assert error.phase == "pool"
    assert "max_connections" in str(error)
    stream.close() if isinstance(side, Sync) else side.loop.run_until_complete(stream.aclose())
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


def test_threads_with_loops_of_their_own_share_a_client(server: SimulatedOllama) -> None:
    client = AsyncOllamaClient(ChatSettings(model="llama3.2", base_url=server.base_url))
    answers: list[str] = []

    async def ask() -> None:
        answers.extend(result.text for result in await asyncio.gather(*[client.chat(HI) for _ in range(5)]))
        await client.aclose()

    threads = [threading.Thread(target=lambda: asyncio.run(ask())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(answers) == 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_connects_anew(server: SimulatedOllama) -> None:
    with OllamaClient(ChatSettings(model="llama3.2", base_url=server.base_url)) as client:
        assert client.chat(HI).text
        child = os.fork()
        if child == 0:
            try:
                good = bool(client.chat(HI).text)
                client.close()
            except BaseException:
                good = False
            os._exit(0 if good else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert client.chat(HI).text
    connections = [request.connection for request in server.requests if request.path == "/api/chat"]
    assert connections == [1, 2, 1]


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


class _Odd(http.server.BaseHTTPRequestHandler):
    """Answers what the simulated server never would."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, dict[str, str]]]
    answers: dict[str, tuple[int, dict[str, str], bytes]]

    def do_GET(self) -> None:
        self.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        status, headers, body = self.answers.get(self.path, (200, {}, b'{"version":"1"}'))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Not to the test's output."""


class _Listening(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    block_on_close = False


@contextmanager
def odd_server(answers: dict[str, tuple[int, dict[str, str], bytes]]) -> Iterator[tuple[str, list[Any]]]:
    seen: list[Any] = []
    handler = type("Odd", (_Odd,), {"answers": answers, "seen": seen})
    with _Listening(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_address[1]}", seen
        finally:
            listening.shutdown()
            thread.join()


def moved(to: str, status: int = 307) -> tuple[int, dict[str, str], bytes]:
    return status, {"Location": to}, b""


def test_a_proxy_is_used(connect: Connect) -> None:
    with odd_server({}) as (url, seen):
        side = connect(base_url="http://ollama.example.com:1", proxy=url)
        assert side.call("version") == "1"
        assert seen[0][0] == "http://ollama.example.com:1/api/version"


@pytest.mark.parametrize(
    ("to", "follows", "reached"),
    [
        pytest.param("/x/version", False, False, id="off by default"),
        pytest.param("/x/version", True, True, id="same origin"),
        pytest.param("{url}/x/version", True, True, id="same origin, in full"),
        pytest.param("{other}/x/version", True, False, id="another port"),
        pytest.param("https://127.0.0.1/x", True, False, id="another scheme"),
        pytest.param("http://[bad", True, False, id="no address"),
        pytest.param("/api/version", True, False, id="in a circle"),
        pytest.param("", True, False, id="nowhere"),
    ],
)
def test_redirects(connect: Connect, to: str, follows: bool, reached: bool) -> None:
    answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
    with odd_server(answers) as (url, seen), odd_server({}) as (other, strangers):
        answers["/api/version"] = moved(to.format(url=url, other=other))
        side = connect(base_url=url, api_key="sk-1", follow_redirects=follows)
        if reached:
            assert side.call("version") == "1"
            assert seen[-1][0] == "/x/version"
            assert seen[-1][1]["authorization"] == "Bearer sk-1"
        else:
            with pytest.raises(ProtocolError, match="redirects"):
                side.call("version")
            assert len(seen) <= 4
        assert strangers == []


@pytest.mark.parametrize("status", [301, 302, 303])
def test_other_redirects_are_never_followed(connect: Connect, status: int) -> None:
    with odd_server({"/api/version": moved("/x", status)}) as (url, seen):
        with pytest.raises(ProtocolError, match="redirects"):
            connect(base_url=url, follow_redirects=True).call("version")
        assert len(seen) == 1


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "x, gzip"])
def test_encoded_answers_are_refused(connect: Connect, encoding: str) -> None:
    answers = {"/api/version": (200, {"Content-Encoding": encoding}, b"\x1f\x8b" + b"\0" * 64)}
    with odd_server(answers) as (url, _), pytest.raises(ProtocolError, match="encoded"):
        connect(base_url=url).call("version")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(b"<html>", ProtocolError, id="HTML"),
        pytest.param(b"", EmptyResponseError, id="nothing"),
        pytest.param(b"[]", ProtocolError, id="a list"),
        pytest.param(b"[" * 100_000, ProtocolError, id="deep"),
    ],
)
def test_other_programs_answer(connect: Connect, body: bytes, kind: type[OllamaError]) -> None:
    with odd_server({"/api/version": (200, {}, body)}) as (url, _):
        with pytest.raises(kind) as caught:
            connect(base_url=url).call("version")
        assert type(caught.value) is kind


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


def test_a_client_nobody_closed_leaves_nothing_behind(server: SimulatedOllama) -> None:
    client = OllamaClient(ChatSettings(model="llama3.2", base_url=server.base_url))
    assert client.chat(HI).text
    del client
    gc.collect()  # an unclosed socket would warn here
    eventually(lambda: server.connections.open == 0)


@pytest.mark.parametrize("name", ["chat", "chat_stream"])
def test_errors_do_not_hide_what_caused_them(server: SimulatedOllama, connect: Connect, name: str) -> None:
    server.fault(Fault("reset", part="response"), times=None)
    side = connect()
    if name == "chat":
        with pytest.raises(ConnectionFailedError) as caught:
            side.call(name, HI)
        error: OllamaError | None = caught.value
    else:
        error = side.stream(name, HI)[2]
    assert type(error) is ConnectionFailedError
    assert isinstance(error.__cause__, OSError)
    assert (error.url, error.model) == (f"{server.base_url}/api/chat", "llama3.2")
