"""The disk cache of vocabularies: whole files or none, bounded, never in the way, checked when read."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ollama_dify.tokens import cache

SHOW = {"model_info": {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a", "é", "😀"]}}
NAMES = ("http://127.0.0.1:11434", "sha256:" + "ab" * 32, "show")
OTHERS = {
    "server": ("http://127.0.0.1:11435", *NAMES[1:]),
    "digest": (NAMES[0], "sha256:" + "cd" * 32, NAMES[2]),
    "kind": (*NAMES[:2], "probes"),
    "parts moved": (NAMES[0] + NAMES[1], "", NAMES[2]),
}
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ollama-dify" / "tokenizers"


def stored(origin: str = NAMES[0], digest: str = NAMES[1], kind: str = NAMES[2]) -> Path:
    """The file of a value that was stored under these names."""
    before = set(cache.cache_directory().glob("*"))
    assert cache.store(origin, digest, kind, SHOW)
    (path,) = set(cache.cache_directory().iterdir()) - before
    return path


@POSIX
def test_what_was_stored_is_loaded_and_only_the_user_may_read_it(directory: Path) -> None:
    assert cache.load(*NAMES) is None
    assert stored().stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    assert cache.load(*NAMES) == SHOW


@pytest.mark.parametrize("other", OTHERS)
def test_nothing_is_believed_of_another_server_digest_or_kind(other: str) -> None:
    path = stored()
    assert cache.load(*OTHERS[other]) is None
    stored(*OTHERS[other]).write_bytes(path.read_bytes())  # a file copied to another's name
    assert cache.load(*OTHERS[other]) is None


def as_symlink(path: Path) -> None:
    """To a file that would be believed under the right name."""
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


def as_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_enormous(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(1 << 40)


def written(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": written(lambda data: b""),
    "cut": written(lambda data: data[:-1]),
    "no JSON": written(lambda data: data[:-3] + b"xxx"),
    "another token": written(lambda data: data.replace(b'"a"', b'"b"')),
    "other JSON": written(lambda data: data[: data.index(b'{"model_info')] + b"{}"),
    "other version": written(lambda data: data.replace(b"vocabulary 2", b"vocabulary 9")),
    "foreign": written(lambda data: b'{"model_info": {}}'),
    **({} if sys.platform == "win32" else {"symlink": as_symlink, "FIFO": as_fifo, "device": as_device}),
    "enormous": as_enormous,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_file_is_absent_and_is_written_anew(
    damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = stored()
    DAMAGES[damage](path)
    assert cache.load(*NAMES) is None
    assert "not readable" in caplog.text
    assert cache.store(*NAMES, SHOW)
    assert cache.load(*NAMES) == SHOW
    assert stat.S_ISREG(path.lstat().st_mode)


def test_concurrent_writers_and_readers_see_whole_files(directory: Path) -> None:
    contents = [{"model_info": {"number": number, "filling": "x" * 20_000}} for number in range(4)]
    found: list[object] = []

    def work(content: dict[str, object]) -> None:
        for _ in range(20):
            assert cache.store(*NAMES, content)
            found.append(cache.load(*NAMES))

    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 80
    assert all(content in contents for content in found)
    assert len(list(directory.iterdir())) == 1


def test_the_least_recently_used_go_first_and_abandoned_ones_too(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = stored("one"), stored("two")
    (directory / ".writing-old").write_bytes(b"x")
    (directory / ".writing-new").write_bytes(b"x")
    for number, path in enumerate((one, two, directory / ".writing-old"), 1):
        os.utime(path, (number, number))
    assert cache.load("one", *NAMES[1:]) == SHOW  # used now, hence younger than "two"
    monkeypatch.setattr(cache, "MAX_BYTES", 2 * one.stat().st_size)
    assert cache.store("three", *NAMES[1:], SHOW)
    left = {path.name for path in directory.iterdir()}
    assert len(left) == 3
    assert {one.name, ".writing-new"} < left


def in_the_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ollama-dify").write_text("a file")


def no_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cache, "MAX_BYTES", 10)


def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(cache.Path, "home", home)


def refusing(error: int) -> Callable[[pytest.MonkeyPatch, Path], None]:
    def refused(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    return lambda monkeypatch, _: monkeypatch.setattr(os, "replace", refused)


@pytest.mark.parametrize(
    "obstacle",
    [in_the_way, no_room, no_home, *map(refusing, (errno.ENOSPC, errno.EROFS, errno.EACCES))],
    ids=["a file in the way", "no room", "no home", "full", "read-only", "forbidden"],
)
def test_a_disk_that_refuses_is_a_warning_and_leaves_nothing_behind(
    obstacle: Callable[[pytest.MonkeyPatch, Path], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    obstacle(monkeypatch, tmp_path)
    assert not cache.store(*NAMES, SHOW)
    assert cache.load(*NAMES) is None
    assert "not writable" in caplog.text
    assert not list(tmp_path.rglob("tokenizers/*"))


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a\\b", "..", "x" * 3000, "\ud800", "a\0b"])
def test_no_name_leaves_the_directory(directory: Path, name: str) -> None:
    path = stored(name, name, name)
    assert cache.load(name, name, name) == SHOW
    assert path.parent == directory
    assert len(path.stem) == len(hashlib.sha256().hexdigest())


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the convention of other systems")
@pytest.mark.parametrize("xdg", ["/somewhere", "relative", ""])
def test_the_directory_follows_the_platform(monkeypatch: pytest.MonkeyPatch, xdg: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    monkeypatch.setenv("HOME", "/home/me")
    base = "/somewhere" if xdg == "/somewhere" else "/home/me/.cache"
    assert cache.cache_directory() == Path(base, "ollama-dify", "tokenizers")
