"""The prompt of one node of a Dify app: messages in order, and the variables in them by readable names.

Dify writes a variable as `{{#node.field#}}`, with the heads `sys.`, `conversation.`, `env.`, and
`{{#context#}}`, `{{#histories#}}`; apps without a graph as `{{name}}`. Everything else in braces is text.
In a chat prompt with memory, Dify sends the messages, then the earlier turns, then the question
(`memory.query_prompt_template`, else `{{#sys.query#}}`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..language import _

__all__ = ["HISTORY", "DifyMessage", "Prompt", "read_prompt"]

HISTORY = "history"
"""The name under which a template takes the earlier turns."""

Role = Literal["system", "user", "assistant", "history"]

_VARIABLE = re.compile(r"\{\{#([^{}#\n]{1,200})#\}\}")
_SIMPLE_VARIABLE = re.compile(r"\{\{([A-Za-z_][A-Za-z0-9_]{0,99})\}\}")
_JINJA_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]{0,99})\s*\}\}")
_JINJA_REST = re.compile(r"\{%|\{#|\{\{")
_QUERY = "{{#sys.query#}}"


@dataclass(frozen=True, slots=True)
class DifyMessage:
    """One message of a prompt.

    text: as the export writes it. role "history" stands for the earlier turns and has no text.
    parts: the text as pairs of a literal and the name of the variable behind it, None behind the last.
    """

    role: Role
    text: str = ""
    parts: tuple[tuple[str, str | None], ...] = ()

    def filled(self, values: Mapping[str, object]) -> str:
        """The text with values in the places of the variables, as Dify sends it."""
        return "".join(text + ("" if name is None else str(values[name])) for text, name in self.parts)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What `read_prompt` found. notes: what was not taken over."""

    messages: tuple[DifyMessage, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    memory: bool = False
    memory_window: int | None = None
    notes: tuple[str, ...] = ()


def read_prompt(data: Mapping[str, Any], kind: str) -> Prompt:
    """The prompt of a node's `data` or an app's `model_config`. kind: the node's type or the app's mode."""
    reader = _PromptReader(data)
    if kind in ("chat", "agent-chat", "completion"):
        reader.read_simple(kind)
    elif kind in ("question-classifier", "parameter-extractor"):
        reader.read_instruction(kind)
    elif kind == "agent":
        reader.read_agent()
    else:
        reader.read_llm()
    return reader.prompt()


class _PromptReader:
    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data
        self._messages: list[tuple[Role, str, Iterator[tuple[str, str | None]]]] = []
        self._notes: list[str] = []
        self._memory = False
        self._window: int | None = None
        self._names: dict[str, str] = {}  # selector → name
        context = data.get("context")
        selector = context.get("variable_selector") if isinstance(context, Mapping) else None
        enabled = isinstance(context, Mapping) and context.get("enabled") is True
        self._context = _selector(selector) if enabled else ""

    def prompt(self) -> Prompt:
        messages = tuple(
            DifyMessage(role, text, tuple(self._named(parts))) for role, text, parts in self._messages
        )
        if messages and not any(message.role == "user" for message in messages):
            self._notes.append(_("the prompt has no user message; add the question when you call the model"))
        variables = {
            name: (self._context or selector) if selector == "context" else selector
            for selector, name in self._names.items()
        }
        return Prompt(messages, variables, self._memory, self._window, tuple(self._notes))

    def read_llm(self) -> None:
        template = self._data.get("prompt_template")
        items = template if isinstance(template, list) else [template]
        for item in items:
            if isinstance(item, Mapping):
                self._add_item(item, "user" if template is item else None)
        memory = self._data.get("memory")
        if isinstance(memory, Mapping):
            self._read_memory(memory, completion=isinstance(template, Mapping))

    def _add_item(self, item: Mapping[str, Any], role: str | None) -> None:
        role = role or str(item.get("role") or "user")
        if role not in ("system", "user", "assistant"):
            self._notes.append(
                _("a message of the unknown role {role}; taken as the user's").format(role=role)
            )
            role = "user"
        if item.get("edition_type") == "jinja2":
            self._add_jinja(role, str(item.get("jinja2_text") or item.get("text") or ""))
        elif text := str(item.get("text") or ""):
            self._add(role, text)

    def _add_jinja(self, role: str, text: str) -> None:
        places = self._data.get("prompt_config")
        rows = places.get("jinja2_variables") if isinstance(places, Mapping) else None
        known = {
            str(row.get("variable")): _selector(row.get("value_selector"))
            for row in (rows if isinstance(rows, list) else ())
            if isinstance(row, Mapping)
        }
        if _JINJA_REST.search(_JINJA_VARIABLE.sub("", text)):
            self._notes.append(
                _("a Jinja prompt with more than plain variables is kept as text; write its logic in Python")
            )
            self._messages.append((_role(role), text, iter([(text, None)])))
        else:
            self._add(role, text, _JINJA_VARIABLE, known)

    def _read_memory(self, memory: Mapping[str, Any], *, completion: bool) -> None:
        window = memory.get("window")
        if isinstance(window, Mapping) and window.get("enabled") is True:
            size = window.get("size")
            self._window = size if type(size) is int and size > 0 else None
        if completion:
            if isinstance(memory.get("role_prefix"), Mapping):
                self._notes.append(_("role prefixes of the history are not taken over"))
            return
        self._memory = True
        self._messages.append(("history", "", iter(())))
        self._add("user", str(memory.get("query_prompt_template") or _QUERY))

    def read_simple(self, kind: str) -> None:
        """An app without a graph: `pre_prompt`, or the expert mode's own prompts."""
        chat, completion = (self._data.get(key) for key in ("chat_prompt_config", "completion_prompt_config"))
        if self._data.get("prompt_type") == "advanced":
            found = chat.get("prompt") if isinstance(chat, Mapping) else None
            if not found and isinstance(completion, Mapping):
                found = [completion.get("prompt")]
            for item in found if isinstance(found, list) else ():
                if isinstance(item, Mapping) and item.get("text"):
                    self._add(str(item.get("role") or "user"), str(item["text"]))
            if found:
                return
        text = str(self._data.get("pre_prompt") or "")
        if kind == "completion":
            if text:
                self._add("user", text, _SIMPLE_VARIABLE)
            return
        if text:
            self._add("system", text, _SIMPLE_VARIABLE)
        self._memory = True
        self._messages.append(("history", "", iter(())))
        self._add("user", _QUERY)

    def read_instruction(self, kind: str) -> None:
        """A classifier or an extractor: Dify's own prompt around the instruction is not in the export."""
        text = str(self._data.get("instruction") or self._data.get("instructions") or "")
        classes = self._data.get("classes")
        if kind == "question-classifier" and isinstance(classes, list):
            names = [str(one.get("name") or one.get("id")) for one in classes if isinstance(one, Mapping)]
            self._notes.append(_("the classes are: {names}").format(names=", ".join(names)))
        self._notes.append(_("Dify's own instructions for this kind of node are not part of an export"))
        if text:
            self._add("system", text)
        selector = self._data.get("query_variable_selector") or self._data.get("query")
        self._add("user", f"{{{{#{_selector(selector) or 'sys.query'}#}}}}")
        memory = self._data.get("memory")
        if isinstance(memory, Mapping) and _window_enabled(memory):
            self._notes.append(_("the memory of this node is not taken over"))

    def read_agent(self) -> None:
        parameters = self._data.get("agent_parameters")
        if not isinstance(parameters, Mapping):
            return
        for key, role in (("instruction", "system"), ("query", "user")):
            value = parameters.get(key)
            value = value.get("value") if isinstance(value, Mapping) else value
            if isinstance(value, list):
                value = f"{{{{#{_selector(value)}#}}}}"
            if value:
                self._add(role, str(value))
        tools = parameters.get("tools")
        tools = tools.get("value") if isinstance(tools, Mapping) else tools
        if tools:
            self._notes.append(_("the tools of this agent are not taken over"))

    def _add(
        self,
        role: str,
        text: str,
        pattern: re.Pattern[str] = _VARIABLE,
        selectors: Mapping[str, str] | None = None,
    ) -> None:
        self._messages.append((_role(role), text, self._parts(text, pattern, selectors)))

    def _parts(
        self, text: str, pattern: re.Pattern[str], selectors: Mapping[str, str] | None
    ) -> Iterator[tuple[str, str | None]]:
        """Literals with the selector of the variable behind each."""
        end = 0
        for match in pattern.finditer(text):
            selector = match[1].strip()
            selector = (selectors or {}).get(selector) or selector
            yield text[end : match.start()], selector
            end = match.end()
        yield text[end:], None

    def _named(self, parts: Iterator[tuple[str, str | None]]) -> Iterator[tuple[str, str | None]]:
        for text, selector in parts:
            yield text, None if selector is None else self._name(selector)

    def _name(self, selector: str) -> str:
        """A readable name of its own: the field's, with the node's id behind it where two are alike."""
        if selector not in self._names:
            taken = {HISTORY, *self._names.values()}
            pieces = [re.sub(r"\W", "_", piece) for piece in selector.split(".") if piece]
            wanted = [pieces[-1] if pieces else "variable", "_".join((*pieces[-1:], *pieces[:-1]))]
            name = next((name for name in wanted if _is_name(name) and name not in taken), None)
            number = 2
            while name is None:
                candidate = f"{wanted[0] if _is_name(wanted[0]) else 'variable'}_{number}"
                name, number = (candidate if candidate not in taken else None), number + 1
            self._names[selector] = name
        return self._names[selector]


def _is_name(name: str) -> bool:
    return name.isidentifier() and name.isascii()


def _role(role: str) -> Role:
    return role if role in ("system", "assistant") else "user"  # type: ignore[return-value]  # one of these


def _selector(value: Any) -> str:
    return ".".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else ""


def _window_enabled(memory: Mapping[str, Any]) -> bool:
    window = memory.get("window")
    return isinstance(window, Mapping) and window.get("enabled") is True
