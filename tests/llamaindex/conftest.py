"""Fixtures: a simulated server, and models that talk to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding
from ollama_dify.testing import SimulatedOllama

# One pixel, a valid PNG.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63f8cfc0f01f"
    "0005000201a5f645400000000049454e44ae426082"
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
def picture_file(tmp_path: Path) -> Path:
    path = tmp_path / "pixel.png"
    path.write_bytes(PIXEL)
    return path
