"""Three servers behind the balancers of `deploy/`, in bad scenes: the files as they stand, loopback only."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ollama_dify import (
    ChatSettings,
    EmbeddingSettings,
    EmbedResult,
    IncompleteResponseError,
    OllamaClient,
    user,
)

from .balancers import Balancer, balanced
from .rows_connections import endless
from .server import LAST, FaultServer, Request, Step, answer, chunk, head, in_turn, last_line, line, whole

TEXTS = [f"text {number}" for number in range(1_200)]
SCENES = ("all up", "one killed", "one slow", "one busy")


@pytest.fixture(params=["nginx", "haproxy"])
def balancer(request: pytest.FixtureRequest) -> Balancer:
    name: Balancer = request.param
    return name


def busy(request: Request) -> Iterator[Step]:
    """Healthy by its check, and at once busy for work: with least_conn it would draw all of it."""
    if request.path == "/api/embed":
        yield whole(b'{"error":"server busy, please try again.  maximum pending requests exceeded"}', 503)
    else:
        yield from answer(request)


def slow(request: Request) -> Iterator[Step]:
    if request.path == "/api/embed":
        yield 1.0
    yield from answer(request)


@pytest.mark.parametrize("scene", SCENES)
def test_embedding_loses_nothing(balancer: Balancer, scene: str, tmp_path: Path) -> None:
    """Every text has its vector, in order, although nothing but the balancer and the retries help."""
    # A killed server breaks answers that have begun, which only the client can ask for again.
    retries = 2 if scene == "one killed" else 0
    third = {"one slow": slow, "one busy": busy}.get(scene, answer)
    with ExitStack() as stack:
        killable = stack.enter_context(ExitStack())
        servers = [stack.enter_context(FaultServer()), stack.enter_context(FaultServer())]
        victim = killable.enter_context(FaultServer(third))
        url = stack.enter_context(balanced(balancer, [*(it.url for it in servers), victim.url], tmp_path))
        settings = EmbeddingSettings(model="m", base_url=url, batch_size=20, max_retries=retries)
        client = stack.enter_context(OllamaClient(settings))
        half = threading.Event()
        results: list[EmbedResult] = []

        def embed() -> None:
            done = 0

            def progress(more: int) -> None:
                nonlocal done
                done += more
                if done >= len(TEXTS) // 2:
                    half.set()

            results.append(client.embed(TEXTS, progress=progress))

        worker = threading.Thread(target=embed)
        worker.start()
        half.wait(30)
        if scene == "one killed":
            killable.close()
        worker.join(60)
        assert [vector[1] for vector in results[0].vectors if vector] == list(range(len(TEXTS)))
        assert all(server.counts.requests for server in servers)


def test_a_stream_keeps_its_pace(balancer: Balancer, tmp_path: Path) -> None:
    """The server sends a line only when the one before has reached the client, through the balancer."""
    arrived = [threading.Event() for _ in range(10)]

    def paced(request: Request) -> Iterator[Step]:
        if request.path != "/api/chat":
            yield from answer(request)
            return
        yield head(Content_Type="application/x-ndjson")
        for number, event in enumerate(arrived):
            yield chunk(line(f"{number} "))
            while not event.is_set():
                yield 0.001
        yield chunk(last_line()) + LAST

    with ExitStack() as stack:
        urls = [stack.enter_context(FaultServer(paced)).url for _ in range(3)]
        url = stack.enter_context(balanced(balancer, urls, tmp_path))
        client = stack.enter_context(OllamaClient(ChatSettings(model="m", base_url=url)))
        with client.chat_stream([user("hi")]) as stream:
            for number, piece in enumerate(piece for piece in stream if piece.text):
                assert piece.text == f"{number} "
                arrived[number].set()
        assert all(event.is_set() for event in arrived)


def test_a_server_killed_in_mid_stream(balancer: Balancer, tmp_path: Path) -> None:
    """What was shown cannot be asked for again: an error with what came; the next call has another server."""
    with ExitStack() as stack:
        killable = [stack.enter_context(ExitStack()) for _ in range(3)]
        servers = [it.enter_context(FaultServer(in_turn(endless))) for it in killable]
        url = stack.enter_context(balanced(balancer, [server.url for server in servers], tmp_path))
        client = stack.enter_context(OllamaClient(ChatSettings(model="m", base_url=url)))
        stream = client.chat_stream([user("hi")])
        next(stream)
        (asked,) = [number for number, server in enumerate(servers) if server.generations]
        killable[asked].close()
        with pytest.raises(IncompleteResponseError) as caught:
            list(stream)
        assert caught.value.partial.text.startswith("x")
        for server in servers:
            server.script(answer)
        assert client.chat([user("hi")]).text == "Hello"


def test_the_fault_server_closes_what_it_is_accepting() -> None:
    """What a balancer opens while its server is killed; an unclosed socket warns."""
    for _ in range(20):
        with FaultServer() as server:
            clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        for client in clients:
            client.close()
    gc.collect()
