"""What the fault table has no row for: ending calls from elsewhere, forks that hold copies, error bodies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator

import httpx
import pytest

import ollama_dify as od
from ollama_dify import AsyncOllamaClient, OllamaClient, Timeouts, user
from ollama_dify.transport.pool import Pool, Target
from ollama_dify.transport.sockets import AsyncSocket, BlockingSocket

from .calling import BOTH, MODES, Calling, chat
from .rows_connections import endless
from .server import (
    End,
    FaultServer,
    Request,
    Script,
    Step,
    answer,
    chunk,
    head,
    in_turn,
    last_line,
    line,
    whole,
)
from .test_connections import TLS, serving_tls

SILENCE_S = 20.0
IMAGES = TLS.parent / "images"


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


@MODES
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_stream_is_stopped_from_elsewhere(mode: str, tls: bool) -> None:
    with FaultServer(endless, tls=serving_tls() if tls else None) as server:
        with Calling(mode, chat(server.url, verify=str(TLS / "ca.pem"))) as calling:
            stream = calling.client.chat_stream([user("hi")])
            assert calling.next(stream) == "x"
            calling.later(0.1, stream.close if mode == "sync" else stream.aclose)
            with pytest.raises(od.OllamaError) as caught:
                calling.rest(stream)
        assert caught.value.partial.text.startswith("x")
        assert server.wait(lambda counts: counts.open == 0, 1.0)


SILENT: list[Step] = [End.STALL]
# Asks to come back later than the test waits.
BUSY: list[Step] = [whole(b'{"error":"busy"}', 503, Retry_After="15")]


@BOTH
@pytest.mark.parametrize("reply", [SILENT, BUSY], ids=["silent", "busy"])
def test_a_stream_is_stopped_before_its_first_chunk(
    server: FaultServer, mode: str, reply: list[Step]
) -> None:
    server.script(lambda request: reply)
    with Calling(mode, chat(server.url, max_retries=2)) as calling:
        stream = calling.client.chat_stream([user("hi")])

        def stop() -> None:
            server.wait(lambda counts: counts.requests > 0)
            time.sleep(0.1)
            if mode == "sync":
                stream.close()
            else:
                asyncio.run_coroutine_threadsafe(stream.aclose(), calling.loop).result(5)

        thread = threading.Thread(target=stop)
        thread.start()
        with pytest.raises(od.OllamaError) as caught:
            calling.rest(stream)
        thread.join()
    assert not caught.value.retryable
    assert server.counts.requests == 1
    assert server.wait(lambda counts: counts.open == 0, 1.0)


async def test_leaving_a_sync_loop_inside_an_event_loop_closes_at_once(server: FaultServer) -> None:
    """As in a notebook: nothing waits for the event loop to run again."""
    server.script(lambda request: [head(), chunk(line("Hello")), End.STALL])
    with OllamaClient(chat(server.url)) as client:
        for _ in client.chat_stream([user("hi")]):
            break
        assert server.wait(lambda counts: counts.open == 0, 1.0)


_EMBED = """
import signal, sys
from ollama_dify import EmbeddingSettings, OllamaClient
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored under nohup and in background jobs
with OllamaClient(EmbeddingSettings(model="m", base_url=sys.argv[1], batch_size=1)) as client:
    client.embed([str(number) for number in range(50)])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no such signals here")
def test_ctrl_c_ends_many_embeddings_at_once(server: FaultServer) -> None:
    server.script(lambda request: [End.STALL] if request.path == "/api/embed" else answer(request))
    with subprocess.Popen([sys.executable, "-c", _EMBED, server.url], stderr=subprocess.PIPE) as process:
        assert server.wait(lambda counts: counts.requests >= 4, 20)
        process.send_signal(signal.SIGINT)
        try:
            _, told = process.communicate(timeout=SILENCE_S)
        finally:
            process.kill()
    assert b"KeyboardInterrupt" in told
    assert server.wait(lambda counts: counts.open == 0, 2.0)


def held_open(request: Request) -> Iterable[Step]:
    """Says that it is done, and does not end the body."""
    if request.path != "/api/chat":
        return answer(request)
    return [head(Content_Type="application/x-ndjson"), chunk(line("Hello")), chunk(last_line()), End.STALL]


