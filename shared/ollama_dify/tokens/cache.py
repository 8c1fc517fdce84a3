"""A disk cache of models' vocabularies and templates, so that later processes need not ask the server.

One file per server, model digest and kind of content: one server's data is never used for another.
A file has a marker, a SHA-256 of its name and content, and the JSON. Disk errors are never raised:
a file that cannot be read, is not a regular file, or was changed counts as absent.
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

__all__ = ["cache_directory", "load", "store"]

MAX_BYTES = 512 * 1024 * 1024
"""Bytes of all files together; the least recently used are deleted first."""
_MAX_FILE = 64 * 1024 * 1024
"""Bytes of one file at most; larger ones are neither written nor read."""
_MARK = b"ollama-dify vocabulary 2\n"
_HEAD = len(_MARK) + hashlib.sha256().digest_size
_SUFFIX = ".vocabulary"
_WRITING = ".writing-"
_ABANDONED_S = 3600
_logger = logging.getLogger("ollama_dify")


def cache_directory() -> Path:
    """The user's cache directory by the platform's convention; an absolute `XDG_CACHE_HOME` wins."""
    xdg, local = os.environ.get("XDG_CACHE_HOME", ""), os.environ.get("LOCALAPPDATA", "")
    if os.path.isabs(xdg):
        base = Path(xdg)
    elif sys.platform == "win32":
        base = Path(local) if local else Path.home() / "AppData" / "Local"
    else:
        base = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return base / "ollama-dify" / "tokenizers"


def load(origin: str, digest: str, kind: str) -> Any:
    """What was stored under these names; None if there is no file, or it is damaged or of another program."""
    try:
        path = _path(origin, digest, kind)
        content = _read(path)
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, ValueError) as exc:
        _logger.warning("Vocabulary cache not readable (%s); the server is asked again.", exc)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return content


def store(origin: str, digest: str, kind: str, content: Any) -> bool:
    """Store a JSON value, whole or not at all; False on a disk error or if it is too large."""
    try:
        payload = orjson.dumps(content)
        path = _path(origin, digest, kind)
        data = b"".join((_MARK, _hash(path.name, payload), payload))
        if len(data) > min(MAX_BYTES, _MAX_FILE):
            raise ValueError(f"{len(data)} bytes exceed the cache's bound")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(path, data)
        _evict(path)
    except (OSError, RuntimeError, ValueError, TypeError) as exc:
        _logger.warning("Vocabulary cache not writable (%s); counting goes on without it.", exc)
        return False
    return True


def _path(origin: str, digest: str, kind: str) -> Path:
    # Hashed, so that no name from a server becomes part of a path.
    names = "\0".join((origin, digest, kind)).encode("utf-8", "surrogatepass")
    return cache_directory() / f"{hashlib.sha256(names).hexdigest()}{_SUFFIX}"


def _evict(newest: Path) -> None:
    """Remove files of killed writers, and the least recently used files beyond the limit."""
    entries: list[tuple[float, int, Path]] = []
    for path in newest.parent.iterdir():
        with contextlib.suppress(OSError):
            found = path.lstat()
            if path.suffix == _SUFFIX:
                entries.append((found.st_mtime, found.st_size, path))
            elif path.name.startswith(_WRITING) and found.st_mtime < time.time() - _ABANDONED_S:
                path.unlink()
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total > MAX_BYTES and path != newest:
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size


def _read(path: Path) -> Any:
    """A regular file's content: no symlink is followed, and opening a FIFO does not wait for its writer."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    handle = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        regular = stat.S_ISREG(found.st_mode) and found.st_size <= _MAX_FILE
        data = file.read(_MAX_FILE) if regular else b""
    payload = memoryview(data)[_HEAD:]
    if not data.startswith(_MARK) or _hash(path.name, payload) != data[len(_MARK) : _HEAD]:
        raise ValueError(f"{path.name} is damaged")
    return orjson.loads(payload)


def _hash(name: str, payload: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(name.encode() + b"\0")
    digest.update(payload)
    return digest.digest()


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
