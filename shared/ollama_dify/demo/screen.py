"""What the demo prints: headings, answers that wrap at words while they stream, marks."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from itertools import chain

from ..terminal import Terminal

INDENT = 11


def heading(terminal: Terminal, who: str, question: str) -> None:
    """Who answers, and what was asked."""
    first, *rest = textwrap.wrap(question, _room(terminal))
    terminal.say(terminal.paint(f"{who:<{INDENT}}", "cyan") + terminal.paint(first, "bold"))
    block(terminal, "\n".join(rest), "bold")


def block(terminal: Terminal, text: str, look: str) -> None:
    """Text of several lines, each wrapped at words under the answers' column."""
    for line in text.splitlines():
        for part in textwrap.wrap(line, _room(terminal)) or [""]:
            terminal.say(" " * INDENT + terminal.paint(part, look))


def stream(terminal: Terminal, pieces: Iterable[str]) -> str:
    """Print the pieces as they come, each word once it is whole; all of them joined."""
    said, waiting, column = "", "", 0
    terminal.say(" " * INDENT, end="")
    for piece in chain(pieces, " "):
        said += piece
        *words, waiting = re.split(r"(?<=\s)", waiting + piece)
        for word in filter(None, map(str.strip, words)):
            if column + len(word) > _room(terminal):
                terminal.say("\n" + " " * INDENT, end="")
                column = 0
            terminal.say(" " * bool(column) + word, end="")
            column += len(word) + bool(column)
    terminal.say()
    return said


def verdict(terminal: Terminal, is_right: bool, told: str, expected: str) -> bool:
    """Mark an answer; whether it was as expected."""
    mark = terminal.paint("✓", "green") if is_right else terminal.paint(f"✗ expected: {expected}", "red")
    terminal.say(" " * INDENT + terminal.paint(told, "dim") + f" {mark}\n")
    return is_right


def _room(terminal: Terminal) -> int:
    return max((terminal.columns or 80) - INDENT - 1, 20)
