"""Fixtures: a simulated server, and models that talk to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding
from ollama_dify.testing import SimulatedOllama
from tests.llamaindex.watching import Watcher

# One pixel, a valid PNG.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc00000"
    "03010100c9fe92ef0000000049454e44ae426082"
)


@pytest.fixture
def server() -> Iterator[SimulatedOllama]:
    with SimulatedOllama() as running:
        yield running


@pytest.fixture
def make_llm(server: SimulatedOllama) -> Iterator[Callable[..., OllamaDify]]:
    made: list[OllamaDify] = []

    def make(model: str = "llama3.2", **settings: Any) -> OllamaDify:
        made.append(OllamaDify(model=model, base_url=server.base_url, **settings))
        return made[-1]

    yield make
    for llm in made:
        llm.close()


@pytest.fixture
def llm(make_llm: Callable[..., OllamaDify]) -> OllamaDify:
    return make_llm()


@pytest.fixture
def make_embedding(server: SimulatedOllama) -> Iterator[Callable[..., OllamaDifyEmbedding]]:
    made: list[OllamaDifyEmbedding] = []

    def make(model: str = "nomic-embed-text", **settings: Any) -> OllamaDifyEmbedding:
        made.append(OllamaDifyEmbedding(model=model, base_url=server.base_url, **settings))
        return made[-1]

    yield make
    for embedding in made:
        embedding.close()


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    watching = Watcher()
    watching.attach()
    yield watching
    watching.detach()
