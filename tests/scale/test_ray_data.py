"""`Embedder` in Ray Data on loopback: servers that fail behind a balancer, a job that dies and goes on."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ollama_dify.testing import Fault, RecordedRequest, SimulatedOllama
from tests.faults.balancers import Balancer, balanced

pytestmark = [
    pytest.mark.scale,
    pytest.mark.timeout(600),
    # Importing it takes seconds, which everybody would pay who collects the tests.
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (the extra `ray`)"),
]
ROOT = Path(__file__).parents[2]
ROWS = 2_400


def run(url: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.ray_job", url, str(folder), f"--rows={ROWS}", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=ROOT)


def rows(folder: Path, part: str = "out") -> list[dict[str, Any]]:
    import pyarrow.parquet as pq  # it comes with Ray

    found: list[dict[str, Any]] = pq.read_table(folder / part).to_pylist()
    return sorted(found, key=lambda row: row["id"])


def embeds(request: RecordedRequest) -> bool:
    return request.path == "/api/embed"


@pytest.mark.parametrize("balancer", ["nginx", "haproxy"])
def test_every_row_once_while_servers_fail(balancer: Balancer, tmp_path: Path) -> None:
    """One of three is slow, one answers 503 half of the time, one is killed in the middle."""
    with ExitStack() as stack:
        slow = stack.enter_context(SimulatedOllama(latency_s=0.3))
        busy = stack.enter_context(SimulatedOllama())
        killable = stack.enter_context(ExitStack())
        killed = killable.enter_context(SimulatedOllama())
        turn = iter(range(10**9))
        busy.fault(
            Fault("status", status=503), times=10**6, when=lambda it: embeds(it) and next(turn) % 2 == 0
        )
        urls = [server.base_url for server in (slow, busy, killed)]
        url = stack.enter_context(balanced(balancer, urls, tmp_path))

        def kill() -> None:
            until = time.monotonic() + 400
            while time.monotonic() < until and sum(map(embeds, list(killed.requests))) < 8:
                time.sleep(0.01)
            killable.close()

        killer = threading.Thread(target=kill)
        killer.start()
        done = run(url, tmp_path, "--bad")
        killer.join(1)
        assert done.returncode == 0, done.stderr
        assert not killer.is_alive()
        for server in (slow, busy):
            assert any(map(embeds, server.requests))
    found = rows(tmp_path)
    assert [row["id"] for row in found] == list(range(ROWS))
    bad = [row["id"] for row in rows(tmp_path, "in") if len(row["text"]) > 1_000]
    assert len(bad) == 25
    assert [row["id"] for row in found if row["embedding_error"]] == bad
    assert [row["id"] for row in found if row["embedding"] is None] == bad


def test_a_job_that_died_goes_on(tmp_path: Path) -> None:
    """`os._exit` in the middle; the same command again embeds only what was not written."""
    with SimulatedOllama(latency_s=0.1) as server:
        died = run(server.base_url, tmp_path, "--resumable", "--crash-at=6")
        assert died.returncode == 42, died.stderr
        written = len(list((tmp_path / "out").glob("*.parquet")))
        assert 6 <= written < 24
        asked = sum(map(embeds, server.requests))
        done = run(server.base_url, tmp_path, "--resumable")
        assert done.returncode == 0, done.stderr
        assert sum(map(embeds, server.requests)) - asked < ROWS / 25
    assert [row["id"] for row in rows(tmp_path)] == list(range(ROWS))


@pytest.fixture
def broken() -> Iterator[SimulatedOllama]:
    with SimulatedOllama() as server:
        server.fault(
            Fault("status", status=403, data=b'{"error":"the gateway says no"}'), times=10**6, when=embeds
        )
        yield server


def test_our_message_is_in_rays_error(broken: SimulatedOllama, tmp_path: Path) -> None:
    done = run(broken.base_url, tmp_path)
    assert done.returncode == 1
    assert "the gateway says no" in done.stderr
