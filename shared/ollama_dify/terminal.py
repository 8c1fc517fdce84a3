"""How the command writes: colour and progress in a terminal, plain lines in a pipe, tables that fit."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from .language import _

_PAINT = {"dim": "2", "bold": "1", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_MARKS = {"✓": "green", "!": "yellow", "✗": "red", "–": "dim"}


class Terminal:
    """Standard output and error.

    columns: 0 if lines may have any length, as in a pipe. is_plain: the encoding has no check marks.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self.out: TextIO = sys.stdout
        self.is_tty = self.out.isatty()
        self.columns = shutil.get_terminal_size().columns if self.is_tty or "COLUMNS" in environ else 0
        self.has_colour = self.is_tty and "NO_COLOR" not in environ and environ.get("TERM") != "dumb"
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # a character the terminal lacks is not an error
        self.is_plain = not can_show("✓✗–→·█")

    def say(self, text: str = "", *, end: str = "\n") -> None:
        self.out.write(text + end)
        self.out.flush()

    def say_json(self, value: Any) -> None:
        self.say(json.dumps(value, ensure_ascii=False, indent=2))

    def complain(self, text: str) -> None:
        """A problem, on standard error."""
        sys.stderr.write(text + "\n")

    def complain_of_port(self, host: str, port: int, error: Exception) -> None:
        number = getattr(error, "errno", None) or 0  # negative for a name that is unknown
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or str(error)
        said = _("Cannot listen on {host}:{port}: {reason}. Choose another --port (0 takes a free one).")
        self.complain(said.format(host=host, port=port, reason=reason.rstrip(".")))

    def paint(self, text: str, look: str) -> str:
        """Text in a style (dim, bold, a colour), if the terminal supports it."""
        return f"\033[{_PAINT[look]}m{text}\033[0m" if self.has_colour and text and look else text

    def paint_marks(self, report: str) -> str:
        """A doctor's report with its marks in colour."""
        return re.sub(
            r"^(\s*\[?)([✓!✗–])", lambda m: m[1] + self.paint(m[2], _MARKS[m[2]]), report, flags=re.MULTILINE
        )

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows in columns; one value per line if the terminal is too narrow."""
        widths = [max(width(row[place]) for row in (heads, *rows)) for place in range(len(heads))]
        if self.columns and sum(widths) + 2 * len(widths) > self.columns:
            # A second column alone needs no heading.
            names = heads[1:] if len(heads) > 2 else ("",)
            room = max(width(head) for head in names)
            for row in rows:
                self.say(self.paint(row[0], "bold"))
                for head, value in zip(names, row[1:], strict=True):
                    if value:
                        self.say(f"  {head}{' ' * (room - width(head))}  {value}")
            return
        for number, row in enumerate((heads, *rows)):
            cells = (cell + " " * (room - width(cell)) for cell, room in zip(row, widths, strict=True))
            line = "  ".join(cells).rstrip()
            self.say(self.paint(line, "bold") if number == 0 else line)

    def progress(self, text: str, share: float | None) -> None:
        """A line with a bar that replaces the previous one; "" ends the bar. Prints nothing in a pipe."""
        if not self.is_tty:
            return
        percent = "" if share is None else f" {share:4.0%}"
        room = min(30, self.columns - width(text) - 8)
        bar = ""
        if share is not None and room >= 8:
            full, empty = ("#", ".") if self.is_plain else ("█", "·")
            bar = f" {full * round(room * share)}{empty * (room - round(room * share))}"
        self.say(f"\r\033[K{text[: self.columns - len(percent) - 1]}{bar}{percent}", end="")


def can_show(text: str) -> bool:
    """Whether the encoding of standard output has these characters."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def size_text(size: float) -> str:
    """A number of bytes in a readable unit."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def width(text: str) -> int:
    """Columns that a text takes in a terminal: Chinese and Japanese characters take two."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
