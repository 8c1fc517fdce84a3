"""The fuzzer's corpus, replayed, and a second of fuzzing from a fixed seed."""

from __future__ import annotations

import pytest
from benchmarks.fuzz import FUZZED, check, fuzz, stored

REPLAYED = [pytest.param(name, data, id=f"{name}-{file}") for name in FUZZED for file, data in stored(name)]


@pytest.mark.parametrize(("name", "data"), REPLAYED)
def test_corpus(name: str, data: bytes) -> None:
    assert check(FUZZED[name], data) is None


@pytest.mark.parametrize("name", FUZZED)
def test_a_little_fuzzing_finds_nothing(name: str) -> None:
    queue, crashes, tried, _ = fuzz(name, 1.0, seed=1)
    assert not crashes, next(iter(crashes.values()))
    assert len(queue) > 3, f"{tried} inputs taught nothing: is the coverage seen?"
