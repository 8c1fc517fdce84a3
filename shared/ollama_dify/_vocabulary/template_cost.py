"""What a chat template itself adds to a prompt: an upper bound from its literal text, without rendering it.

Go templates (Ollama's) and Jinja templates (from the model file) are read into one small tree of texts, conditions
and loops. Conditions on the role, the tools and the like are decided; of the others the dearer branch counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

Loop = Literal["messages", "tools", "calls", "other"]
Facts = Mapping[str, "bool | str | None"]
"""What is known of a prompt: role, first, last, last_user, after_last_user, tools, calls, system, content, think …

A missing or None entry is unknown.
"""
Sizes = Mapping[str, int]
"""Tokens of the texts that a template may put: content, thinking, system, all calls, all tools; and their numbers."""
Condition = Callable[[Facts], "bool | None"]

_GO = re.compile(r"\{\{(-(?=\s))?(.*?)((?<=\s)-)?\}\}", re.DOTALL)
_JINJA = re.compile(r"\{([%{#])([-+]?)(.*?)([-+]?)[%}#]\}", re.DOTALL)
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'|`([^`]*)`', re.DOTALL)
_LAST_IDIOM = re.compile(r"(\$\w+)\s*:=\s*eq\s*\(len\s*\(slice\s+\$?\.Messages\s+\$\w+\)\)\s*1\b")
_LAST_USER_IDIOM = re.compile(
    r"range\s+(\$\w+),\s*(\$\w+)\s*:=\s*\.Messages[\s}{-]*if\s+eq\s+(?:\2)?\.Role\s+\"user\"\s*-?\}\}"
    r"\s*\{\{-?\s*(\$\w+)\s*=\s*\1\b"
)
_INDEX_IDIOM = re.compile(r"range\s+(\$\w+)\s*,\s*\$\w+\s*:=\s*\$?\.Messages")
_GO_OUTPUT = re.compile(r"(?:\$\w*)?\.(Content|Thinking|System)")
_GO_CALL = re.compile(r"(?:\$\w*)?\.Function\.(Name|Arguments)")
_GO_FUNCTION = re.compile(r"(?:\$\w*)?\.Function")
_REPEATED = ("name", "arguments", "function", "call", "tool")
_SOURCES = {"content": "Content", "thinking": "Thinking", "system": "System", "function": "Tools", "tool": "Tools"}
"""The template's word for a text; the remaining ones come from ToolCalls."""
_UNPREDICTABLE = re.compile(r"currentDate|strftime|toTypeScriptType|tojson\(|indent")
_ROLE_OUTPUT = re.compile(r"\.Role\b|\.role\b|\[['\"]role['\"]\]")
_ROLE_TOKENS, _DATE_TOKENS = 4, 24
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


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


class TemplateCost:
    """Tokens that the template puts: `fixed` around the messages, `of_message` for each of them.

    Texts in `placed` are counted where the template puts them; the caller counts the others.
    """

    def __init__(self, template: str, count: Callable[[str], int]) -> None:
        self._count = count
        self.jinja = "{%" in template
        self._idioms = frozenset() if self.jinja else _idioms(template)
        # Named parts can be put anywhere any number of times: then all literals count for each message.
        self._opaque = bool(re.search(r"\{%-?\s*(macro|include|import)|\{\{-?\s*(define|template|block)\b", template))
        self.per_message = self.jinja or ".Messages" in template
        pieces = _jinja_pieces(template) if self.jinja else _go_pieces(template)
        self._nodes = self._read(pieces)
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
        stack: list[tuple[list[Node], Branches | None]] = [(root, None)]
        loops: list[Loop | None] = [None]
        for kind, text in pieces:
            if kind == "text":
                stack[-1][0].append(self._literal(text))
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
                # The else of a loop runs when there is nothing to loop over; it is small, so it counts as body.
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

    def _output(self, expression: str, over: Loop | None) -> Iterator[Node]:
        name = "" if self.jinja else _go_field(expression, over)
        if name:
            yield Field(name)
            return
        literal = "".join(_strings(expression))
        tokens = self._literal(literal) if literal else 0
        tokens += _ROLE_TOKENS * len(_ROLE_OUTPUT.findall(expression))
        yield tokens + (_DATE_TOKENS if _UNPREDICTABLE.search(expression) else 0)

    def _condition(self, text: str) -> Condition:
        if self.jinja:
            return lambda facts: _decide_jinja(text, facts)
        tree = _go_tree(text)
        return lambda facts: _decide_go(tree, facts, self._idioms)


