"""What the README and the examples show runs as it stands there."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from ollama_dify.testing import SimulatedOllama

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("l*_*.py"))


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedOllama]:
    """Nothing names an address: the environment does, as for a user."""
    with SimulatedOllama() as server:
        monkeypatch.setenv("OLLAMA_HOST", server.base_url)
        yield server


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.split("\n", 1)[0][:60])
def test_snippet_runs(snippet: str, server: SimulatedOllama, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(snippet, "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()
    assert server.requests


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example: Path, server: SimulatedOllama, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(example), run_name="__main__")
    said = capsys.readouterr().out
    expected = {
        "chat": "PNG image",
        "rag": "Dublin",
        "agent": "22 degrees",
        "rerank": "0.98 The refractor",
        "dify_app": "'product': '1711.product'",
    }[example.stem.partition("_")[2]]
    assert expected in said
    assert server.requests


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short(example: Path) -> None:
    code = [line for line in example.read_text("utf-8").splitlines() if line.strip()]
    assert 10 <= len(code) <= 25


def test_there_are_snippets_and_examples_for_both() -> None:
    assert len(SNIPPETS) >= 3
    assert {path.stem.partition("_")[0] for path in EXAMPLES} == {"langchain", "llamaindex"}


def test_the_readme_names_every_field_of_the_form() -> None:
    table = README.split("## Settings")[1].split("## ")[0]
    for field in ("model", "base_url", "api_key", "mode", "context_size", "max_tokens"):
        assert f"| `{field}` |" in table
    for label in ("Model Name", "Base URL", "Model context size", "Upper bound for max tokens"):
        assert label in table
