"""Our own connections, called and awaited, with uvloop too: TLS, long requests, early and fast answers."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from unittest import mock

import pytest

import ollama_dify as od
from ollama_dify import ChatSettings, Timeouts, user
from ollama_dify.transport.sockets import AsyncSocket

from .calling import BOTH, MODES, Calling, chat
from .rows import shown_by_frames
from .server import End, FaultServer, Request, Step, answer, chunk, head, last_line, line, whole

TLS = Path(__file__).parents[1] / "data" / "tls"


def ask(mode: str, settings: ChatSettings, text: str = "hi", *, times: int = 1) -> list[str]:
    """The answers to one question, whole and streamed in turn."""
    with Calling(mode, settings) as calling:
        return [one(text) for _ in range(times) for one in (calling.chat, calling.stream)]


def serving_tls(*alpn: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


@pytest.fixture
def secure() -> Iterator[FaultServer]:
    with FaultServer(tls=serving_tls()) as running:
        yield running


@MODES
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_tls(secure: FaultServer, host: str, mode: str) -> None:
    settings = chat(secure.url.replace("127.0.0.1", host), verify=str(TLS / "ca.pem"))
    assert ask(mode, settings, times=3) == ["Hello"] * 6
    assert secure.counts.connections == 1
    assert secure.wait(lambda counts: counts.open == 0, 1.0)


@MODES
def test_a_certificate_nobody_vouches_for(secure: FaultServer, mode: str) -> None:
    with pytest.raises(od.ConnectionFailedError, match=r"TLS failed.*certificate") as caught:
        ask(mode, chat(secure.url, api_key="sk-4c0ffee"))
    assert not caught.value.retryable
    assert shown_by_frames(caught.value, "sk-4c0ffee", '"hi"') == []
    assert secure.requests == []


class Untouched(ssl.SSLContext):
    """A context of the caller's, which nobody else may change."""

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        raise AssertionError("was changed")


