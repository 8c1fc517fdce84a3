"""Running Go's text/template over values: the actions and functions that Ollama's templates use.

Raises `NotRendered` for what Go would refuse, for functions not known here, and for too much work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import go_syntax as syntax
from .go_functions import FUNCTIONS
from .go_values import Struct, go_json, go_text, is_true
from .rendering import Date, NotRendered, Work

__all__ = ["execute"]

_MAX_DEPTH = 60
_NOTHING = object()
"""No value was given: a function's missing last argument."""


def execute(trees: Mapping[str, list[syntax.Node]], data: Mapping[str, Any], work: Work, date: Date) -> str:
    """The text that the tree named "" makes of the data."""
    run = _Run(trees, work, date)
    run.variables = [("$", dict(data))]
    run.nodes(trees[""], run.variables[0][1], 0)
    return "".join(run.written)


class _Jump(Exception):
    def __init__(self, kind: str) -> None:
        self.kind = kind


class _Run:
    def __init__(self, trees: Mapping[str, list[syntax.Node]], work: Work, date: Date) -> None:
        self.written: list[str] = []
        self.variables: list[tuple[str, Any]] = []
        self._trees = trees
        self._work = work
        self._date = date

    def nodes(self, nodes: Iterable[syntax.Node], dot: Any, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise NotRendered("too deeply nested")
        for node in nodes:
            self._work.step()
            if isinstance(node, syntax.Text):
                self._write(node.text)
            elif isinstance(node, syntax.Action):
                value = self._pipe(node.pipe, dot)
                if not node.pipe.names:
                    self._write(go_text(value))
            elif isinstance(node, syntax.Block):
                kept = len(self.variables)
                (self._range if node.kind == "range" else self._branch)(node, dot, depth)
                del self.variables[kept:]
            elif isinstance(node, syntax.Jump):
                raise _Jump(node.kind)
            else:
                self._call(node, dot, depth)

    def _write(self, text: str) -> None:
        self.written.append(self._work.text(text))

    def _branch(self, node: syntax.Block, dot: Any, depth: int) -> None:
        value = self._pipe(node.pipe, dot)
        if is_true(value):
            self.nodes(node.body, value if node.kind == "with" else dot, depth + 1)
        elif node.otherwise is not None:
            self.nodes(node.otherwise, dot, depth + 1)

    def _range(self, node: syntax.Block, dot: Any, depth: int) -> None:
        entries = _entries(self._pipe(node.pipe, dot, keeps=False))
        names = node.pipe.names
        if not entries and node.otherwise is not None:
            self.nodes(node.otherwise, dot, depth + 1)
        outside = len(self.variables)
        for key, value in entries:
            self._work.step()
            for name, kept in zip(names, (value,) if len(names) == 1 else (key, value), strict=False):
                self._keep(name, kept, declares=node.pipe.declares)
            try:
                self.nodes(node.body, value, depth + 1)
            except _Jump as jump:
                if jump.kind == "break":
                    break
            finally:
                del self.variables[outside:]

    def _call(self, node: syntax.Call, dot: Any, depth: int) -> None:
        if node.name not in self._trees:
            raise NotRendered(f"the template {node.name!r}")
        value = None if node.pipe is None else self._pipe(node.pipe, dot)
        outer, self.variables = self.variables, [("$", value)]
        self.nodes(self._trees[node.name], value, depth + 1)
        self.variables = outer

    def _keep(self, name: str, value: Any, *, declares: bool) -> None:
        if declares:
            self.variables.append((name, value))
            return
        for index in range(len(self.variables) - 1, -1, -1):
            if self.variables[index][0] == name:
                self.variables[index] = (name, value)
                return
        raise NotRendered(f"the variable {name}")

    def _pipe(self, pipe: syntax.Pipe, dot: Any, *, keeps: bool = True) -> Any:
        value: Any = _NOTHING
        for command in pipe.commands:
            value = self._command(command, dot, value)
        if keeps:
            for name in pipe.names:
                self._keep(name, value, declares=pipe.declares)
        return value

    def _command(self, command: syntax.Command, dot: Any, last: Any) -> Any:
        self._work.step()
        first, *rest = command.operands
        if isinstance(first, syntax.Function):
            return self._function(first.name, rest, dot, last)
        if rest or last is not _NOTHING:
            raise NotRendered("arguments for what is no function")
        return self._operand(first, dot)

    def _operand(self, operand: Any, dot: Any) -> Any:
        if isinstance(operand, syntax.Literal):
            return operand.value
        if isinstance(operand, syntax.Field):
            return self._fields(dot, operand.names)
        if isinstance(operand, syntax.Variable):
            for name, value in reversed(self.variables):
                if name == operand.name:
                    return self._fields(value, operand.names)
            raise NotRendered(f"the variable {operand.name}")
        if isinstance(operand, syntax.Chain):
            return self._fields(self._pipe(operand.pipe, dot), operand.names)
        if isinstance(operand, syntax.Pipe):
            return self._pipe(operand, dot)
        return self._function(operand.name, [], dot, _NOTHING)

    def _fields(self, value: Any, names: Iterable[str]) -> Any:
        for name in names:
            if isinstance(value, Struct):
                if name not in value.fields:
                    raise NotRendered(f"the field .{name}")
                value = value.fields[name]
            elif isinstance(value, dict):
                value = value.get(name)
            else:
                raise NotRendered(f".{name} of a {type(value).__name__}")
        return value

    def _function(self, name: str, operands: list[Any], dot: Any, last: Any) -> Any:
        given = [] if last is _NOTHING else [last]
        if name in ("and", "or"):
            # They look at no more than they need.
            value: Any = None
            for operand in [*operands, *(syntax.Literal(item) for item in given)]:
                value = self._operand(operand, dot)
                if is_true(value) == (name == "or"):
                    break
            return value
        arguments = [self._operand(operand, dot) for operand in operands] + given
        if name in ("currentDate", "yesterdayDate"):
            return self._date("%Y-%m-%d")
        if name == "json" and len(arguments) == 1:
            return self._work.text(go_json(arguments[0]))
        function: Callable[..., Any] | None = FUNCTIONS.get(name)
        if function is None:
            raise NotRendered(f"the function {name}")
        try:
            value = function(*arguments)
        except TypeError:
            raise NotRendered(f"the arguments of {name}") from None
        return self._work.text(value) if isinstance(value, str) else value


def _entries(value: Any) -> list[tuple[Any, Any]]:
    if value is None:
        return []
    if isinstance(value, list):
        return list(enumerate(value))
    if isinstance(value, dict):
        return sorted(value.items())
    if isinstance(value, int) and not isinstance(value, bool) and value <= 100_000:
        return [(number, number) for number in range(value)]
    raise NotRendered(f"a range over a {type(value).__name__}")
