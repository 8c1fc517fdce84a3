"""The demo's order of events."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from .. import ChatSettings, ConnectionSettings, OllamaClient, OllamaError
from ..testing import SimulatedOllama
from .chroma import complete, open_index, passages_of
from .failures import show_failures
from .langchain import LangChain
from .llamaindex import LlamaIndex
from .screen import Screen

__all__ = ["run"]

BATCH = 16
Framework = LangChain | LlamaIndex


def run(*, model: str, embedding_model: str, base_url: str | None, index_dir: Path, rebuild: bool) -> int:
    """Everything the demo shows; 0 unless the simulated answers or the errors were not as expected."""
    screen = Screen()
    started = time.monotonic()
    with (
        as_file(files(__package__)) as here,
        server(screen, base_url, model, embedding_model) as (url, simulated),
    ):
        settings = ChatSettings(
            model=model, base_url=url, context_size=4096, max_tokens=1024, vision_support=True, temperature=0
        )
        show_form(screen, settings)
        documents = sorted(path for path in (here / "data").iterdir() if path.suffix in (".md", ".pdf"))
        database, collection, is_new = open_index(documents, embedding_model, index_dir, rebuild=rebuild)
        langchain = LangChain(settings, embedding_model, database, collection)
        llamaindex = LlamaIndex(settings, embedding_model, database, collection)
        if is_new:
            ingest(screen, langchain, llamaindex, documents)
            complete(collection)
            langchain = LangChain(settings, embedding_model, database, collection)
        state = "new" if is_new else "reused"
        screen.line(f"Index: {collection.count()} passages of {len(documents)} files, {state}.\n")
        wanted = json.loads((here / "questions.json").read_text("utf-8"))
        frameworks: tuple[Framework, Framework] = (langchain, llamaindex)
        for number, question in enumerate(wanted["texts"]):
            ask(screen, frameworks[number % 2], question)
        for image in wanted["images"]:
            for framework in frameworks:
                look(screen, framework, here / "data" / image["file"], image["mentions_one_of"])
        model_was_right = screen.right == screen.asked
        show_failures(
            screen, "\n\n".join(path.read_text("utf-8") for path in documents if path.suffix == ".md")
        )
        show_usage(screen, *frameworks)
    screen.line(
        f"\n[bold]{screen.right} of {screen.asked}[/] as expected, in {time.monotonic() - started:.1f} s. "
        f"Index: {escape(str(index_dir))}/ (run again to reuse it)."
    )
    if not simulated and not model_was_right:
        screen.line("A ✗ at an answer of the model is the model's: try a larger one with --model.")
    return 0 if screen.right == screen.asked or not (simulated or model_was_right) else 1


@contextlib.contextmanager
def server(screen: Screen, base_url: str | None, *models: str) -> Iterator[tuple[str, bool]]:
    """The Ollama server that has the models, else a simulated one (True), and one line that says which."""
    connection = ConnectionSettings(base_url=base_url, timeout=5, max_retries=0)
    wanted = {name if ":" in name else f"{name}:latest" for name in models}
    try:
        with OllamaClient(connection) as client:
            version, missing = client.version(), wanted - {found.name for found in client.tags()}
    except OllamaError:
        reason = f"no Ollama answers at {connection.address.url}"
    else:
        if not missing:
            screen.line(f"[green]●[/] Ollama {version} at {connection.address.url}")
            yield connection.address.url, False
            return
        reason = f"Ollama at {connection.address.url} lacks {', '.join(sorted(missing))}"
    with SimulatedOllama() as simulated:
        screen.console.print(
            f"[yellow]●[/] SIMULATED Ollama at {simulated.base_url} ({reason}): answers by rule.",
            soft_wrap=True,
        )
        yield simulated.base_url, True


def show_form(screen: Screen, settings: ChatSettings) -> None:
    """The settings, in the words of Dify's form."""
    table = Table(title="Settings, as on Dify's form", title_justify="left", show_header=False)
    fields = type(settings).model_fields
    for name in ("model", "base_url", "mode", "context_size", "max_tokens", "vision_support"):
        value = getattr(settings, name)
        table.add_row(fields[name].title or name, "Yes" if value is True else str(value))
    screen.console.print(table)


def ingest(screen: Screen, langchain: LangChain, llamaindex: LlamaIndex, documents: list[Path]) -> None:
    """Markdown through LlamaIndex, PDF through LangChain, into the same collection."""
    passages = {path: passages_of(path) for path in documents}
    columns = (TextColumn("Embedding {task.description:<28}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=screen.console) as progress:
        task = progress.add_task("", total=sum(map(len, passages.values())))
        for path, texts in passages.items():
            framework: Framework = langchain if path.suffix == ".pdf" else llamaindex
            progress.update(task, description=path.name)
            for start in range(0, len(texts), BATCH):
                framework.add(texts[start : start + BATCH], path.name)
                progress.advance(task, len(texts[start : start + BATCH]))


def ask(screen: Screen, framework: Framework, question: dict[str, Any]) -> None:
    """Retrieve, answer, and judge both: the file and the fact."""
    found = framework.find(question["question"])
    screen.heading(type(framework).__name__, question["question"])
    context = "\n\n".join(text for text, _ in found)
    said = screen.stream(framework.answer(question["question"], context))
    right = question["answer_contains"].lower() in said.lower() and found[0][1] == question["file"]
    expected = f"{question['answer_contains']}, from {question['file']}"
    screen.verdict(right, f"source: {found[0][1]}", expected)


def look(screen: Screen, framework: Framework, image: Path, words: list[str]) -> None:
    """A question about an image; models differ in words, so one of several is enough."""
    question = f"What does {image.name} show?"
    screen.heading(type(framework).__name__, question)
    said = screen.stream(framework.look(question, image))
    right = any(word in said.lower() for word in words)
    screen.verdict(right, f"image: {image.name}", f"one of {', '.join(words)}")


def show_usage(screen: Screen, *frameworks: Framework) -> None:
    table = Table("", "input", "output", title="Tokens used", title_justify="left")
    for framework in frameworks:
        table.add_row(type(framework).__name__, *map(str, framework.tokens))
    screen.console.print(table)
