"""What servers said of their models' vocabularies and templates, on disk, so that no process asks again.

One file for each server, model digest and kind of content: what one server claims is not believed of another.
A file holds a mark, a SHA-256 of its name and content, and the JSON. Nothing here raises for the disk's sake:
a file that cannot be read, is no regular file, or is not what was written counts as absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

__all__ = ["DEFAULT_MAX_BYTES", "TokenizerCache", "default_cache_directory"]

DEFAULT_MAX_BYTES = 512 * 1024 * 1024
_MAX_FILE = 64 * 1024 * 1024
"""Bytes of one file at most; larger ones are neither written nor read."""
_MARK = b"ollama-dify vocabulary 2\n"
_HEAD = len(_MARK) + hashlib.sha256().digest_size
_SUFFIX = ".vocabulary"
_WRITING = ".writing-"
_ABANDONED_S = 3600
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
    """JSON values by server, digest and kind, at most `max_bytes` in all; the least recently used go."""

    def __init__(self, directory: Path | None = None, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._directory = directory
        self._max_bytes = max_bytes

    def load(self, origin: str, digest: str, kind: str) -> Any:
        """What was stored under these names; None where there is none, or a damaged or foreign file."""
        try:
            path = self._path(origin, digest, kind)
            data = _read(path)
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError) as exc:
            _logger.warning("Vocabulary cache not readable (%s); the server is asked again.", exc)
            return None
        content = _unpack(path.name, data)
        if content is None:
            _logger.warning("Vocabulary cache file %s is damaged; it will be written anew.", path.name)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return content

    def store(self, origin: str, digest: str, kind: str, content: Any) -> bool:
        """Keep a value, whole or not at all; False where the disk refuses or it exceeds the bound."""
        try:
            payload = orjson.dumps(content)
            path = self._path(origin, digest, kind)
            data = b"".join((_MARK, _hash(path.name, payload), payload))
            if len(data) > min(self._max_bytes, _MAX_FILE):
                _logger.warning("A vocabulary of %d bytes exceeds the cache's bound; not kept.", len(data))
                return False
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(path, data)
            self._evict(path)
        except (OSError, RuntimeError, ValueError, TypeError) as exc:
            _logger.warning("Vocabulary cache not writable (%s); counting goes on without it.", exc)
            return False
        return True

    def _path(self, origin: str, digest: str, kind: str) -> Path:
        directory = default_cache_directory() if self._directory is None else self._directory
        # No name from a server becomes part of a path.
        names = "\0".join((origin, digest, kind)).encode("utf-8", "surrogatepass")
        return directory / f"{hashlib.sha256(names).hexdigest()}{_SUFFIX}"

    def _evict(self, newest: Path) -> None:
        entries: list[tuple[float, int, Path]] = []
        for path in newest.parent.iterdir():
            with contextlib.suppress(OSError):
                found = path.lstat()
                if path.suffix == _SUFFIX:
                    entries.append((found.st_mtime, found.st_size, path))
                elif path.name.startswith(_WRITING) and found.st_mtime < time.time() - _ABANDONED_S:
                    path.unlink()  # its writer was killed
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._max_bytes:
                return
            if path != newest:
                with contextlib.suppress(OSError):
                    path.unlink()
                    total -= size


def _read(path: Path) -> bytes:
    """A regular file's bytes: no symlink is followed, and opening a FIFO does not wait for its writer."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    handle = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_FILE:
            return b""
        return file.read(_MAX_FILE)


def _hash(name: str, payload: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(name.encode() + b"\0")
    digest.update(payload)
    return digest.digest()


def _unpack(name: str, data: bytes) -> Any:
    payload = memoryview(data)[_HEAD:]
    if not data.startswith(_MARK) or _hash(name, payload) != data[len(_MARK) : _HEAD]:
        return None
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None


def _write(path: Path, data: bytes) -> None:
    """Atomically: readers see the old file or the whole new one; only the user may read it."""
    handle, name = tempfile.mkstemp(prefix=_WRITING, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
