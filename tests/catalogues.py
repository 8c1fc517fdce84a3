"""Collects the texts of the code and makes the catalogues: `python -m tests.catalogues`.

Without a change in the code it changes nothing. New texts come untranslated into the .po files, and the
test says so.
"""

from __future__ import annotations

import io
from datetime import datetime, timezone
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

CORE = Path(__file__).parents[1] / "shared" / "ollama_dify"
LANGUAGES = ("ja", "zh")
KEYWORDS = {"_": None, "N_": None}


def folder(language: str) -> Path:
    return CORE / "locale" / language / "LC_MESSAGES"


def extracted() -> Catalog:
    """The texts that the code marks, in the order of its files."""
    catalog = Catalog(project="ollama-dify", charset="utf-8")
    rows = extract_from_dir(CORE, [("**.py", "python")], keywords=KEYWORDS)
    for name, _line, message, _comments, _context in sorted(rows, key=lambda row: (row[0], row[1])):
        catalog.add(message, locations=[(Path(name).as_posix(), None)])  # type: ignore[list-item]  # no line
    return catalog


def translated(language: str) -> Catalog:
    """The committed translations."""
    with (folder(language) / "ollama_dify.po").open("rb") as file:
        return read_po(file, locale=language)


def compiled(catalog: Catalog) -> bytes:
    # Babel writes the time of day, and the same texts shall give the same bytes.
    catalog.creation_date = catalog.revision_date = datetime(2026, 1, 1, tzinfo=timezone.utc)
    buffer = io.BytesIO()
    write_mo(buffer, catalog)
    return buffer.getvalue()


def update() -> None:
    for language in LANGUAGES:
        folder(language).mkdir(parents=True, exist_ok=True)
        path = folder(language) / "ollama_dify.po"
        catalog = translated(language) if path.exists() else Catalog(locale=language)
        catalog.update(extracted(), no_fuzzy_matching=True)
        catalog.obsolete.clear()
        buffer = io.BytesIO()
        write_po(buffer, catalog, width=100, omit_header=True)
        header = f'msgid ""\nmsgstr ""\n"Language: {language}\\n"\n'
        header += '"Content-Type: text/plain; charset=utf-8\\n"\n\n'
        path.write_bytes(header.encode() + buffer.getvalue())
        (folder(language) / "ollama_dify.mo").write_bytes(compiled(translated(language)))


if __name__ == "__main__":
    update()
