"""The pytest fixture; opt in with `pytest_plugins = ["ollama_dify.testing.plugin"]`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import SimulatedOllama


@pytest.fixture
def simulated_ollama() -> Iterator[SimulatedOllama]:
    """A running simulated server with the default models, fresh for each test."""
    with SimulatedOllama() as server:
        yield server