@BOTH
def test_a_body_that_does_not_end_after_done(server: FaultServer, mode: str) -> None:
    server.script(held_open)
    with Calling(mode, chat(server.url)) as calling:
        assert calling.stream() == "Hello"
    assert server.wait(lambda counts: counts.open == 0, 1.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@BOTH
def test_a_close_is_seen_though_a_child_holds_copies(server: FaultServer, mode: str) -> None:
    server.script(endless)
    release, hold = os.pipe()
    with Calling(mode, chat(server.url)) as calling:
        stream = calling.client.chat_stream([user("hi")])
        calling.next(stream)
        pid = os.fork()
        if pid == 0:
            os.close(hold)
            os.read(release, 1)
            os._exit(0)
        calling.leave(stream)
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


@BOTH
def test_a_reused_connection_keeps_no_deadline(server: FaultServer, mode: str) -> None:
    with Calling(mode, chat(server.url, timeout=0.3)) as calling:
        calling.chat()
        time.sleep(0.4)
        assert calling.chat() == "Hello"
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


def long_refusal(reason: str, pieces: int, pause: float, sent: list[int]) -> Script:
    """A 401 whose body goes on for so many pieces after the reason; sent: which were taken."""

    def script(request: Request) -> Iterator[Step]:
        yield head(401)
        yield chunk(reason.encode())
        for number in range(pieces):
            sent.append(number)
            yield chunk(b"x" * (1 if pause else 65536))
            yield pause
        yield b"0\r\n\r\n"

    return script


@BOTH
@pytest.mark.parametrize("over", [0, 1], ids=["the longest", "a byte more"])
def test_the_limit_of_an_error_body(server: FaultServer, mode: str, over: int) -> None:
    """What is longer is cut, so that it is no JSON any more; and what does not end is not read on."""
    reason, sent = '{"error":"the reason"'.ljust(64 * 1024 - 1 + over) + "}", list[int]()
    server.script(long_refusal(reason, 4000 * over, 0, sent))
    with Calling(mode, chat(server.url)) as calling, pytest.raises(od.AuthenticationError) as caught:
        calling.chat()
    assert ('{"error"' in str(caught.value)) == bool(over)
    assert server.wait(lambda counts: counts.open == 0)
    assert len(sent) < 1000


@BOTH
def test_an_error_body_that_drips_is_left(
    server: FaultServer, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read for so long only, then the status alone says what happened."""
    monkeypatch.setattr("ollama_dify.transport.http_stream.ERROR_BODY_S", 0.2)
    sent: list[int] = []
    server.script(long_refusal("x", 400, 0.02, sent))
    with Calling(mode, chat(server.url)) as calling, pytest.raises(od.AuthenticationError):
        calling.chat()
    assert server.wait(lambda counts: counts.open == 0)
    assert len(sent) < 400


def test_httpxs_own_client_goes_the_same_way(server: FaultServer) -> None:
    target = Target(httpx.URL(server.url))

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
    own = httpx.Client()
    own.close()
    client = OllamaClient(chat(server.url, http_client=own))
    with client, pytest.raises(od.ConnectionFailedError, match="closed") as caught:
        client.version()
    assert isinstance(caught.value.__cause__, RuntimeError)


@BOTH
def test_the_time_of_a_call_is_told_of_its_look_ups_too(server: FaultServer, mode: str) -> None:
    image = od.Image.from_path(IMAGES / "png_1024x768.png")
    server.script(lambda request: [End.STALL])
    told = pytest.raises(od.RequestTimeoutError, match=r"the limit for total is 0\.2 s")
    with Calling(mode, chat(server.url)) as calling, told:
        calling.run(calling.client.chat([user("hi", image)], timeout=0.2))


def test_a_client_of_ones_own_may_have_limits_where_the_settings_have_none(server: FaultServer) -> None:
    def late(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("late", request=request)

    with httpx.Client(transport=httpx.MockTransport(late)) as own:
        settings = chat(server.url, http_client=own, timeout=od.Timeouts(answer=None))
        with OllamaClient(settings) as client, pytest.raises(od.RequestTimeoutError, match="in time: late"):
            client.chat([user("hi")])


@BOTH
def test_a_client_of_ones_own_is_not_sent_elsewhere(server: FaultServer, mode: str) -> None:
    """It would go there: unlike our pool, it can reach any server."""
    with FaultServer() as other, httpx.Client() as own:
        server.script(in_turn([whole(b"", 307, Location=other.url + "/api/chat")]))
        own_async = httpx.AsyncClient()
        settings = chat(server.url, follow_redirects=True, http_client=own, http_async_client=own_async)
        with Calling(mode, settings) as calling:
            with pytest.raises(od.ProtocolError, match="redirects to"):
                calling.chat()
            if mode == "async":
                calling.run(own_async.aclose())
        assert other.counts.connections == 0


@BOTH
def test_a_body_with_images_is_sent_whole_again(server: FaultServer, mode: str) -> None:
    """Base64 is made while sending; a retry makes it anew."""
    image = od.Image.from_path(IMAGES / "png_1024x768.png")
    server.script(in_turn([whole(b'{"error":"busy"}', 503, Retry_After="0")], answer))
    with Calling(mode, chat(server.url, max_retries=1, vision_support=True)) as calling:
        assert calling.run(calling.client.chat([user("What is it?", image)])).text == "Hello"
    first, again = (request.json["messages"] for request in server.requests)
    assert first == again
    assert len(again[0]["images"][0]) == 4 * ((len(image.data) + 2) // 3)
