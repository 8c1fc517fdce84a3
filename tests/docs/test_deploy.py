"""The Compose files fit the Compose schema and hold together, and the notebook's cells run in order."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ollama_dify.testing import SimulatedOllama

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "compose.yaml").read_text("utf-8")
GPU = "    # deploy:"


def with_gpu() -> str:
    """The file with its GPU lines as a user makes them real."""
    before, mark, after = TEXT.partition(GPU)
    lines = (mark + after).split("\n")
    end = lines.index("")
    return before + "\n".join([line.replace("# ", "", 1) for line in lines[:end]] + lines[end:])


@pytest.mark.parametrize(
    ("text", "is_right"),
    [
        pytest.param(TEXT, True, id="as it is"),
        pytest.param(with_gpu(), True, id="with the GPU"),
        pytest.param((ROOT / "deploy" / "compose.yaml").read_text("utf-8"), True, id="behind a balancer"),
        pytest.param(TEXT.replace("start_period", "start_delay"), False, id="what Compose does not know"),
    ],
)
def test_compose_schema(text: str, is_right: bool, tmp_path: Path) -> None:
    """The schema of compose-spec, as check-jsonschema ships it."""
    (tmp_path / "compose.yaml").write_text(text, "utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, str(tmp_path / "compose.yaml")], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode == 0) == is_right, done.stdout + done.stderr
    assert is_right or "start_delay" in done.stdout


@pytest.mark.parametrize("text", [TEXT, with_gpu()], ids=["as it is", "with the GPU"])
def test_compose_file(text: str) -> None:
    file: dict[str, Any] = yaml.safe_load(text)
    ollama, app = file["services"]["ollama"], file["services"]["app"]
    assert "ollama pull llava" in ollama["healthcheck"]["test"][1]
    assert app["depends_on"]["ollama"]["condition"] == "service_healthy"
    assert app["environment"]["OLLAMA_HOST"] == "http://ollama:11434"
    assert [port.split(":")[0] for port in ollama["ports"]] == ["127.0.0.1"]
    assert {volume.split(":")[0] for volume in ollama["volumes"]} == set(file["volumes"])
    assert (ROOT / app["build"]["context"] / app["build"]["dockerfile"]).is_file()
    if text != TEXT:
        devices = ollama["deploy"]["resources"]["reservations"]["devices"]
        assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]


async def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Inside a running loop and with `await` at the top, as Jupyter runs it."""
    cells = json.loads((ROOT / "examples" / "form.ipynb").read_text("utf-8"))["cells"]
    names: dict[str, Any] = {"__name__": "__main__"}
    with SimulatedOllama() as server:
        monkeypatch.setenv("OLLAMA_HOST", server.base_url)
        for cell in cells:
            assert not cell.get("outputs")
            if cell["cell_type"] == "code":
                flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
                found = eval(compile("".join(cell["source"]), "form.ipynb", "exec", flags=flags), names)
                if inspect.isawaitable(found):
                    await found
                assert capsys.readouterr().out.strip()
        assert {request.path for request in server.requests} >= {"/api/chat", "/api/embed"}
