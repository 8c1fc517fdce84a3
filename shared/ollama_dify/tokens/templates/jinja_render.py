"""Jinja as chat templates use it: outputs, conditions, loops, variables and macros.

Raises `NotRendered` for every other statement, and `Refused` where a template calls `raise_exception`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .jinja_expressions import expression
from .jinja_functions import FILTERS, call
from .jinja_scope import Expression, Scope, targets
from .jinja_tokens import Tag, Tokens, cut
from .jinja_values import UNDEFINED, Namespace, entries, text_of
from .rendering import Date, NotRendered, Work

__all__ = ["JinjaTemplate", "Refused"]

_MAX_DEPTH = 60
_MAX_CALLS = 30
_NO_BLOCK = ("generation", "endgeneration")

Run = Callable[[Scope, list[str]], None]


class Refused(NotRendered):
    """The template says that it does not take this conversation."""


class _Jump(Exception):
    def __init__(self, kind: str) -> None:
        self.kind = kind


class JinjaTemplate:
    """A template read once, to be rendered any number of times."""

    def __init__(self, template: str) -> None:
        reader = _Reader(cut(template))
        self._body = reader.body(())

    def render(self, names: Mapping[str, Any], date: Date, work: Work) -> str:
        scope = Scope({**names, **_functions(work, date)}, work)
        written: list[str] = []
        try:
            _run(self._body, scope.inner(), written)
        except _Jump:
            raise NotRendered("a jump outside of a loop") from None
        return "".join(written)


def _run(body: list[Run], scope: Scope, written: list[str]) -> None:
    for part in body:
        scope.work.step()
        part(scope, written)


def _functions(work: Work, date: Date) -> dict[str, Any]:
    def refuse(message: Any = "") -> None:
        raise Refused(str(message))

    def numbers(*bounds: int) -> list[int]:
        found = range(*bounds)
        work.step(len(found))
        return list(found)

    return {
        "raise_exception": refuse,
        "strftime_now": date,
        "namespace": lambda *given, **names: Namespace({**dict(*given), **names}),
        "dict": lambda **names: names,
        "range": numbers,
    }


class _Reader:
    def __init__(self, pieces: list[str | Tag]) -> None:
        self._pieces = pieces
        self._at = 0
        self._depth = 0
        self.ended = Tokens([])

    def body(self, ends: tuple[str, ...]) -> list[Run]:
        """Parts up to one of these statements, whose tokens are kept in `ended`."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise NotRendered("too deeply nested")
        parts: list[Run] = []
        while self._at < len(self._pieces):
            piece = self._pieces[self._at]
            self._at += 1
            if isinstance(piece, str):
                parts.append(_text(piece))
                continue
            tokens = Tokens(piece.tokens)
            if piece.output:
                parts.append(_output(expression(tokens)))
                tokens.end()
                continue
            if tokens.next[1] in ends:
                self.ended = tokens
                self._depth -= 1
                return parts
            parts.append(self._statement(tokens.name(), tokens))
        if ends:
            raise NotRendered(f"no {ends[-1]}")
        return parts

    def _statement(self, word: str, tokens: Tokens) -> Run:
        if word == "if":
            return self._if(tokens)
        if word == "for":
            return self._for(tokens)
        if word == "set":
            return self._set(tokens)
        if word == "macro":
            return self._macro(tokens)
        if word == "filter":
            return self._filter(tokens)
        if word in ("break", "continue"):
            return _jump(word)
        if word in _NO_BLOCK:
            return _text("")
        if word == "do":
            value = expression(tokens)
            return lambda scope, _: value(scope)
        raise NotRendered(f"the statement {word}")

    def _if(self, tokens: Tokens) -> Run:
        options: list[tuple[Expression | None, list[Run]]] = []
        condition: Expression | None = expression(tokens)
        while True:
            tokens.end()
            options.append((condition, self.body(("elif", "else", "endif"))))
            tokens = self.ended
            word = tokens.name()
            if word == "endif":
                break
            condition = expression(tokens) if word == "elif" else None

        def run(scope: Scope, written: list[str]) -> None:
            for test, body in options:
                if test is None or test(scope):
                    _run(body, scope, written)
                    return

        return run

    def _for(self, tokens: Tokens) -> Run:
        keep = targets(tokens)
        tokens.expect("in")
        over = expression(tokens, alternatives=False)
        chosen = expression(tokens) if tokens.skip("if") else None
        tokens.end()
        body = self.body(("else", "endfor"))
        otherwise = self.body(("endfor",)) if self.ended.name() == "else" else []

        def run(scope: Scope, written: list[str]) -> None:
            found = entries(over(scope))
            scope.work.step(len(found))
            if chosen is not None:
                found = [entry for entry in found if chosen(_kept(keep, scope, entry))]
            for index, entry in enumerate(found):
                inner = _kept(keep, scope, entry)
                inner.names["loop"] = _loop(found, index)
                try:
                    _run(body, inner, written)
                except _Jump as jump:
                    if jump.kind == "break":
                        break
            if not found:
                _run(otherwise, scope, written)

        return run

    def _set(self, tokens: Tokens) -> Run:
        name = tokens.next[1]
        if tokens.follows(name, "."):
            tokens.skip(name, ".")
            part = tokens.name()
            tokens.expect("=")
            value = expression(tokens)
            return lambda scope, _: _set_part(scope.get(name), part, value(scope))
        keep = targets(tokens)
        if tokens.skip("="):
            value = expression(tokens)
            if tokens.follows(","):
                raise NotRendered("several values")
            tokens.end()
            return lambda scope, _: keep(scope, value(scope))
        tokens.end()
        body = self.body(("endset",))

        def run(scope: Scope, _: list[str]) -> None:
            inside: list[str] = []
            _run(body, scope.inner(), inside)
            keep(scope, scope.work.text("".join(inside)))

        return run

    def _macro(self, tokens: Tokens) -> Run:
        name = tokens.name()
        tokens.expect("(")
        parameters: list[tuple[str, Expression | None]] = []
        while not tokens.skip(")"):
            parameter = tokens.name()
            parameters.append((parameter, expression(tokens) if tokens.skip("=") else None))
            tokens.skip(",")
        body = self.body(("endmacro",))

        def run(scope: Scope, _: list[str]) -> None:
            scope.names[name] = _macro(scope, body, parameters)

        return run

    def _filter(self, tokens: Tokens) -> Run:
        function = FILTERS.get(tokens.name())
        tokens.end()
        if function is None:
            raise NotRendered("an unknown filter")
        body = self.body(("endfilter",))

        def run(scope: Scope, written: list[str]) -> None:
            inside: list[str] = []
            _run(body, scope.inner(), inside)
            written.append(scope.work.text(text_of(call(function, "".join(inside)))))

        return run


