"""The wheel: what is in it, and each import package with only what its extra brings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

import ollama_dify

ROOT = Path(__file__).parents[2]
PACKAGES = ("ollama_dify", "langchain_ollama_dify", "llamaindex_ollama_dify")

# Runs in a fresh interpreter that sees the unpacked wheel and its dependencies, but none of `hidden`.
PRELUDE = """
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
sys.path.insert(0, {target!r})
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel", "--no-deps"]
    built = subprocess.run(
        [*command, "--no-build-isolation", "--no-index", "--wheel-dir", str(target), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert built.returncode == 0, built.stderr
    (path,) = target.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def installed(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pure wheel is installed by unpacking it."""
    target = tmp_path_factory.mktemp("installed")
    wheel.extractall(target)
    return target


def run(installed: Path, code: str, *hidden: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", PRELUDE.format(hidden=set(hidden), target=str(installed)) + code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=installed,
        env=environment,
    )


def test_the_wheel_holds_all_source_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    folders = [
        ROOT / "shared" / PACKAGES[0],
        ROOT / "packages" / PACKAGES[1],
        ROOT / "packages" / PACKAGES[2],
    ]
    source = {
        str(path.relative_to(folder.parent))
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert inside == source


@pytest.mark.parametrize("package", PACKAGES)
def test_types_are_told(wheel: zipfile.ZipFile, package: str) -> None:
    assert f"{package}/py.typed" in wheel.namelist()


def test_the_simulated_servers_data_is_in_it(wheel: zipfile.ZipFile) -> None:
    inside = set(wheel.namelist())
    data = {
        f"ollama_dify/testing/data/{path.name}"
        for path in (ROOT / "shared/ollama_dify/testing/data").iterdir()
    }
    assert data
    assert data <= inside
    assert "ollama_dify/testing/data/vocabulary.json.gz" in data


def test_metadata(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    told = Parser().parsestr(wheel.read(name).decode())
    assert (told["Name"], told["Version"]) == ("ollama-dify", ollama_dify.__version__)
    assert {line.partition(",")[0] for line in told.get_all("Project-URL") or ()} == {
        "Homepage",
        "Documentation",
        "Source",
        "Issues",
        "Changelog",
    }
    assert told["Requires-Python"] == ">=3.10"
    assert told.get_all("Provides-Extra") == [
        "all",
        "demo",
        "dify",
        "images",
        "langchain",
        "llamaindex",
        "ray",
        "web",
    ]
    plain = [line for line in told.get_all("Requires-Dist") or () if "extra ==" not in line]
    names = sorted(line.partition(">")[0] for line in plain)
    assert names == ["h11", "httpx", "idna", "orjson", "pydantic", "tokenizers"]
    (scripts,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "ollama-dify = ollama_dify.cli:main" in wheel.read(scripts).decode()
    assert any(name.endswith("LICENSE") for name in wheel.namelist())


FRAMEWORKS = ("langchain_core", "langchain", "langsmith", "llama_index", "workflows")
OPTIONAL = (
    "typer",
    "rich",
    "yaml",
    "PIL",
    "aiohttp",
    "httpx_aiohttp",
    "chromadb",
    "pypdf",
    "numpy",
    "h11_not",
)


def test_the_core_stands_alone(installed: Path) -> None:
    code = """
import ollama_dify, json
settings = ollama_dify.ChatSettings(model="m", base_url="http://h:1")
client = ollama_dify.OllamaClient(settings)
client.close()
print(json.dumps([ollama_dify.__file__, settings.to_dify()["context_size"]]))
"""
    done = run(installed, code, *FRAMEWORKS, *OPTIONAL)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout) == [str(installed / "ollama_dify" / "__init__.py"), "4096"]


def test_the_simulated_server_comes_with_the_core(installed: Path) -> None:
    code = """
from ollama_dify import ChatSettings, OllamaClient, user
from ollama_dify.testing import SimulatedOllama
with SimulatedOllama() as server:
    server.reply("packed")
    with OllamaClient(ChatSettings(model="llava", base_url=server.base_url)) as client:
        print(client.chat([user("Hi")]).text)
"""
    done = run(installed, code, *FRAMEWORKS, *OPTIONAL)
    assert (done.returncode, done.stdout) == (0, "packed\n"), done.stderr


@pytest.mark.parametrize(
    ("package", "classes", "other"),
    [
        pytest.param(
            "langchain_ollama_dify",
            ("ChatOllamaDify", "OllamaDifyLLM", "OllamaDifyEmbeddings", "OllamaDifyRerank"),
            ("llama_index", "workflows"),
            id="langchain",
        ),
        pytest.param(
            "llamaindex_ollama_dify",
            ("OllamaDify", "OllamaDifyEmbedding", "OllamaDifyRerank"),
            ("langchain_core", "langchain", "langsmith"),
            id="llamaindex",
        ),
    ],
)
def test_an_adapter_needs_its_own_framework_only(
    installed: Path, package: str, classes: tuple[str, ...], other: tuple[str, ...]
) -> None:
    code = f"import {package} as adapter\n"
    code += f"for name in {classes!r}: getattr(adapter, name)(model='m', base_url='http://h:1')\n"
    code += "print(adapter.__file__)"
    done = run(installed, code, *other, "typer", "rich", "chromadb", "pypdf", "httpx_aiohttp")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(installed / package / "__init__.py")


@pytest.mark.parametrize(
    ("package", "framework", "extra"),
    [
        pytest.param("langchain_ollama_dify", "langchain_core", "langchain", id="langchain"),
        pytest.param("llamaindex_ollama_dify", "llama_index", "llamaindex", id="llamaindex"),
    ],
)
def test_without_its_framework_an_adapter_names_the_extra(
    installed: Path, package: str, framework: str, extra: str
) -> None:
    code = f"""
try:
    import {package}
except ImportError as error:
    print(error)
"""
    done = run(installed, code, framework)
    assert done.returncode == 0, done.stderr
    assert f'pip install "ollama-dify[{extra}]"' in done.stdout


def test_the_command_needs_no_extra_and_brings_its_languages(installed: Path) -> None:
    code = "from ollama_dify.cli import main\nraise SystemExit(main(['--help', '--lang', 'ja']))"
    done = run(installed, code, "typer", "rich")
    assert done.returncode == 0, done.stderr
    assert "終了コード" in done.stdout
