"""The demo, whole: both frameworks over one index, built once and reused."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ollama_dify.cli import app
from ollama_dify.testing import SimulatedModel, SimulatedOllama, default_models


def demo(index: Path, *more: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["demo", "--index-dir", str(index), *more])
    return result.exit_code, result.output


def test_demo_without_a_server_says_so_and_reuses_its_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:9")
    code, first = demo(tmp_path / "index")
    assert code == 0, first
    assert "SIMULATED" in first
    assert "no Ollama answers at http://127.0.0.1:9" in first
    assert "passages of 7 files, new" in first
    assert "10 of 10 answers as expected" in first
    for framework in ("LangChain", "LlamaIndex"):
        assert first.count(framework) > 4
    for source in ("visitors.md", "telescopes.md", "mirror-recoating-2023.pdf"):
        assert f"source: {source} ✓" in first
    assert "The image is a PNG image" in first
    assert "Upper bound for max tokens" in first

    code, second = demo(tmp_path / "index")
    assert code == 0
    assert "reused" in second


def test_demo_uses_the_server_that_has_the_models(tmp_path: Path) -> None:
    with SimulatedOllama() as server:
        code, said = demo(tmp_path / "index", "--base-url", server.base_url)
        assert code == 0, said
        assert "SIMULATED" not in said
        assert f"Ollama 0.33.0 at {server.base_url}" in said
        assert {request.path for request in server.requests} >= {"/api/chat", "/api/embed"}


def test_demo_names_the_models_a_server_lacks(tmp_path: Path) -> None:
    models: list[SimulatedModel] = [model for model in default_models() if "llava" not in model.name]
    with SimulatedOllama(models) as server:
        _, said = demo(tmp_path / "index", "--base-url", server.base_url)
        assert f"Ollama at {server.base_url} lacks llava:latest" in said
