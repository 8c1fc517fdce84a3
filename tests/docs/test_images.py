"""The images of the documentation are small, fetch nothing, and are shown; the architecture is today's."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

from tests.architecture.test_imports import LEVELS

from .samples import DOCS, sample

IMAGES = sorted((DOCS / "images").iterdir())


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_an_image(image: Path) -> None:
    assert image.stat().st_size < 60_000
    assert any(f"(images/{image.name})" in page.read_text("utf-8") for page in DOCS.glob("*.md"))
    if image.suffix == ".svg":
        text = image.read_text("utf-8")
        assert re.findall(r"<script|@import|@font-face|href=|url\((?!#)", text) == []


def test_the_architecture_is_drawn_as_it_is() -> None:
    text = (DOCS / "images" / "architecture.svg").read_text("utf-8")
    drawn = re.findall(r'<text class="n"[^>]*>(\d)</text><text class="l"[^>]*>([^<]*)', text)
    assert {int(level): set(names.split(", ")) for level, names in drawn} == {
        place: set(row) for place, row in enumerate(LEVELS, 1)
    }


@pytest.mark.parametrize("language", ["en", "ja", "zh"])
def test_the_recording_of_the_doctor_is_of_today(language: str) -> None:
    text = unescape(re.sub(r"<[^>]+>", "", (DOCS / "images" / f"doctor.{language}.svg").read_text("utf-8")))
    shown = "".join(text.split())
    for name in ("ConnectionFailedError", "doctor", "doctor-fixed"):
        assert "".join(sample(name, language).split()) in shown, "python -m tests.docs.samples draws it anew"
