"""Runs the scenes: fresh processes, samples in turn, medians."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from .scenes import Scene
from .server import Server

__all__ = ["IMPORTS", "Samples", "count_connections", "measure_imports", "measure_scenes"]

Sample = dict[str, float]

# What an adapter adds to a program that has its framework's class already.
IMPORTS = {
    "langchain": (
        "from langchain_core.language_models import BaseChatModel",
        {"ours": "import langchain_ollama_dify", "peer": "import langchain_ollama"},
    ),
    "llamaindex": (
        "from llama_index.core.llms.function_calling import FunctionCallingLLM",
        {"ours": "import llamaindex_ollama_dify", "peer": "import llama_index.llms.ollama"},
    ),
}


@dataclass
class Samples:
    """Every sample of a run: scene → subject → samples, in the order they were taken."""

    scenes: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)

    def add(self, scene: str, subject: str, sample: Sample) -> None:
        self.scenes.setdefault(scene, {}).setdefault(subject, []).append(sample)

    def per_unit(self, scene: str, subject: str, measure: str = "cpu_s") -> list[float]:
        """CPU seconds per unit, or peak bytes, of each sample."""
        found = self.scenes.get(scene, {}).get(subject, [])
        if measure == "peak_bytes":
            return [sample["peak_bytes"] for sample in found]
        return [sample[measure] / sample["units"] for sample in found]

    def median_us(self, scene: str, subject: str) -> float | None:
        values = self.per_unit(scene, subject)
        return statistics.median(values) * 1e6 if values else None


class Worker:
    """A measured process."""

    def __init__(self, subject: str, url: str) -> None:
        command = [sys.executable, "-m", "benchmarks.worker", subject, url]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._subject = subject
        self._ready = False

    def ask(self, order: dict[str, Any]) -> Sample:
        assert self._process.stdin is not None
        if not self._ready:
            self._read()
            self._ready = True
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Sample:
        assert self._process.stdout is not None
        answer: Any = json.loads(self._process.stdout.readline() or '{"error": "the process ended"}')
        if "error" in answer:
            raise RuntimeError(f"{self._subject}: {answer['error']}")
        return answer  # type: ignore[no-any-return]  # JSON of our own

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def measure_scenes(
    server: Server, scenes: Sequence[Scene], *, rounds: int, quick: bool, told: Callable[[str], None]
) -> Samples:
    """One run: a fresh process per subject, kept for all scenes of its framework."""
    samples = Samples()
    for framework in dict.fromkeys(scene.name.split()[0] for scene in scenes):
        own = [scene for scene in scenes if scene.name.split()[0] == framework]
        with _workers(server) as worker:
            # All are started before the first is asked, so that they import side by side.
            for subject in dict.fromkeys(subject for scene in own for subject in scene.subjects):
                worker(subject)
            for scene in own:
                told(scene.name)
                _measure(server, scene, worker, samples, rounds=rounds, quick=quick)
    return samples


@contextmanager
def _workers(server: Server) -> Iterator[Callable[[str], Worker]]:
    known: dict[str, Worker] = {}
    with ExitStack() as stack:

        def worker(subject: str) -> Worker:
            if subject not in known:
                known[subject] = Worker(subject, server.url)
                stack.callback(known[subject].close)
            return known[subject]

        yield worker


def _measure(
    server: Server,
    scene: Scene,
    worker: Callable[[str], Worker],
    samples: Samples,
    *,
    rounds: int,
    quick: bool,
) -> None:
    order = {
        "work": scene.work,
        "arguments": scene.arguments,
        "repeat": scene.quick_repeat if quick else scene.repeat,
        "memory": scene.memory,
    }
    server.answer(**scene.shape)
    for subject in scene.subjects:
        # The first time connects, imports late modules and fills caches.
        worker(subject).ask({**order, "repeat": 1, "memory": False})
    for _round in range(1 if scene.memory else rounds):
        for subject in scene.subjects:
            samples.add(scene.name, subject, worker(subject).ask(order))


def measure_imports(rounds: int) -> Samples:
    """CPU seconds of importing an adapter after its framework, each in a fresh process.

    With bytecode of an earlier import, as an installed package has: the first round makes it and is not kept.
    """
    samples = Samples()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for number in range(rounds + 1):
            for framework, (base, statements) in IMPORTS.items():
                for who, statement in statements.items():
                    sample = _imported(base, statement, environment)
                    if number:
                        samples.add(f"{framework} import", f"{framework} {who}", sample)
    return samples


def _imported(base: str, statement: str, environment: dict[str, str]) -> Sample:
    command = [sys.executable, "-m", "benchmarks.worker", "--import", base, statement]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=120
    )
    sample: Sample = json.loads(done.stdout)
    return sample


def count_connections(server: Server, framework: str) -> dict[str, dict[str, int]]:
    """Connections that our object opens: for calls in a row, in ten event loops, and for 200 streams."""
    counts = {}
    cases: dict[str, dict[str, Any]] = {
        "50 calls": {"work": "call", "arguments": {"calls": 50}},
        "ten asyncio.run": {
            "work": "acall",
            "arguments": {"calls": 5},
            "repeat": 10,
            "loops": True,
        },
        "200 streams at once": {"work": "many", "arguments": {"streams": 200}},
    }
    for name, order in cases.items():
        with _workers(server) as worker:
            server.answer(tokens=16)
            worker(f"{framework} ours").ask(order)
            counts[name] = server.counts()
        counts[name]["left"] = server.counts()["open"]
    return counts
