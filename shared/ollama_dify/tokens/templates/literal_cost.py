"""What a chat template itself adds to a prompt: an upper bound from its literal text, without rendering it.

Go templates (Ollama's) and Jinja templates (from the model file) are read into one small tree of texts,
conditions and loops. Conditions on the role, the tools and the like
are decided; of the others the dearer branch counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from . import go_literals, jinja_literals
from .literal_facts import Facts, Loop, Sizes

Condition = Callable[[Facts], "bool | None"]

_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'|`([^`]*)`', re.DOTALL)
_REPEATED = ("name", "arguments", "function", "call", "tool")
_SOURCES = {
    "content": "Content",
    "thinking": "Thinking",
    "system": "System",
    "function": "Tools",
    "tool": "Tools",
}
"""The template's word for a text; the remaining ones come from ToolCalls."""
_UNPREDICTABLE = re.compile(r"currentDate|strftime|toTypeScriptType|tojson\(|indent")
_ROLE_OUTPUT = re.compile(r"\.Role\b|\.role\b|\[['\"]role['\"]\]")
_ROLE_TOKENS, _DATE_TOKENS = 4, 24
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_MAX_DEPTH, _MAX_LOOPS, _MAX_CONDITION = 40, 5, 2000
"""Blocks and loops inside one another, and characters of a condition; no known template comes near."""


@dataclass(frozen=True, slots=True)
class Field:
    """A place where one of the texts of `Sizes` goes."""

    name: str


@dataclass(slots=True)
class Branches:
    """Alternatives with their conditions (None: else); one of them, or none, is taken."""

    options: list[tuple[Condition, list[Node]]] = field(default_factory=list)


@dataclass(slots=True)
class Repeat:
    """A loop."""

    over: Loop
    body: list[Node] = field(default_factory=list)


Node = int | Field | Branches | Repeat
"""An int is the number of tokens of a literal text."""


def _always(_: Facts) -> bool:
    return True


def _unknown(_: Facts) -> None:
    return None


