"""What the demo prints: headings, answers that wrap at words while they stream, marks."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape

__all__ = ["Screen"]

INDENT = 11


class Screen:
    """The terminal, and the count of answers that were as expected."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.right = self.asked = 0

    def line(self, text: str = "") -> None:
        """One line or more, in rich's markup, wrapped at words."""
        self.console.print(text)

    def heading(self, who: str, question: str) -> None:
        first, *rest = textwrap.wrap(question, self._width())
        self.console.print(f"[cyan]{who:<{INDENT}}[/][bold]{escape(first)}[/]")
        for more in rest:
            self.console.print(f"{'':{INDENT}}[bold]{escape(more)}[/]")

    def stream(self, pieces: Iterable[str]) -> str:
        """Print the pieces as they come, each word once it is whole; all of them joined."""
        said, waiting, column = "", "", INDENT
        self.console.print(" " * INDENT, end="")
        for piece in (*pieces_of(pieces), " "):
            waiting += piece
            *words, waiting = re.split(r"(?<=\s)", waiting)
            for word in words:
                if column + len(word.rstrip()) > self.console.width - 1 and column > INDENT:
                    self.console.print("\n" + " " * INDENT, end="")
                    column = INDENT
                shown = " ".join(word.split()) + " "
                self.console.print(shown, end="", markup=False, soft_wrap=True)
                column += len(shown)
            said += piece
        self.console.print()
        return said[:-1]

    def block(self, text: str, style: str = "") -> None:
        """Text of several lines, each wrapped at words under the answers' column."""
        for line in text.splitlines():
            for part in textwrap.wrap(line, self._width()) or [""]:
                self.console.print(f"{'':{INDENT}}{part}", style=style or None, markup=False)

    def verdict(self, right: bool, told: str, expected: str) -> None:
        """Count an answer, and mark it."""
        self.asked += 1
        self.right += right
        mark = "[green]✓[/]" if right else f"[red]✗ expected: {escape(expected)}[/]"
        self.console.print(f"{'':{INDENT}}[dim]{escape(told)}[/] {mark}\n", soft_wrap=True)

    def _width(self) -> int:
        return max(self.console.width - INDENT - 1, 20)


def pieces_of(pieces: Iterable[str]) -> Iterable[str]:
    """Leading white space is no part of the first word."""
    started = False
    for piece in pieces:
        piece = piece if started else piece.lstrip()
        started = started or bool(piece)
        if piece:
            yield piece
