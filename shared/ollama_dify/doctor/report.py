"""The doctor's results: checks as data, and their text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..language import N_, Language, _
from ..language import language as in_language
from ..terminal import width

State = Literal["ok", "warn", "fail", "skip"]

MARKS: Mapping[State, str] = {"ok": "✓", "warn": "!", "fail": "✗", "skip": "–"}
PLAIN_MARKS: Mapping[State, str] = {"ok": "ok", "warn": "!", "fail": "x", "skip": "-"}
_LABELS = {
    "here": N_("Here"),
    "proxy": N_("Proxy"),
    "server": N_("Server"),
    "model": N_("Model"),
    "context": N_("Context"),
    "capabilities": N_("Capabilities"),
    "memory": N_("Memory"),
    "load": N_("Load"),
}


@dataclass(frozen=True, slots=True)
class Trial:
    """An address that was tried beside the one in the settings. version: of the Ollama there, if any."""

    address: str
    fact: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    name: here, proxy, server, model, context, capabilities, memory or load.
    fact, remedy: text in the report's language. cause: a name of the problem, the same in every language.
    model: the one it is about, where a report has several.
    """

    name: str
    state: State
    fact: str
    remedy: str | None = None
    cause: str | None = None
    trials: tuple[Trial, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The checks in their order; `str(report)` is their text."""

    checks: tuple[Check, ...]
    language: Language = "en"

    @property
    def ok(self) -> bool:
        """Whether no check failed; warnings do not count."""
        return all(check.state != "fail" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}

    def __str__(self) -> str:
        return self.text()

    def text(self, *, plain: bool = False) -> str:
        """The report for people; plain: with ASCII marks only."""
        marks = PLAIN_MARKS if plain else MARKS
        arrow, dot = ("->", "-") if plain else ("→", "·")
        lines = []
        with in_language(self.language):
            labels = [_(_LABELS[check.name]) for check in self.checks]
            widest = max(map(width, labels), default=0)
            for check, label in zip(self.checks, labels, strict=True):
                lines.append(f"[{marks[check.state]}] {label}{' ' * (widest - width(label))}  {check.fact}")
                room = max((len(trial.address) for trial in check.trials), default=0)
                for trial in check.trials:
                    mark = dot if trial.version is None else marks["ok"]
                    lines.append(f"      {mark} {trial.address.ljust(room)}  {trial.fact}")
                if check.remedy is not None:
                    lines.append(f"    {arrow} " + check.remedy.replace("\n", "\n      "))
            return "\n".join([*lines, self._summary()])

    def _summary(self) -> str:
        problems = sum(check.state == "fail" for check in self.checks)
        warnings = sum(check.state == "warn" for check in self.checks)
        text = _("Problems: {number}.").format(number=problems) if problems else _("No problem found.")
        return text + (" " + _("Warnings: {number}.").format(number=warnings) if warnings else "")
