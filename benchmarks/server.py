"""The stand-in server as a process: built, started on its own core, told what to answer, stopped."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Server", "pin", "started"]

_HERE = Path(__file__).parent


def pin(core: int) -> bool:
    """Keep this process on one core; False where the system cannot, or has only one."""
    setter = getattr(os, "sched_setaffinity", None)
    if setter is None:
        return False
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return False
    setter(0, {cores[core % len(cores)]})
    return True


class Server:
    """A running stand-in. kind: "C", or "Python" where there is no compiler; its cost is not the client's."""

    def __init__(self, port: int, kind: str) -> None:
        self.port = port
        self.kind = kind
        self.url = f"http://127.0.0.1:{port}"

    def answer(self, *, tokens: int = 16, pace_us: int = 0, dimension: int = 768) -> None:
        """Shape the next answers, and zero the counters."""
        self._get(f"/_set?tokens={tokens}&pace_us={pace_us}&dimension={dimension}")

    def counts(self) -> dict[str, int]:
        """Connections opened and open now, requests by kind, since the last `answer`."""
        return self._get("/_counts")

    def _get(self, path: str) -> dict[str, int]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            found: dict[str, int] = json.loads(connection.getresponse().read())
            return found
        finally:
            connection.close()


@contextmanager
def started() -> Iterator[Server]:
    """A stand-in on the first core, stopped at the end."""
    with tempfile.TemporaryDirectory() as folder:
        command, kind = _command(Path(folder))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=_on_first_core)
        try:
            assert process.stdout is not None
            yield Server(int(process.stdout.readline()), kind)
        finally:
            process.terminate()
            process.wait(10)
            assert process.stdout is not None
            process.stdout.close()


def _on_first_core() -> None:
    pin(0)


def _command(folder: Path) -> tuple[list[str], str]:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is not None and sys.platform == "linux":
        binary = folder / "stand_in"
        source = str(_HERE / "stand_in.c")
        subprocess.run([compiler, "-O2", "-o", str(binary), source, "-lm"], check=True, timeout=120)
        return [str(binary), "0"], "C"
    return [sys.executable, str(_HERE / "stand_in.py")], "Python"
