"""The demo, whole: both frameworks over one index, built once and reused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ollama_dify.demo import main
from ollama_dify.testing import SimulatedModel, SimulatedOllama, default_models


def demo(capsys: pytest.CaptureFixture[str], index: Path, base_url: str | None = None) -> tuple[int, str]:
    code = main(index_dir=index, base_url=base_url)
    return code, capsys.readouterr().out


def test_without_a_server_it_says_so_and_reuses_its_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:9")
    code, first = demo(capsys, tmp_path / "index")
    assert code == 0, first
    assert "SIMULATED" in first
    assert "no Ollama answers at http://127.0.0.1:9" in first
    assert "passages of 7 files, new" in first
    assert "15 of 15 as expected" in first
    assert "✗" not in first
    for framework in ("LangChain", "LlamaIndex"):
        assert first.count(framework) > 4
    for source in ("visitors.md", "telescopes.md", "mirror-recoating-2023.pdf"):
        assert f"source: {source} ✓" in first
    assert "Upper bound for max tokens" in first
    assert max(map(len, first.replace("SIMULATED Ollama", "").splitlines())) < 120

    code, second = demo(capsys, tmp_path / "index")
    assert code == 0
    assert "reused" in second


def test_it_shows_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = demo(capsys, tmp_path / "index", "http://127.0.0.1:9")
    overflow, cut, wrong = (" ".join(part.split()) for part in _scenes(said))
    assert "ContextOverflowError: The prompt does not fit" in overflow
    assert "at most 1023 fit" in overflow
    assert "error.partial: 'The planets are Mer'" in cut
    assert "Tried http://127.0.0.1:9 (from the setting base_url)." in wrong


def _scenes(said: str) -> list[str]:
    """The three failures, each from its line on."""
    starts = [said.index(line) for line in ("A prompt of", "A stream that ends", "A wrong address")]
    return [said[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


def test_it_uses_the_server_that_has_the_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SimulatedOllama() as server:
        code, said = demo(capsys, tmp_path / "index", server.base_url)
        assert code == 0, said
        assert "SIMULATED" not in said
        assert f"Ollama 0.33.0 at {server.base_url}" in said
        assert {request.path for request in server.requests} >= {"/api/chat", "/api/embed"}


def test_a_models_wrong_answers_are_marked_and_fail_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with SimulatedOllama() as server:
        server.reply("I " + "really " * 40 + "do not know.", times=None)
        code, said = demo(capsys, tmp_path / "index", server.base_url)
    assert code == 0
    assert said.count("✗ expected: ") == 12
    assert "3 of 15 as expected" in said
    assert all(len(line) <= 80 for line in said.splitlines() if "really" in line)


def test_it_names_the_models_a_server_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models: list[SimulatedModel] = [model for model in default_models() if "llava" not in model.name]
    with SimulatedOllama(models) as server:
        _, said = demo(capsys, tmp_path / "index", server.base_url)
        assert f"Ollama at {server.base_url} lacks llava:latest" in said


def test_something_is_said_before_a_framework_is_loaded() -> None:
    """And what is missing is named with the way to install it."""
    hide = (
        "import sys; sys.modules['langchain_core'] = None; import ollama_dify.demo as d; sys.exit(d.main())"
    )
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout.startswith("ollama-dify demo: ")
    assert done.stderr.splitlines()[1:] == ['Install it with: pip install "ollama-dify[demo]"']
