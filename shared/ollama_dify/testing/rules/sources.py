"""Texts that values are drawn from: what looks like a number, a date, a name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

QUOTED = re.compile(
    r"(?<!\w)'([^'\n]{1,200})'(?!\w)|\"([^\"\n]{1,400})\"|「([^」]+)」|『([^』]+)』|“([^”]+)”|`([^`\n]+)`"
)
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?![\w]|\.\d)")
DATE = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:T[\d:.]+(?:Z|[+-]\d\d:?\d\d)?)?|\b(?:today|tomorrow|yesterday)\b", re.IGNORECASE
)
TIME = re.compile(r"\b\d{1,2}:\d{2}(?::\d{2})?\b")
EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+\w")
URL = re.compile(r"https?://[^\s\"'<>)]+")
WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7afー]{2,}")
_CAPITAL = r"[A-ZÀ-ÖØ-Þ][\w'’.-]*[\w]|[A-ZÀ-ÖØ-Þ]"
_LINK = r" (?:de|of|la|van|von|del|the|du|da) "
_PROPER = re.compile(rf"(?:{_CAPITAL})(?:(?:{_LINK}| )(?:{_CAPITAL}))*(?:, [A-Z]{{2}}\b)?")
_OPENING_WORDS = """
what who where when which how why is are was were do does did can could please tell give show use
compare find get set add create make call search look write read book send the a an in on at i my
his her their our return extract name say calculate compute multiply subtract divide list translate
summarize describe answer if and then next first hello hi ok json it he she they we you let check
ask from with for to of
"""
_OPENERS = frozenset(_OPENING_WORDS.split())


@dataclass(slots=True)
class Source:
    """A text values are drawn from; what was used once is not used again."""

    text: str
    used: set[tuple[int, int]] = field(default_factory=set)

    def take(self, pattern: re.Pattern[str], near: str = "") -> str | None:
        """The first unused match, the one closest behind `near` if that word occurs."""
        free = [found for found in pattern.finditer(self.text) if not self._taken(found.span())]
        if not free:
            return None
        chosen = min(free, key=lambda found: self._distance(found, near)) if near else free[0]
        self.used.add(chosen.span())
        return next((group for group in chosen.groups() if group), None) or chosen.group()

    def proper_names(self) -> list[str]:
        """Unused capitalised phrases, the word that only opens a sentence left out."""
        names: list[str] = []
        for found in _PROPER.finditer(self.text):
            phrase = found.group()
            while phrase and phrase.split(" ")[0].lower().rstrip(",.") in _OPENERS:
                phrase = phrase.partition(" ")[2]
            if phrase and not self._taken(found.span()):
                names.append(phrase.rstrip(".,"))
        return names

    def take_proper(self) -> str | None:
        """The first unused capitalised phrase."""
        names = self.proper_names()
        if not names:
            return None
        at = self.text.index(names[0])
        self.used.add((at, at + len(names[0])))
        return names[0]

    def _taken(self, span: tuple[int, int]) -> bool:
        return any(span[0] < end and start < span[1] for start, end in self.used)

    def _distance(self, found: re.Match[str], near: str) -> float:
        at = self.text.lower().find(near.lower())
        if at < 0:
            return found.start()
        gap = found.start() - at
        return gap if gap >= 0 else 2.0 * -gap + 5.0
