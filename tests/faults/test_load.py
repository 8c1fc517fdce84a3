"""The load figures that do not depend on the machine, at a tenth of their size."""

from __future__ import annotations

import pytest
from benchmarks.load import figures

# L2, L4 (rates) and L10 (minutes) are for `make load`.
DETERMINISTIC = ["L1", "L3", "L6", "L7", "L8", "L9"]


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_figures(name: str) -> None:
    ok, found = figures(name, part=10)
    assert ok, found
