"""The disk cache of vocabularies: whole files or none, bounded, never in the way, checked when read."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ollama_dify.tokens import cache as cache_module
from ollama_dify.tokens.cache import TokenizerCache, default_cache_directory

SHOW = {"model_info": {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a", "é", "😀"]}}
NAMES = ("http://127.0.0.1:11434", "sha256:" + "ab" * 32, "show")
OTHERS = {
    "server": ("http://127.0.0.1:11435", *NAMES[1:]),
    "digest": (NAMES[0], "sha256:" + "cd" * 32, NAMES[2]),
    "kind": (*NAMES[:2], "probes"),
    "parts moved": (NAMES[0] + NAMES[1], "", NAMES[2]),
}
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")


def file_of(directory: Path) -> Path:
    (path,) = directory.iterdir()
    return path


def test_what_was_stored_is_loaded(tmp_path: Path) -> None:
    cache = TokenizerCache(tmp_path / "deep" / "er")
    assert cache.load(*NAMES) is None
    assert cache.store(*NAMES, SHOW)
    assert cache.load(*NAMES) == SHOW


@pytest.mark.parametrize("other", OTHERS)
def test_nothing_is_believed_of_another_server_digest_or_kind(tmp_path: Path, other: str) -> None:
    cache = TokenizerCache(tmp_path)
    cache.store(*NAMES, SHOW)
    assert cache.load(*OTHERS[other]) is None
    path = file_of(tmp_path)
    cache.store(*OTHERS[other], {})
    (theirs,) = set(tmp_path.iterdir()) - {path}
    theirs.write_bytes(path.read_bytes())  # a file copied to another's name
    assert cache.load(*OTHERS[other]) is None


@POSIX
def test_only_the_user_may_read(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    TokenizerCache(directory).store(*NAMES, SHOW)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert file_of(directory).stat().st_mode & 0o777 == 0o600


def with_content(data: bytes, content: bytes) -> bytes:
    """The file's head, with other JSON behind it."""
    return data[: data.index(b'{"model_info')] + content


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[:-1], id="cut"),
        pytest.param(lambda data: data[:-3] + b"xxx", id="no JSON"),
        pytest.param(lambda data: data.replace(b'"a"', b'"b"'), id="another token"),
        pytest.param(lambda data: with_content(data, b"{}"), id="other JSON"),
        pytest.param(lambda data: data.replace(b"vocabulary 2", b"vocabulary 9"), id="other-version"),
        pytest.param(lambda data: b'{"model_info": {}}', id="foreign"),
    ],
)
def test_a_damaged_or_foreign_file_is_absent_and_can_be_written_anew(
    tmp_path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    cache = TokenizerCache(tmp_path)
    cache.store(*NAMES, SHOW)
    path = file_of(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING, "ollama_dify"):
        assert cache.load(*NAMES) is None
    assert "damaged" in caplog.text
    assert cache.store(*NAMES, SHOW)
    assert cache.load(*NAMES) == SHOW


def as_symlink(path: Path) -> None:
    """To a file that would be believed under the right name."""
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


def as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def as_enormous(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(1 << 40)


@POSIX
@pytest.mark.parametrize("change", [as_symlink, as_fifo, as_directory, as_device, as_enormous])
def test_only_a_regular_file_of_a_usual_size_is_read(tmp_path: Path, change: Callable[[Path], None]) -> None:
    cache = TokenizerCache(tmp_path)
    cache.store(*NAMES, SHOW)
    change(file_of(tmp_path))
    assert cache.load(*NAMES) is None
    if change is not as_directory:
        assert cache.store(*NAMES, SHOW)
        assert cache.load(*NAMES) == SHOW
        assert stat.S_ISREG(next(path for path in tmp_path.glob("*.vocabulary")).lstat().st_mode)


def test_concurrent_writers_and_readers_see_whole_files(tmp_path: Path) -> None:
    contents = [{"model_info": {"number": number, "filling": "x" * 20_000}} for number in range(4)]
    found: list[object] = []

    def work(content: dict[str, object]) -> None:
        for _ in range(20):
            assert TokenizerCache(tmp_path).store(*NAMES, content)
            found.append(TokenizerCache(tmp_path).load(*NAMES))

    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 80
    assert all(content in contents for content in found)
    assert len(list(tmp_path.iterdir())) == 1


def test_the_least_recently_used_go_first_and_abandoned_ones_too(tmp_path: Path) -> None:
    cache = TokenizerCache(tmp_path)
    cache.store("one", *NAMES[1:], SHOW)
    one = file_of(tmp_path)
    size = one.stat().st_size
    cache.store("two", *NAMES[1:], SHOW)
    (two,) = set(tmp_path.iterdir()) - {one}
    (tmp_path / ".writing-old").write_bytes(b"x")
    (tmp_path / ".writing-new").write_bytes(b"x")
    for number, path in enumerate((one, two, tmp_path / ".writing-old"), 1):
        os.utime(path, (number, number))
    assert cache.load("one", *NAMES[1:]) == SHOW  # Used now, hence younger than "two".
    assert TokenizerCache(tmp_path, max_bytes=2 * size).store("three", *NAMES[1:], SHOW)
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == 3
    assert {one.name, ".writing-new"} < left
    assert two.name not in left


def test_an_answer_beyond_the_bound_is_not_kept(tmp_path: Path) -> None:
    assert not TokenizerCache(tmp_path, max_bytes=10).store(*NAMES, SHOW)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = TokenizerCache(tmp_path / "file" / "cache")
    with caplog.at_level(logging.WARNING, "ollama_dify"):
        assert not cache.store(*NAMES, SHOW)
        assert cache.load(*NAMES) is None
    assert "not writable" in caplog.text


def test_a_user_without_a_home_counts_without_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(cache_module.Path, "home", no_home)
    assert not TokenizerCache().store(*NAMES, SHOW)
    assert TokenizerCache().load(*NAMES) is None


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_or_read_only_disk_is_a_warning_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: int
) -> None:
    def refused(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "replace", refused)
    with caplog.at_level(logging.WARNING, "ollama_dify"):
        assert not TokenizerCache(tmp_path).store(*NAMES, SHOW)
    assert os.strerror(error) in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a\\b", "..", "x" * 3000, "\ud800", "a\0b"])
def test_no_name_leaves_the_directory(tmp_path: Path, name: str) -> None:
    cache = TokenizerCache(tmp_path / "cache")
    assert cache.store(name, name, name, SHOW)
    assert cache.load(name, name, name) == SHOW
    (path,) = (tmp_path / "cache").iterdir()
    assert len(path.stem) == len(hashlib.sha256().hexdigest())


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the convention of other systems")
@pytest.mark.parametrize(
    ("xdg", "expected"),
    [("/somewhere", "/somewhere/ollama-dify/tokenizers"), ("relative", None), ("", None)],
)
def test_the_directory_follows_the_platform(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, xdg: str, expected: str | None
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    monkeypatch.setenv("HOME", str(tmp_path))
    fallback = tmp_path / ".cache" / "ollama-dify" / "tokenizers"
    assert default_cache_directory() == (fallback if expected is None else Path(expected))
