"""mypy accepts our code; pyright and mypy accept what README, docs and examples show, and `promises.py`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Each block stands alone; in the two others they are pieces of a test suite, and of a Spark job.
DOCS = (page for page in (ROOT / "docs").glob("*.md") if page.stem not in ("testing", "scale"))
PAGES = [ROOT / "README.md", *DOCS]
PLAIN = str.maketrans("-.", "__")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every block of code that is shown, one file each."""
    folder = tmp_path_factory.mktemp("shown")
    for page in PAGES:
        for number, block in enumerate(
            re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL), 1
        ):
            (folder / f"{page.stem.translate(PLAIN)}_{number}.py").write_text(block, "utf-8")
    for script in [*(ROOT / "examples").glob("*.py"), ROOT / "tests/typing/promises.py"]:
        (folder / script.name).write_text(script.read_text("utf-8"), "utf-8")
    assert len(list(folder.iterdir())) > 20
    return folder


def test_pyright_accepts_it(shown: Path) -> None:
    """basedpyright brings pyright and what runs it, so nothing is fetched."""
    config = {
        "include": ["."],
        "typeCheckingMode": "standard",
        "extraPaths": [str(ROOT / "shared"), str(ROOT / "packages")],
        "reportUnusedExpression": False,
    }
    (shown / "pyrightconfig.json").write_text(json.dumps(config), "utf-8")
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run([*command, "-p", str(shown)], capture_output=True, text=True, timeout=110)
    told = json.loads(done.stdout)
    errors = [
        f"{Path(it['file']).name}:{it['range']['start']['line'] + 1}: {it['message']}"
        for it in told["generalDiagnostics"]
        if it["severity"] == "error"
    ]
    assert told["summary"]["filesAnalyzed"] > 20
    assert not errors, "\n".join(errors)


def mypy(shown: Path, files: Iterable[object]) -> subprocess.CompletedProcess[str]:
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(shown / "cache")]
    command = [sys.executable, "-m", "mypy", *options, *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=ROOT)


def test_mypy_accepts_it(shown: Path) -> None:
    done = mypy(shown, sorted(shown.glob("*.py")))
    assert done.returncode == 0, done.stdout


def test_mypy_accepts_the_code_and_its_tests(shown: Path) -> None:
    done = mypy(shown, ["shared/ollama_dify", "packages", "tests"])
    assert done.returncode == 0, done.stdout
