"""Samples into figures, and figures into a table, markdown, JSON and a plot. Pure but for the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from rich.table import Table

from .measure import Samples
from .scenes import FIGURES, Figure

__all__ = ["Row", "as_json", "connection_rows", "import_rows", "markdown", "plot", "rows", "table"]


@dataclass(frozen=True, slots=True)
class Row:
    """A figure as measured. low, high: its smallest and largest value. ours, other: medians per unit."""

    id: str
    label: str
    goal: str
    median: float
    low: float
    high: float
    reached: bool
    ours: str = ""
    other: str = ""

    @property
    def value(self) -> str:
        if " ms" in self.goal:
            return f"{self.median:.0f} ms"
        return f"{self.median:,.0f} µs" if "µs" in self.goal else _short(self.median)

    @property
    def spread(self) -> str:
        return f"{_short(self.low)} – {_short(self.high)}"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2f}" if number >= 0.1 else f"{number:.3f}"


def rows(runs: Sequence[Samples]) -> list[Row]:
    """The figures of `FIGURES` whose scenes were measured."""
    found = [_row(figure, runs) for figure in FIGURES]
    return [row for row in found if row is not None]


def _row(figure: Figure, runs: Sequence[Samples]) -> Row | None:
    values = [value for run in runs for value in _values(figure, run)]
    if not values:
        return None
    median = statistics.median(values)
    at_least = figure.how == "inverse"
    sign, unit = ("≥" if at_least else "≤"), " µs" if figure.how == "absolute" else ""
    return Row(
        figure.id,
        figure.label,
        f"{sign} {figure.goal:g}{unit}",
        median,
        min(values),
        max(values),
        median >= figure.goal if at_least else median <= figure.goal,
        _medians(runs, figure, [figure.ours]),
        _medians(runs, figure, figure.other),
    )


def _values(figure: Figure, run: Samples) -> list[float]:
    """One value per round."""
    measure = "peak_bytes" if figure.how == "memory" else "cpu_s"
    ours = run.per_unit(figure.scene, figure.ours, measure)
    others = [run.per_unit(figure.scene, other, measure) for other in figure.other]
    if not ours or not all(others):
        return []
    if figure.how == "absolute":
        return [value * 1e6 for value in ours]
    if figure.how == "growth":
        grown = _quotients(ours, run.per_unit(figure.start, figure.ours))
        for name, other in zip(figure.other, others, strict=True):
            grown = _quotients(grown, _quotients(other, run.per_unit(figure.start, name)))
        return grown
    total = [sum(parts) for parts in zip(*others, strict=False)]
    if figure.how == "memory":
        return [(a - b) / (figure.megabytes * 1e6) for a, b in zip(ours, total, strict=False)]
    return _quotients(total, ours) if figure.how == "inverse" else _quotients(ours, total)


def _quotients(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=False)]


def _medians(runs: Sequence[Samples], figure: Figure, subjects: Sequence[str]) -> str:
    texts = []
    for subject in subjects:
        if figure.how == "memory":
            peaks = [peak for run in runs for peak in run.per_unit(figure.scene, subject, "peak_bytes")]
            texts.append(f"{statistics.median(peaks) / 1e6:,.1f} MB")
        else:
            costs = [cost for run in runs for cost in run.per_unit(figure.scene, subject)]
            value = statistics.median(costs) * 1e6
            texts.append(f"{value:,.0f} µs" if value >= 100 else f"{value:.1f} µs")
    return " + ".join(texts)


def import_rows(runs: Sequence[Samples]) -> list[Row]:
    """F6: what importing an adapter adds to its framework's class; below 100 ms, and below the peer."""
    found = []
    for framework, title in (("langchain", "LangChain"), ("llamaindex", "LlamaIndex")):
        scene = f"{framework} import"
        ours = [v * 1e3 for run in runs for v in run.per_unit(scene, f"{framework} ours")]
        peer = [v * 1e3 for run in runs for v in run.per_unit(scene, f"{framework} peer")]
        if not ours:
            continue
        median, theirs = statistics.median(ours), statistics.median(peer)
        found.append(
            Row(
                "F6",
                f"{title}, importing the adapter",
                "≤ 100 ms, < peer",
                median,
                min(ours),
                max(ours),
                median <= min(100, theirs),
                f"{median:.0f} ms",
                f"{theirs:.0f} ms",
            )
        )
    return found


