"""Who may import whom, walked in the source; and what an import pulls in, seen in a fresh interpreter."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "shared" / "ollama_dify"
ADAPTERS = {
    "langchain_ollama_dify": ("langchain", "langsmith"),
    "llamaindex_ollama_dify": ("llama_index", "llama_cloud"),
}
FRAMEWORKS = ("langchain", "langchain_core", "langgraph", "langsmith", "llama_index", "workflows")

# Each module imports from rows above its own only. A module that is named nowhere is one that uses the
# client: it stands below all of them, and none of them imports it.
ROWS = (
    ("errors", "advice_texts", "quick_models", "stopping", "text_splitting", "token_cache"),
    ("exchange", "_templates", "_vocabulary"),
    ("address", "form", "http1", "image_formats", "retry", "schema", "setting_names", "tokens"),
    ("advice", "chat_tokens", "connection", "connection_settings", "image_reading", "image_urls"),
    ("async_connection", "images", "sockets"),
    ("messages", "image_conversion", "pool", "settings"),
    ("responses", "embedding_prefixes", "picture_places"),
    ("requests",),
    ("classify", "context", "embedding_vectors", "think_tags", "tool_choice"),
    ("streaming", "http_errors"),
    ("endpoint",),
    ("flows",),
    ("counting", "embedding_batch", "picture_fetch", "pictures"),
    ("embedding", "questions", "transport"),
    ("async_transport",),
    ("calls",),
    ("client",),
    ("async_client",),
    ("connected",),
)
PLACE = {name: place for place, row in enumerate(ROWS) for name in row}

# Speak HTTP; only these may know the libraries that do.
NETWORK = {
    "async_connection",
    "async_transport",
    "connection",
    "endpoint",
    "exchange",
    "http1",
    "http_errors",
    "picture_fetch",
    "pool",
    "sockets",
    "transport",
}
HTTP_LIBRARIES = {"httpx", "httpcore", "httpx_aiohttp", "aiohttp", "h11", "anyio"}


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(node: ast.AST, *, lazy: bool = True, top: bool = True) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports of a module that run; with lazy also those inside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif not is_for_types(child) and (
            lazy or not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
        ):
            yield from imports(child, lazy=lazy, top=False)


def roots(path: Path, *, lazy: bool = True) -> set[str]:
    """Top-level packages that a file imports from outside its own."""
    found: set[str] = set()
    for node in imports(ast.parse(path.read_text()), lazy=lazy):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def siblings(path: Path) -> set[str]:
    """Modules of the core that one of its modules imports."""
    found: set[str] = set()
    for node in imports(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module.partition(".")[0]} if node.module else {alias.name for alias in node.names}
    return found


MODULES = sorted(path for path in CORE.glob("*.py") if path.stem != "__init__")
ALL_CORE = sorted(CORE.rglob("*.py"))
ALL_ADAPTERS = sorted((ROOT / "packages").rglob("*.py"))


def named(paths: list[Path]) -> list[object]:
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


def test_every_row_exists() -> None:
    there = {path.stem for path in MODULES} | {path.name for path in CORE.iterdir() if path.is_dir()}
    assert set(PLACE) <= there


@pytest.mark.parametrize("path", named(MODULES))
def test_directions(path: Path) -> None:
    own = PLACE.get(path.stem, len(ROWS))
    wrong = (
        {name for name in siblings(path) if PLACE.get(name, len(ROWS)) >= own} if own < len(ROWS) else set()
    )
    assert not wrong, f"{path.name} must not import {sorted(wrong)}"


@pytest.mark.parametrize("path", named(ALL_CORE))
def test_the_core_knows_no_framework_and_no_adapter(path: Path) -> None:
    assert not roots(path) & {*FRAMEWORKS, *ADAPTERS}


@pytest.mark.parametrize("path", named([path for path in ALL_CORE if "testing" not in path.parts]))
def test_http_libraries_stay_in_the_network_modules(path: Path) -> None:
    used = roots(path) & HTTP_LIBRARIES
    assert not used or path.stem in NETWORK


@pytest.mark.parametrize("path", named([path for path in ALL_CORE if "testing" not in path.parts]))
def test_the_simulated_server_is_for_the_command_only(path: Path) -> None:
    if not path.stem.startswith("cli"):
        assert "testing" not in siblings(path)


@pytest.mark.parametrize("path", named(ALL_CORE))
def test_heavy_libraries_are_imported_when_used(path: Path) -> None:
    if path.stem.startswith("cli"):
        return
    assert not roots(path, lazy=False) & {"tokenizers", "typer", "rich", "yaml", "PIL", "idna"} or (
        "_vocabulary" in path.parts
    )


@pytest.mark.parametrize("path", named(ALL_ADAPTERS))
def test_adapters_use_the_public_core_and_not_each_other(path: Path) -> None:
    own = path.relative_to(ROOT / "packages").parts[0]
    public = set(exported("ollama_dify"))
    assert not roots(path) & (set(ADAPTERS) - {own})
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "ollama_dify":
            assert node.module == "ollama_dify", f"{path.name} imports from {node.module}"
            assert {alias.name for alias in node.names} <= public
        if isinstance(node, ast.Import):
            inside = [alias.name for alias in node.names if alias.name.startswith("ollama_dify.")]
            assert not inside, f"{path.name} imports {inside}"


@pytest.mark.parametrize("path", named(ALL_ADAPTERS))
def test_adapters_know_their_own_framework_only(path: Path) -> None:
    own = path.relative_to(ROOT / "packages").parts[0]
    foreign = tuple(name for adapter, names in ADAPTERS.items() if adapter != own for name in names)
    assert not {root for root in roots(path) if root.startswith(foreign)}
    assert not roots(path) & HTTP_LIBRARIES


def exported(package: str) -> list[str]:
    """A package's `__all__`, read and not run."""
    folder = CORE if package == "ollama_dify" else ROOT / "packages" / package
    for node in ast.parse((folder / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    raise AssertionError(f"{package} has no __all__")


@pytest.mark.parametrize("package", ["ollama_dify", *ADAPTERS])
def test_the_public_surface_is_sorted_and_complete(package: str) -> None:
    folder = CORE if package == "ollama_dify" else ROOT / "packages" / package
    taken = {
        alias.asname or alias.name
        # At the top, or told to type checkers alone and given by the module's `__getattr__`.
        for node in _top_level(ast.parse((folder / "__init__.py").read_text()).body)
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    names = exported(package)
    assert names == sorted(names)
    assert set(names) == taken


def _top_level(body: list[ast.stmt]) -> list[ast.stmt]:
    typing = [n for n in body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    return [*body, *(node for block in typing for node in block.body)]


@pytest.mark.parametrize("path", named(ALL_CORE + ALL_ADAPTERS))
def test_what_a_module_exports_is_there(path: Path) -> None:
    tree = ast.parse(path.read_text())
    told = next(
        (n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"),
        None,
    )
    if told is None:
        return
    names = ast.literal_eval(told)
    assert len(names) == len(set(names))
    defined = {getattr(node, "name", "") for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            defined |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined |= {ast.unparse(target) for target in targets}
    assert set(names) <= defined


def loaded_by(statement: str) -> set[str]:
    """Names of all modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return set(json.loads(done.stdout.splitlines()[-1]))


# rich is not among them: httpx loads it for its own command where it is installed.
HEAVY = {"tokenizers", "typer", "yaml", "PIL", "aiohttp", "httpx_aiohttp", "numpy", "pytest"}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        pytest.param(
            "import ollama_dify", HEAVY | {*FRAMEWORKS, *ADAPTERS, "ollama_dify.testing"}, id="core"
        ),
        pytest.param("import ollama_dify.testing", {"typer", *FRAMEWORKS, *ADAPTERS, "pytest"}, id="testing"),
        pytest.param(
            "import langchain_ollama_dify",
            {"tokenizers", "typer", "llama_index", "llamaindex_ollama_dify", "langchain"},
            id="langchain",
        ),
        pytest.param(
            "import llamaindex_ollama_dify",
            {"typer", "langchain_core", "langchain_ollama_dify"},
            id="llamaindex",
        ),
    ],
)
def test_what_an_import_pulls_in(statement: str, absent: set[str]) -> None:
    assert not loaded_by(statement) & absent
