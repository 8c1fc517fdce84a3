"""The prompt of one node of a Dify app: messages in order, and their variables by readable names.

Dify writes a variable as `{{#node.field#}}`, also with `sys.`, `conversation.` or `env.` as the node, and as
`{{#context#}}`, `{{#histories#}}`; apps without a graph as `{{name}}`. All other braces are text.
In a chat prompt with memory, Dify sends the messages, then the earlier turns, then the question
(`memory.query_prompt_template`, else `{{#sys.query#}}`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..language import _

__all__ = ["DifyMessage", "at", "read_prompt", "rows_at", "selector_text"]

Role = Literal["system", "user", "assistant", "history"]
Note = Callable[[str], None]
# Role, text, and its literals with the selector of the variable after each.
Item = tuple[Role, str, list[tuple[str, str | None]]]

_VARIABLE = re.compile(r"\{\{#([^{}#\n]{1,200})#\}\}")
_SIMPLE_VARIABLE = re.compile(r"\{\{([A-Za-z_][A-Za-z0-9_]{0,99})\}\}")
_JINJA_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]{0,99})\s*\}\}")
_JINJA_REST = re.compile(r"\{%|\{#|\{\{")
_QUERY = "{{#sys.query#}}"
_HISTORY: Item = ("history", "", [])


@dataclass(frozen=True, slots=True)
class DifyMessage:
    """One message of a prompt.

    text: as in the export. The role "history" is the place of the earlier turns and has no text.
    parts: the text as pairs of a literal and the name of the variable after it, None after the last.
    """

    role: Role
    text: str = ""
    parts: tuple[tuple[str, str | None], ...] = ()

    def filled(self, values: Mapping[str, object]) -> str:
        """The text with the variables replaced by values, as Dify sends it."""
        return "".join(text + ("" if name is None else str(values[name])) for text, name in self.parts)


def at(value: Any, *keys: str) -> Any:
    """The value under these nested keys; None if a key is missing or a value is not a mapping."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def rows_at(value: Any, *keys: str) -> list[Any]:
    """The list under these keys; an empty list for any other value."""
    found = at(value, *keys)
    return found if isinstance(found, list) else []


def selector_text(value: Any) -> str:
    """A selector (a list in the export) joined by dots; "" for any other value."""
    return ".".join(map(str, value)) if isinstance(value, list) else ""


def read_prompt(data: Mapping[str, Any], kind: str, note: Note) -> dict[str, Any]:
    """Arguments of a DifyNode from a node's `data` or an app's `model_config`.

    kind: the node's type or the app's mode. note: called with what is ignored.
    """
    names: dict[str, str] = {}
    messages = [
        DifyMessage(role, text, tuple((literal, _name(selector, names)) for literal, selector in parts))
        for role, text, parts in _READERS.get(kind, _llm)(data, kind, note)
    ]
    if messages and not any(message.role == "user" for message in messages):
        note(_("the prompt has no user message; add the question when you call the model"))
    is_enabled = at(data, "context", "enabled") is True
    context = selector_text(at(data, "context", "variable_selector")) if is_enabled else ""
    memory = any(message.role == "history" for message in messages)
    size = at(data, "memory", "window", "size") if _has_window(data) else None
    return {
        "messages": tuple(messages),
        "variables": {
            name: (context or selector) if selector == "context" else selector
            for selector, name in names.items()
        },
        "memory": memory,
        "memory_window": size if memory and type(size) is int and size > 0 else None,
    }


def _llm(data: Mapping[str, Any], kind: str, note: Note) -> Iterator[Item]:
    template = data.get("prompt_template")
    for item in rows_at(data, "prompt_template") or [template]:
        role = str(at(item, "role") or "user") if template is not item else "user"
        if role not in ("system", "user", "assistant"):
            note(_("a message of the unknown role {role}; taken as the user's").format(role=role))
        if at(item, "edition_type") == "jinja2":
            text = str(item.get("jinja2_text") or item.get("text") or "")
            yield _jinja(role, text, rows_at(data, "prompt_config", "jinja2_variables"), note)
        elif at(item, "text"):
            yield _item(role, item["text"])
    memory = data.get("memory")
    if isinstance(template, Mapping):
        if isinstance(at(memory, "role_prefix"), Mapping):
            note(_("role prefixes of the history are not taken over"))
    elif isinstance(memory, Mapping):
        yield _HISTORY
        yield _item("user", memory.get("query_prompt_template") or _QUERY)


