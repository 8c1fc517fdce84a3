# ruff: noqa: PT017  an error is one of two good outcomes
"""Whatever a server sends or a caller gives: one of our errors or a right answer; nothing hangs or leaks."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any
from unittest import mock

import pytest

from ollama_dify import (
    AsyncOllamaClient,
    ChatSettings,
    EmbeddingSettings,
    OllamaClient,
    OllamaError,
    Timeouts,
    user,
)
from ollama_dify.client import retry

from .bad_inputs import BAD_ANSWERS, BAD_CALLS, Bad, BadAnswer, Fine
from .server import FaultServer, Request, Step

HANG_S = 30


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    """The server; when all bad answers were given, no connection, thread or descriptor is left of them."""
    before = descriptors(), threading.active_count()
    with FaultServer() as running:
        yield running
        gc.collect()
        assert running.wait(lambda counts: counts.open == 0), "connections left"
    assert (descriptors(), threading.active_count()) == before


@pytest.fixture(autouse=True)
def short_waits() -> Iterator[None]:
    with mock.patch.object(retry, "BASE_S", 0.001):
        yield


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def settings(bad: BadAnswer, url: str) -> Any:
    kind = EmbeddingSettings if bad.ask == "embed" else ChatSettings
    return kind(model="m", base_url=url, max_retries=1, timeout=Timeouts(idle=5, first_byte=5, total=20))


def ask(bad: BadAnswer, url: str) -> Any:
    with OllamaClient(settings(bad, url)) as client:
        if bad.ask == "stream":
            return "".join(chunk.text for chunk in client.chat_stream([user("hi")]))
        if bad.ask == "chat":
            return client.chat([user("hi")]).text
        if bad.ask == "embed":
            return client.embed(["a 1", "b 2"]).vectors
        return len(getattr(client, bad.ask)())


async def ask_async(bad: BadAnswer, url: str) -> Any:
    async with AsyncOllamaClient(settings(bad, url)) as client:
        if bad.ask == "stream":
            return "".join([chunk.text async for chunk in client.chat_stream([user("hi")])])
        if bad.ask == "chat":
            return (await client.chat([user("hi")])).text
        if bad.ask == "embed":
            return (await client.embed(["a 1", "b 2"])).vectors
        return len(await getattr(client, bad.ask)())


def check(bad: BadAnswer, outcome: Any) -> None:
    if isinstance(outcome, OllamaError):
        assert bad.says is None, f"an error instead of {bad.says!r}: {outcome}"
        text = str(outcome)
        assert len(text) < 2500, "the message holds the server's whole text"
        assert not any(ord(char) < 32 and char != "\n" for char in text), "control characters in the message"
    else:
        assert outcome == bad.says


def play(bad: BadAnswer, server: FaultServer) -> None:
    def script(request: Request) -> Iterable[Step]:
        return bad.steps()

    server.script(script)


@pytest.mark.parametrize("bad", BAD_ANSWERS, ids=lambda bad: bad.name)
def test_answer(bad: BadAnswer, server: FaultServer) -> None:
    play(bad, server)
    outcome: list[Any] = []

    def call() -> None:
        try:
            outcome.append(ask(bad, server.url))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(HANG_S)
    assert outcome, "hangs"
    check(bad, outcome[0])


@pytest.mark.parametrize("bad", BAD_ANSWERS, ids=lambda bad: bad.name)
def test_answer_async(bad: BadAnswer, server: FaultServer) -> None:
    play(bad, server)

    async def call() -> Any:
        try:
            return await asyncio.wait_for(ask_async(bad, server.url), HANG_S)
        except OllamaError as error:
            return error

    check(bad, asyncio.run(call()))


@pytest.mark.parametrize(("call", "wanted"), [pytest.param(*row[1:], id=row[0]) for row in BAD_CALLS])
def test_call(call: Any, wanted: Any, server: FaultServer) -> None:
    from .server import answer

    server.script(answer)
    try:
        got = call(server.url)
    except OllamaError as error:
        assert wanted in (Bad, Fine), f"an error instead of {wanted!r}: {error}"
        assert "sk-canary" not in str(error)
    else:
        assert wanted is not Bad, f"{got!r} instead of an error"
        assert wanted is Fine or got == wanted


def test_the_tables_are_as_long_as_promised() -> None:
    assert len(BAD_ANSWERS) >= 80
    assert len(BAD_CALLS) >= 40
