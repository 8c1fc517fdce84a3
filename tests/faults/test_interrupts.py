"""Ctrl-C at every line of a call, cancellation at every await: no slot and no connection is left.

A sample by default; `make interrupts` (OLLAMA_DIFY_ALL_LINES=1) takes every line.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Callable, Coroutine, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import ollama_dify
from ollama_dify import AsyncOllamaClient, ChatSettings, EmbeddingSettings, OllamaClient, Timeouts, user
from ollama_dify.testing import SimulatedOllama

ALL = os.environ.get("OLLAMA_DIFY_ALL_LINES") == "1"
# Prime, so that the sample does not fall on the same lines of a loop each time.
EVERY = 1 if ALL else 31
FOLDERS = tuple(
    str(Path(ollama_dify.__file__).parent / name) + os.sep for name in ("client", "transport", "wire")
)
HELLO, TEXTS = [user("hi")], ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatedOllama]:
    with SimulatedOllama() as server:
        yield server


@pytest.fixture(scope="module")
def slow_server() -> Iterator[SimulatedOllama]:
    """Its chunks come one by one, so that each is waited for."""
    with SimulatedOllama(chunk_delay_s=0.002) as server:
        yield server


def settings(call: str, url: str) -> ChatSettings | EmbeddingSettings:
    common: dict[str, Any] = {"base_url": url, "max_connections": 2, "timeout": Timeouts(pool=2, total=10)}
    if call == "embed":
        return EmbeddingSettings(model="all-minilm", batch_size=1, max_concurrency=2, **common)
    return ChatSettings(model="llama3.2", max_tokens=8, **common)


def left_behind(client: Any, server: SimulatedOllama, transports: Callable[[], list[Any]]) -> str:
    """What is still taken, "" for nothing; workers that were cancelled get two seconds to end."""
    until = time.monotonic() + 2
    while True:
        gc.collect()
        pools = [it._pool for it in transports() if it._pool is not None]
        slots = sum(len(it.slots._places) for it in transports())
        idle = sum(len(pool._idle) for pool in pools)
        busy = sum(it() is not None for pool in pools for it in pool._alive) - idle
        at_server = server.connections.open - idle
        if not (slots or busy or at_server > 0):
            return ""
        if time.monotonic() > until:
            return f"{slots} slots, {busy} busy connections, {at_server} more open at the server"
        time.sleep(0.002)


class Interrupt:
    """Raises KeyboardInterrupt at the N-th line of our code in this thread; counts lines with at=0."""

    def __init__(self, at: int) -> None:
        self.at, self.lines, self.place, self.lost = at, 0, "", 0
        self._before: Any = None
        self._hook: Any = None

    def _enter_frame(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(FOLDERS) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                path = Path(frame.f_code.co_filename)
                self.place = f"{path.parent.name}/{path.name}:{frame.f_lineno} {frame.f_code.co_name}"
                raise KeyboardInterrupt
        return self._line

    def _unraisable(self, told: sys.UnraisableHookArgs) -> None:
        """Python itself drops an interrupt inside `__del__`."""
        self.lost += told.exc_type is KeyboardInterrupt

    def __enter__(self) -> Interrupt:
        self._before, self._hook = sys.gettrace(), sys.unraisablehook
        sys.unraisablehook = self._unraisable
        sys.settrace(self._enter_frame)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(self._before)
        gc.collect()  # what finds its end now may have an interrupt to tell of
        sys.unraisablehook = self._hook


CALLS: dict[str, Callable[[OllamaClient], object]] = {
    "chat": lambda client: client.chat(HELLO),
    "stream": lambda client: list(client.chat_stream(HELLO)),
    "stream left": lambda client: next(client.chat_stream(HELLO)),
    "embed": lambda client: client.embed(TEXTS),
}


def interrupted(call: str, at: int, warm: bool, server: SimulatedOllama) -> Any:
    """One call, interrupted → (the interrupt, what is wrong after it)."""
    with OllamaClient(settings(call, server.base_url)) as client:
        if warm:
            client.version()
        raised = False
        with Interrupt(at) as interrupt:
            try:
                CALLS[call](client)
            except KeyboardInterrupt:
                raised = True
        wrong = left_behind(client, server, lambda: list(client._transports.values()))
        if interrupt.place and not raised and not interrupt.lost:
            wrong += " the interrupt was swallowed"
        try:
            client.version()
        except ollama_dify.OllamaError as error:
            wrong += f" the next call: {error}"
        wrong += left_behind(client, server, lambda: list(client._transports.values()))
    return interrupt, wrong


@pytest.fixture
def few_objects() -> Iterator[None]:
    """What is there already is not looked through again by each `gc.collect()`."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("few_objects")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("warm", [False, True], ids=["new connection", "kept connection"])
