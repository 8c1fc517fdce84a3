"""`ollama-dify app`: the code that it prints runs as it stands, and sends the same from both frameworks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from ollama_dify.cli import main
from ollama_dify.testing import SimulatedOllama

from ..settings.exports import graph, model, node
from ..settings.test_dify_app import PROMPTS


@pytest.mark.parametrize("name", PROMPTS)
def test_the_code_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "it's an app.yml"
    path.write_text(yaml.safe_dump(PROMPTS[name][0], allow_unicode=True), "utf-8")
    with SimulatedOllama() as server:
        assert main(["app", str(path), "--json", "--base-url", server.base_url]) == 0
        code = json.loads(capsys.readouterr().out)["code"]
        sent = []
        for program in code.values():
            server.requests.clear()
            exec(compile(program, "pasted", "exec"), {})
            sent.append([request.body for request in server.requests if request.path != "/api/tags"])
    assert sent[0] == sent[1]
    assert sum("messages" in body or "prompt" in body for body in sent[0]) == 1


def test_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A title stays in its comment, a value that Ollama does not take is told and left out of the code."""
    path = tmp_path / "app"
    rows = [
        node("llm", "First\nimport this", "1", model=model(temperature=0.5)),
        node("llm", "Second", "2", model=model(keep_alive="soon")),
    ]
    path.write_text(yaml.safe_dump(graph(*rows)))
    assert main(["app", str(path), "--lang", "ja"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "First import this" in lines[1]
    assert "temperature=0.5" in lines[1]
    assert lines.count("# First import this") == lines.count("node = app.nodes[0]") == 2
    assert [line for line in lines if line.startswith("! Second")]
    assert "node = app.nodes[1]" not in lines
    path.write_text(yaml.safe_dump(graph()))
    assert main(["app", str(path), "--lang", "zh"]) == 0
    assert "Ollama" in capsys.readouterr().out
    assert main(["app", str(tmp_path)]) == 2
