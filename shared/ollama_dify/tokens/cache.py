"""Vocabularies on disk, one file per model digest, so that a process asks the server for each only once.

A file holds a mark, a SHA-256 of the rest and the JSON of `tokenizer_part_of_show`. Nothing here raises for
the disk's sake: a file that cannot be read, or is not what was written, counts as absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

__all__ = ["DEFAULT_MAX_BYTES", "TokenizerCache", "default_cache_directory"]

DEFAULT_MAX_BYTES = 512 * 1024 * 1024

_MARK = b"ollama-dify vocabulary 1\n"
_SUFFIX = ".vocabulary"
_DIGEST = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,127}")
_logger = logging.getLogger("ollama_dify")


def default_cache_directory() -> Path:
    """The user's cache directory by the platform's convention; `XDG_CACHE_HOME` wins where it is absolute."""
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):
        base = Path(xdg)
    elif sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", "")
        base = Path(local) if local else Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path.home() / ".cache"
    return base / "ollama-dify" / "tokenizers"


class TokenizerCache:
    """Show answers by model digest, at most `max_bytes` in all; the least recently used go first."""

    def __init__(self, directory: Path | None = None, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._directory = directory
        self._max_bytes = max_bytes

    def load(self, digest: str) -> dict[str, Any] | None:
        """The answer kept under `digest`; None where there is none, or a damaged or foreign file."""
        try:
            path = self._path(digest)
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, ValueError) as exc:
            _logger.warning("Vocabulary cache not readable (%s); the server is asked again.", exc)
            return None
        show = _unpack(data)
        if show is None:
            _logger.warning("Vocabulary cache file %s is damaged; it will be written anew.", path.name)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return show

    def store(self, digest: str, show: Mapping[str, Any]) -> bool:
        """Keep an answer, whole or not at all; False where the disk refuses or it exceeds the bound."""
        try:
            payload = orjson.dumps(show)
            data = b"".join((_MARK, hashlib.sha256(payload).digest(), payload))
            if len(data) > self._max_bytes:
                _logger.warning("A vocabulary of %d bytes exceeds the cache's bound; not kept.", len(data))
                return False
            path = self._path(digest)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(path, data)
            self._evict(path)
        except (OSError, RuntimeError, ValueError, TypeError) as exc:
            _logger.warning("Vocabulary cache not writable (%s); counting goes on without it.", exc)
            return False
        return True

    def _path(self, digest: str) -> Path:
        name = digest.replace(":", "-")
        if not _DIGEST.fullmatch(name):
            raise ValueError("a model digest holds only letters, digits, '.', '_', '-' and ':'")
        directory = default_cache_directory() if self._directory is None else self._directory
        return directory / f"{name}{_SUFFIX}"

    def _evict(self, newest: Path) -> None:
        entries: list[tuple[float, int, Path]] = []
        for path in newest.parent.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):
                stat = path.stat()
                entries.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._max_bytes:
                return
            if path != newest:
                with contextlib.suppress(OSError):
                    path.unlink()
                    total -= size


def _unpack(data: bytes) -> dict[str, Any] | None:
    head = len(_MARK) + hashlib.sha256().digest_size
    payload = memoryview(data)[head:]
    if not data.startswith(_MARK) or hashlib.sha256(payload).digest() != data[len(_MARK) : head]:
        return None
    try:
        show = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    return show if isinstance(show, dict) else None


def _write(path: Path, data: bytes) -> None:
    """Atomically: readers see the old file or the whole new one; only the user may read it."""
    handle, name = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
