"""What is measured, and the one way each is called: ours, the peers, and the floors.

A subject has methods named after the work; each gives the units done (tokens, calls, texts …). Subjects
of one framework share their class, so ours, the peer and the framework's floor run the same calling code.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable
from importlib import import_module
from random import Random
from typing import Any

__all__ = ["MODEL", "QUESTION", "SUBJECTS", "image", "make", "texts"]

MODEL = "bench"
QUESTION = "Why is the sky blue?"
BATCH = 64

# name → module and class or function that makes the subject of a server's URL.
SUBJECTS: dict[str, str] = {
    "langchain ours": "langchain_side:ours",
    "langchain peer": "langchain_side:peer",
    "langchain floor": "langchain_side:floor",
    "langchain fresh": "langchain_side:fresh",
    "langchain embeddings ours": "langchain_side:embeddings_ours",
    "langchain embeddings peer": "langchain_side:embeddings_peer",
    "llamaindex ours": "llamaindex_side:ours",
    "llamaindex peer": "llamaindex_side:peer",
    "llamaindex floor": "llamaindex_side:floor",
    "llamaindex fresh": "llamaindex_side:fresh",
    "llamaindex embedding ours": "llamaindex_side:embedding_ours",
    "llamaindex embedding peer": "llamaindex_side:embedding_peer",
    "httpx + orjson": "transport_side:httpx_floor",
    "aiohttp + orjson": "transport_side:aiohttp_floor",
    "our client": "transport_side:our_client",
}


def make(name: str, url: str) -> Any:
    """The subject, with its framework imported."""
    module, _, factory = SUBJECTS[name].partition(":")
    made: Callable[[str], Any] = getattr(import_module(f"benchmarks.{module}"), factory)
    return made(url)


def texts(count: int) -> list[str]:
    """Texts to embed, some 60 characters each."""
    return [f"Passage {index}: light of short wavelength is scattered more." for index in range(count)]


def image(megabytes: int) -> str:
    """A valid PNG of noise as base64; `megabytes` of them, before base64."""
    width = 1000
    height = megabytes * 1_000_000 // (3 * width + 1)
    row = b"\0" + Random(1).randbytes(3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(row * height, 0)), (b"IEND", b""))
    )
    return base64.b64encode(data).decode()
