from __future__ import annotations

from collections.abc import Iterator

import pytest

from ollama_dify.testing import SimulatedOllama


@pytest.fixture
def server() -> Iterator[SimulatedOllama]:
    with SimulatedOllama() as running:
        yield running
