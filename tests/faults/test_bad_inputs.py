# ruff: noqa: PT017  an error is one of two good outcomes
"""Whatever a server sends or a caller gives: one of our errors or a right answer; nothing hangs or leaks."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from ollama_dify import ChatSettings, EmbeddingSettings, OllamaError, Timeouts
from ollama_dify.client import retry

from .bad_inputs import BAD_ANSWERS, BAD_CALLS, Bad, BadAnswer, Fine
from .calling import BOTH, Calling
from .server import FaultServer, answer

HANG_S = 30


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    """The server; when all bad answers were given, no connection, thread or descriptor is left of them."""
    before = descriptors(), threading.active_count()
    with FaultServer() as running:
        yield running
        gc.collect()
        assert running.wait(lambda counts: counts.open == 0), "connections left"
    assert descriptors() <= before[0]
    assert threading.active_count() <= before[1]


@pytest.fixture(autouse=True)
def short_waits() -> Iterator[None]:
    with mock.patch.object(retry, "BASE_S", 0.001):
        yield


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def ask(bad: BadAnswer, mode: str, url: str) -> Any:
    kind = EmbeddingSettings if bad.ask == "embed" else ChatSettings
    limits = Timeouts(idle=5, first_byte=5, total=20)
    with Calling(mode, kind(model="m", base_url=url, max_retries=1, timeout=limits)) as calling:
        if bad.ask == "stream":
            return calling.stream()
        if bad.ask == "chat":
            return calling.chat()
        if bad.ask == "embed":
            return calling.run(calling.client.embed(["a 1", "b 2"])).vectors
        return len(calling.run(getattr(calling.client, bad.ask)()))


@BOTH
@pytest.mark.parametrize("bad", BAD_ANSWERS, ids=lambda bad: bad.name)
def test_answer(bad: BadAnswer, mode: str, server: FaultServer) -> None:
    server.script(lambda request: bad.steps())
    outcome: list[Any] = []

    def call() -> None:
        try:
            outcome.append(ask(bad, mode, server.url))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(HANG_S)
    assert outcome, "hangs"
    if not isinstance(outcome[0], OllamaError):
        assert outcome == [bad.says]
        return
    text = str(outcome[0])
    assert bad.says is None, f"an error instead of {bad.says!r}: {text}"
    assert len(text) < 2500, "the message holds the server's whole text"
    assert not any(ord(char) < 32 and char != "\n" for char in text), "control characters in the message"


@pytest.mark.parametrize(("call", "wanted"), [pytest.param(*row[1:], id=row[0]) for row in BAD_CALLS])
def test_call(call: Any, wanted: Any, server: FaultServer) -> None:
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
