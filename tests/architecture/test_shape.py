"""The shape of the code: twins that stay twins, files and functions one can read at a sitting."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from ollama_dify import AsyncChatStream, AsyncOllamaClient, ChatStream, OllamaClient, errors
from ollama_dify.transport.transports import AsyncNetwork, AsyncTransport, BlockingNetwork, Transport

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "shared").rglob("*.py"), *(ROOT / "packages").rglob("*.py")])
FILE_LINES = 400
FUNCTION_LINES = 70

TWINS = (
    pytest.param(OllamaClient, AsyncOllamaClient, id="client"),
    pytest.param(ChatStream, AsyncChatStream, id="stream"),
    pytest.param(Transport, AsyncTransport, id="transport"),
    pytest.param(BlockingNetwork, AsyncNetwork, id="network"),
)


def named(paths: list[Path]) -> list[Any]:
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


def public(kind: type) -> dict[str, Any]:
    """Public methods; closing has another name where it is awaited."""
    found = {
        name: value
        for name, value in vars(kind).items()
        if callable(value) and not inspect.isclass(value) and not name.startswith("_")
    }
    return {("close" if name == "aclose" else name): value for name, value in found.items()}


def parameters(function: Any) -> list[tuple[str, Any, Any, Any]]:
    return [
        (p.name, p.kind, p.default, p.annotation) for p in inspect.signature(function).parameters.values()
    ]


@pytest.mark.parametrize(("one", "other"), TWINS)
def test_twins_have_the_same_methods(one: type, other: type) -> None:
    assert set(public(one)) == set(public(other))
    for name, function in public(one).items():
        assert parameters(function) == parameters(public(other)[name]), name
    assert parameters(one.__init__)[:1] == parameters(other.__init__)[:1]


@pytest.mark.parametrize(("one", "other"), TWINS[:2])
def test_twins_promise_the_same(one: type, other: type) -> None:
    for name, function in public(one).items():
        there = inspect.signature(public(other)[name]).return_annotation
        here = inspect.signature(function).return_annotation
        assert here == str(there).replace("Async", ""), name


def test_clients_are_made_alike() -> None:
    assert parameters(OllamaClient.__init__) == parameters(AsyncOllamaClient.__init__)


def test_only_errors_of_the_tree_are_raised() -> None:
    """By name: what the code raises is ours, or Python's own for a wrong use of an object or a validator."""
    allowed = {*errors.__all__, "ValueError", "TypeError", "StopIteration", "StopAsyncIteration", "KeyError"}
    # what the module of names that come on demand says of others
    allowed |= {"AttributeError", "UnsupportedTokenizerError"}
    # httpx's own, raised where the translation of its errors sees them
    allowed |= {"ReadTimeout", "RemoteProtocolError"}
    below = {"addresses.py", "network.py", "pool.py", "sockets.py"}
    below_errors = {"ConnectError", "ConnectionResetError", "OSError", "ProxyError"}
    below_errors |= {"ReadError", "TimeoutError", "UnsupportedProtocol", "WriteError"}
    strange = set()
    for path in sorted((ROOT / "shared" / "ollama_dify").rglob("*.py")):
        if path.name.startswith("cli") or "testing" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                name = ast.unparse(node.exc.func).rpartition(".")[2]
                if (
                    name[:1].isupper()
                    and name not in allowed
                    and not name.endswith(("Timeout", "ProtocolError"))
                    and not (path.name in below and name in below_errors)
                ):
                    strange.add((path.name, name))
    assert not strange


@pytest.mark.parametrize("path", named(SOURCES))
def test_length(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= FILE_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES, node.name


@pytest.mark.parametrize("path", named(SOURCES))
def test_nothing_is_left_to_do(path: Path) -> None:
    source = path.read_text()
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", source)
    assert source.startswith('"""') or not source.strip(), "a module begins by saying what it is for"
    for ignore in re.findall(r"# type: ignore.*", source):
        assert re.match(r"# type: ignore\[[a-z-]+(, ?[a-z-]+)*\]  # \S", ignore), ignore


@pytest.mark.parametrize("path", named(SOURCES))
def test_names_say_something(path: Path) -> None:
    assert path.stem not in ("utils", "util", "helpers", "helper", "manager", "base", "common", "misc")
