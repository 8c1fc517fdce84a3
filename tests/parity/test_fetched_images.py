"""Images by address (`allow_image_urls=True`): fetched from what counts as public, and from nowhere."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock

from langchain_ollama_dify import ChatOllamaDify
from llamaindex_ollama_dify import OllamaDify
from ollama_dify import UnsupportedContentError
from ollama_dify.media import urls as image_urls
from ollama_dify.testing import SimulatedOllama
from ollama_dify.transport import image_download

SIGNATURE = "4c0ffee"
DATA = Path(__file__).parents[1] / "data"
TLS = DATA / "tls"
IMAGE = (DATA / "images" / "png_rgb.png").read_bytes()


class Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        redirects = {"/moved": "/cat.png", "/inside": f"http://127.0.0.2:{self.server.server_port}/cat.png"}  # type: ignore[attr-defined]
        self.send_response(302 if path in redirects else 200)
        if path in redirects:
            self.send_header("Location", redirects[path])
        body = b"" if path in redirects else b"<html>" if path == "/page" else IMAGE
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A web site whose address, 127.0.0.1, counts as public here; all others are judged as always."""
    really = image_urls.is_public
    monkeypatch.setattr(image_urls, "is_public", lambda ip: ip == "127.0.0.1" or really(ip))
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


async def ask(way: str, server: SimulatedOllama, url: str, **settings: Any) -> None:
    values: dict[str, Any] = {"model": "llava", "base_url": server.base_url, **settings}
    if way.startswith("langchain"):
        message = HumanMessage([{"type": "text", "text": "What?"}, {"type": "image", "url": url}])
        async with ChatOllamaDify(**values) as model:
            model.invoke([message]) if way.endswith("sync") else await model.ainvoke([message])
    else:
        turn = ChatMessage(blocks=[TextBlock(text="What?"), ImageBlock(url=url)])
        async with OllamaDify(**values) as llm:
            llm.chat([turn]) if way.endswith("sync") else await llm.achat([turn])


ways = pytest.mark.parametrize(
    "way", ["langchain sync", "langchain await", "llamaindex sync", "llamaindex await"]
)


@ways
@pytest.mark.parametrize("path", ["/cat.png", "/moved"])
async def test_a_image_is_fetched(simulated_ollama: SimulatedOllama, site: str, way: str, path: str) -> None:
    await ask(way, simulated_ollama, site + path, allow_image_urls=True)
    (turn,) = simulated_ollama.requests[-1].body["messages"]
    assert turn["images"] == [base64.b64encode(IMAGE).decode()]


@ways
@pytest.mark.parametrize(
    ("path", "settings", "told"),
    [
        ("/inside", {"allow_image_urls": True}, "not on the public internet"),
        ("/page", {"allow_image_urls": True}, "this is HTML"),
        ("/cat.png", {}, "allow_image_urls=True"),
    ],
    ids=["redirected inside", "no image", "not allowed"],
)
async def test_nothing_else_is(
    simulated_ollama: SimulatedOllama, site: str, way: str, path: str, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(UnsupportedContentError, match=told) as caught:
        await ask(way, simulated_ollama, f"{site}{path}?signature={SIGNATURE}", **settings)
    assert [request.path for request in simulated_ollama.requests if request.path == "/api/chat"] == []
    assert SIGNATURE not in "".join(traceback.format_exception(caught.value))


@ways
@pytest.mark.parametrize(("host", "allowed"), [("127.0.0.1", True), ("cat.example", False)])
async def test_the_certificate_names_the_host_and_not_the_address(
    simulated_ollama: SimulatedOllama,
    site: str,
    way: str,
    host: str,
    allowed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection goes to a checked IP address, which the certificate of an attacker may name."""
    known = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda name, *rest, **more: known("127.0.0.1" if name == host else name, *rest, **more),
    )
    trusting = ssl.create_default_context(cafile=TLS / "ca.pem")
    monkeypatch.setattr(image_download, "system_tls", lambda: trusting)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(TLS / "server.pem")
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as running:
        running.socket = served.wrap_socket(running.socket, server_side=True)
        threading.Thread(target=running.serve_forever, daemon=True).start()
        url = f"https://{host}:{running.server_port}/cat.png?signature={SIGNATURE}"
        if allowed:
            await ask(way, simulated_ollama, url, allow_image_urls=True)
            assert simulated_ollama.requests[-1].body["messages"][0]["images"]
        else:
            with pytest.raises(UnsupportedContentError, match="certificate") as caught:
                await ask(way, simulated_ollama, url, allow_image_urls=True)
            assert SIGNATURE not in str(caught.value)
        running.shutdown()