@MODES
@pytest.mark.parametrize("offered", [(), ("http/1.1",), ("h2", "http/1.1")], ids=str)
def test_the_callers_own_context_is_not_changed(mode: str, offered: tuple[str, ...]) -> None:
    context = Untouched(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(TLS / "ca.pem")
    if offered:
        ssl.SSLContext.set_alpn_protocols(context, offered)
    with FaultServer(tls=serving_tls("h2", "http/1.1")) as server:
        settings = chat(server.url, verify=context)
        if "h2" not in offered:
            assert ask(mode, settings) == ["Hello"] * 2
            return
        with pytest.raises(od.ConfigurationError, match="SSLContext of verify= offers h2"):
            ask(mode, settings)
        assert server.wait(lambda counts: counts.open == 0, 1.0)
        assert server.requests == []


# uvloop resolves names by itself, so that none can be made up for it.
@BOTH
def test_a_certificate_for_another_name(
    secure: FaultServer, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", secure.port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: known)
    settings = chat(f"https://gpu.example:{secure.port}", verify=str(TLS / "ca.pem"), trust_env=False)
    with pytest.raises(od.ConnectionFailedError, match="TLS failed"):
        ask(mode, settings)
    assert secure.requests == []


def broken(request: Request) -> Iterable[Step]:
    return [head(Content_Type="application/x-ndjson"), chunk(line("Hel")), 0.01, End.RST]


@MODES
def test_tls_that_breaks_in_the_middle(secure: FaultServer, mode: str) -> None:
    secure.script(lambda request: broken(request) if b'"stream":true' in request.body else answer(request))
    with pytest.raises(od.IncompleteResponseError) as caught:
        ask(mode, chat(secure.url, verify=str(TLS / "ca.pem")))
    assert caught.value.partial.text == "Hel"


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does as told with its first connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: serve(server.accept()[0]), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join(5)


@MODES
def test_https_where_http_is_spoken(mode: str) -> None:
    def serve(connection: socket.socket) -> None:
        with connection:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with listening(serve) as url, pytest.raises(od.ConnectionFailedError, match="TLS failed"):
        ask(mode, chat(url.replace("http:", "https:")))


LONG = "x" * 20_000_000


@MODES
@pytest.mark.parametrize(
    ("timeout", "phase"),
    [(Timeouts(idle=0.3), "idle"), (Timeouts(total=0.3), "total")],
    ids=["idle", "total"],
)
def test_a_server_that_does_not_read(mode: str, timeout: Timeouts, phase: str) -> None:
    done = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            done.wait(5)

    with listening(serve) as url:
        with pytest.raises(od.RequestTimeoutError) as caught:
            ask(mode, chat(url, timeout=timeout, api_key="sk-4c0ffee"), LONG)
        done.set()
    assert caught.value.phase == phase


def then_reads(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(1 << 20):
        pass


def then_is_silent(connection: socket.socket) -> None:
    """Neither reads nor closes until the client leaves."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    poll.poll(20_000)


@MODES
@pytest.mark.parametrize("then", [then_reads, then_is_silent])
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_refusal_before_the_request_was_read(
    mode: str, then: Callable[[socket.socket], None], tls: bool
) -> None:
    """It comes after an informational answer, and is read while the request is still being sent."""

    def serve(connection: socket.socket) -> None:
        with serving_tls().wrap_socket(connection, server_side=True) if tls else connection as stream:
            stream.recv(1000)
            stream.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            time.sleep(0.05)
            stream.sendall(b'HTTP/1.1 413 Too Large\r\nContent-Length: 20\r\n\r\n{"error":"too long"}')
            with contextlib.suppress(OSError):
                then(stream)

    with listening(serve) as url, pytest.raises(od.OllamaError) as caught:
        # A second try would find nobody: the server takes one connection.
        settings = chat(
            url.replace("http:", "https:") if tls else url, verify=str(TLS / "ca.pem"), max_retries=2
        )
        ask(mode, settings, LONG)
    assert (caught.value.status, caught.value.attempts) == (413, 1)


@MODES
def test_a_long_request_arrives_whole(mode: str) -> None:
    with FaultServer() as server:
        assert ask(mode, chat(server.url), LONG) == ["Hello", "Hello"]
        assert all(LONG.encode() in request.body for request in server.generations)


def flood(request: Request) -> Iterable[Step]:
    if b'"stream":true' not in request.body:
        return answer(request)
    words = b"".join(chunk(line(f"{number} ")) for number in range(1000))
    return [head(Content_Type="application/x-ndjson"), *[words] * 40, chunk(last_line()), b"0\r\n\r\n"]


@MODES
def test_an_answer_faster_than_its_reader(mode: str) -> None:
    expected = "".join(f"{number} " for number in range(1000)) * 40

    with FaultServer(flood) as server:
        with Calling(mode, chat(server.url)) as calling:
            stream = calling.client.chat_stream([user("hi")])
            said = calling.next(stream)
            if mode != "sync":
                calling.run(asyncio.sleep(0.2))  # the server goes on until it is made to wait
            assert said + calling.rest(stream) == expected
        assert server.counts.connections == 1


async def test_what_waits_unread_is_bounded() -> None:
    transport, connection = mock.Mock(), AsyncSocket()
    connection.connection_made(transport)
    received = 0
    while not transport.pause_reading.called:
        connection.data_received(bytes(64 * 1024))
        received += 64 * 1024
        assert received <= 512 * 1024
    assert len(await connection.read(1.0)) == received
    transport.resume_reading.assert_called_once_with()


def reads_slowly(connection: socket.socket) -> None:
    """4 MB/s; answers in the end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    missing, data = 0, b""
    with connection:
        while not missing or len(data) < missing:
            data += connection.recv(100_000)
            if not missing:
                top = data.partition(b"\r\n\r\n")[0]
                missing = len(top) + 4 + int(top.lower().partition(b"content-length: ")[2].split()[0])
            time.sleep(0.025)
        connection.sendall(whole(b'{"message":{"role":"assistant","content":"read"},"done":true}'))


@MODES
def test_a_slow_line_is_no_idle_one(mode: str) -> None:
    # Less than all of it takes: 80 reads of 25 ms.
    with listening(reads_slowly) as url, Calling(mode, chat(url, timeout=Timeouts(idle=1.9))) as calling:
        assert calling.chat("x" * 8_000_000) == "read"


@MODES
def test_chatter_does_not_put_off_the_end_of_a_write(mode: str) -> None:
    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            for _ in range(100):
                connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                time.sleep(0.05)
            overslept.set()

    overslept = threading.Event()
    with listening(serve) as url, pytest.raises(od.RequestTimeoutError) as caught:
        ask(mode, chat(url, timeout=Timeouts(total=0.3)), LONG)
    assert caught.value.phase == "total"
    assert not overslept.is_set()


def later(request: Request) -> Iterable[Step]:
    """After its first answer, the server says something nobody asked for."""
    yield from answer(request)
    if request.on_connection == 0:
        yield 0.02
        yield whole(b'{"message":{"role":"assistant","content":"not asked for"},"done":true}')


@MODES
def test_what_came_between_two_requests_is_no_answer(mode: str) -> None:
    with FaultServer(later) as server:
        with Calling(mode, chat(server.url)) as calling:
            said = [calling.chat()]
            time.sleep(0.2)  # an event loop has no turn to see what comes
            assert [*said, calling.chat()] == ["Hello", "Hello"]
        assert server.counts.connections == 2
