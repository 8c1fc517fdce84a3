"""Reading Go's text/template: what Ollama's own templates are written in.

The tree says what the text says and nothing more; `go_execute` runs it. Raises `NotRendered` for what Go
refuses as well as for what no known template uses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from .rendering import NotRendered

__all__ = [
    "Action",
    "Block",
    "Call",
    "Chain",
    "Command",
    "Field",
    "Function",
    "Jump",
    "Literal",
    "Node",
    "Operand",
    "Pipe",
    "Text",
    "Variable",
    "parse",
]

_MAX_DEPTH = 60
_SPACE = " \t\r\n"
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<string>"(?:[^"\\\n]|\\.)*")
    |(?P<raw>`[^`]*`)
    |(?P<number>[-+]?\d+(?:\.\d+)?(?![\w.]))
    |(?P<field>\.[A-Za-z_]\w*)
    |(?P<variable>\$\w*)
    |(?P<word>[A-Za-z_]\w*)
    |(?P<sign>:=|[=|,().])""",
    re.VERBOSE,
)
_BEFORE_PART = ("variable", "field", "part")
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_ESCAPES |= {sign: sign for sign in "\\\"'"}


@dataclass(frozen=True, slots=True)
class Literal:
    """A text, a number, a truth value or nil (None)."""

    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Field:
    """`.A.B` of the dot; the dot itself has no names."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """`$name.A.B`."""

    name: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Function:
    """The name of a function."""

    name: str


@dataclass(frozen=True, slots=True)
class Chain:
    """`(pipe).A.B`."""

    pipe: Pipe
    names: tuple[str, ...]


Operand = Any  # Literal | Field | Variable | Function | Chain | Pipe


@dataclass(slots=True)
class Command:
    """An operand or a call with its arguments."""

    operands: list[Operand]


@dataclass(slots=True)
class Pipe:
    """Commands, each given the value of the one before it; variables that the value is kept in."""

    commands: list[Command]
    names: tuple[str, ...] = ()
    declares: bool = False


@dataclass(slots=True)
class Text:
    text: str


@dataclass(slots=True)
class Action:
    pipe: Pipe


@dataclass(slots=True)
class Block:
    """`if`, `with` or `range`; `else if` is a block in `otherwise`."""

    kind: str
    pipe: Pipe
    body: list[Node] = field(default_factory=list)
    otherwise: list[Node] | None = None


@dataclass(slots=True)
class Call:
    """`template "name" pipe`."""

    name: str
    pipe: Pipe | None


@dataclass(slots=True)
class Jump:
    """`break` or `continue`."""

    kind: str


Node = Text | Action | Block | Call | Jump
Token = tuple[str, str]


def parse(template: str) -> dict[str, list[Node]]:
    """The trees of a template by name: "" is the whole, the others are those that it defines."""
    return _Reader(template).read()


class _Reader:
    def __init__(self, template: str) -> None:
        self._pieces = _pieces(template)
        self._at = 0
        self._depth = 0
        self._trees: dict[str, list[Node]] = {}

    def read(self) -> dict[str, list[Node]]:
        nodes, ended = self._nodes()
        if ended:
            raise NotRendered(f"an unexpected {ended[0][1]}")
        return {**self._trees, "": nodes}

    def _nodes(self) -> tuple[list[Node], list[Token]]:
        """Nodes up to the tokens of an `end` or `else`, or the end of the template."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise NotRendered("too deeply nested")
        nodes: list[Node] = []
        while self._at < len(self._pieces):
            piece = self._pieces[self._at]
            self._at += 1
            if isinstance(piece, str):
                nodes.append(Text(piece))
            elif piece[:1] and piece[0] in (("word", "end"), ("word", "else")):
                self._depth -= 1
                return nodes, piece
            else:
                nodes += self._action(piece)
        self._depth -= 1
        return nodes, []

    def _action(self, tokens: list[Token]) -> list[Node]:
        kind, word = tokens[0] if tokens else ("", "")
        if kind != "word":
            return [Action(_pipe(tokens))]
        if word in ("if", "with", "range"):
            return [self._block(word, tokens[1:])]
        if word in ("break", "continue") and len(tokens) == 1:
            return [Jump(word)]
        if word == "template":
            return [Call(_name(tokens), _pipe(tokens[2:]) if tokens[2:] else None)]
        if word in ("define", "block"):
            name = _name(tokens)
            body, ended = self._nodes()
            if ended != [("word", "end")]:
                raise NotRendered(f"a {word} without an end")
            self._trees[name] = body
            return [Call(name, _pipe(tokens[2:]))] if word == "block" else []
        return [Action(_pipe(tokens))]

    def _block(self, kind: str, tokens: list[Token]) -> Block:
        block = Block(kind, _pipe(tokens, ranged=kind == "range"))
        block.body, ended = self._nodes()
        if ended == [("word", "else")]:
            block.otherwise, ended = self._nodes()
        elif ended[:1] == [("word", "else")] and kind != "range" and ended[1][1] in ("if", "with"):
            block.otherwise = [self._block(ended[1][1], ended[2:])]
            return block
        if ended != [("word", "end")]:
            raise NotRendered(f"a {kind} without an end")
        return block


def _name(tokens: list[Token]) -> str:
    if len(tokens) > 1 and tokens[1][0] in ("string", "raw"):
        return _string(tokens[1])
    raise NotRendered(f"{tokens[0][1]} without a name")


