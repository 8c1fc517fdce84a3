"""The demo's order of events: answers over files and images, then errors.

The errors come from a simulated server, because a real one does not fail on request.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from langchain_ollama_dify import ChatOllamaDify
from llamaindex_ollama_dify import OllamaDify

from .. import (
    ChatSettings,
    ConnectionFailedError,
    ConnectionSettings,
    ContextOverflowError,
    IncompleteResponseError,
    OllamaClient,
    OllamaError,
)
from ..settings.dify_form import FORM_FIELDS
from ..terminal import Terminal
from ..testing import Fault, SimulatedOllama
from .frameworks import Framework, langchain, llamaindex, open_index, passages_of
from .screen import block, heading, stream, verdict

BATCH = 16
PLANETS = "The planets are Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus and Neptune."
SYSTEM = "Answer from the context alone, in one sentence."
PROMPT = "Context information is below.\n---\n{context}\n---\nQuery: {question}\nAnswer:"


def run(
    *, model: str, embedding_model: str, base_url: str | None, index_dir: Path | str, rebuild: bool
) -> int:
    """Everything the demo shows; 0 unless the simulated answers or the errors were not as expected."""
    terminal = Terminal()
    started = time.monotonic()
    with (
        as_file(files(__package__)) as here,
        server(terminal, base_url, model, embedding_model) as (url, simulated),
    ):
        settings = ChatSettings(
            model=model, base_url=url, context_size=4096, max_tokens=1024, vision_support=True, temperature=0
        )
        show_form(terminal, settings)
        documents = sorted(path for path in (here / "data").iterdir() if path.suffix in (".md", ".pdf"))
        database, collection, is_new = open_index(documents, embedding_model, index_dir, rebuild=rebuild)
        over = (settings, embedding_model, database, collection)
        frameworks = [langchain(*over), llamaindex(*over)]
        if is_new:
            ingest(terminal, frameworks, documents)
            # Renamed when complete: an interrupted index lacks this name and is built again.
            collection.modify(name=collection.name.removesuffix("-part"))
            frameworks[0] = langchain(*over)
        state = "new" if is_new else "reused"
        terminal.say(f"Index: {collection.count()} passages of {len(documents)} files, {state}.\n")
        wanted = json.loads((here / "questions.json").read_text("utf-8"))
        right = [ask(terminal, frameworks[n % 2], row) for n, row in enumerate(wanted["texts"])]
        for image in wanted["images"]:
            for one in frameworks:
                right.append(look(terminal, one, here / "data" / image["file"], image["mentions_one_of"]))
        model_was_right = all(right)
        markdown = [path.read_text("utf-8") for path in documents if path.suffix == ".md"]
        right += show_failures(terminal, "\n\n".join(markdown))
        terminal.say("Tokens used")
        rows = [(one.name, *map(str, one.tokens)) for one in frameworks]
        terminal.table(("", "input", "output"), rows)
    score = terminal.paint(f"{sum(right)} of {len(right)}", "bold")
    terminal.say(f"\n{score} as expected, in {time.monotonic() - started:.1f} s.")
    terminal.say(f"Index: {index_dir}/ (run again to reuse it).")
    if not simulated and not model_was_right:
        terminal.say("A ✗ at an answer of the model is the model's: try a larger one with --model.")
    return 0 if all(right) or not (simulated or model_was_right) else 1


@contextlib.contextmanager
def server(terminal: Terminal, base_url: str | None, *models: str) -> Iterator[tuple[str, bool]]:
    """The Ollama server that has the models, else a simulated one (True), and one line that says which."""
    connection = ConnectionSettings(base_url=base_url, timeout=5, max_retries=0)
    url = connection.address.url
    wanted = {name if ":" in name else f"{name}:latest" for name in models}
    try:
        with OllamaClient(connection) as client:
            version, missing = client.version(), wanted - {found.name for found in client.tags()}
    except OllamaError:
        reason = f"no Ollama answers at {url}"
    else:
        if not missing:
            terminal.say(terminal.paint("●", "green") + f" Ollama {version} at {url}")
            yield url, False
            return
        reason = f"Ollama at {url} lacks {', '.join(sorted(missing))}"
    with SimulatedOllama() as simulated:
        said = f" SIMULATED Ollama at {simulated.base_url} ({reason}): answers by rule."
        terminal.say(terminal.paint("●", "yellow") + said)
        yield simulated.base_url, True


def show_form(terminal: Terminal, settings: ChatSettings) -> None:
    """The settings, in the words of Dify's form."""
    rows = []
    for field in FORM_FIELDS:
        value = getattr(settings, field.variable, None)
        if value is not None:
            rows.append((field.labels["en"], "Yes" if value is True else str(value)))
    terminal.table(("Settings, as on Dify's form", ""), rows)


def ingest(terminal: Terminal, frameworks: list[Framework], documents: list[Path]) -> None:
    """PDF through LangChain, Markdown through LlamaIndex, into the same collection."""
    passages = {path: passages_of(path) for path in documents}
    done, total = 0, sum(map(len, passages.values()))
    for path, texts in passages.items():
        framework = frameworks[0 if path.suffix == ".pdf" else 1]
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            terminal.progress(f"Embedding {path.name} {done}/{total}", done / total)
            framework.add(batch, path.name)
            done += len(batch)
    terminal.progress("", None)


def ask(terminal: Terminal, framework: Framework, question: dict[str, Any]) -> bool:
    """Retrieve, answer, and judge both: the file and the fact."""
    asked = question["question"]
    found = framework.find(asked)
    heading(terminal, framework.name, asked)
    context = "\n\n".join(text for text, _ in found)
    said = stream(terminal, framework.ask(PROMPT.format(context=context, question=asked), SYSTEM, None))
    right = question["answer_contains"].lower() in said.lower() and found[0][1] == question["file"]
    expected = f"{question['answer_contains']}, from {question['file']}"
    return verdict(terminal, right, f"source: {found[0][1]}", expected)


def look(terminal: Terminal, framework: Framework, image: Path, words: list[str]) -> bool:
    """A question about an image; models differ in words, so one of several is enough."""
    question = f"What does {image.name} show?"
    heading(terminal, framework.name, question)
    said = stream(terminal, framework.ask(question, None, image))
    right = any(word in said.lower() for word in words)
    return verdict(terminal, right, f"image: {image.name}", f"one of {', '.join(words)}")


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
    return [*right, _show(terminal, "http://127.0.0.1:9", "Hello", ConnectionFailedError)]


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
