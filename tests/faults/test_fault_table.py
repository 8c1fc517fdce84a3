"""The fault table: each row against the core and both adapters, sync and async."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from ollama_dify.client import retry

from . import rows_answers, rows_connections  # noqa: F401  they fill ROWS
from .rows import ROWS, Row
from .server import FaultServer
from .targets import Target, targets

HANG_S = 60


@pytest.mark.parametrize("make", targets(), ids=lambda make: make.__name__)
@pytest.mark.parametrize("one", ROWS, ids=lambda one: f"{one.number} {one.fault}")
# A row's server, loops and forks live beside pytest's own threads; row 21 looks for ResourceWarnings itself.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_row(one: Row, make: Callable[[], Target], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "BASE_S", 0.01)
    found: list[BaseException | None] = []
    target = make()

    def play() -> None:
        with FaultServer() as server:
            try:
                one.check(target, server)
                found.append(None)
            except BaseException as error:
                found.append(error)
            finally:
                target.close()

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    thread.join(HANG_S)
    assert found, f"{target.name} must: {one.must}; it hung for {HANG_S} s"
    if found[0] is not None:
        raise AssertionError(f"{target.name} must: {one.must}") from found[0]


def test_there_are_25_rows() -> None:
    assert [one.number for one in ROWS] == list(range(1, 26))