def _jinja(role: str, text: str, rows: list[Any], note: Note) -> Item:
    if not _JINJA_REST.search(_JINJA_VARIABLE.sub("", text)):
        known = {str(at(row, "variable")): selector_text(at(row, "value_selector")) for row in rows}
        return _item(role, text, _JINJA_VARIABLE, known)
    note(_("a Jinja prompt with more than plain variables is kept as text; write its logic in Python"))
    return _role(role), text, [(text, None)]


def _simple(data: Mapping[str, Any], kind: str, note: Note) -> Iterator[Item]:
    """An app without a graph: `pre_prompt`, or the expert mode's own prompts."""
    if data.get("prompt_type") == "advanced":
        one = at(data, "completion_prompt_config", "prompt")
        found = [item for item in rows_at(data, "chat_prompt_config", "prompt") or [one] if at(item, "text")]
        yield from (_item(at(item, "role"), item["text"]) for item in found)
        if found:
            return
    if data.get("pre_prompt"):
        yield _item("user" if kind == "completion" else "system", data["pre_prompt"], _SIMPLE_VARIABLE)
    if kind != "completion":
        yield _HISTORY
        yield _item("user", _QUERY)


def _instruction(data: Mapping[str, Any], kind: str, note: Note) -> Iterator[Item]:
    """A classifier or extractor; the export does not have Dify's own prompt around the instruction."""
    classes = [str(at(one, "name") or at(one, "id")) for one in rows_at(data, "classes")]
    if classes and kind == "question-classifier":
        note(_("the classes are: {names}").format(names=", ".join(classes)))
    note(_("Dify's own instructions for this kind of node are not part of an export"))
    text = data.get("instruction") or data.get("instructions")
    if text:
        yield _item("system", text)
    selector = selector_text(data.get("query_variable_selector") or data.get("query"))
    yield _item("user", f"{{{{#{selector or 'sys.query'}#}}}}")
    if _has_window(data):
        note(_("the memory of this node is not taken over"))


def _agent(data: Mapping[str, Any], kind: str, note: Note) -> Iterator[Item]:
    parameters = data.get("agent_parameters")
    for key, role in (("instruction", "system"), ("query", "user")):
        value = _parameter(parameters, key)
        if value:
            yield _item(role, f"{{{{#{selector_text(value)}#}}}}" if isinstance(value, list) else value)
    if _parameter(parameters, "tools"):
        note(_("the tools of this agent are not taken over"))


_READERS: Mapping[str, Callable[[Mapping[str, Any], str, Note], Iterable[Item]]] = {
    **dict.fromkeys(("chat", "agent-chat", "completion"), _simple),
    **dict.fromkeys(("question-classifier", "parameter-extractor"), _instruction),
    "agent": _agent,
}


def _parameter(parameters: Any, key: str) -> Any:
    value = at(parameters, key)
    return value.get("value") if isinstance(value, Mapping) else value


def _has_window(data: Mapping[str, Any]) -> bool:
    return at(data, "memory", "window", "enabled") is True


def _role(role: Any) -> Role:
    return role if role in ("system", "assistant") else "user"


def _item(
    role: Any, text: Any, pattern: re.Pattern[str] = _VARIABLE, selectors: Mapping[str, str] | None = None
) -> Item:
    """One message. selectors: by name, if the names in the text are not the selectors themselves."""
    text, end, parts = str(text), 0, []
    for match in pattern.finditer(text):
        name = match[1].strip()
        parts.append((text[end : match.start()], (selectors or {}).get(name) or name))
        end = match.end()
    return _role(role), text, [*parts, (text[end:], None)]


def _name(selector: str | None, names: dict[str, str]) -> str | None:
    """A unique readable name: the field's, followed by the node's id if two fields have the same name."""
    if selector is None or selector in names:
        return selector and names[selector]
    taken = {"history", *names.values()}
    *path, last = [re.sub(r"\W", "_", piece) for piece in selector.split(".") if piece] or ["variable"]
    stem = last if last.isidentifier() and last.isascii() else "variable"
    numbered = (f"{stem}_{number}" for number in range(2, len(taken) + 3))
    wanted = (name for name in (last, "_".join((last, *path)), *numbered) if name not in taken)
    names[selector] = next(name for name in wanted if name.isidentifier() and name.isascii())
    return names[selector]
