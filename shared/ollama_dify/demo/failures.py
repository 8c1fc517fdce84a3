"""What happens when something goes wrong, on a simulated server: a real one does not break off on request."""

from __future__ import annotations

from collections.abc import Iterable

from langchain_ollama_dify import ChatOllamaDify
from llamaindex_ollama_dify import OllamaDify

from .. import ChatSettings, ConnectionFailedError, ContextOverflowError, IncompleteResponseError, OllamaError
from ..terminal import Terminal
from ..testing import Fault, SimulatedOllama
from .screen import block, heading, verdict

__all__ = ["show_failures"]

# Nothing listens there.
NOWHERE = "http://127.0.0.1:9"
PLANETS = "The planets are Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus and Neptune."


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
    both = [
        _outcome(chunk.text for chunk in model.stream(prompt)),
        _outcome(chunk.delta or "" for chunk in llm.stream_complete(prompt)),
    ]
    heading(terminal, "", "through LangChain and through LlamaIndex")
    for said in dict.fromkeys(both):
        block(terminal, said, "")
    is_right = both[0] == both[1] and both[0].startswith(expected.__name__)
    return verdict(terminal, is_right, "an error that says so, the same in both", expected.__name__)


def _outcome(pieces: Iterable[str]) -> str:
    """What a user would see: the answer or the error."""
    try:
        return f"No error. The answer: {''.join(pieces)}"
    except OllamaError as error:
        partial = f"\nerror.partial: {error.partial.text!r}" if error.partial is not None else ""
        return f"{type(error).__name__}: {error}{partial}"
