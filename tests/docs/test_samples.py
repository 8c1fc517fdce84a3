"""Outputs that pages show are what is said today; the pages of errors and of the doctor leave nothing out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ollama_dify import errors
from tests.doctor.test_doctor import ROWS

from .samples import DOCS, ERRORS, HOST, MARKED, refreshed, sample

PAGES = [page for page in sorted(DOCS.rglob("*.md")) if MARKED.search(page.read_text("utf-8"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_samples_are_true(page: Path) -> None:
    assert refreshed(page) == page.read_text("utf-8"), "python -m tests.docs.samples writes them anew"


@pytest.mark.parametrize("language", ["", ".ja", ".zh"])
def test_every_error_has_its_place(language: str) -> None:
    text = (DOCS / f"errors{language}.md").read_text("utf-8")
    parts = re.findall(r"^## (\w+Error)$", text, re.MULTILINE)
    assert {*parts, "OllamaError"} == {*ERRORS, "OllamaError"} == set(errors.__all__)
    assert {found[1] for found in MARKED.findall(text)} == set(ERRORS)
    seed = (DOCS / "guide.md").read_text("utf-8").split("```")
    assert next(block for block in seed if "max retries exceeded" in block) in text


@pytest.mark.parametrize("language", ["", ".ja", ".zh"])
def test_every_cause_has_its_row(language: str) -> None:
    page = (DOCS / f"doctor{language}.md").read_text("utf-8")
    assert {row.cause for row in ROWS.values() if f"`{row.cause}`" not in page} == set()


@pytest.mark.parametrize("language", ["en", "ja", "zh"])
def test_the_remedy_of_the_guide_works(language: str) -> None:
    """What the doctor names is the address of the run after it, which finds no problem."""
    assert f"base_url={HOST}\n" in sample("doctor", language)
    assert "✗" not in sample("doctor-fixed", language)
