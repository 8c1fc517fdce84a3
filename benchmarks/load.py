"""The load figures L1–L10, each in a process of its own and bounded in time.

`python -m benchmarks.load` prints them for this library and, on the same server, for langchain-ollama and
llama-index-llms-ollama. `--quick` divides the sizes by ten, `L4 L5` runs these only, `--alone` leaves the
others out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import multiprocessing
import os
import random
import resource
import sys
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from tests.faults.server import vector

from .load_server import FaultProcess
from .load_subjects import CONTENDERS, Contender

Make = Callable[..., Contender]
# Whether the bound holds, and the figures.
Figures = tuple[bool, str]


@dataclass(frozen=True)
class Run:
    name: str
    what: str
    bound: str
    script: str
    play: Callable[[Make, FaultProcess, int], Figures]


RUNS: list[Run] = []


def run(name: str, what: str, bound: str, script: str) -> Callable[[Any], Any]:
    def add(play: Any) -> Any:
        RUNS.append(Run(name, what, bound, f"benchmarks.load_scripts:{script}", play))
        return play

    return add


@run("L1", "50,000 texts, batch 64, 8 workers, 20 % faults", "0 lost or out of order, ≤ 60 s", "embedding")
def bulk_embedding(make: Make, server: FaultProcess, part: int) -> Figures:
    texts = [f"text {number}" for number in range(50_000 // part)]
    start = time.perf_counter()
    vectors = make(server.url, max_retries=8).embed(texts)
    took = time.perf_counter() - start
    lost = sum(found is None for found in vectors)
    wrong = sum(
        found is not None and list(found) != vector(text) for text, found in zip(texts, vectors, strict=False)
    )
    ok = len(vectors) == len(texts) and not lost and not wrong and took <= 60
    return ok, f"{lost} lost, {wrong} wrong, {took:.1f} s, {server.counts().requests} requests"


async def _exact(contender: Contender, number: int, chunks: int) -> bool:
    wanted = [f"{number}.{place} " for place in range(chunks)]
    return [text async for text in contender.stream(f"{number} {chunks}") if text] == wanted


async def _streams(contender: Contender, streams: int, chunks: int) -> tuple[int, int, float]:
    """Streams that came exact, those that failed, and the seconds for all."""
    start = time.perf_counter()
    jobs = [_exact(contender, number, chunks) for number in range(streams)]
    found = await asyncio.gather(*jobs, return_exceptions=True)
    took = time.perf_counter() - start
    await contender.aclose()
    return found.count(True), sum(isinstance(it, BaseException) for it in found), took


@run("L2", "200 streams x 200 chunks at 10 ms", "exact, ≥ 5,000 chunks/s", "slow_stream")
def slow_streams(make: Make, server: FaultProcess, part: int) -> Figures:
    count = 200 // part
    contender = make(server.url, max_connections=200)
    exact, failed, took = asyncio.run(_streams(contender, count, 200))
    rate = count * 200 / took
    return exact == count and rate >= 5000 / part, f"{exact} exact, {failed} failed, {rate:,.0f} chunks/s"


@run("L3", "500 streams, 10 % opening faults", "500 exact", "bad_opening")
def bad_openings(make: Make, server: FaultProcess, part: int) -> Figures:
    count = 500 // part
    contender = make(server.url, max_connections=500, max_retries=8)
    exact, failed, took = asyncio.run(_streams(contender, count, 100))
    return exact == count, f"{exact} exact, {failed} failed, {took:.1f} s"


@run("L4", "1,000 streams over 100 connections", "all exact, ≤ 30 s", "slow_stream")
def queued_streams(make: Make, server: FaultProcess, part: int) -> Figures:
    count = 1000 // part
    exact, failed, took = asyncio.run(_streams(make(server.url, max_connections=100), count, 100))
    most = server.counts().most_open
    ok = exact == count and took <= 30 and most <= 101
    return ok, f"{exact} exact, {failed} failed, {took:.1f} s, {most - 1} connections at most"


@run("L5", "1,000 streams cancelled at random", "0 connections after 1 s, next call < 100 ms", "endless")
def cancelled_streams(make: Make, server: FaultProcess, part: int) -> Figures:
    async def play() -> Figures:
        contender = make(server.url, max_connections=300)
        chance = random.Random(5)

        async def read() -> None:
            async for _ in contender.stream("for ever"):
                pass

        async def one() -> None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(read(), chance.random() * 2)

        outcomes = await asyncio.gather(*(one() for _ in range(1000 // part)), return_exceptions=True)
        await asyncio.sleep(1.0)
        # The one that asks is one of them.
        left = (await asyncio.to_thread(server.counts)).open - 1
        start = time.perf_counter()
        await contender.achat("hi")
        took = (time.perf_counter() - start) * 1e3
        failed = sum(outcome is not None for outcome in outcomes)
        await contender.aclose()
        return left == 0 and took < 100 and not failed, f"{left} left, {failed} failed, next {took:.0f} ms"

    return asyncio.run(play())


@run("L6", "1,000 calls, the server fails always", "≤ 1,100 requests", "failing")
def failing_server(make: Make, server: FaultProcess, part: int) -> Figures:
    count = 1000 // part

    async def play() -> int:
        contender = make(server.url)
        found = await asyncio.gather(*(contender.achat("hi") for _ in range(count)), return_exceptions=True)
        await contender.aclose()
        return sum(isinstance(it, BaseException) for it in found)

    errors = asyncio.run(play())
    requests = server.counts().requests
    return requests <= count + 100 and errors == count, f"{requests} requests, {errors} errors"


@run("L7", "3 x asyncio.run, then 8 threads x own loop x 20", "0 errors, 0 hung", "echo")
def many_loops(make: Make, server: FaultProcess, part: int) -> Figures:
    contender = make(server.url)
    errors: list[BaseException] = []

    async def calls() -> None:
        answers = [await contender.achat(f"n {number}") for number in range(20)]
        assert answers == [f"n {number}" for number in range(20)], "mismatched"

    def loop() -> None:
        try:
            asyncio.run(calls())
        except BaseException as error:
            errors.append(error)

    for _ in range(3):
        loop()
    threads = [threading.Thread(target=loop, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    hung = sum(thread.is_alive() for thread in threads)
    kinds = ", ".join(sorted({type(error).__name__ for error in errors}))
    return not errors and not hung, f"{len(errors)} errors {kinds}, {hung} hung".replace("  ", " ")


@run("L8", "100 forks x 80 calls", "0 mismatched answers", "echo")
def forks(make: Make, server: FaultProcess, part: int) -> Figures:
    contender = make(server.url)
    contender.chat("parent")
    bad = 0
    for first in range(0, 100 // part, 10):
        children = []
        for number in range(first, first + 10):
            pid = os.fork()
            if pid == 0:
                status = 1
                with contextlib.suppress(BaseException):
                    texts = [f"child {number} call {call}" for call in range(80)]
                    status = 0 if [contender.chat(text) for text in texts] == texts else 2
                os._exit(status)
            children.append(pid)
        bad += sum(contender.chat(f"parent {call}") != f"parent {call}" for call in range(20))
        bad += sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in children)
    return bad == 0, f"{bad} processes with wrong answers or errors"


@run("L9", "a line of 256 MB; gzip of 512 MB", "refused, growth ≤ 64 MB", "huge")
def huge_answers(make: Make, server: FaultProcess, part: int) -> Figures:
    contender = make(server.url)
    contender.chat("hi")
    asyncio.run(_drain(contender, "hi"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = []
    for what in ("line", "gzip"):
        for call in (lambda: contender.chat(what), lambda: asyncio.run(_drain(contender, what))):  # noqa: B023
            try:
                call()
            except Exception as error:
                refused.append(type(error).__name__)
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return len(refused) == 4 and growth <= 64, f"{len(refused)} of 4 refused, {growth:.0f} MB more"


async def _drain(contender: Contender, text: str) -> None:
    async for _ in contender.stream(text):
        pass
    await contender.aclose()


@run("L10", "10,000 calls", "flat descriptors, < 1 MB, no ResourceWarning", "echo")
def many_calls(make: Make, server: FaultProcess, part: int) -> Figures:
    count = 5000 // part
    contender = make(server.url)

    async def awaited(calls: int) -> None:
        for _ in range(calls):
            await contender.achat("hi")
        await contender.aclose()

    def both(calls: int) -> None:
        for _ in range(calls):
            contender.chat("hi")
        asyncio.run(awaited(calls))
        gc.collect()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        both(100)
        files = len(os.listdir("/proc/self/fd"))
        tracemalloc.start()
        both(20)
        before = tracemalloc.get_traced_memory()[0]
        start = time.perf_counter()
        both(count)
        took = time.perf_counter() - start
        grown = (tracemalloc.get_traced_memory()[0] - before) / 1e6
        more = len(os.listdir("/proc/self/fd")) - files
    noisy = sum(issubclass(it.category, ResourceWarning) for it in caught)
    ok = more <= 0 and grown < 1 and not noisy
    return ok, f"{more:+d} descriptors, {grown:+.2f} MB, {noisy} ResourceWarnings, {took:.0f} s"


LIMIT_S = 120


def _play(name: str, contender: str, part: int, channel: Connection) -> None:
    warnings.simplefilter("ignore")
    one = next(it for it in RUNS if it.name == name)
    with FaultProcess(one.script) as server:
        try:
            channel.send(one.play(CONTENDERS[contender], server, part))
        except BaseException as error:
            channel.send((False, f"{type(error).__name__}: {str(error)[:80]}"))


def figures(name: str, contender: str = "ollama-dify", *, part: int = 1, limit_s: float = LIMIT_S) -> Figures:
    """Play one run in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_play, args=(name, contender, part, theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(limit_s):
            return False, f"not done after {limit_s:.0f} s"
        found: Figures = ours.recv()
        return found
    except EOFError:
        return False, "the process died"
    finally:
        process.join(5)
        if process.is_alive():
            process.kill()
            process.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", help="only these: L1 …")
    parser.add_argument("--quick", action="store_true", help="a tenth of the size")
    parser.add_argument("--alone", action="store_true", help="without the other libraries")
    chosen = parser.parse_args()
    bad = 0
    for one in RUNS:
        if chosen.runs and one.name not in chosen.runs:
            continue
        print(f"{one.name:<4}{one.what}   [{one.bound}]", flush=True)
        for contender in CONTENDERS:
            if chosen.alone and contender != "ollama-dify":
                continue
            ok, found = figures(one.name, contender, part=10 if chosen.quick else 1)
            bad += contender == "ollama-dify" and not ok
            print(f"    {contender:<20}{'ok' if ok else 'MISSED':<8}{found}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
