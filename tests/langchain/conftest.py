from __future__ import annotations

from collections.abc import Iterator

import pytest
from langchain_core.load import mapping

from ollama_dify.testing import SimulatedModel, SimulatedOllama, default_models

# LangChain's `load` looks partner classes up in this table of its own; until ours is in it, `test_serdes`
# of its suite (which passes no classes) needs the entry.
for module, name in (("chat_models", "ChatOllamaDify"), ("llms", "OllamaDifyLLM")):
    path = ("langchain_ollama_dify", module, name)
    mapping.SERIALIZABLE_MAPPING[path] = path


def all_round() -> SimulatedModel:
    """A model that can do everything, so that one suite covers it."""
    return SimulatedModel("all-round", ("completion", "tools", "vision"), parameter_size="7B")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedOllama]:
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    monkeypatch.delenv("OLLAMA_API_KEY", raising=False)
    with SimulatedOllama([*default_models(), all_round()]) as simulated:
        yield simulated
