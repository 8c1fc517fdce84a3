from __future__ import annotations

from collections.abc import Iterator

import pytest

from ollama_dify.testing import SimulatedModel, SimulatedOllama, default_models
from tests.langchain.conftest import closed_clients

__all__ = ["closed_clients"]

# The models langchain-ollama's tests name.
THEIRS = [
    SimulatedModel("llama3.1", ("completion", "tools", "vision"), parameter_size="8B"),
    SimulatedModel("deepseek-r1:1.5b", ("completion", "thinking")),
    SimulatedModel("gpt-oss:20b", ("completion", "tools", "thinking")),
]


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedOllama]:
    """Their tests name no address, so the environment does."""
    with SimulatedOllama([*default_models(), *THEIRS]) as simulated:
        monkeypatch.setenv("OLLAMA_HOST", simulated.base_url)
        yield simulated
