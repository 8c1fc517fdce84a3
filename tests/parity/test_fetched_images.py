"""Images by address (`allow_image_urls=True`): fetched from what counts as public, and from nowhere."""

from __future__ import annotations

import base64
import threading
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

IMAGE = (Path(__file__).parents[1] / "data" / "images" / "png_rgb.png").read_bytes()


class Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        redirects = {"/moved": "/cat.png", "/inside": f"http://127.0.0.2:{self.server.server_port}/cat.png"}  # type: ignore[attr-defined]
        self.send_response(302 if self.path in redirects else 200)
        if self.path in redirects:
            self.send_header("Location", redirects[self.path])
        body = b"" if self.path in redirects else b"<html>" if self.path == "/page" else IMAGE
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
    with pytest.raises(UnsupportedContentError, match=told):
        await ask(way, simulated_ollama, site + path, **settings)
    assert [request.path for request in simulated_ollama.requests if request.path == "/api/chat"] == []
