# ruff: noqa: T201  a report is printed
"""The fault table: each row against the core and both adapters, sync and async.

`python -m tests.faults.table` prints it. A row is a function of a target and a server that returns what was
seen, or raises AssertionError.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

from ollama_dify.client import retry

from . import rows_answers, rows_connections  # noqa: F401  they fill ROWS
from .rows import ROWS, Row
from .server import (
    FaultServer,
)
from .targets import Target, targets


@dataclass(frozen=True)
class Outcome:
    row: Row
    target: str
    ok: bool
    got: str
    seconds: float


def try_row(one: Row, make: Callable[[], Target]) -> Outcome:
    """Play one row against one target, with short waits between retries and a limit of 60 s."""
    start = time.monotonic()
    found: list[tuple[bool, str]] = []
    target = make()

    def play() -> None:
        with FaultServer() as server:
            try:
                found.append((True, one.check(target, server)))
            except AssertionError as error:
                found.append((False, str(error)))
            except BaseException as error:
                found.append((False, f"{type(error).__name__}: {error}"))
            finally:
                target.close()

    with mock.patch.object(retry, "BASE_S", 0.01), mock.patch.dict(os.environ, {"OLLAMA_API_KEY": ""}):
        thread = threading.Thread(target=play, daemon=True)
        thread.start()
        thread.join(60)
    ok, got = found[0] if found else (False, "hung for 60 s")
    return Outcome(one, target.name, ok, got, time.monotonic() - start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, help="only these rows")
    parser.add_argument(
        "--got", action="store_true", help="what each target did, not only whether it is right"
    )
    chosen = parser.parse_args()
    makers = targets()
    names = [make().name for make in makers]
    print(f"{'#':>2}  {'fault':<58}  " + "  ".join(f"{name:>16}" for name in names))
    bad: list[Outcome] = []
    start = time.monotonic()
    for one in ROWS:
        if chosen.rows and one.number not in chosen.rows:
            continue
        outcomes = [try_row(one, make) for make in makers]
        marks = "  ".join(f"{'ok' if it.ok else 'FAILED':>16}" for it in outcomes)
        print(f"{one.number:>2}  {one.fault:<58}  {marks}")
        print(f"    must: {one.must}\n    got:  {outcomes[0].got}", flush=True)
        if chosen.got:
            for it in outcomes:
                print(f"      {it.target:<16} {it.seconds:5.1f} s  {it.got}")
        bad += [it for it in outcomes if not it.ok]
    for it in bad:
        print(f"FAILED {it.row.number} {it.target}: {it.got[:400]}")
    print(f"{len(bad)} failed, {time.monotonic() - start:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
