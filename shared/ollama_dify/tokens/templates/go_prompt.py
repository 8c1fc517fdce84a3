"""The prompt that Ollama makes of a conversation with a template in Go's language, as its `template.go` does.

Neighbours of one role are joined, but not tool results; `.System` is all system texts. A template that knows
no `.Messages` runs once for each exchange, and the last time stops after its first `.Response`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import go_syntax as syntax
from .go_execute import execute
from .go_values import JsonMap, Struct
from .rendering import Date, NotRendered, Work
from .tool_schema import template_tools

__all__ = ["GoPrompt"]

WireMessage = Mapping[str, Any]


class GoPrompt:
    """One template; `render` may be called any number of times. Raises `NotRendered`."""

    def __init__(self, template: str) -> None:
        trees = syntax.parse(template)
        names = {name.lower() for tree in trees.values() for name in _names(tree)}
        self._by_messages = "messages" in names
        if not names & {"messages", "response"}:
            answer = syntax.Pipe([syntax.Command([syntax.Field(("Response",))])])
            trees = {**trees, "": [*trees[""], syntax.Action(answer)]}
        self._trees = trees
        self._last = self._trees if self._by_messages else {**trees, "": _cut(trees[""])}

    def render(
        self,
        messages: Sequence[WireMessage],
        tools: Sequence[Mapping[str, Any]],
        think: bool | str | None,
        date: Date,
        work: Work,
    ) -> str:
        """The whole prompt; `think` is what the server makes of it: None only where the model cannot."""
        level = think if isinstance(think, str) else "medium" if think else ""
        told = {"Think": bool(think), "ThinkLevel": level, "IsThinkSet": think is not None}
        joined = _collated(messages)
        if self._by_messages:
            data = {
                **told,
                "System": "\n\n".join(m["content"] for m in messages if m["role"] == "system"),
                "Messages": [_message(message) for message in joined],
                "Tools": template_tools(list(tools)),
                "Response": "",
            }
            return execute(self._trees, data, work, date)
        *turns, last = _turns(joined)
        written = [execute(self._trees, {**told, **turn}, work, date) for turn in turns]
        return "".join([*written, execute(self._last, {**told, **last}, work, date)])


def _collated(messages: Sequence[WireMessage]) -> list[WireMessage]:
    joined: list[WireMessage] = []
    parts: list[list[str]] = []
    for message in messages:
        if joined and joined[-1]["role"] == message["role"] != "tool":
            parts[-1].append(message["content"])
        else:
            joined.append(message)
            parts.append([message["content"]])
    return [{**message, "content": "\n\n".join(texts)} for message, texts in zip(joined, parts, strict=True)]


def _turns(messages: Sequence[WireMessage]) -> Iterator[dict[str, str]]:
    """System text, question and answer of each exchange; the last one is what the model goes on with."""
    turn = {"System": "", "Prompt": "", "Response": ""}
    empty = dict(turn)
    for message in messages:
        role, content = message["role"], message["content"]
        if (role == "system" and (turn["Prompt"] or turn["Response"])) or (
            role == "user" and turn["Response"]
        ):
            yield turn
            turn = dict(empty)
        name = {"system": "System", "user": "Prompt", "assistant": "Response"}.get(role)
        if name is not None:
            turn[name] = content
    yield turn


def _message(message: WireMessage) -> Struct:
    return Struct(
        {
            "Role": message["role"],
            "Content": message["content"],
            "Thinking": message["thinking"],
            "Images": list(message["images"]),
            "ToolCalls": [_call(call) for call in message["tool_calls"]],
            "ToolName": message["tool_name"],
            "ToolCallID": message["tool_call_id"],
        }
    )


def _call(call: Mapping[str, Any]) -> Struct:
    function = {
        "Index": call["index"],
        "Name": call["name"],
        "Arguments": JsonMap(call["arguments"]),
    }
    return Struct({"ID": call["id"], "Function": Struct(function)})


def _names(nodes: Sequence[syntax.Node]) -> Iterator[str]:
    """Fields and variables that a template mentions."""
    for node in nodes:
        if isinstance(node, (syntax.Action, syntax.Block)):
            yield from _operand_names(node.pipe)
        if isinstance(node, syntax.Call) and node.pipe is not None:
            yield from _operand_names(node.pipe)
        if isinstance(node, syntax.Block):
            yield from _names([*node.body, *(node.otherwise or ())])


def _operand_names(pipe: syntax.Pipe) -> Iterator[str]:
    for command in pipe.commands:
        for operand in command.operands:
            if isinstance(operand, (syntax.Field, syntax.Variable)):
                yield from operand.names
            elif isinstance(operand, syntax.Pipe):
                yield from _operand_names(operand)


def _cut(nodes: Sequence[syntax.Node]) -> list[syntax.Node]:
    """The nodes up to the first output of `.Response`, inside blocks too."""
    kept: list[syntax.Node] = []
    for node in nodes:
        if isinstance(node, syntax.Block):
            body = _cut(node.body)
            found = _ends_with_response(body)
            if found and node.otherwise is not None:
                raise NotRendered("an alternative after the response")
            otherwise = None if node.otherwise is None else _cut(node.otherwise)
            kept.append(syntax.Block(node.kind, node.pipe, body, otherwise))
            if found or (otherwise is not None and _ends_with_response(otherwise)):
                break
        else:
            kept.append(node)
            if _is_response(node):
                break
    return kept


def _ends_with_response(nodes: Sequence[syntax.Node]) -> bool:
    if not nodes:
        return False
    last = nodes[-1]
    if isinstance(last, syntax.Block):
        return _ends_with_response(last.body) or _ends_with_response(last.otherwise or ())
    return _is_response(last)


def _is_response(node: syntax.Node) -> bool:
    return isinstance(node, syntax.Action) and any(
        isinstance(operand, syntax.Field) and "Response" in operand.names
        for command in node.pipe.commands
        for operand in command.operands
    )
