"""Our pools: closing, what may be used again, and how a host's addresses and the slots are gone through."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import socket
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import ollama_dify as od
from ollama_dify import Timeouts, user
from ollama_dify.transport import addresses
from ollama_dify.transport.endpoint import Slots
from ollama_dify.transport.network import countdown
from ollama_dify.transport.network import run as run_blocking

from .calling import BOTH, MODES, Calling, chat, run
from .server import LAST, End, FaultServer, Request, Step, answer, chunk, head, last_line, line


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


@MODES
def test_closing_the_client_ends_its_calls_and_sends_none_again(server: FaultServer, mode: str) -> None:
    """Closed while the second answer on one connection is waited for."""
    server.script(lambda request: [End.STALL] if b"wait" in request.body else answer(request))
    with Calling(mode, chat(server.url, timeout=Timeouts(total=5), max_retries=2)) as calling:
        calling.chat()
        calling.later(0.1, calling.client.close if mode == "sync" else calling.client.aclose)
        with pytest.raises(od.ConnectionFailedError, match="was closed while"):
            calling.chat("wait")
    assert server.wait(lambda counts: counts.open == 0, 1.0)
    assert len(server.generations) == 2


@MODES
def test_after_a_connection_that_had_ended_a_new_one_is_used(server: FaultServer, mode: str) -> None:
    def ends(request: Request) -> Iterable[Step]:
        if request.number > 1:
            return answer(request)
        return [0.2, *answer(request), End.FIN_LATER]

    server.script(ends)
    with Calling(mode, chat(server.url)) as calling:
        if mode == "sync":
            with ThreadPoolExecutor(2) as threads:
                list(threads.map(calling.chat, "ab"))
        else:

            async def both() -> None:
                await asyncio.gather(*(calling.client.chat([user("hi")]) for _ in "ab"))

            calling.run(both())
        assert calling.chat() == "Hello"
    assert server.counts.connections == 3


def paused(request: Request) -> Iterable[Step]:
    yield head(Content_Type="application/x-ndjson")
    yield chunk(line("Hello"))
    yield 0.1
    yield chunk(last_line()) + LAST


@MODES
def test_a_late_abort_spares_the_next_exchange(server: FaultServer, mode: str) -> None:
    server.script(paused)
    with Calling(mode, chat(server.url)) as calling:
        streams = [calling.client.chat_stream([user("hi")]) for _ in "ab"]
        calling.next(streams[0])
        ended = streams[0]._token
        calling.rest(streams[0])
        first = calling.next(streams[1])
        ended.cancel()
        assert first + calling.rest(streams[1]) == "Hello"
    assert server.counts.connections == 1


V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.mark.parametrize(
    ("found", "order"),
    [("", ""), ("4", "4"), ("66644", "64646"), ("4466", "4646"), ("666", "666"), ("64", "64")],
)
def test_the_families_take_turns(found: str, order: str) -> None:
    rows = [({"4": V4, "6": V6}[kind], 0, 0, "", number) for number, kind in enumerate(found)]
    tried = list(addresses.in_order(rows))
    assert "".join({V4: "4", V6: "6"}[row[0]] for row in tried) == order
    for family in (V4, V6):
        assert [it for it in tried if it[0] == family] == [it for it in rows if it[0] == family]


@contextlib.contextmanager
def silent_address() -> Iterator[tuple[str, int]]:
    """An address that answers no attempt to connect: its queue is full."""
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(full.getsockname())
        yield full.getsockname()


@MODES
@pytest.mark.parametrize("kinds", ["silent alive", "silent closed silent alive", "closed alive"])
def test_a_dead_address_holds_up_the_next_one_shortly(
    server: FaultServer, mode: str, kinds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any limit of time: what waited for the silent one would wait for minutes."""
    monkeypatch.setattr(addresses, "STAGGER_S", 0.01)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        places = {"closed": taken.getsockname(), "alive": ("127.0.0.1", server.port)}
    made: list[socket.socket] = []
    with silent_address() as places["silent"]:
        found = [(V4, socket.SOCK_STREAM, 6, "", places[kind]) for kind in kinds.split()]
        if mode == "sync":
            sock = run_blocking(addresses.connect(found, made, countdown(None), addresses.writable))
        else:
            sock = run(mode, addresses.connect(found, made, countdown(None), addresses.writable_async))
        assert sock.getpeername() == places["alive"]
    assert made == [sock]
    sock.close()
    gc.collect()
    assert server.wait(lambda counts: counts.connections == 1 and counts.open == 0, 1.0)


