"""Jinja's expressions, read into functions of the names that are known where they stand."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from .jinja_functions import FILTERS, METHODS, TESTS, call
from .jinja_scope import Expression, Scope, string
from .jinja_tokens import Tokens
from .jinja_values import UNDEFINED, Undefined, attribute, check_size, item, text_of
from .rendering import NotRendered

__all__ = ["expression"]

_MAX_DEPTH = 60
_CONSTANTS = {"true": True, "True": True, "false": False, "False": False, "none": None, "None": None}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda one, other: not isinstance(other, Undefined) and one in other,
}


def expression(tokens: Tokens, depth: int = 0, *, alternatives: bool = True) -> Expression:
    """A whole expression; without `alternatives`, an `if` behind it belongs to a loop."""
    if depth > _MAX_DEPTH:
        raise NotRendered("too deeply nested")
    value = _or(tokens, depth + 1)
    while alternatives and tokens.skip("if"):
        condition = _or(tokens, depth + 1)
        other = expression(tokens, depth + 1) if tokens.skip("else") else _undefined
        value = _choice(condition, value, other)
    return value


def _undefined(_: Scope) -> Any:
    return UNDEFINED


def _choice(condition: Expression, value: Expression, other: Expression) -> Expression:
    return lambda scope: value(scope) if condition(scope) else other(scope)


def _or(tokens: Tokens, depth: int) -> Expression:
    value = _and(tokens, depth)
    while tokens.skip("or"):
        value = _either(value, _and(tokens, depth))
    return value


def _and(tokens: Tokens, depth: int) -> Expression:
    value = _not(tokens, depth)
    while tokens.skip("and"):
        value = _both(value, _not(tokens, depth))
    return value


def _either(one: Expression, other: Expression) -> Expression:
    return lambda scope: one(scope) or other(scope)


def _both(one: Expression, other: Expression) -> Expression:
    return lambda scope: one(scope) and other(scope)


def _not(tokens: Tokens, depth: int) -> Expression:
    if depth > _MAX_DEPTH:
        raise NotRendered("too deeply nested")
    if tokens.skip("not"):
        inner = _not(tokens, depth + 1)
        return lambda scope: not inner(scope)
    return _comparison(tokens, depth)


def _comparison(tokens: Tokens, depth: int) -> Expression:
    first = _sum(tokens, depth)
    steps: list[tuple[Callable[[Any, Any], Any], bool, Expression]] = []
    while True:
        negated = tokens.skip("not", "in")
        if negated or (tokens.next[1] in _COMPARISONS and tokens.next[0] in ("sign", "name")):
            compare = _COMPARISONS["in" if negated else tokens.take()[1]]
            steps.append((compare, negated, _sum(tokens, depth)))
        else:
            break
    if not steps:
        return first

    def compared(scope: Scope) -> bool:
        one = first(scope)
        for compare, negated, other in steps:
            two = other(scope)
            if bool(_applied(compare, one, two, scope)) == negated:
                return False
            one = two
        return True

    return compared


def _binary(
    tokens: Tokens, depth: int, inner: Callable[[Tokens, int], Expression], signs: dict[str, Any]
) -> Expression:
    value = inner(tokens, depth)
    while tokens.next[0] == "sign" and tokens.next[1] in signs:
        value = _operation(signs[tokens.take()[1]], value, inner(tokens, depth))
    return value


def _operation(apply: Callable[[Any, Any], Any], one: Expression, other: Expression) -> Expression:
    return lambda scope: _applied(apply, one(scope), other(scope), scope)


def _applied(apply: Callable[[Any, Any], Any], one: Any, other: Any, scope: Scope) -> Any:
    scope.work.step()
    if apply in (operator.mul, operator.mod) and not all(
        type(value) in (int, float) for value in (one, other)
    ):
        raise NotRendered("a calculation without numbers")
    for value in (one, other):
        # The same object is equal without a look inside.
        if one is not other and isinstance(value, (list, tuple, dict)) and apply is not operator.add:
            check_size(value)
    value = call(apply, one, other)
    if isinstance(value, str):
        scope.work.text(value)
    elif isinstance(value, (list, tuple)):
        scope.work.step(len(value))
    elif isinstance(value, int) and abs(value) > 2**63:
        raise NotRendered("a huge number")
    return value


def _sum(tokens: Tokens, depth: int) -> Expression:
    signs = {"+": operator.add, "-": operator.sub}
    return _binary(tokens, depth, _concatenation, signs)


def _concatenation(tokens: Tokens, depth: int) -> Expression:
    return _binary(tokens, depth, _product, {"~": lambda one, other: text_of(one) + text_of(other)})


def _product(tokens: Tokens, depth: int) -> Expression:
    signs = {"*": operator.mul, "/": operator.truediv, "//": operator.floordiv, "%": operator.mod}
    return _binary(tokens, depth, _unary, signs)


def _unary(tokens: Tokens, depth: int) -> Expression:
    if depth > _MAX_DEPTH:
        raise NotRendered("too deeply nested")
    if tokens.skip("-"):
        inner = _unary(tokens, depth + 1)
        return lambda scope: call(operator.neg, inner(scope))
    value = _postfix(tokens, depth)
    while True:
        if tokens.skip("|"):
            value = _filtered(tokens, depth, value)
        elif tokens.skip("is"):
            value = _tested(tokens, depth, value)
        else:
            return value


def _filtered(tokens: Tokens, depth: int, value: Expression) -> Expression:
    name = tokens.name()
    if name not in FILTERS:
        raise NotRendered(f"the filter {name}")
    function = FILTERS[name]
    arguments = _arguments(tokens, depth) if tokens.skip("(") else _no_arguments

    def filtered(scope: Scope) -> Any:
        given, named = arguments(scope)
        found = call(function, value(scope), *given, **named)
        scope.work.step()
        return scope.work.text(found) if isinstance(found, str) else found

    return filtered


def _tested(tokens: Tokens, depth: int, value: Expression) -> Expression:
    negated = tokens.skip("not")
    name = tokens.name()
    if name.lower() not in TESTS:
        raise NotRendered(f"the test {name}")
    function = TESTS[name.lower()]
    arguments: Arguments = _no_arguments
    if tokens.skip("("):
        arguments = _arguments(tokens, depth)
    elif name in ("in", "equalto", "eq", "ne", "divisibleby"):
        arguments = _single(_postfix(tokens, depth))

    def tested(scope: Scope) -> bool:
        given, named = arguments(scope)
        return bool(call(function, value(scope), *given, **named)) != negated

    return tested


Arguments = Callable[[Scope], tuple[list[Any], dict[str, Any]]]


def _single(value: Expression) -> Arguments:
    return lambda scope: ([value(scope)], {})


def _no_arguments(_: Scope) -> tuple[list[Any], dict[str, Any]]:
    return [], {}


def _arguments(tokens: Tokens, depth: int) -> Arguments:
    """Arguments up to the closing parenthesis."""
    given: list[Expression] = []
    named: dict[str, Expression] = {}
    while not tokens.skip(")"):
        kind, text = tokens.next
        if kind == "name" and tokens.follows(text, "="):
            tokens.skip(text, "=")
            named[text] = expression(tokens, depth + 1)
        else:
            given.append(expression(tokens, depth + 1))
        if not tokens.follows(")"):
            tokens.expect(",")
    return lambda scope: (
        [value(scope) for value in given],
        {name: value(scope) for name, value in named.items()},
    )


def _postfix(tokens: Tokens, depth: int) -> Expression:
    value = _primary(tokens, depth)
    while True:
        if tokens.skip("."):
            kind, name = tokens.take()
            if kind == "number":
                value = _part(item, value, int(name))
            elif tokens.skip("("):
                value = _method(value, name, _arguments(tokens, depth))
            else:
                value = _part(attribute, value, name)
        elif tokens.skip("["):
            value = _subscript(tokens, depth, value)
        elif tokens.skip("("):
            value = _called(value, _arguments(tokens, depth))
        else:
            return value


def _part(had: Callable[[Any, Any], Any], value: Expression, key: Any) -> Expression:
    return lambda scope: had(value(scope), key)


def _constant(value: Any) -> Expression:
    return lambda _: value


def _method(value: Expression, name: str, arguments: Arguments) -> Expression:
    def called(scope: Scope) -> Any:
        owner = value(scope)
        given, named = arguments(scope)
        for kind, methods in METHODS.items():
            if isinstance(owner, kind) and name in methods:
                scope.work.step()
                found = call(methods[name], owner, *given, **named)
                return scope.work.text(found) if isinstance(found, str) else found
        function = attribute(owner, name)
        if not callable(function):
            raise NotRendered(f"the method {name}")
        return call(function, *given, **named)

    return called


def _called(value: Expression, arguments: Arguments) -> Expression:
    def called(scope: Scope) -> Any:
        scope.work.step()
        function = value(scope)
        if not callable(function):
            raise NotRendered("a call of what is no function")
        given, named = arguments(scope)
        return call(function, *given, **named)

    return called


def _subscript(tokens: Tokens, depth: int, value: Expression) -> Expression:
    parts: list[Expression | None] = [None]
    while not tokens.skip("]"):
        if tokens.skip(":"):
            parts.append(None)
        else:
            parts[-1] = expression(tokens, depth + 1)
    if len(parts) == 1:
        key = parts[0]
        if key is None:
            raise NotRendered("an empty index")
        return lambda scope: item(value(scope), key(scope))

    def sliced(scope: Scope) -> Any:
        bounds = slice(*(None if part is None else part(scope) for part in parts))
        owner = value(scope)
        if not isinstance(owner, (str, list, tuple)):
            raise NotRendered("a slice of this")
        scope.work.step()
        return call(operator.getitem, owner, bounds)

    return sliced


def _primary(tokens: Tokens, depth: int) -> Expression:
    kind, text = tokens.take()
    if kind == "string":
        constant = string(text)
        while tokens.next[0] == "string":
            constant += string(tokens.take()[1])
        return _constant(constant)
    if kind == "number":
        return _constant(float(text) if "." in text else int(text))
    if kind == "name":
        if text in _CONSTANTS:
            return _constant(_CONSTANTS[text])
        return lambda scope: scope.get(text)
    if text == "(":
        return _parenthesis(tokens, depth)
    if text == "[":
        parts = _listed(tokens, depth, "]")
        return lambda scope: [part(scope) for part in parts]
    if text == "{":
        return _mapping(tokens, depth)
    raise NotRendered(f"an unexpected {text!r}")


def _parenthesis(tokens: Tokens, depth: int) -> Expression:
    if tokens.skip(")"):
        return lambda _: ()
    first = expression(tokens, depth + 1)
    if tokens.skip(")"):
        return first
    tokens.expect(",")
    parts = [first, *_listed(tokens, depth, ")")]
    return lambda scope: tuple(part(scope) for part in parts)


def _listed(tokens: Tokens, depth: int, end: str) -> list[Expression]:
    parts: list[Expression] = []
    while not tokens.skip(end):
        parts.append(expression(tokens, depth + 1))
        if not tokens.follows(end):
            tokens.expect(",")
    return parts


def _mapping(tokens: Tokens, depth: int) -> Expression:
    parts: list[tuple[Expression, Expression]] = []
    while not tokens.skip("}"):
        key = expression(tokens, depth + 1)
        tokens.expect(":")
        parts.append((key, expression(tokens, depth + 1)))
        if not tokens.follows("}"):
            tokens.expect(",")
    return lambda scope: {key(scope): value(scope) for key, value in parts}
