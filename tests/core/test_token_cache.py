"""The disk cache of vocabularies: whole files or none, bounded, never in the way."""

from __future__ import annotations

import errno
import logging
import os
import sys
from pathlib import Path

import pytest

from ollama_dify.tokens.cache import TokenizerCache, default_cache_directory

SHOW = {"model_info": {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a", "é", "😀"]}}
DIGEST = "sha256:" + "ab" * 32


def file_of(directory: Path) -> Path:
    (path,) = directory.iterdir()
    return path


def test_what_was_stored_is_loaded(tmp_path: Path) -> None:
    cache = TokenizerCache(tmp_path / "deep" / "er")
    assert cache.load(DIGEST) is None
    assert cache.store(DIGEST, SHOW)
    assert cache.load(DIGEST) == SHOW
    assert cache.load("sha256:other") is None


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_only_the_user_may_read(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    TokenizerCache(directory).store(DIGEST, SHOW)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert file_of(directory).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[:-1], id="cut"),
        pytest.param(lambda data: data[:-3] + b"xxx", id="changed"),
        pytest.param(lambda data: data.replace(b"vocabulary 1", b"vocabulary 9"), id="other-version"),
        pytest.param(lambda data: b'{"model_info": {}}', id="foreign"),
    ],
)
def test_a_damaged_or_foreign_file_is_absent_and_can_be_written_anew(
    tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    cache = TokenizerCache(tmp_path)
    cache.store(DIGEST, SHOW)
    path = file_of(tmp_path)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with caplog.at_level(logging.WARNING, "ollama_dify"):
        assert cache.load(DIGEST) is None
    assert "damaged" in caplog.text
    assert cache.store(DIGEST, SHOW)
    assert cache.load(DIGEST) == SHOW


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = TokenizerCache(tmp_path)
    cache.store("one", SHOW)
    size = file_of(tmp_path).stat().st_size
    cache.store("two", SHOW)
    os.utime(tmp_path / "one.vocabulary", (1, 1))
    os.utime(tmp_path / "two.vocabulary", (2, 2))
    assert cache.load("one") == SHOW  # Used now, hence younger than "two".
    assert TokenizerCache(tmp_path, max_bytes=2 * size).store("three", SHOW)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.vocabulary", "three.vocabulary"]


def test_an_answer_beyond_the_bound_is_not_kept(tmp_path: Path) -> None:
    assert not TokenizerCache(tmp_path, max_bytes=10).store(DIGEST, SHOW)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = TokenizerCache(tmp_path / "file" / "cache")
    with caplog.at_level(logging.WARNING, "ollama_dify"):
        assert not cache.store(DIGEST, SHOW)
        assert cache.load(DIGEST) is None
    assert "not writable" in caplog.text


def test_a_full_disk_is_a_warning_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with caplog.at_level(logging.WARNING, "ollama_dify"):
        assert not TokenizerCache(tmp_path).store(DIGEST, SHOW)
    assert "No space left" in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("digest", ["", "../x", "a/b", "a\\b", "..", "x" * 300])
def test_a_digest_cannot_leave_the_directory(tmp_path: Path, digest: str) -> None:
    cache = TokenizerCache(tmp_path / "cache")
    assert not cache.store(digest, SHOW)
    assert cache.load(digest) is None
    assert list(tmp_path.iterdir()) == []


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
