"""What the fault table has no row for: closing from elsewhere, forks that hold copies, proxies."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

import ollama_dify as od
from ollama_dify import AsyncOllamaClient, ChatSettings, OllamaClient, Timeouts, user
from ollama_dify.transport.connection import target_of
from ollama_dify.transport.pool import Pool
from ollama_dify.transport.sockets import AsyncSocket, BlockingSocket

from .rows_connections import endless
from .server import End, FaultServer, Request, Step, answer, chunk, head, in_turn, last_line, line


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def chat(url: str, **values: Any) -> ChatSettings:
    return ChatSettings(model="m", base_url=url, **values)


def test_another_thread_stops_a_stream(server: FaultServer) -> None:
    server.script(endless)
    with OllamaClient(chat(server.url)) as client:
        stream = client.chat_stream([user("hi")])
        first = next(stream)
        stopper = threading.Timer(0.1, stream.close)
        stopper.start()
        with pytest.raises(od.OllamaError) as caught:
            for _ in stream:
                pass
        stopper.join()
    assert first.text == "x"
    assert caught.value.partial.text.startswith("x")
    assert server.wait(lambda counts: counts.open == 0, 1.0)


def held_open(request: Request) -> Iterable[Step]:
    """Says that it is done, and does not end the body."""
    if request.path != "/api/chat":
        return answer(request)
    return [head(Content_Type="application/x-ndjson"), chunk(line("Hello")), chunk(last_line()), End.STALL]


def test_a_body_that_does_not_end_after_done(server: FaultServer) -> None:
    server.script(held_open)
    with OllamaClient(chat(server.url)) as client:
        assert "".join(it.text for it in client.chat_stream([user("hi")])) == "Hello"
    assert server.wait(lambda counts: counts.open == 0, 1.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_close_is_seen_though_a_child_holds_copies(server: FaultServer, mode: str) -> None:
    server.script(endless)
    release, hold = os.pipe()

    def fork() -> int:
        pid = os.fork()
        if pid == 0:
            os.close(hold)
            os.read(release, 1)
            os._exit(0)
        return pid

    async def leave() -> int:
        async with AsyncOllamaClient(chat(server.url)) as client:
            stream = client.chat_stream([user("hi")])
            await stream.__anext__()
            pid = fork()
            await stream.aclose()
            return pid

    if mode == "async":
        pid = asyncio.run(leave())
    else:
        with OllamaClient(chat(server.url)) as client:
            stream = client.chat_stream([user("hi")])
            next(stream)
            pid = fork()
            stream.close()
    try:
        assert server.wait(lambda counts: counts.open == 0, 1.0), "the child's copy keeps the connection"
    finally:
        os.close(hold)
        os.waitpid(pid, 0)
        os.close(release)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_closes_does_not_end_the_parents_stream(server: FaultServer) -> None:
    server.script(endless)
    with OllamaClient(chat(server.url)) as client:
        stream = client.chat_stream([user("hi")])
        next(stream)
        pid = os.fork()
        if pid == 0:
            stream.close()
            client.close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert [next(stream).text for _ in range(20)] == ["x"] * 20
        stream.close()


def proxied(request: Request) -> Iterable[Step]:
    """A forward proxy that answers by itself."""
    path = "/" + request.path.partition("://")[2].partition("/")[2]
    return answer(replace(request, path=path))


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_through_a_proxy(server: FaultServer, mode: str) -> None:
    server.script(proxied)
    settings = chat("http://server.invalid", proxy=server.url, timeout=Timeouts(total=5), max_retries=0)

    async def awaited() -> list[str]:
        async with AsyncOllamaClient(settings) as client:
            whole = (await client.chat([user("hi")])).text
            pieces = [it.text async for it in client.chat_stream([user("hi")])]
            return [whole, "".join(pieces)]

    if mode == "async":
        said = asyncio.run(awaited())
    else:
        with OllamaClient(settings) as client:
            said = [
                client.chat([user("hi")]).text,
                "".join(it.text for it in client.chat_stream([user("hi")])),
            ]
    assert said == ["Hello", "Hello"]
    assert {request.path for request in server.requests} == {"http://server.invalid/api/chat"}
    assert server.counts.connections == 1


def test_cancelled_calls_take_no_place_in_a_proxys_pool(server: FaultServer) -> None:
    server.script(lambda request: [End.STALL] if b"wait" in request.body else proxied(request))
    settings = chat("http://server.invalid", proxy=server.url, max_connections=4, max_retries=0)

    async def awaited() -> str:
        async with AsyncOllamaClient(settings) as client:
            for steps in range(300):
                task = asyncio.ensure_future(client.chat([user("wait")]))
                # Cancelled after each possible number of turns of the loop, connecting included.
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            return (await asyncio.wait_for(client.chat([user("hi")]), 10)).text

    assert asyncio.run(awaited()) == "Hello"
    assert server.wait(lambda counts: counts.open == 0, 1.0)


def test_calls_cancelled_at_any_moment_leave_no_connection(server: FaultServer) -> None:
    server.script(lambda request: [End.STALL] if b"wait" in request.body else answer(request))

    async def awaited() -> None:
        async with AsyncOllamaClient(chat(server.url, max_connections=2, max_retries=0)) as client:
            for steps in range(300):
                task = asyncio.ensure_future(client.chat([user("wait")]))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await asyncio.sleep(0.05)
            assert server.wait(lambda counts: counts.open == 0, 1.0), f"{server.counts.open} left"
            assert (await asyncio.wait_for(client.chat([user("hi")]), 10)).text == "Hello"

    asyncio.run(awaited())


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_host_with_several_addresses(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = taken.getsockname()[1]
    port = int(server.url.rpartition(":")[2])
    answers = [closed, port]
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", it)) for it in answers],
    )

    async def awaited() -> str:
        async with AsyncOllamaClient(settings) as client:
            return (await client.chat([user("hi")])).text

    def ask() -> str:
        if mode == "async":
            return asyncio.run(awaited())
        with OllamaClient(settings) as client:
            return client.chat([user("hi")]).text

    settings = chat("http://server.example", trust_env=False, max_retries=0)
    assert ask() == "Hello"
    answers[:] = [closed, closed]
    with pytest.raises(od.ConnectionFailedError, match="connection refused"):
        ask()


def test_a_cancelled_wait_loses_no_slot(server: FaultServer) -> None:
    server.script(in_turn(then=lambda request: [0.02, *answer(request)]))

    async def awaited() -> None:
        settings = chat(server.url, max_connections=1, timeout=Timeouts(pool=20))
        async with AsyncOllamaClient(settings) as client:
            for _ in range(5):
                tasks = [asyncio.ensure_future(client.chat([user("hi")])) for _ in range(4)]
                await asyncio.sleep(0.021)
                for task in tasks[1:3]:
                    task.cancel()
                found = await asyncio.gather(*tasks, return_exceptions=True)
                assert [isinstance(it, BaseException) for it in found] in (
                    [False, True, True, False],
                    [False, False, True, False],
                )

    asyncio.run(asyncio.wait_for(awaited(), 30))


def test_a_reused_connection_keeps_no_deadline(server: FaultServer) -> None:
    with OllamaClient(chat(server.url, timeout=0.3)) as client:
        client.chat([user("hi")])
        time.sleep(0.4)
        assert client.chat([user("hi")]).text == "Hello"
    assert server.counts.connections == 1


@pytest.mark.parametrize("call", ["version", "chat", "stream"])
def test_another_event_loop_is_refused_in_words(call: str) -> None:
    """trio and others await as well, and know nothing of asyncio."""
    client = AsyncOllamaClient(chat("http://127.0.0.1:9"))
    awaited = {
        "version": lambda: client.version(),
        "chat": lambda: client.chat([user("hi")]),
        "stream": lambda: client.chat_stream([user("hi")]).__anext__(),
    }[call]()
    with pytest.raises(od.ConfigurationError, match="trio is not"):
        awaited.send(None)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_error_body_that_drips_is_left(
    server: FaultServer, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read for so long only, then the status alone says what happened."""
    monkeypatch.setattr("ollama_dify.transport.http_stream.ERROR_BODY_S", 0.2)
    sent: list[int] = []

    def dripping(request: Request) -> Iterator[Step]:
        yield head(401)
        for number in range(400):
            sent.append(number)
            yield chunk(b"x")
            yield 0.02

    async def awaited() -> None:
        async with AsyncOllamaClient(chat(server.url)) as client:
            await client.chat([user("hi")])

    server.script(dripping)
    with pytest.raises(od.AuthenticationError):
        if mode == "async":
            asyncio.run(awaited())
        else:
            with OllamaClient(chat(server.url)) as client:
                client.chat([user("hi")])
    assert server.wait(lambda counts: counts.open == 0)
    assert len(sent) < 400


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("over", [0, 1], ids=["the longest", "a byte more"])
def test_the_limit_of_an_error_body(server: FaultServer, mode: str, over: int) -> None:
    """What is longer is cut, so that it is no JSON any more; and what does not end is not read on."""
    body = b'{"error":"the reason"'.ljust(64 * 1024 - 1 + over) + b"}"
    sent: list[int] = []

    def endless(request: Request) -> Iterator[Step]:
        yield head(401)
        yield chunk(body)
        for number in range(4000 * over):
            sent.append(number)
            yield chunk(b"x" * 65536)
        yield b"0\r\n\r\n"

    async def awaited() -> None:
        async with AsyncOllamaClient(chat(server.url)) as client:
            await client.chat([user("hi")])

    server.script(endless)
    with pytest.raises(od.AuthenticationError) as caught:
        if mode == "async":
            asyncio.run(awaited())
        else:
            with OllamaClient(chat(server.url)) as client:
                client.chat([user("hi")])
    assert ('{"error"' in str(caught.value)) == bool(over)
    assert server.wait(lambda counts: counts.open == 0)
    assert len(sent) < 1000


def test_httpxs_own_client_goes_the_same_way(server: FaultServer) -> None:
    httpx = pytest.importorskip("httpx")
    target = target_of(httpx.URL(server.url), ssl.create_default_context)

    async def awaited() -> str:
        async with httpx.AsyncClient(transport=Pool(target, AsyncSocket)) as client:
            settings = chat(server.url, http_async_client=client)
            return (await AsyncOllamaClient(settings).chat([user("hi")])).text

    with httpx.Client(transport=Pool(target, BlockingSocket)) as client:
        assert client.get(server.url + "/api/version").json() == {"version": "0.33.0"}
        assert OllamaClient(chat(server.url, http_client=client)).chat([user("hi")]).text == "Hello"
    assert asyncio.run(awaited()) == "Hello"
    assert server.wait(lambda counts: counts.connections == 2 and counts.open == 0, 1.0)


def test_a_closed_client_of_ones_own_is_named(server: FaultServer) -> None:
    httpx = pytest.importorskip("httpx")
    own = httpx.Client()
    own.close()
    client = OllamaClient(chat(server.url, http_client=own))
    with client, pytest.raises(od.ConnectionFailedError, match="closed") as caught:
        client.version()
    assert isinstance(caught.value.__cause__, RuntimeError)
