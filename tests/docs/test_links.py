"""Every relative link of every page leads to a file that is there, and to a heading that is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / ".github").rglob("*.md"), *(ROOT / "docs").rglob("*.md")]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub and the site make them."""
    found = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for link in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in headings(target)):
            lost.append(link)
    assert lost == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if re.search(r"\.(ja|zh)\.md", page.name)], ids=lambda page: page.name
)
def test_a_translation_links_to_translations(page: Path) -> None:
    language = page.stem.partition(".")[2]
    body = re.sub(r"\[English\]\([^)]+\)", "", page.read_text("utf-8"))
    # A part of an English page may be meant: what has one output for all languages.
    english = [page.parent / link for link in LINK.findall(body) if link.count(".") == 1 and "#" not in link]
    assert [path.name for path in english if path.with_suffix(f".{language}.md").exists()] == []
