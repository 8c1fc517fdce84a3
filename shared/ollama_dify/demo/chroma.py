"""The demo's index: one persistent Chroma collection, written by both frameworks and read by both."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import chromadb
from chromadb.config import Settings as ChromaOptions

__all__ = ["complete", "open_index", "passages_of"]


def passages_of(path: Path) -> list[str]:
    """A file's paragraphs, joined to passages of some 600 characters."""
    if path.suffix == ".pdf":
        from pypdf import PdfReader  # 0.2 s that a run over an existing index saves

        text = "\n\n".join(page.extract_text() for page in PdfReader(path).pages)
        lines = text.splitlines()
        paragraphs = ["\n".join(lines[start : start + 6]) for start in range(0, len(lines), 4)]
    else:
        paragraphs = path.read_text("utf-8").split("\n\n")
    passages = [""]
    for paragraph in filter(None, map(str.strip, paragraphs)):
        if passages[-1] and len(passages[-1]) + len(paragraph) > 600:
            passages.append("")
        passages[-1] = f"{passages[-1]}\n\n{paragraph}".strip()
    return passages


def open_index(
    files: list[Path], embedding_model: str, folder: Path | str, *, rebuild: bool
) -> tuple[Any, Any, bool]:
    """The database, the collection for these files and this model, and whether it has to be filled."""
    mark = hashlib.sha256(embedding_model.encode())
    for path in files:
        mark.update(path.name.encode() + path.read_bytes())
    name = f"demo-{mark.hexdigest()[:16]}"
    database = chromadb.PersistentClient(str(folder), ChromaOptions(anonymized_telemetry=False))
    existing = [collection.name for collection in database.list_collections()]
    if name in existing and not rebuild:
        return database, database.get_collection(name), False
    for old in existing:
        if old.startswith("demo-"):
            database.delete_collection(old)
    return database, database.create_collection(f"{name}-part", metadata={"hnsw:space": "cosine"}), True


def complete(collection: Any) -> None:
    """Give the collection its name; one that was interrupted lacks it and is built again."""
    collection.modify(name=collection.name.removesuffix("-part"))
