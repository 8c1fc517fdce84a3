"""Who may import whom, walked in the source."""

from __future__ import annotations

import ast
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

# A folder (or a file beside the folders) imports from rows above its own only. What is named nowhere uses the
# client: it stands below all of them, and none of them imports it.
LEVELS = (
    ("errors", "language", "container"),
    ("address",),
    ("advice", "settings"),
    ("media",),
    ("wire",),
    ("tokens", "transport"),
    ("client",),
)
PLACE = {name: place for place, row in enumerate(LEVELS) for name in row}

HTTP_LIBRARIES = {"httpx", "httpcore", "aiohttp", "h11", "anyio"}


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


def module_of(path: Path) -> str:
    """The dotted name of a file of the core, from `ollama_dify` on; a package's is that of its folder."""
    parts = path.relative_to(CORE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(CORE.rglob("*.py"))}


def inside(path: Path) -> set[str]:
    """Modules of the core that one of its files imports, for types too."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        folders = package.split(".")
        base = ".".join(folders[: len(folders) - node.level + 1] + ([node.module] if node.module else []))
        below = {f"{base}.{alias.name}" for alias in node.names} & set(MODULES)
        found |= below or {base} & set(MODULES)
    return found


def folder(module: str) -> str:
    """The folder of a module, or the file that stands beside the folders."""
    return module.split(".")[1] if "." in module else ""


ALL_CORE = sorted(CORE.rglob("*.py"))
ALL_ADAPTERS = sorted((ROOT / "packages").rglob("*.py"))


def named(paths: list[Path]) -> list[object]:
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


@pytest.mark.parametrize("path", named([path for path in ALL_CORE if path != CORE / "__init__.py"]))
def test_a_folder_imports_from_lower_levels_only(path: Path) -> None:
    own = folder(module_of(path))
    level = PLACE.get(own, len(LEVELS))
    others = {folder(module) for module in inside(path)} - {own, ""}
    wrong = {name for name in others if PLACE.get(name, len(LEVELS)) >= level} if own in PLACE else set()
    assert not wrong, f"{path.name} must not import {sorted(wrong)}"


def test_no_file_imports_itself_through_others() -> None:
    """Imports for types count too."""
    imported = {
        module: inside(path) - {module} for module, path in MODULES.items() if module != "ollama_dify"
    }
    while True:
        left = set(imported)
        ends = {module for module, others in imported.items() if not others & left}
        ends |= left - set().union(*imported.values())
        if not ends:
            break
        imported = {module: others for module, others in imported.items() if module not in ends}
    assert not imported


# The demo is a program over both adapters, loaded by the command alone; its first line needs none of them.
BELOW_THE_DEMO = [path for path in ALL_CORE if path.parent.name != "demo" or path.name == "__init__.py"]


@pytest.mark.parametrize("path", named(BELOW_THE_DEMO))
def test_the_core_knows_no_framework_and_no_adapter(path: Path) -> None:
    assert not roots(path) & {*FRAMEWORKS, *ADAPTERS}


@pytest.mark.parametrize("path", named([path for path in ALL_CORE if "testing" not in path.parts]))
def test_http_libraries_stay_in_the_transport(path: Path) -> None:
    assert not roots(path) & HTTP_LIBRARIES or folder(module_of(path)) == "transport"


@pytest.mark.parametrize("path", named([path for path in ALL_CORE if "testing" not in path.parts]))
def test_the_simulated_server_is_for_the_command_only(path: Path) -> None:
    if folder(module_of(path)) not in ("cli", "demo", "doctor", "web"):
        assert "testing" not in {folder(module) for module in inside(path)}


@pytest.mark.parametrize("path", named(BELOW_THE_DEMO))
def test_heavy_libraries_are_imported_when_used(path: Path) -> None:
    heavy = {"tokenizers", "typer", "rich", "yaml", "PIL", "idna"}
    assert not roots(path, lazy=False) & heavy or "vocabulary" in path.parts


CODE_FROM_DATA = {
    *("eval", "exec", "compile", "pickle.load", "pickle.loads", "marshal.loads", "os.system"),
    *("yaml.full_load", "yaml.unsafe_load", "subprocess.run", "subprocess.Popen"),
}


@pytest.mark.parametrize("path", named([*ALL_CORE, *ALL_ADAPTERS]))
def test_no_data_becomes_code(path: Path) -> None:
    for call in ast.walk(ast.parse(path.read_text())):
        if isinstance(call, ast.Call):
            name = ast.unparse(call.func)
            assert name not in CODE_FROM_DATA
            assert name not in ("yaml.load", "yaml.parse") or "yaml.SafeLoader" in ast.unparse(call)


@pytest.mark.parametrize("path", named(ALL_ADAPTERS))
def test_adapters_use_the_public_core_and_not_each_other(path: Path) -> None:
    own = path.relative_to(ROOT / "packages").parts[0]
    public = set(exported("ollama_dify"))
    assert not roots(path) & (set(ADAPTERS) - {own})
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "ollama_dify":
            assert node.module in ("ollama_dify", "ollama_dify.adapter"), path.name
            assert {alias.name for alias in node.names} <= public or node.module != "ollama_dify"
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
    return listed(folder / "__init__.py")


def listed(path: Path) -> list[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    raise AssertionError(f"{path} has no __all__")


@pytest.mark.parametrize("package", ["ollama_dify", *ADAPTERS])
def test_the_public_surface_is_sorted_and_complete(package: str) -> None:
    folder = CORE if package == "ollama_dify" else ROOT / "packages" / package
    taken = {
        name
        # At the top, or told to type checkers alone and given by the module's `__getattr__`.
        for node in _top_level(ast.parse((folder / "__init__.py").read_text()).body)
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
        for name in (everything(folder, node.module) if alias.name == "*" else [alias.asname or alias.name])
    }
    names = exported(package)
    assert names == sorted(names)
    assert set(names) == taken


def everything(folder: Path, module: str | None) -> list[str]:
    path = folder / f"{module}.py"
    return listed(path if path.exists() else folder / str(module) / "__init__.py")


def _top_level(body: list[ast.stmt]) -> list[ast.stmt]:
    typing = [n for n in body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    return [*body, *(node for block in typing for node in block.body)]