@BOTH
def test_the_addresses_of_a_host_share_the_time(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    tried: list[float] = []
    with silent_address() as silent:

        def known(*_: Any, **__: Any) -> list[Any]:
            tried.append(time.monotonic())
            return [(V4, socket.SOCK_STREAM, 6, "", silent)] * 20

        monkeypatch.setattr(socket, "getaddrinfo", known)
        settings = chat("http://server.example", trust_env=False, timeout=Timeouts(total=0.3))
        with Calling(mode, settings) as calling, pytest.raises(od.RequestTimeoutError) as caught:
            calling.chat()
    assert caught.value.phase == "total"
    assert len(tried) == 1


@BOTH
def test_a_system_without_ipv6(server: FaultServer, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    real = socket.socket

    def without(family: int = -1, *rest: Any, **more: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *rest, **more)

    port = server.port
    known = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
    ]

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: known)
    with Calling(mode, chat("http://server.example", trust_env=False)) as calling:
        monkeypatch.setattr(socket, "socket", without)
        assert calling.chat() == "Hello"
        monkeypatch.setattr(socket, "socket", real)


@BOTH
def test_a_socket_that_takes_no_options_is_closed(
    server: FaultServer, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "_OPTIONS", [(socket.SOL_SOCKET, -1, 1)])
    with Calling(mode, chat(server.url)) as calling:
        with pytest.raises(od.ConnectionFailedError, match="not available"):
            calling.chat()
        assert server.wait(lambda counts: counts.connections == 1 and counts.open == 0, 1.0)
    gc.collect()  # an unclosed socket would warn


@BOTH
def test_a_timeout_of_the_system_is_no_limit_of_the_settings(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    def times_out(*_: Any, **__: Any) -> socket.socket:
        raise OSError(errno.ETIMEDOUT, "Connection timed out")

    with Calling(mode, chat(server.url, timeout=Timeouts(connect=None))) as calling:
        monkeypatch.setattr(socket, "socket", times_out)
        with pytest.raises(od.ConnectionFailedError, match=r"No connection to .*Connection timed out"):
            calling.chat()
        monkeypatch.undo()


@BOTH
@pytest.mark.parametrize("ended", ["stream", "client"])
def test_what_ends_while_the_host_is_looked_up_sends_nothing(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch, mode: str, ended: str
) -> None:
    known = [(V4, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))]
    with Calling(mode, chat("http://server.example", trust_env=False, max_retries=2)) as calling:
        stream = calling.client.chat_stream([user("hi")])
        ending = stream if ended == "stream" else calling.client

        def look_up(*_: Any, **__: Any) -> list[Any]:  # in a thread of its own
            if mode == "sync":
                ending.close()
            else:
                asyncio.run_coroutine_threadsafe(ending.aclose(), calling.loop).result(5)
            return known

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        with pytest.raises(od.ConnectionFailedError) as caught:
            calling.rest(stream)
    assert (caught.value.retryable, server.counts.requests) == (False, 0)


class Owner:
    place = 0

    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


def test_slots_go_in_order_and_with_their_owners() -> None:
    slots, owners = Slots(1), [Owner() for _ in range(4)]
    for owner in owners:
        slots.enter(owner)
    assert [slots.has_turn(owner) for owner in owners] == [True, False, False, False]
    del owners[1], owner  # an interrupt took it while it waited
    slots.leave(owners[0])
    slots.leave(owners[0])
    assert [(slots.has_turn(owner), owner.woken) for owner in owners[1:]] == [(True, 1), (False, 0)]
    del owners[1]
    gc.collect()
    assert slots.has_turn(owners[1])
