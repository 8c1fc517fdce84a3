"""The measured process: one subject, told line by line what to do, answering with its own CPU time.

`python -m benchmarks.worker SUBJECT URL` reads {"work": …, "arguments": {…}} per line and answers {"cpu_s",
"wall_s", "units"}, with "memory": true {"peak_bytes"} too. `… --import STATEMENT [STATEMENT]` measures the
last statement in a fresh process, after the others.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import sys
import time
import tracemalloc
from typing import Any

from .server import pin

__all__: list[str] = []


def _serve(name: str, url: str) -> None:
    from .subjects import make

    subject = make(name, url)
    loop = asyncio.new_event_loop()
    print("{}", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer: dict[str, Any] = _do(subject, loop, order)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    if hasattr(subject, "aclose"):
        loop.run_until_complete(subject.aclose())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _do(subject: Any, loop: asyncio.AbstractEventLoop, order: dict[str, Any]) -> dict[str, float]:
    arguments = order["arguments"]
    subject.prepare(**arguments)
    work = getattr(subject, order["work"])
    gc.collect()
    if order.get("memory"):
        tracemalloc.start()
    before, began = time.process_time(), time.perf_counter()
    units = 0
    for _round in range(order.get("repeat", 1)):
        if order.get("loops"):
            units += asyncio.run(work(**arguments))
        elif inspect.iscoroutinefunction(work):
            units += loop.run_until_complete(work(**arguments))
        else:
            units += work(**arguments)
    answer = {
        "cpu_s": time.process_time() - before,
        "wall_s": time.perf_counter() - began,
        "units": units,
    }
    if order.get("memory"):
        answer["peak_bytes"] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return answer


def _measure_import(statements: list[str]) -> None:
    for statement in statements[:-1]:
        exec(statement, {})
    before, modules = time.process_time(), len(sys.modules)
    exec(statements[-1], {})
    answer = {"cpu_s": time.process_time() - before, "units": 1, "modules": len(sys.modules) - modules}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    pin(1)
    if sys.argv[1] == "--import":
        _measure_import(sys.argv[2:])
    else:
        _serve(sys.argv[1], sys.argv[2])
