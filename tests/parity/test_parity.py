"""The same question through LangChain and LlamaIndex, sync and async, whole and streamed: the same bytes on
the wire, the same answer, the same error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ollama_dify
from ollama_dify.testing import SimulatedOllama

from .adapters import LangChain, LlamaIndex, Outcome
from .cases import CASES, Case


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatedOllama]:
    with SimulatedOllama() as server:
        yield server


def wire(server: SimulatedOllama) -> list[tuple[str, str, bytes]]:
    # The first of the four alone asks for the vocabulary and the probes: after that they are on disk.
    looked_up = (b'"verbose":true', b'"_debug_render_only":true')
    sent = [request for request in server.requests if not any(mark in request.raw for mark in looked_up)]
    return [(request.method, request.path, request.raw) for request in sent]


async def outcomes(
    server: SimulatedOllama, case: Case, *, streamed: bool
) -> list[tuple[list[tuple[str, str, bytes]], Outcome | str]]:
    """What each of the four ways sent, and what it gave: an answer, or the core error's name."""
    found: list[tuple[list[tuple[str, str, bytes]], Outcome | str]] = []
    for kind in (LangChain, LlamaIndex):
        for awaited in (False, True):
            server.reset()
            adapter = kind(server.base_url, case)
            try:
                said: Outcome | str = await adapter.ask(awaited=awaited, streamed=streamed)
            except ollama_dify.OllamaError as error:
                core = next(cls for cls in type(error).__mro__ if cls.__module__ == "ollama_dify.errors")
                said = core.__name__
            finally:
                adapter.close()
                await adapter.aclose()
            found.append((wire(server), said))
    return found


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_four_ways_are_one(server: SimulatedOllama, case: Case, streamed: bool) -> None:
    first, *others = await outcomes(server, case, streamed=streamed)
    for other in others:
        assert other == first
    sent, said = first
    if case.error is not None:
        assert said == case.error
        if case.error not in ("ModelNotFoundError", "ContextOverflowError"):
            assert all(path in ("/api/tags", "/api/show") for _, path, _ in sent), "sent all the same"
    else:
        assert isinstance(said, Outcome)
        assert sent[-1][1] == "/api/chat"
        assert said.text or said.thinking or said.calls
        assert said.usage[0] > 0


def test_the_table_is_long_enough() -> None:
    assert len(CASES) >= 30
    assert len({case.name for case in CASES}) == len(CASES)
