"""docs/comparison.md and SECURITY.md: each claim links a test that is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "comparison.md"
COLUMNS = ["Capability", "ollama-dify", "langchain-ollama", "LlamaIndex", "Dify", "litellm"]
LINK = re.compile(r"\[(\w+)\]\(([^)]+\.py)\)")
ROWS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in PAGE.read_text("utf-8").splitlines()
    if re.match(r"\|[^-]", line) and not line.startswith("|**")
]
HEAD, *BODY = ROWS


@cache
def names_in(path: Path) -> set[str]:
    """Names of test functions in a file, those inside classes too."""
    tree = ast.parse(path.read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds) and node.name.startswith("test")}


def test_the_table_is_whole() -> None:
    assert HEAD == COLUMNS
    assert len(BODY) > 100
    assert all(len(row) == len(COLUMNS) for row in BODY)
    # "Async" and "keep_alive" are asked of chat and of embeddings.
    names = [row[0] for row in BODY]
    assert {name for name in names if names.count(name) > 1} == {"Async", "keep_alive"}


@pytest.mark.parametrize("row", BODY, ids=lambda row: row[0])
def test_a_link_leads_to_a_test(row: list[str]) -> None:
    word, links = row[1], LINK.findall(row[1])
    assert re.match(r"(yes|no|partial)\b", word)
    assert links or word.startswith("no")
    check_links(links, PAGE.parent)


def check_links(links: list[tuple[str, str]], folder: Path) -> None:
    for name, target in links:
        path = (folder / target).resolve()
        assert path.is_file(), target
        assert path.is_relative_to(ROOT / "tests")
        assert name in names_in(path), f"{target} has no {name}"


def test_each_promise_has_its_tests() -> None:
    promises, tests = (ROOT / "SECURITY.md").read_text("utf-8").split("## Where they are tested")
    numbers = re.findall(r"^(\d)\. \*\*", promises, re.MULTILINE)
    rows = re.findall(r"^\|(\d)\|(.+)\|$", tests, re.MULTILINE)
    assert [number for number, _ in rows] == numbers[:-1]  # the last one names this table
    for _, cell in rows:
        assert LINK.findall(cell)
        check_links(LINK.findall(cell), ROOT)


def test_each_verdict_about_others_is_one_of_three() -> None:
    for row in BODY:
        assert all(re.match(r"(yes|no|partial)\b", cell) for cell in row[2:]), row


def test_the_readme_links_here() -> None:
    section = (ROOT / "README.md").read_text("utf-8").split("## How it compares")[1].split("\n## ")[0]
    assert "(docs/comparison.md)" in section
