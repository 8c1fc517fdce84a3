"""Cutting a Jinja template into texts and tags, and tags into tokens.

Chat templates are run with `trim_blocks` and `lstrip_blocks`: a block takes the spaces before it on its line
and the line break after it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .rendering import NotRendered

__all__ = ["Tag", "Token", "Tokens", "cut"]

Token = tuple[str, str]
"""(kind, text): string, number, name or sign."""

_OPEN = re.compile(r"\{[%{#]")
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<number>\d+(?:\.\d+)?)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<close>[-+]?[%}]\}) |(?P<sign>==|!=|<=|>=|//|\*\*|[-+*/%~<>=|.,:()\[\]{}])
    )""",
    re.VERBOSE | re.DOTALL,
)
_RAW = re.compile(r"\{%[-+]?\s*raw\s*[-+]?%\}(.*?)\{%[-+]?\s*endraw\s*([-+]?)%\}", re.DOTALL)


@dataclass(slots=True)
class Tag:
    """`{{ … }}` (an output) or `{% … %}`."""

    output: bool
    tokens: list[Token]


class Tokens:
    """The tokens of one tag, read from left to right."""

    __slots__ = ("_at", "_tokens")

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0

    @property
    def next(self) -> Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("", "")

    def follows(self, *texts: str) -> bool:
        """Whether these signs and names come next."""
        found = self._tokens[self._at : self._at + len(texts)]
        return tuple(text for kind, text in found if kind in ("name", "sign")) == texts

    def take(self) -> Token:
        token = self.next
        if not token[0]:
            raise NotRendered("a tag that ends too early")
        self._at += 1
        return token

    def skip(self, *texts: str) -> bool:
        """Go past these signs and names, if they come next."""
        if not self.follows(*texts):
            return False
        self._at += len(texts)
        return True

    def expect(self, text: str) -> None:
        if not self.skip(text):
            raise NotRendered(f"{self.next[1]!r} instead of {text!r}")

    def name(self) -> str:
        kind, text = self.take()
        if kind != "name":
            raise NotRendered(f"{text!r} instead of a name")
        return text

    def end(self) -> None:
        if self.next[0]:
            raise NotRendered(f"an unexpected {self.next[1]!r}")


def cut(template: str) -> list[str | Tag]:
    """Texts and tags in order; comments are gone, and a line break at the very end too."""
    template = template.replace("\r\n", "\n").removesuffix("\n")
    pieces: list[str | Tag] = []
    at, after = 0, ""
    while match := _OPEN.search(template, at):
        starts = not at or (after == "\n" and template.startswith("\n", at))
        text = _led(template[at : match.start()], after)
        sign = match.group()[1]
        mark = template[match.end() : match.end() + 1]
        pieces.append(_trailed(text, mark, block=sign != "{", starts=starts))
        if sign == "#":
            end = template.find("#}", match.end())
            if end < 0:
                raise NotRendered("a comment without an end")
            after = "-" if template[end - 1] == "-" else "\n"
            at = end + 2
        elif raw := _RAW.match(template, match.start()):
            pieces.append(raw.group(1))
            at, after = raw.end(), raw.group(2) or "\n"
        else:
            tag, at, after = _tag(template, match.end() + (mark in ("-", "+")), output=sign == "{")
            pieces.append(tag)
    pieces.append(_led(template[at:], after))
    return [piece for piece in pieces if piece != ""]


def _led(text: str, after: str) -> str:
    """A text behind a tag that ended with this mark; a line break stands for a block without a mark."""
    if after == "-":
        return text.lstrip()
    return text.removeprefix("\n") if after == "\n" else text


def _trailed(text: str, mark: str, *, block: bool, starts: bool) -> str:
    """A text before a tag with this mark; `starts` tells whether the text begins a line."""
    if mark == "-":
        return text.rstrip()
    if block and mark != "+":
        line = text.rpartition("\n")[2]
        if not line.strip() and ("\n" in text or starts):
            return text[: len(text) - len(line)]
    return text


def _tag(template: str, at: int, *, output: bool) -> tuple[Tag, int, str]:
    """A tag, where it ends, and the mark that says what becomes of the white space behind it."""
    tokens: list[Token] = []
    braces = 0
    while True:
        match = _TOKEN.match(template, at)
        if match is None or match.lastgroup is None:
            raise NotRendered("an unknown sign in a tag")
        kind, text = match.lastgroup, match.group(match.lastgroup)
        at = match.end()
        if kind == "close":
            if text[-2:] == ("}}" if output else "%}") and not braces:
                mark = text[:-2]
                return Tag(output, tokens), at, mark if mark else "" if output else "\n"
            # Two braces or another sign that only look like an end.
            at -= len(text) - 1
            kind, text = "sign", text[0]
        if kind == "sign":
            braces += (text == "{") - (text == "}")
        tokens.append((kind, text))