def _pieces(template: str) -> list[str | list[Token]]:
    """Literal texts, trimmed as their neighbours say, and the tokens of each action."""
    pieces: list[str | list[Token]] = []
    at, trim = 0, False
    while (start := template.find("{{", at)) >= 0:
        text = template[at:start]
        at = start + 2
        before = template[at : at + 1] == "-" and template[at + 1 : at + 2] in tuple(_SPACE)
        text = text.lstrip(_SPACE) if trim else text
        text = text.rstrip(_SPACE) if before else text
        if text:
            pieces.append(text)
        tokens, at, trim = _tokens(template, at + 2 if before else at)
        if tokens is not None:
            pieces.append(tokens)
    rest = template[at:].lstrip(_SPACE) if trim else template[at:]
    return [*pieces, rest] if rest else pieces


def _tokens(template: str, at: int) -> tuple[list[Token] | None, int, bool]:
    """Tokens of an action (None: a comment), where the text goes on, and whether that text is trimmed."""
    comment = re.compile(r"\s*/\*.*?\*/(?:([ \t\r\n]-)?)\}\}", re.DOTALL).match(template, at)
    if comment:
        return None, comment.end(), bool(comment.group(1))
    tokens: list[Token] = []
    spaced = False
    while at < len(template):
        if template.startswith("}}", at):
            return tokens, at + 2, False
        if spaced and template.startswith("-}}", at):
            return tokens, at + 3, True
        match = _TOKEN.match(template, at)
        if match is None or match.lastgroup is None:
            raise NotRendered(f"the sign {template[at]!r} in an action")
        kind = match.lastgroup
        if (
            kind == "field"
            and not spaced
            and tokens
            and (tokens[-1][0] in _BEFORE_PART or tokens[-1][1] == ")")
        ):
            kind = "part"
        spaced = kind == "space"
        if not spaced:
            tokens.append((kind, match.group()))
        at = match.end()
    raise NotRendered("an action without an end")


def _pipe(tokens: list[Token], *, ranged: bool = False) -> Pipe:
    pipe, rest = _commands(tokens, 0, ranged=ranged, depth=0)
    if rest < len(tokens):
        raise NotRendered(f"an unexpected {tokens[rest][1]!r}")
    return pipe


def _commands(tokens: list[Token], at: int, *, ranged: bool, depth: int) -> tuple[Pipe, int]:
    if depth > _MAX_DEPTH:
        raise NotRendered("too deeply nested")
    names, declares, at = _assigned(tokens, at, ranged=ranged)
    commands = [Command([])]
    while at < len(tokens) and tokens[at] != ("sign", ")"):
        if tokens[at] == ("sign", "|"):
            commands.append(Command([]))
            at += 1
        else:
            operand, at = _operand(tokens, at, depth)
            commands[-1].operands.append(operand)
    if any(not command.operands for command in commands):
        raise NotRendered("an empty command")
    return Pipe(commands, names, declares), at


def _assigned(tokens: list[Token], at: int, *, ranged: bool) -> tuple[tuple[str, ...], bool, int]:
    """Variables before `:=` or `=`, whether they are new, and where the value begins."""
    names: list[str] = []
    place = at
    while place < len(tokens):
        kind, text = tokens[place]
        if kind == "variable" and text != "$" and len(names) < (2 if ranged else 1):
            names.append(text)
        elif kind == "sign" and text in (":=", "=") and names:
            return tuple(names), text == ":=", place + 1
        elif (kind, text) != ("sign", ","):
            break
        place += 1
    return (), False, at


def _operand(tokens: list[Token], at: int, depth: int) -> tuple[Operand, int]:
    kind, text = tokens[at]
    if (kind, text) == ("sign", "("):
        pipe, at = _commands(tokens, at + 1, ranged=False, depth=depth + 1)
        if at >= len(tokens):
            raise NotRendered("an open parenthesis")
        names, at = _fields(tokens, at + 1)
        return (Chain(pipe, names) if names else pipe), at
    if kind == "field":
        names, end = _fields(tokens, at + 1)
        return Field((text[1:], *names)), end
    if (kind, text) == ("sign", "."):
        return Field(()), at + 1
    if kind == "variable":
        names, end = _fields(tokens, at + 1)
        return Variable(text, names), end
    if kind == "number":
        return Literal(float(text) if "." in text else int(text)), at + 1
    if kind in ("string", "raw"):
        return Literal(_string(tokens[at])), at + 1
    if kind == "word":
        constants: dict[str, bool | None] = {"true": True, "false": False, "nil": None}
        return (Literal(constants[text]) if text in constants else Function(text)), at + 1
    raise NotRendered(f"an unexpected {text!r}")


def _fields(tokens: list[Token], at: int) -> tuple[tuple[str, ...], int]:
    end = at
    while end < len(tokens) and tokens[end][0] == "part":
        end += 1
    return tuple(text[1:] for _, text in tokens[at:end]), end


def _string(token: Token) -> str:
    kind, text = token
    return text[1:-1] if kind == "raw" else _ESCAPE.sub(_unescaped, text[1:-1])


def _unescaped(escape: re.Match[str]) -> str:
    *codes, sign = escape.groups()
    for code in codes:
        if code is not None:
            return chr(int(code, 16))
    if sign not in _ESCAPES:
        raise NotRendered(f"the escape \\{sign}")
    return _ESCAPES[sign]