@pytest.mark.parametrize("call", CALLS)
def test_an_interrupt_at_any_line_leaves_nothing(server: SimulatedOllama, call: str, warm: bool) -> None:
    interrupted(call, 0, warm, server)  # imports what the call imports
    undisturbed, wrong = interrupted(call, 0, warm, server)
    assert not wrong
    assert undisturbed.lines > 100
    found, hit = [], 0
    for at in range(1, undisturbed.lines + 1, EVERY):
        interrupt, wrong = interrupted(call, at, warm, server)
        hit += bool(interrupt.place)
        if wrong:
            found.append(f"line {at}, {interrupt.place}: {wrong}")
    print(f"{call}: {undisturbed.lines} lines, {hit} interrupts, {len(found)} leaks")  # noqa: T201
    assert found == []
    assert hit > 0


class Steps:
    """Counts the suspensions of all tasks of a loop; at one of them a task is cancelled."""

    def __init__(self, at: int) -> None:
        self.at, self.count = at, 0
        self.cancelled: asyncio.Task[Any] | None = None

    def make_task(self, loop: Any, coroutine: Coroutine[Any, Any, Any], **named: Any) -> asyncio.Task[Any]:
        """The loop's task factory."""
        return asyncio.Task(_Counted(self, coroutine), loop=loop, **named)

    def suspended(self) -> None:
        if self.cancelled is not None:
            self.count += 1
            if self.count == self.at:
                self.cancelled.cancel()


@dataclass
class _Counted(Coroutine[Any, Any, Any]):
    steps: Steps
    coroutine: Coroutine[Any, Any, Any]

    def send(self, value: Any) -> Any:
        waited_for = self.coroutine.send(value)
        self.steps.suspended()
        return waited_for

    def throw(self, *error: Any) -> Any:
        waited_for = self.coroutine.throw(*error)
        self.steps.suspended()
        return waited_for

    def close(self) -> None:
        self.coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.coroutine.__await__()


async def cancelled(call: str, at: int, warm: bool, server: SimulatedOllama) -> tuple[int, str]:
    """One call, cancelled at its N-th suspension → (suspensions, what is wrong after it)."""
    steps = Steps(at)
    async with AsyncOllamaClient(settings(call, server.base_url)) as client:
        if warm:
            await client.version()

        async def work() -> None:
            if call == "embed":
                await client.embed(TEXTS)
            else:
                async for _ in client.chat_stream(HELLO):
                    pass

        def transports() -> list[Any]:
            return [it for here in client._transports.values() for it in here.values()]

        loop = asyncio.get_running_loop()
        loop.set_task_factory(steps.make_task)
        task = steps.cancelled = loop.create_task(work())
        if at < 0:
            task.cancel()
        done, _ = await asyncio.wait([task])
        loop.set_task_factory(None)
        ended = task.cancelled()
        del task, done, steps.cancelled
        # How often it waits differs a little: what has come already is not waited for.
        wrong = "" if ended or at == 0 or at > steps.count else "it was not cancelled "
        wrong += await asyncio.to_thread(left_behind, client, server, transports)
        await client.version()
        wrong += await asyncio.to_thread(left_behind, client, server, transports)
    return steps.count, wrong


@pytest.mark.usefixtures("few_objects")
@pytest.mark.parametrize("warm", [False, True], ids=["new connection", "kept connection"])
@pytest.mark.parametrize("call", ["stream", "embed"])
async def test_a_cancellation_at_any_await_leaves_nothing(
    slow_server: SimulatedOllama, call: str, warm: bool
) -> None:
    server = slow_server
    await cancelled(call, 0, warm, server)
    most, wrong = await cancelled(call, 0, warm, server)
    assert not wrong
    found = []
    for at in (-1, *range(1, most + 1)):
        _, wrong = await cancelled(call, at, warm, server)
        if wrong:
            found.append(f"await {at}: {wrong}")
    print(f"{call}: {most} awaits, {len(found)} leaks")  # noqa: T201
    assert most > 2
    assert found == []
