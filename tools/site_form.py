"""A hook of MkDocs: puts the form's page into the site, where it writes code only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ollama_dify.web import FILES, read_file


def on_post_build(config: Any) -> None:
    folder = Path(config["site_dir"]) / "form"
    folder.mkdir(exist_ok=True)
    for name in FILES:
        (folder / name).write_bytes(read_file(name))
