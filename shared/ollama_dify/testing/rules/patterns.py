"""Texts that match simple regular expressions."""

from __future__ import annotations

import re

_CLASSES = {"d": "1", "w": "a", "s": " ", "D": "a", "W": "-", "S": "a"}
_ATOM = re.compile(
    r"(?P<escape>\\.)|\[(?P<negated>\^?)(?P<set>(?:\\.|[^\]\\])+)\]|(?P<any>\.)|(?P<plain>[^\\\[\](){}*+?|^$.])"
)
_COUNT = re.compile(r"\{(\d+)(?:,\d*)?\}|[*+?]")


def sample(pattern: str) -> str:
    """A short text that matches a simple pattern: literals, classes, groups, alternatives, counts."""
    text, _ = _sample_group(pattern, 0)
    return text


def _sample_group(pattern: str, at: int) -> tuple[str, int]:
    made, skipping = "", False
    while at < len(pattern) and pattern[at] != ")":
        if pattern[at] in "^$":
            at += 1
            continue
        if pattern[at] == "|":
            skipping, at = True, at + 1
            continue
        if pattern[at] == "(":
            start = re.compile(r"\((?:\?(?:P?<\w+>|:))?").match(pattern, at)
            one, at = _sample_group(pattern, start.end() if start else at + 1)
            at += 1
        else:
            atom = _ATOM.match(pattern, at)
            one = _sample_atom(atom) if atom else ""
            at = atom.end() if atom else at + 1
        count = _COUNT.match(pattern, at)
        if count:
            at = count.end()
            one *= int(count[1]) if count[1] else {"+": 1}.get(count.group(), 0)
        made += "" if skipping else one
    return made, at


def _sample_atom(atom: re.Match[str]) -> str:
    if atom["escape"]:
        return _CLASSES.get(atom["escape"][1], atom["escape"][1])
    if atom["set"]:
        if atom["negated"]:
            return next((character for character in "a-1 " if character not in atom["set"]), "a")
        first = atom["set"]
        return _CLASSES.get(first[1], first[1]) if first[0] == "\\" else first[0]
    return atom["plain"] or "a"
