"""The demo: RAG and questions about images through both frameworks, and what happens when things go wrong.

Run it with `ollama-dify demo`. The files are part of the package; nothing but the index is written.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

__all__ = ["main"]

_LOADED = {"LangChain": "langchain_chroma", "LlamaIndex": "llama_index.core", "Chroma": "chromadb"}


def main(
    *,
    model: str = "llava",
    embedding_model: str = "nomic-embed-text",
    base_url: str | None = None,
    index_dir: Path | str = ".demo",
    rebuild: bool = False,
) -> int:
    """Run the demo; 0 unless something failed. A real model's words are judged and fail nothing."""
    # The frameworks take seconds to import, so something is said before them.
    print("ollama-dify demo: one settings object, LangChain and LlamaIndex.", flush=True)
    try:
        for name, module in _LOADED.items():
            print(f"Loading {name} …", flush=True)
            import_module(module)
        from .run import run
    except ModuleNotFoundError as error:
        print(f"The demo needs {error.name}, which is not installed.", file=sys.stderr)
        print('Install it with: pip install "ollama-dify[demo]"', file=sys.stderr)
        return 1
    return run(
        model=model, embedding_model=embedding_model, base_url=base_url, index_dir=index_dir, rebuild=rebuild
    )
