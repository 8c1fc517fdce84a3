"""pyright and mypy accept what README, docs and examples show, and what `promises.py` asserts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
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


def test_mypy_accepts_it(shown: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    options = ["--cache-dir", str(shown / "cache")]
    files = [str(path) for path in sorted(shown.glob("*.py"))]
    done = subprocess.run([*command, *options, *files], capture_output=True, text=True, timeout=110, cwd=ROOT)
    assert done.returncode == 0, done.stdout
