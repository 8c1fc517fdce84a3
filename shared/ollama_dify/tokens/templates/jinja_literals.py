"""Reading Jinja templates, as model files bring them: pieces and conditions."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .literal_facts import Facts, all_of, any_of, trimmed

_JINJA = re.compile(r"\{([%{#])([-+]?)(.*?)([-+]?)[%}#]\}", re.DOTALL)


def pieces(template: str) -> Iterator[tuple[str, str]]:
    """(kind, text): text, output, if, else, loop, end or skip."""
    at = 0
    trim = False
    for match in _JINJA.finditer(template):
        text = trimmed(template[at : match.start()], before=trim, after=match.group(2) == "-")
        if text:
            yield "text", text
        yield _action(match.group(1), match.group(3).strip())
        at, trim = match.end(), match.group(4) == "-"
    rest = trimmed(template[at:], before=trim, after=False)
    if rest:
        yield "text", rest


def _action(sign: str, action: str) -> tuple[str, str]:
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


_JINJA_FACTS = {
    "tools": "tools",
    "message.tool_calls": "calls",
    "message['tool_calls']": "calls",
    "message.content": "content",
    "add_generation_prompt": "generation",
    "tools is not none": "tools",
    "tools is defined": None,
}


def decide(text: str, facts: Facts) -> bool | None:
    """What a condition comes to, None where the facts do not tell."""
    text = text.strip()
    for word, combine in ((" or ", any_of), (" and ", all_of)):
        parts = _outside_parentheses(text, word)
        if len(parts) > 1:
            return combine([decide(part, facts) for part in parts])
    if text.startswith(("not ", "not(")):
        inner = decide(text[3:], facts)
        return None if inner is None else not inner
    if text.startswith("(") and text.endswith(")"):
        return decide(text[1:-1], facts)
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
