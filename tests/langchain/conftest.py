from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from ollama_dify import AsyncOllamaClient, OllamaClient
from ollama_dify.testing import SimulatedModel, SimulatedOllama, default_models

# LangChain's `load` looks partner classes up in a table of its own, unless it is given the classes; until
# ours are in it, `test_serdes` of its suite, which gives none, needs the entries.
_TABLE = importlib.import_module("langchain_core.load.load").ALL_SERIALIZABLE_MAPPINGS
for _path in (
    ("langchain_ollama_dify", "chat_models", "ChatOllamaDify"),
    ("langchain_ollama_dify", "llms", "OllamaDifyLLM"),
):
    _TABLE[_path] = _path


def all_round() -> SimulatedModel:
    """A model that can do everything, so that one suite covers it."""
    return SimulatedModel("all-round", ("completion", "tools", "vision"), parameter_size="7B")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedOllama]:
    monkeypatch.delenv("OLLAMA_API_KEY", raising=False)
    with SimulatedOllama([*default_models(), all_round()]) as simulated:
        monkeypatch.setenv("OLLAMA_HOST", simulated.base_url)
        yield simulated


@pytest.fixture(autouse=True)
async def closed_clients(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Closes what a test leaves open; the suite of LangChain closes nothing."""
    made: list[OllamaClient | AsyncOllamaClient] = []
    for kind in (OllamaClient, AsyncOllamaClient):

        def noted(self: Any, *args: Any, _made: Any = kind.__init__, **kwargs: Any) -> None:
            _made(self, *args, **kwargs)
            made.append(self)

        monkeypatch.setattr(kind, "__init__", noted)
    yield
    for client in made:
        if isinstance(client, AsyncOllamaClient):
            await client.aclose()
        else:
            client.close()