class TemplateCost:
    """Tokens that the template puts: `fixed` around the messages, `of_message` for each of them.

    Texts in `placed` are counted where the template puts them; the caller counts the others.
    """

    def __init__(self, template: str, count: Callable[[str], int]) -> None:
        self._count = count
        self.jinja = "{%" in template
        self._idioms = frozenset() if self.jinja else go_literals.idioms_of(template)
        # Named parts can be put anywhere any number of times: then all literals count for each message.
        self._opaque = bool(
            re.search(r"\{%-?\s*(macro|include|import)|\{\{-?\s*(define|template|block)\b", template)
        )
        self.per_message = self.jinja or ".Messages" in template
        pieces = jinja_literals.pieces(template) if self.jinja else go_literals.pieces(template)
        self._nodes = self._read(pieces)
        if self._too_deep(self._nodes):
            # Every literal text counts, wherever it stands.
            self._opaque, self._nodes = True, [self._literals]
        self.placed = self._placed(template)
        self.names_tools = self.jinja or self._opaque or "ToolName" in template or "ToolCallID" in template

    def _placed(self, template: str) -> frozenset[str]:
        if self.jinja or self._opaque or not self.per_message:
            return frozenset()
        assigned = " ".join(re.findall(r"\{\{-?\s*\$\w+\s*:?=(.*?)\}\}", template, re.DOTALL))
        assigned += " ".join(re.findall(r"\{\{-?\s*with\b(.*?)\}\}", template, re.DOTALL))
        return frozenset(
            name
            for name in _fields(self._nodes)
            if not re.search(rf"\.{_SOURCES.get(name, 'ToolCalls')}\b", assigned)
        )

    def fixed(self, facts: Facts, sizes: Sizes) -> int:
        """Tokens outside the messages, once a prompt."""
        if self._opaque:
            return self._all(self._nodes)
        return self._sum(self._nodes, facts, sizes, within=False) if self.per_message else 0

    def of_message(self, facts: Facts, sizes: Sizes) -> int:
        """Tokens around one message; a template without messages runs once a turn."""
        if self._opaque:
            return self._all(self._nodes) * (1 + sizes["call_count"])
        if not self.per_message:
            return self._sum(self._nodes, facts, sizes, within=True)
        loops = self._loops(self._nodes, facts)
        return sum(self._sum(loop.body, facts, sizes, within=True) for loop in loops)

    def _loops(self, nodes: list[Node], facts: Facts) -> Iterator[Repeat]:
        """The loops over messages that may run."""
        for node in nodes:
            if isinstance(node, Branches):
                for condition, body in node.options:
                    decided = condition(facts)
                    if decided is not False:
                        yield from self._loops(body, facts)
                    if decided is True:
                        break
            elif isinstance(node, Repeat):
                if node.over == "messages":
                    yield node
                else:
                    yield from self._loops(node.body, facts)

    def _sum(self, nodes: list[Node], facts: Facts, sizes: Sizes, *, within: bool) -> int:
        total = 0
        for node in nodes:
            if isinstance(node, int):
                total += node
            elif isinstance(node, Field):
                total += sizes[node.name] if node.name in self.placed else 0
            elif isinstance(node, Repeat):
                total += self._repeated(node, facts, sizes, within=within)
            else:
                total += self._dearest(node, facts, sizes, within=within)
        return total

    def _repeated(self, node: Repeat, facts: Facts, sizes: Sizes, *, within: bool) -> int:
        if node.over == "messages" and not within:
            return 0
        tools, calls = sizes["tool_count"], sizes["call_count"]
        times = {"messages": 1, "tools": tools, "calls": calls, "other": max(tools, calls, 1)}[node.over]
        bare = {**sizes, **dict.fromkeys(_REPEATED, 0)}
        literals = self._sum(node.body, facts, bare, within=within)
        # The sizes of repeated texts are those of all of them together.
        texts = self._sum(node.body, facts, sizes, within=within) - literals
        return times * literals + (texts if times else 0)

    def _dearest(self, node: Branches, facts: Facts, sizes: Sizes, *, within: bool) -> int:
        dearest = 0
        for condition, body in node.options:
            decided = condition(facts)
            if decided is not False:
                dearest = max(dearest, self._sum(body, facts, sizes, within=within))
            if decided is True:
                break
        return dearest

    def _all(self, nodes: list[Node]) -> int:
        total = 0
        for node in nodes:
            if isinstance(node, int):
                total += node
            elif isinstance(node, Repeat):
                total += self._all(node.body)
            elif isinstance(node, Branches):
                total += sum(self._all(body) for _, body in node.options)
        return total

    def _read(self, pieces: Iterator[tuple[str, str]]) -> list[Node]:
        root: list[Node] = []
        self._literals = 0
        stack: list[tuple[list[Node], Branches | None]] = [(root, None)]
        loops: list[Loop | None] = [None]
        for kind, text in pieces:
            if kind == "text":
                tokens = self._literal(text)
                stack[-1][0].append(tokens)
                self._literals += tokens
            elif kind == "output":
                stack[-1][0].extend(self._output(text, loops[-1]))
            elif kind == "if":
                branches = Branches([(self._condition(text), [])])
                stack[-1][0].append(branches)
                stack.append((branches.options[-1][1], branches))
                loops.append(loops[-1])
            elif kind == "loop":
                repeat = Repeat(_loop_kind(text))
                stack[-1][0].append(repeat)
                stack.append((repeat.body, None))
                loops.append(repeat.over if repeat.over in ("calls", "tools") else loops[-1])
            elif kind == "else" and len(stack) > 1:
                _, open_branches = stack.pop()
                # The else of a loop runs when there is nothing to loop over; it counts beside the body.
                owner = open_branches if open_branches is not None else Branches()
                if open_branches is None:
                    stack[-1][0].append(owner)
                owner.options.append((self._condition(text) if text else _always, []))
                stack.append((owner.options[-1][1], owner))
            elif kind == "end" and len(stack) > 1:
                stack.pop()
                loops.pop()
        return root

    def _literal(self, text: str) -> int:
        """Tokens of a text among others: spaces at its ends may split where something follows."""
        x = self._count("x")
        contexts = ((text, 0), (f"{text}x", x), (f"x{text}", x), (f"x{text}x", 2 * x))
        return max(self._count(joined) - known for joined, known in contexts)

    @staticmethod
    def _too_deep(nodes: list[Node]) -> bool:
        """Whether blocks or loops stand too deeply in one another to be worked through."""
        left = [(node, 0, 0) for node in nodes]
        while left:
            node, depth, loops = left.pop()
            if depth > _MAX_DEPTH or loops > _MAX_LOOPS:
                return True
            if isinstance(node, Repeat):
                left += [(inner, depth + 1, loops + 1) for inner in node.body]
            elif isinstance(node, Branches):
                left += [(inner, depth + 1, loops) for _, body in node.options for inner in body]
        return False

    def _output(self, expression: str, over: Loop | None) -> Iterator[Node]:
        name = "" if self.jinja else go_literals.field_of(expression, over)
        if name:
            yield Field(name)
            return
        literal = "".join(_strings(expression))
        tokens = self._literal(literal) if literal else 0
        tokens += _ROLE_TOKENS * len(_ROLE_OUTPUT.findall(expression))
        yield tokens + (_DATE_TOKENS if _UNPREDICTABLE.search(expression) else 0)

    def _condition(self, text: str) -> Condition:
        if len(text) > _MAX_CONDITION:
            return _unknown
        if self.jinja:
            return partial(jinja_literals.decide, text)
        tree = go_literals.tree_of(text)
        return partial(go_literals.decide, tree, idioms=self._idioms)


def _strings(expression: str) -> Iterator[str]:
    for match in _STRING.finditer(expression):
        text = next(group for group in match.groups() if group is not None)
        # A key such as message['role'] is no output.
        if expression[max(0, match.start() - 1) : match.start()] != "[":
            yield re.sub(r"\\(.)", lambda found: _ESCAPES.get(found.group(1), found.group(1)), text)


def _loop_kind(text: str) -> Loop:
    if re.search(r"ToolCalls|tool_calls", text):
        return "calls"
    if re.search(r"Messages|messages", text):
        return "messages"
    return "tools" if re.search(r"Tools|tools", text) else "other"


def _fields(nodes: list[Node]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Field):
            yield node.name
        elif isinstance(node, Repeat):
            yield from _fields(node.body)
        elif isinstance(node, Branches):
            for _, body in node.options:
                yield from _fields(body)
