"""Ctrl-C between any two lines: no slot and no connection is lost, and the next call works.

A trace function raises KeyboardInterrupt at one line event after the other: at every line in `make
interrupts`, at a sample of them in `make test`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from ollama_dify import AsyncOllamaClient, ChatSettings, EmbeddingSettings, OllamaClient, user
from ollama_dify.testing import SimulatedOllama

OURS = tuple(os.path.join("ollama_dify", part) + os.sep for part in ("client", "transport", "wire"))
STEP = int(os.environ.get("INTERRUPT_EVERY", "150"))


@pytest.fixture
def server() -> Iterator[SimulatedOllama]:
    with SimulatedOllama() as running:
        yield running


def interrupted(work: Callable[[], object], at: int) -> int:
    """Run work with an interrupt at the line event of this number; how many there were. 0: none at all."""
    seen = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal seen
        if not any(part in frame.f_code.co_filename for part in OURS):
            return None
        if event == "line":
            seen += 1
            if seen == at:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return seen


def lost(client: Any, server: SimulatedOllama) -> tuple[int, int]:
    """Slots taken, and connections open at the server that no pool keeps for the next call.

    A pool may keep one that an interrupt ended; it is thrown away when its turn comes.
    """
    gc.collect()
    transport = next(iter(client._transports_here().values()))
    return len(transport.slots._places), max(0, server.connections.open - len(transport._pool._idle))


def lost_for_good(client: Any, server: SimulatedOllama) -> tuple[int, int]:
    """`lost`, once worker threads and the server had time to notice."""
    end = time.monotonic() + 5
    while (found := lost(client, server)) != (0, 0) and time.monotonic() < end:
        time.sleep(0.01)
    return found


def chat(client: OllamaClient) -> None:
    client.chat([user("Hello")])


def stream(client: OllamaClient) -> None:
    for _ in client.chat_stream([user("Hello")]):
        pass


def left_early(client: OllamaClient) -> None:
    for _ in client.chat_stream([user("Hello")]):
        break


def embed(client: OllamaClient) -> None:
    client.embed(["one", "two", "three", "four", "five", "six"])


WORK = {"chat": chat, "stream": stream, "left early": left_early, "embed": embed}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", WORK)
def test_nothing_is_lost(name: str, server: SimulatedOllama, monkeypatch: pytest.MonkeyPatch) -> None:
    # An interrupt inside a finaliser is only told; keeping it would keep all that its frames hold.
    monkeypatch.setattr(sys, "unraisablehook", lambda told: None)
    work = WORK[name]
    settings: Any = (
        EmbeddingSettings(model="nomic-embed-text", base_url=server.base_url, batch_size=1, max_connections=2)
        if name == "embed"
        else ChatSettings(model="llava", base_url=server.base_url, max_connections=2)
    )
    with OllamaClient(settings) as client:
        work(client)
        lines = interrupted(lambda: work(client), 0)
        assert lines > 50
        assert lost_for_good(client, server) == (0, 0)
        for at in range(1, lines + 1, STEP):
            interrupted(lambda: work(client), at)
            assert lost_for_good(client, server) == (0, 0), f"interrupted at line event {at}"
            work(client)  # the next call has a slot


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["chat", "stream", "embed"])
async def test_a_cancelled_call_loses_nothing(name: str, server: SimulatedOllama) -> None:
    settings: Any = (
        EmbeddingSettings(model="nomic-embed-text", base_url=server.base_url, batch_size=1, max_connections=2)
        if name == "embed"
        else ChatSettings(model="llava", base_url=server.base_url, max_connections=2)
    )

    async def work(client: AsyncOllamaClient) -> None:
        if name == "embed":
            await client.embed(["one", "two", "three", "four"])
        elif name == "chat":
            await client.chat([user("Hello")])
        else:
            async for _ in client.chat_stream([user("Hello")]):
                pass

    async with AsyncOllamaClient(settings) as client:
        await work(client)
        for turns in range(40):
            task = asyncio.ensure_future(work(client))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for _ in range(200):
                if lost(client, server) == (0, 0):
                    break
                await asyncio.sleep(0.01)
            assert lost(client, server) == (0, 0), f"cancelled after {turns} turns of the loop"
            await work(client)