def _go_field(expression: str, over: Loop | None) -> str:
    """The text that an output action puts, if it is nothing else."""
    if over == "calls":
        part = _GO_CALL.fullmatch(expression)
        return part.group(1).lower() if part else "call"
    if over == "tools":
        return "function" if _GO_FUNCTION.fullmatch(expression) else "tool"
    text = _GO_OUTPUT.fullmatch(expression)
    return text.group(1).lower() if text else ""


def _strings(expression: str) -> Iterator[str]:
    for match in _STRING.finditer(expression):
        text = next(group for group in match.groups() if group is not None)
        # A key such as message['role'] is no output.
        if expression[max(0, match.start() - 1) : match.start()] != "[":
            yield re.sub(r"\\(.)", lambda found: _ESCAPES.get(found.group(1), found.group(1)), text)


def _go_pieces(template: str) -> Iterator[tuple[str, str]]:
    at = 0
    trim = False
    for match in _GO.finditer(template):
        text = template[at : match.start()]
        text = text.lstrip() if trim else text
        text = text.rstrip() if match.group(1) else text
        if text:
            yield "text", text
        yield _go_action(match.group(2).strip())
        at, trim = match.end(), bool(match.group(3))
    rest = template[at:].lstrip() if trim else template[at:]
    if rest:
        yield "text", rest


def _go_action(action: str) -> tuple[str, str]:
    word, _, rest = action.partition(" ")
    if word in ("if", "with"):
        return "if", rest
    if word in ("range", "define", "block"):
        return "loop", rest
    if word == "else":
        return "else", re.sub(r"^\s*(if|with)\s+", "", rest)
    if word == "end":
        return "end", ""
    if word.startswith("/*") or ":=" in action or re.match(r"\$\w+\s*=", action):
        return "skip", ""
    return "output", action


def _jinja_pieces(template: str) -> Iterator[tuple[str, str]]:
    at = 0
    trim = False
    for match in _JINJA.finditer(template):
        text = template[at : match.start()]
        text = text.lstrip() if trim else text
        text = text.rstrip() if match.group(2) == "-" else text
        if text:
            yield "text", text
        yield _jinja_action(match.group(1), match.group(3).strip())
        at, trim = match.end(), match.group(4) == "-"
    rest = template[at:].lstrip() if trim else template[at:]
    if rest:
        yield "text", rest


def _jinja_action(sign: str, action: str) -> tuple[str, str]:
    if sign == "#":
        return "skip", ""
    if sign == "{":
        return "output", action
    word, _, rest = action.partition(" ")
    if word in ("if", "elif", "for", "else"):
        return {"if": "if", "elif": "else", "for": "loop", "else": "else"}[word], rest
    if word.startswith("end"):
        return ("skip", "") if word in ("endset", "endgeneration") else ("end", "")
    if word in ("macro", "call", "filter"):
        return "loop", rest
    # A text kept in a variable is counted where it is set.
    return ("output", rest.partition("=")[2]) if word == "set" else ("skip", "")


def _loop_kind(text: str) -> Loop:
    if re.search(r"ToolCalls|tool_calls", text):
        return "calls"
    if re.search(r"Messages|messages", text):
        return "messages"
    return "tools" if re.search(r"Tools|tools", text) else "other"


Tree = str | list["Tree"]


def _go_tree(text: str) -> Tree:
    stack: list[list[Tree]] = [[]]
    for token in re.findall(r'"(?:[^"\\]|\\.)*"|[()]|[^\s()]+', text):
        if token == "(":
            stack.append([])
        elif token == ")" and len(stack) > 1:
            inner = stack.pop()
            stack[-1].append(inner)
        elif token != ")":
            stack[-1].append(token)
    return stack[0]


