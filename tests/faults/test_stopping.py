"""Ending a call from elsewhere: before its first chunk, while it waits for its next try, by Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import pytest

import ollama_dify as od
from ollama_dify import AsyncOllamaClient, ChatSettings, OllamaClient, user

from .server import End, FaultServer, Request, Step, answer, chunk, head, line, whole

SILENCE_S = 20.0


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def silent(request: Request) -> Iterable[Step]:
    return [End.STALL]


def busy(request: Request) -> Iterable[Step]:
    """Asks to come back later than the test waits."""
    return [whole(b'{"error":"busy"}', 503, Retry_After="15")]


@pytest.mark.parametrize("script", [silent, busy])
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_stream_is_stopped_before_its_first_chunk(
    server: FaultServer, mode: str, script: Callable[[Request], Iterable[Step]]
) -> None:
    server.script(script)
    settings = ChatSettings(model="m", base_url=server.url)

    def stop_soon(stop: Callable[[], object]) -> threading.Thread:
        def work() -> None:
            server.wait(lambda counts: counts.requests > 0)
            time.sleep(0.1)
            stop()

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    async def awaited() -> None:
        async with AsyncOllamaClient(settings) as client:
            stream = client.chat_stream([user("hi")])
            loop = asyncio.get_running_loop()
            thread = stop_soon(lambda: asyncio.run_coroutine_threadsafe(stream.aclose(), loop).result(5))
            async for _ in stream:
                pass
            thread.join()

    began = time.monotonic()
    with pytest.raises(od.OllamaError) as caught:
        if mode == "async":
            asyncio.run(awaited())
        else:
            with OllamaClient(settings) as client:
                stream = client.chat_stream([user("hi")])
                thread = stop_soon(stream.close)
                for _ in stream:
                    pass
                thread.join()
    assert time.monotonic() - began < 10, "waited for the server"
    assert not caught.value.retryable
    assert server.counts.requests == 1
    assert server.wait(lambda counts: counts.open == 0, 1.0)


async def test_leaving_a_sync_loop_inside_an_event_loop_closes_at_once(server: FaultServer) -> None:
    """As in a notebook: nothing waits for the event loop to run again."""
    server.script(lambda request: [head(), chunk(line("Hello")), End.STALL])
    with OllamaClient(ChatSettings(model="m", base_url=server.url)) as client:
        for _ in client.chat_stream([user("hi")]):
            break
        assert server.wait(lambda counts: counts.open == 0, 1.0)


_EMBED = """
import sys
from ollama_dify import EmbeddingSettings, OllamaClient
with OllamaClient(EmbeddingSettings(model="m", base_url=sys.argv[1], batch_size=1)) as client:
    client.embed([str(number) for number in range(50)])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no such signals here")
def test_ctrl_c_ends_many_embeddings_at_once(server: FaultServer) -> None:
    server.script(lambda request: [End.STALL] if request.path == "/api/embed" else answer(request))
    with subprocess.Popen([sys.executable, "-c", _EMBED, server.url], stderr=subprocess.PIPE) as process:
        assert server.wait(lambda counts: counts.requests >= 4, 20)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=SILENCE_S)
    assert b"KeyboardInterrupt" in told
    assert server.wait(lambda counts: counts.open == 0, 2.0)