def connection_rows(counted: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[Row]:
    """F10: connections opened, and those left open after the process ended."""
    found = []
    bounds = {"50 calls": 1, "ten asyncio.run": 10, "200 streams at once": 100}
    for framework, cases in counted.items():
        for name, counts in cases.items():
            title = {"langchain": "LangChain", "llamaindex": "LlamaIndex"}[framework]
            opened, bound = counts["opened"], bounds[name]
            reached = opened <= bound and counts["left"] == 0
            label = f"{title}, connections for {name}"
            found.append(
                Row(
                    "F10",
                    label,
                    f"≤ {bound}",
                    opened,
                    opened,
                    opened,
                    reached,
                    f"{counts['requests']} requests",
                )
            )
    return found


def table(found: Sequence[Row]) -> Table:
    """For the terminal."""
    shown = Table(title="Client CPU time, ours against the peers and the floors", title_justify="left")
    for name in ("", "figure", "goal"):
        shown.add_column(name)
    for name in ("median", "spread", "ours", "against"):
        shown.add_column(name, justify="right")
    for row in found:
        colour = "green" if row.reached else "yellow"
        median = f"[{colour}]{row.value}[/]"
        shown.add_row(row.id, row.label, row.goal, median, row.spread, row.ours, row.other)
    return shown


def markdown(found: Sequence[Row], facts: Mapping[str, Any]) -> str:
    """The same for docs/performance.md."""
    lines = [
        "| | figure | goal | median | spread | ours | against |",
        "|---|---|---|---:|---:|---:|---:|",
        *(
            f"| {row.id} | {row.label} | {row.goal} | {'' if row.reached else '**missed** '}{row.value} "
            f"| {row.spread} | {row.ours} | {row.other} |"
            for row in found
        ),
        "",
        "; ".join(f"{name}: {value}" for name, value in facts.items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def as_json(found: Sequence[Row], runs: Sequence[Samples], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was measured."""
    return {
        "facts": dict(facts),
        "figures": [asdict(row) for row in found],
        "runs": [run.scenes for run in runs],
    }


_PLOTTED = ("F1", "F2", "F3", "F4", "F8", "F11")
_LEFT, _WIDTH, _STEP = 330, 460, 24


def plot(found: Sequence[Row]) -> str:
    """An SVG of the ratios to the peers: one bar each, its spread, its goal as a tick, 1.0 as the peer."""
    bars = [
        row for row in found if row.id in _PLOTTED and "memory" not in row.label and "httpx" not in row.label
    ]
    height = _STEP * len(bars) + 70
    scale = _WIDTH / 1.2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 60} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="100%" height="100%" fill="white"/><text x="{_LEFT}" y="20" font-size="14">'
        "Client CPU time ÷ the peer's (less is better)</text>",
    ]
    for step in range(0, 13, 2):
        x = _LEFT + step / 10 * scale
        colour = "#888" if step == 10 else "#ddd"
        parts.append(f'<line x1="{x:.0f}" x2="{x:.0f}" y1="32" y2="{height - 30}" stroke="{colour}"/>')
        mark = "peer" if step == 10 else f"{step / 10:g}"
        parts.append(f'<text x="{x:.0f}" y="{height - 14}" text-anchor="middle">{mark}</text>')
    for number, row in enumerate(bars):
        parts += _bar(row, 38 + number * _STEP, scale)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(row: Row, y: int, scale: float) -> list[str]:
    def at(value: float) -> float:
        return _LEFT + min(value, 1.2) * scale

    goal = float(row.goal.split()[1])
    colour = "#2a7f62" if row.reached else "#c98a1b"
    middle = y + 8
    return [
        f'<text x="{_LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(row.id)} {escape(row.label)}</text>',
        f'<rect x="{_LEFT}" y="{y}" width="{at(row.median) - _LEFT:.1f}" height="16" fill="{colour}"/>',
        f'<line x1="{at(row.low):.1f}" x2="{at(row.high):.1f}" y1="{middle}" y2="{middle}" stroke="#222"/>',
        f'<line x1="{at(goal):.1f}" x2="{at(goal):.1f}" y1="{y - 3}" y2="{y + 19}" stroke="#c00" '
        'stroke-width="2"/>',
        f'<text x="{at(max(row.high, goal)) + 6:.1f}" y="{y + 12}">{row.value}</text>',
    ]
