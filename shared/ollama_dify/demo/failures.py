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
from ..cli.terminal import Terminal
from ..testing import Fault, SimulatedOllama
from .screen import block, heading, verdict

__all__ = ["show_failures"]

# Nothing listens there.
NOWHERE = "http://127.0.0.1:9"
PLANETS = "The planets are Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus and Neptune."
Ask = Callable[[str], str]


def show_failures(terminal: Terminal, long_text: str) -> list[bool]:
    """Three failures, and whether each is an error that says what happened and what to do."""
    terminal.say(terminal.paint("When something goes wrong", "bold") + " (on a simulated server)\n")
    with SimulatedOllama() as server:
        prompt = f"Summarise this:\n{long_text}"
        terminal.say(f"A prompt of {len(prompt):,} characters, and a context of 1024 tokens:")
        right = [_show(terminal, server.base_url, prompt, ContextOverflowError)]
        terminal.say("A stream that ends half-way, as when a proxy gives up:")
        server.reply(PLANETS, times=None)
        server.fault(Fault("end", chunks=9), times=None, path="/api/chat")
        asked = "Which planets does the sun have?"
        right.append(_show(terminal, server.base_url, asked, IncompleteResponseError))
    terminal.say("A wrong address:")
    return [*right, _show(terminal, NOWHERE, "Hello", ConnectionFailedError)]


def _show(terminal: Terminal, url: str, prompt: str, expected: type[OllamaError]) -> bool:
    settings = ChatSettings(model="llava", base_url=url, context_size=1024, max_tokens=256, max_retries=0)
    model, llm = ChatOllamaDify.from_settings(settings), OllamaDify.from_settings(settings)
    both = [_outcome(ask, prompt) for ask in (_ask_langchain(model), _ask_llamaindex(llm))]
    heading(terminal, "", "ollama-dify, through LangChain and through LlamaIndex")
    for said in dict.fromkeys(both):
        block(terminal, said, "")
    is_right = both[0] == both[1] and both[0].startswith(expected.__name__)
    verdict(terminal, is_right, "an error that says so, the same in both", expected.__name__)
    for who, ask in _peers(url):
        heading(terminal, "", who)
        block(terminal, _outcome(ask, prompt)[:200] + "\n", "dim")
    return is_right


def _outcome(ask: Ask, prompt: str) -> str:
    """What a user would see: the answer or the error."""
    try:
        return f"No error. The answer: {ask(prompt)}"
    except OllamaError as error:
        partial = f"\nerror.partial: {error.partial.text!r}" if error.partial is not None else ""
        return f"{type(error).__name__}: {error}{partial}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _ask_langchain(model: Any) -> Ask:
    return lambda prompt: "".join(chunk.text for chunk in model.stream(prompt))


def _ask_llamaindex(llm: Any) -> Ask:
    return lambda prompt: "".join(chunk.delta or "" for chunk in llm.stream_complete(prompt))


def _peers(url: str) -> Iterator[tuple[str, Ask]]:
    """Other packages for Ollama, as far as they are installed."""
    known = {"model": "llava", "base_url": url}
    with contextlib.suppress(ImportError):
        make = import_module("langchain_ollama").ChatOllama
        yield "langchain-ollama", _ask_langchain(make(**known, num_ctx=1024, num_predict=256))
    with contextlib.suppress(ImportError):
        make = import_module("llama_index.llms.ollama").Ollama
        yield (
            "llama-index-llms-ollama",
            _ask_llamaindex(make(**known, context_window=1024, request_timeout=30)),
        )
