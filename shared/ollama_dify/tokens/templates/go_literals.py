"""Reading Go templates as Ollama uses them: pieces, fields, conditions."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .literal_facts import Facts, Loop, all_of, any_of, trimmed

_GO = re.compile(r"\{\{(-(?=\s))?(.*?)((?<=\s)-)?\}\}", re.DOTALL)
_LAST_IDIOM = re.compile(r"(\$\w+)\s*:=\s*eq\s*\(len\s*\(slice\s+\$?\.Messages\s+\$\w+\)\)\s*1\b")
_LAST_USER_IDIOM = re.compile(
    r"range\s+(\$\w+),\s*(\$\w+)\s*:=\s*\.Messages[\s}{-]*if\s+eq\s+(?:\2)?\.Role\s+\"user\"\s*-?\}\}"
    r"\s*\{\{-?\s*(\$\w+)\s*=\s*\1\b"
)
_INDEX_IDIOM = re.compile(r"range\s+(\$\w+)\s*,\s*\$\w+\s*:=\s*\$?\.Messages")
_GO_OUTPUT = re.compile(r"(?:\$\w*)?\.(Content|Thinking|System)")
_GO_CALL = re.compile(r"(?:\$\w*)?\.Function\.(Name|Arguments)")
_GO_FUNCTION = re.compile(r"(?:\$\w*)?\.Function")


def field_of(expression: str, over: Loop | None) -> str:
    """The text that an output action puts, if it is nothing else."""
    if over == "calls":
        part = _GO_CALL.fullmatch(expression)
        return part.group(1).lower() if part else "call"
    if over == "tools":
        return "function" if _GO_FUNCTION.fullmatch(expression) else "tool"
    text = _GO_OUTPUT.fullmatch(expression)
    return text.group(1).lower() if text else ""


def pieces(template: str) -> Iterator[tuple[str, str]]:
    """(kind, text): text, output, if, else, loop, end or skip."""
    at = 0
    trim = False
    for match in _GO.finditer(template):
        text = trimmed(template[at : match.start()], before=trim, after=bool(match.group(1)))
        if text:
            yield "text", text
        yield _action(match.group(2).strip())
        at, trim = match.end(), bool(match.group(3))
    rest = trimmed(template[at:], before=trim, after=False)
    if rest:
        yield "text", rest


def _action(action: str) -> tuple[str, str]:
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


Tree = str | list["Tree"]


def tree_of(text: str) -> Tree:
    """A condition as nested lists of words."""
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


def decide(tree: Tree, facts: Facts, idioms: frozenset[tuple[str, str]]) -> bool | None:
    """What a condition comes to, None where the facts do not tell."""
    if isinstance(tree, str):
        name = "last" if (tree, "last") in idioms else _GO_FACTS.get(re.sub(r"^\$\w*", "", tree), "")
        known = facts.get(name)
        return known if isinstance(known, bool) else None
    if not tree:
        return None
    head, rest = tree[0], tree[1:]
    if not rest:
        return decide(head, facts, idioms)
    if head in ("eq", "ne", "gt"):
        return _compare(str(head), rest, facts, idioms)
    values = [decide(item, facts, idioms) for item in rest]
    if head == "and":
        return all_of(values)
    if head == "or":
        return any_of(values)
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


def idioms_of(template: str) -> frozenset[tuple[str, str]]:
    """Variables with a known meaning: (variable, "last" | "index" | "last_user")."""
    found = {(name, "last") for name in _LAST_IDIOM.findall(template)}
    found |= {(name, "index") for name in _INDEX_IDIOM.findall(template)}
    found |= {(match[2], "last_user") for match in _LAST_USER_IDIOM.findall(template)}
    return frozenset(found)
