"""`python -m benchmarks [--quick]`: measure, show the table, write JSON, the plot and the docs' table."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from .measure import Samples, count_connections, measure_imports, measure_scenes
from .report import Row, as_json, connection_rows, import_rows, markdown, plot, rows, table
from .scenes import SCENES
from .server import Server, started

_DOCS = Path(__file__).parent.parent / "docs"
_BEGIN, _END = "<!-- figures: written by python -m benchmarks -->\n", "<!-- end of figures -->\n"
_PACKAGES = (
    "langchain-core",
    "langchain-ollama",
    "llama-index-core",
    "llama-index-llms-ollama",
    "llama-index-embeddings-ollama",
    "httpx",
    "aiohttp",
    "orjson",
    "pydantic",
)


def main() -> None:
    options = _options()
    console = Console()
    began = time.monotonic()
    with started() as server:
        runs, connections = _measured(server, options, console)
        facts = _facts(server, options)
    found = [*rows(runs), *import_rows(runs), *connection_rows(connections)]
    found.sort(key=lambda row: int(row.id[1:]))
    console.print(table(found))
    console.print(f"{time.monotonic() - began:.0f} s; " + "; ".join(f"{k}: {v}" for k, v in facts.items()))
    if options.write:
        _write(found, as_json(found, runs, facts), markdown(found, facts), options.write)
        console.print(f"Written: performance.json, performance.svg, performance.md in {options.write}")


def _measured(
    server: Server, options: argparse.Namespace, console: Console
) -> tuple[list[Samples], dict[str, dict[str, dict[str, int]]]]:
    scenes = [scene for scene in SCENES if scene.quick or not options.quick]
    scenes = [
        scene for scene in scenes if not options.only or any(part in scene.name for part in options.only)
    ]
    runs = []
    with console.status("") as status:
        for number in range(options.runs):

            def told(name: str, number: int = number) -> None:
                status.update(f"run {number + 1} of {options.runs}: {name}")

            runs.append(measure_scenes(server, scenes, rounds=options.rounds, quick=options.quick, told=told))
        if options.only:
            return runs, {}
        status.update("imports")
        runs.append(measure_imports(1 if options.quick else options.rounds * options.runs))
        status.update("connections")
        frameworks = ("langchain",) if options.quick else ("langchain", "llamaindex")
        return runs, {name: count_connections(server, name) for name in frameworks}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one run, fewer rounds, under two minutes")
    parser.add_argument("--runs", type=int, help="runs, each with fresh processes (3; quick 1)")
    parser.add_argument("--rounds", type=int, help="samples of each subject per scene and run (5; quick 2)")
    parser.add_argument("--only", action="append", help="scenes whose name holds this text")
    parser.add_argument("--write", type=Path, help="folder for JSON, plot and table (docs; quick: nowhere)")
    options = parser.parse_args()
    options.runs = (1 if options.quick else 3) if options.runs is None else options.runs
    options.rounds = (2 if options.quick else 5) if options.rounds is None else options.rounds
    if options.write is None and not options.quick and not options.only:
        options.write = _DOCS
    return options


def _facts(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "server": server.kind,
        "runs": options.runs,
        "rounds": options.rounds,
        "Python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def _write(found: Sequence[Row], data: dict[str, Any], text: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "performance.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    (folder / "performance.svg").write_text(plot(found))
    page = folder / "performance.md"
    before, after = f"{_BEGIN}\n", f"\n{_END}"
    if page.exists() and _BEGIN in page.read_text():
        whole = page.read_text()
        before = whole.partition(_BEGIN)[0] + before
        after += whole.partition(_END)[2]
    page.write_text(before + text + after)


if __name__ == "__main__":
    main()
