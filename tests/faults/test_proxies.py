"""Through a proxy: CONNECT for https, the whole address for http; what it refuses is said of it."""

from __future__ import annotations

import base64
import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest

import ollama_dify as od
from ollama_dify import Timeouts
from ollama_dify.client import retry

from .calling import BOTH, MODES, chat
from .rows import shown_by_frames
from .server import End, FaultServer, Request, Script, Step, answer, whole
from .test_connections import TLS, ask, serving_tls

BASIC = "Basic " + base64.b64encode(b"me:p@ss").decode()


def proxied(request: Request) -> Iterable[Step]:
    """A forward proxy that answers by itself."""
    path = "/" + request.path.partition("://")[2].partition("/")[2]
    return answer(replace(request, path=path))


@contextlib.contextmanager
def tunnel(port: int) -> Iterator[tuple[int, list[bytes]]]:
    """A proxy that connects every CONNECT to one place → its port, and the heads that it was sent."""
    heads: list[bytes] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            heads.append(b"".join(iter(self.rfile.readline, b"\r\n")))
            with socket.create_connection(("127.0.0.1", port)) as server:
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(server, self.connection))
                back.start()
                _pump(self.connection, server)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.01,)).start()
        yield proxy.server_address[1], heads
        proxy.shutdown()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@MODES
@pytest.mark.parametrize(
    ("host", "userinfo"), [("localhost", ""), ("localhost", "me:p%40ss@"), ("[2001:db8::1]", "")]
)
def test_https_goes_through_a_tunnel(mode: str, host: str, userinfo: str) -> None:
    with FaultServer(tls=serving_tls()) as secure, tunnel(secure.port) as (port, heads):
        settings = chat(
            f"https://{host}:{secure.port}",
            proxy=f"http://{userinfo}127.0.0.1:{port}",
            verify=str(TLS / "ca.pem") if host == "localhost" else False,
            api_key="k",
        )
        assert ask(mode, settings, times=2) == ["Hello"] * 4
        assert secure.wait(lambda counts: counts.open == 0, 1.0)
    (head,) = heads
    place = f"{host}:{secure.port}"
    sent = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    sent += [f"Proxy-Authorization: {BASIC}"] if userinfo else []
    assert head.decode().splitlines() == sent
    # The proxy's credentials are its own, the server's stay inside the tunnel.
    assert {request.headers["authorization"] for request in secure.requests} == {"Bearer k"}
    assert not any("proxy-authorization" in request.headers for request in secure.requests)


@MODES
def test_http_goes_with_the_whole_address(mode: str) -> None:
    with FaultServer(proxied) as proxy:
        url = f"http://me:p%40ss@127.0.0.1:{proxy.port}"
        assert ask(mode, chat("http://server.invalid:81", proxy=url), times=2) == ["Hello"] * 4
        assert {request.path for request in proxy.requests} == {"http://server.invalid:81/api/chat"}
        assert {request.headers["host"] for request in proxy.requests} == {"server.invalid:81"}
        assert {request.headers["proxy-authorization"] for request in proxy.requests} == {BASIC}
        assert proxy.counts.connections == 1


def refusing(status: int) -> Script:
    return lambda request: [whole(b"no", status)]


@MODES
@pytest.mark.parametrize(
    ("script", "tries", "told"),
    [
        (refusing(403), 1, "it answers 403 Forbidden"),
        (refusing(407), 1, "proxy=http://name:password@host:port"),
        (refusing(502), 3, "it answers 502 Bad Gateway"),
        (lambda request: [b"SSH-2.0-dropbear\r\n\r\n"], 1, "illegal status line"),
        (lambda request: [End.FIN], 3, "Server disconnected"),
        (lambda request: [End.STALL], 3, "limit for connect"),
        (lambda request: [b"HTTP/1.1 200 OK\r\n\r\nmore"], 1, "before the server could"),
    ],
    ids=["403", "407", "502", "another protocol", "closes", "silent", "bytes before the server's"],
)
def test_a_proxy_that_does_not_connect(
    mode: str, script: Script, tries: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "BASE_S", 0.001)
    with FaultServer(script) as proxy:
        url = proxy.url.replace("//", "//me:secret@")
        settings = chat("https://server.invalid", proxy=url, max_retries=2, timeout=Timeouts(connect=0.3))
        with pytest.raises(od.ConnectionFailedError) as caught:
            ask(mode, settings)
        assert f"127.0.0.1:{proxy.port}" in str(caught.value)
        assert told in str(caught.value)
        assert "Ollama" not in str(caught.value)
        for secret in ("secret", base64.b64encode(b"me:secret").decode()):
            assert shown_by_frames(caught.value, secret, '"hi"') == []
        assert [request.method for request in proxy.requests] == ["CONNECT"] * tries
        assert proxy.wait(lambda counts: counts.open == 0, 1.0)


@MODES
def test_a_proxy_that_is_not_there(mode: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(od.ConnectionFailedError, match=f"the proxy http://127.0.0.1:{port} .*refused"):
        ask(mode, chat("http://server.invalid", proxy=f"http://127.0.0.1:{port}"))


@BOTH
@pytest.mark.parametrize("scheme", ["https", "socks5", "socks5h", "ftp"])
def test_proxies_that_are_not_supported(mode: str, scheme: str) -> None:
    with pytest.raises(od.ConfigurationError, match=r"http://proxy\.example:3128") as caught:
        ask(mode, chat("http://server.invalid", proxy=f"{scheme}://me:secret@127.0.0.1:9"))
    assert shown_by_frames(caught.value, "secret", "secret") == []
    assert "secret" not in str(caught.value)
    assert (f"{scheme}://" in str(caught.value)) is (scheme != "ftp")
