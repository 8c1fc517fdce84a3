"""The fault table, each cell a test."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .rows import ROWS, Row
from .table import try_row
from .targets import Target, targets


@pytest.mark.parametrize("make", targets(), ids=lambda make: make.__name__)
@pytest.mark.parametrize("one", ROWS, ids=lambda one: f"{one.number} {one.fault}")
# A row's server, loops and forks live beside pytest's own threads; row 21 looks for ResourceWarnings itself.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_row(one: Row, make: Callable[[], Target]) -> None:
    outcome = try_row(one, make)
    assert outcome.ok, f"{outcome.target} must: {one.must}; got: {outcome.got}"


def test_there_are_25_rows() -> None:
    assert [one.number for one in ROWS] == list(range(1, 26))