_GO_FACTS = {
    ".Tools": "tools",
    ".ToolCalls": "calls",
    ".System": "system",
    ".Content": "content",
    ".Thinking": "thinking",
    ".Think": "think",
    ".IsThinkSet": "think_set",
    ".Messages": "messages",
    ".Suffix": "suffix",
}


def _decide_go(tree: Tree, facts: Facts, idioms: frozenset[tuple[str, str]]) -> bool | None:
    if isinstance(tree, str):
        name = "last" if (tree, "last") in idioms else _GO_FACTS.get(re.sub(r"^\$\w*", "", tree), "")
        known = facts.get(name)
        return known if isinstance(known, bool) else None
    if not tree:
        return None
    head, rest = tree[0], tree[1:]
    if not rest:
        return _decide_go(head, facts, idioms)
    if head in ("eq", "ne", "gt"):
        return _compare(str(head), rest, facts, idioms)
    values = [_decide_go(item, facts, idioms) for item in rest]
    if head == "and":
        return _all_of(values)
    if head == "or":
        return _any_of(values)
    if head == "not":
        return None if values[0] is None else not values[0]
    return None


def _compare(head: str, rest: list[Tree], facts: Facts, idioms: frozenset[tuple[str, str]]) -> bool | None:
    known: bool | str | None = None
    left, right = (rest[0], rest[1]) if len(rest) > 1 else ("", "")
    if head in ("eq", "ne") and isinstance(left, str) and left.endswith(".Role") and facts.get("role"):
        known = f'"{facts["role"]}"' in rest[1:]
    elif isinstance(left, str) and isinstance(right, str) and (left, "index") in idioms:
        if right == "0" and head != "gt":
            known = facts.get("first")
        elif (right, "last_user") in idioms:
            known = facts.get("after_last_user" if head == "gt" else "last_user")
    if not isinstance(known, bool):
        return None
    return not known if head == "ne" else known


def _idioms(template: str) -> frozenset[tuple[str, str]]:
    """Variables with a meaning, as Ollama's own templates name them: (variable, "last" | "index" | "last_user")."""
    found = {(name, "last") for name in _LAST_IDIOM.findall(template)}
    found |= {(name, "index") for name in _INDEX_IDIOM.findall(template)}
    found |= {(match[2], "last_user") for match in _LAST_USER_IDIOM.findall(template)}
    return frozenset(found)


def _fields(nodes: list[Node]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Field):
            yield node.name
        elif isinstance(node, Repeat):
            yield from _fields(node.body)
        elif isinstance(node, Branches):
            for _, body in node.options:
                yield from _fields(body)


_JINJA_FACTS = {
    "tools": "tools",
    "message.tool_calls": "calls",
    "message['tool_calls']": "calls",
    "message.content": "content",
    "add_generation_prompt": "generation",
    "tools is not none": "tools",
    "tools is defined": None,
}


def _decide_jinja(text: str, facts: Facts) -> bool | None:
    text = text.strip()
    for word, combine in ((" or ", _any_of), (" and ", _all_of)):
        parts = _outside_parentheses(text, word)
        if len(parts) > 1:
            return combine([_decide_jinja(part, facts) for part in parts])
    if text.startswith("not ") or text.startswith("not("):
        inner = _decide_jinja(text[3:], facts)
        return None if inner is None else not inner
    if text.startswith("(") and text.endswith(")"):
        return _decide_jinja(text[1:-1], facts)
    role = re.fullmatch(r"message(?:\.role|\[['\"]role['\"]\])\s*(==|!=)\s*['\"](\w+)['\"]", text)
    if role and facts.get("role"):
        return (facts["role"] == role.group(2)) == (role.group(1) == "==")
    known = facts.get(_JINJA_FACTS.get(text) or "")
    return known if isinstance(known, bool) else None


def _outside_parentheses(text: str, word: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if depth == 0 and text.startswith(word, at) and at >= start:
            parts.append(text[start:at])
            start = at + len(word)
    return [*parts, text[start:]]


def _all_of(values: list[bool | None]) -> bool | None:
    return False if False in values else None if None in values else True


def _any_of(values: list[bool | None]) -> bool | None:
    return True if True in values else None if None in values else False
