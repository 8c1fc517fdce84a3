"""nginx in front of the server: its buffering, its keep-alive. Its 502 and 504 are in the fault table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from ollama_dify import ChatSettings, EmbeddingSettings, OllamaClient, user
from ollama_dify.client import retry
from ollama_dify.testing import SimulatedOllama

from .balancers import free_port, running
from .calling import BOTH, Calling, chat
from .rows_connections import endless
from .server import FaultServer

CONFIG = """
worker_processes 1; pid {folder}/pid; error_log {folder}/error.log warn;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  gzip on; gzip_min_length 1; gzip_types *; gzip_proxied any;
  server {{
    listen 127.0.0.1:{port};
    {keep_alive}
    location / {{
      proxy_pass http://127.0.0.1:{upstream};
      proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_read_timeout 1s; proxy_connect_timeout 1s;
      proxy_buffering {buffering};
    }}
  }}
}}
"""


@pytest.fixture(autouse=True)
def short_waits() -> Iterator[None]:
    with mock.patch.object(retry, "BASE_S", 0.01):
        yield


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    with ExitStack() as stack:

        def run(upstream: int, *, buffering: str = "off", keep_alive: str = "") -> str:
            port = free_port()
            text = CONFIG.format(
                folder=tmp_path, port=port, upstream=upstream, buffering=buffering, keep_alive=keep_alive
            )
            return stack.enter_context(running("nginx", text, port, tmp_path))

        yield run


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@BOTH
@pytest.mark.parametrize("buffering", ["on", "off"])
def test_streams_and_embeddings(start: Any, buffering: str, mode: str) -> None:
    texts = [f"text {number}" for number in range(200)]
    with SimulatedOllama() as ollama:
        url = start(port_of(ollama.base_url), buffering=buffering)
        settings = ChatSettings(model="llama3.2", base_url=url)
        with Calling(mode, settings) as calling:
            stream = calling.client.chat_stream([user("Say hello")])
            assert calling.next(stream) + calling.rest(stream) == stream.result.text
            assert calling.chat("Say hello")
        with Calling(mode, settings.for_embedding("all-minilm")) as calling:
            vectors = calling.run(calling.client.embed(texts)).vectors
        with OllamaClient(EmbeddingSettings(model="all-minilm", base_url=ollama.base_url)) as direct:
            assert vectors == direct.embed(texts).vectors
        # Asked for identity, nginx does not compress although it would like to.
        assert {request.header("accept-encoding") for request in ollama.requests} <= {"identity", None}


@BOTH
@pytest.mark.parametrize(
    "keep_alive",
    ["keepalive_timeout 0;", "keepalive_requests 1;", "keepalive_requests 2;", "keepalive_timeout 30ms;"],
)
def test_keep_alive_that_ends_early(start: Any, keep_alive: str, mode: str) -> None:
    # Without a single retry: what nginx closes while idle must not show.
    with FaultServer() as server, Calling(mode, chat(start(server.port, keep_alive=keep_alive))) as calling:
        for number in range(60):
            assert calling.chat() == "Hello"
            time.sleep(0.03 if "30ms" in keep_alive and number % 3 == 0 else 0)


@BOTH
@pytest.mark.parametrize("buffering", ["on", "off"])
def test_leaving_a_stream_reaches_the_server(start: Any, buffering: str, mode: str) -> None:
    with FaultServer(endless) as server:
        settings = chat(start(server.port, buffering=buffering))
        with Calling(mode, settings) as calling:
            stream = calling.client.chat_stream([user("hi")])
            calling.next(stream)
            calling.leave(stream)
            assert server.wait(lambda counts: bool(counts.left), 2.0)
