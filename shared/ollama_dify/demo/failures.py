"""What happens when something goes wrong, beside what other packages do where they are installed.

All of it is shown on a simulated server, since a real one does not break off on request.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from langchain_ollama_dify import ChatOllamaDify
from llamaindex_ollama_dify import OllamaDify

from .. import ChatSettings, ConnectionFailedError, ContextOverflowError, IncompleteResponseError, OllamaError
from ..testing import Fault, SimulatedOllama
from .screen import Screen

__all__ = ["show_failures"]

# Nothing listens there.
NOWHERE = "http://127.0.0.1:9"
PLANETS = "The planets are Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus and Neptune."
Ask = Callable[[str], str]


def show_failures(screen: Screen, long_text: str) -> None:
    """Three failures; each is an error that says what happened and what to do."""
    screen.line("[bold]When something goes wrong[/] (on a simulated server)\n")
    with SimulatedOllama() as server:
        prompt = f"Summarise this:\n{long_text}"
        screen.line(f"A prompt of {len(prompt):,} characters, and a context of 1024 tokens:")
        _show(screen, server.base_url, prompt, ContextOverflowError)
        screen.line("A stream that ends half-way, as when a proxy gives up:")
        server.reply(PLANETS, times=None)
        server.fault(Fault("end", chunks=9), times=None, path="/api/chat")
        _show(screen, server.base_url, "Which planets does the sun have?", IncompleteResponseError)
    screen.line("A wrong address:")
    _show(screen, NOWHERE, "Hello", ConnectionFailedError)


def _show(screen: Screen, url: str, prompt: str, expected: type[OllamaError]) -> None:
    settings = ChatSettings(model="llava", base_url=url, context_size=1024, max_tokens=256, max_retries=0)
    both = [_outcome(ask, prompt) for ask in (_langchain(settings), _llamaindex(settings))]
    screen.heading("", "ollama-dify, through LangChain and through LlamaIndex")
    for said in dict.fromkeys(both):
        screen.block(said)
    right = both[0] == both[1] and both[0].startswith(expected.__name__)
    screen.verdict(right, "an error that says so, the same in both", expected.__name__)
    for who, ask in _peers(url):
        screen.heading("", who)
        screen.block(_outcome(ask, prompt)[:200] + "\n", "dim")


def _outcome(ask: Ask, prompt: str) -> str:
    """What a user would see: the answer or the error."""
    try:
        return f"No error. The answer: {ask(prompt)}"
    except OllamaError as error:
        partial = f"\nerror.partial: {error.partial.text!r}" if error.partial is not None else ""
        return f"{type(error).__name__}: {error}{partial}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _langchain(settings: ChatSettings) -> Ask:
    model = ChatOllamaDify.from_settings(settings)
    return lambda prompt: "".join(chunk.text for chunk in model.stream(prompt))


def _llamaindex(settings: ChatSettings) -> Ask:
    llm = OllamaDify.from_settings(settings)
    return lambda prompt: "".join(chunk.delta or "" for chunk in llm.stream_complete(prompt))


def _peers(url: str) -> Iterator[tuple[str, Ask]]:
    """Other packages for Ollama, as far as they are installed."""
    with contextlib.suppress(ImportError):
        model: Any = import_module("langchain_ollama").ChatOllama(
            model="llava", base_url=url, num_ctx=1024, num_predict=256
        )
        yield "langchain-ollama", lambda prompt: "".join(chunk.text for chunk in model.stream(prompt))
    with contextlib.suppress(ImportError):
        llm: Any = import_module("llama_index.llms.ollama").Ollama(
            model="llava", base_url=url, context_window=1024, request_timeout=30
        )
        yield (
            "llama-index-llms-ollama",
            lambda prompt: "".join(chunk.delta or "" for chunk in llm.stream_complete(prompt)),
        )