def _text(text: str) -> Run:
    return lambda scope, written: written.append(scope.work.text(text))


def _output(value: Expression) -> Run:
    return lambda scope, written: written.append(scope.work.text(text_of(value(scope))))


def _jump(kind: str) -> Run:
    def run(_: Scope, __: list[str]) -> None:
        raise _Jump(kind)

    return run


def _kept(keep: Callable[[Scope, Any], None], scope: Scope, entry: Any) -> Scope:
    inner = scope.inner()
    keep(inner, entry)
    return inner


def _loop(found: list[Any], index: int) -> dict[str, Any]:
    last = len(found) - 1
    return {
        "index": index + 1,
        "index0": index,
        "revindex": last - index + 1,
        "revindex0": last - index,
        "first": index == 0,
        "last": index == last,
        "length": last + 1,
        "previtem": found[index - 1] if index else UNDEFINED,
        "nextitem": found[index + 1] if index < last else UNDEFINED,
    }


def _set_part(owner: Any, part: str, value: Any) -> None:
    if not isinstance(owner, Namespace):
        raise NotRendered("a part of what is no namespace")
    owner.names[part] = value


def _macro(
    scope: Scope, body: list[Run], parameters: list[tuple[str, Expression | None]]
) -> Callable[..., str]:
    deep = [0]

    def run(*given: Any, **named: Any) -> str:
        if deep[0] >= _MAX_CALLS or len(given) > len(parameters):
            raise NotRendered("a macro that calls itself too often")
        inner = scope.inner()
        for index, (name, default) in enumerate(parameters):
            value = given[index] if index < len(given) else named.get(name, UNDEFINED)
            inner.names[name] = default(scope) if value is UNDEFINED and default is not None else value
        deep[0] += 1
        written: list[str] = []
        _run(body, inner, written)
        deep[0] -= 1
        return scope.work.text("".join(written))

    return run
