"""Conversations → prompts, as the recorded models' templates render them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import wire

Message = Mapping[str, Any]
TemplateStyle = Literal["chatml", "plain", "native", "fim", "prompt"]
_TOOLS_HEAD = (
    "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
_TOOLS_TAIL = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": '
    "<args-json-object>}\n</tool_call>"
)
_NO_THOUGHT = "<think>\n\n</think>\n\n"


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a template sees; `think` None means a model without that capability."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    think: bool | None = None


def render(style: TemplateStyle, conversation: Conversation) -> str:
    """The prompt text that the model reads."""
    return _RENDERERS[style](conversation)


def _text(message: Message) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""


def collate(messages: Sequence[Message]) -> tuple[str, list[dict[str, Any]]]:
    """System texts joined; neighbours of one role merged, tool results excepted."""
    system = [_text(message) for message in messages if message.get("role") == "system"]
    merged: list[dict[str, Any]] = []
    for message in messages:
        role = message.get("role")
        if merged and merged[-1]["role"] == role and role != "tool":
            if _text(message):
                merged[-1]["content"] = f"{merged[-1]['content']}\n\n{_text(message)}"
        else:
            merged.append({**message, "role": role, "content": _text(message)})
    return "\n\n".join(system), merged


def _chatml(conversation: Conversation) -> str:
    system, messages = collate(conversation.messages)
    return "".join((_chatml_system(system, conversation.tools), *_chatml_turns(messages, conversation.think)))


def _chatml_system(system: str, tools: Sequence[Mapping[str, Any]]) -> str:
    if not system and not tools:
        return ""
    parts = ["<|im_start|>system\n"]
    if system:
        parts.append(f"\n{system}")
    if tools:
        parts.append(_TOOLS_HEAD)
        parts.extend(f'\n{{"type": "function", "function": {_go_function(tool)}}}' for tool in tools)
        parts.append(_TOOLS_TAIL)
    parts.append("<|im_end|>\n")
    return "".join(parts)


def _chatml_turns(messages: Sequence[Message], think: bool | None) -> Iterator[str]:
    asked = max((index for index, message in enumerate(messages) if message["role"] == "user"), default=-1)
    for index, message in enumerate(messages):
        last = index == len(messages) - 1
        if message["role"] == "user":
            switch = (" /think" if think else " /no_think") if think is not None and index == asked else ""
            yield f"<|im_start|>user\n{message['content']}{switch}<|im_end|>\n"
        elif message["role"] == "assistant":
            thought = message.get("thinking") if think is not None and (last or index > asked) else None
            yield "<|im_start|>assistant\n" + (f"<think>{thought}</think>\n" if thought else "")
            yield message["content"] if message["content"] else _go_calls(message.get("tool_calls"))
            yield "" if last else "<|im_end|>\n"
        elif message["role"] == "tool":
            yield f"<|im_start|>user\n<tool_response>\n{message['content']}\n</tool_response><|im_end|>\n"
        if last and message["role"] != "assistant":
            yield "<|im_start|>assistant\n" + (_NO_THOUGHT if think is False else "")


def _go_calls(calls: Any) -> str:
    if not calls:
        return ""
    lines = "".join(
        f'{{"name": "{call["function"].get("name", "")}", '
        f'"arguments": {wire.dumps(call["function"].get("arguments") or {}, sort_keys=True).decode()}}}\n'
        for call in calls
    )
    return f"<tool_call>\n{lines}</tool_call>"


def _go_function(tool: Mapping[str, Any]) -> str:
    """A tool's function as Go prints the struct, which is what the template asked for."""
    function = tool.get("function") or {}
    parameters = function.get("parameters") or {}
    required = " ".join(parameters.get("required") or [])
    properties = _sorted_properties(parameters.get("properties") or {})
    described = f"{function.get('name', '')} {function.get('description', '')}"
    shape = f"{{{parameters.get('type', '')} <nil> <nil> [{required}] {wire.dumps(properties).decode()}}}"
    return f"{{{described} {shape}}}"


def _sorted_properties(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Properties are a Go map, written in the order of their names; inside one the struct's order holds."""
    kept = {name: kept_schema(properties[name]) for name in sorted(properties)}
    for schema in kept.values():
        if "properties" in schema:
            schema["properties"] = _sorted_properties(schema["properties"])
    return kept


_SCHEMA_KEYS = ("anyOf", "type", "items", "description", "enum", "properties", "required")


def kept_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What the server keeps of a tool property: seven keys, in this order; the rest is dropped."""
    kept: dict[str, Any] = {}
    for key in _SCHEMA_KEYS:
        value = schema.get(key)
        if value is None or (key != "items" and value in ("", [], {})):
            continue
        if key == "anyOf":
            value = [kept_schema(option) for option in value]
        elif key == "properties":
            value = {name: kept_schema(inner) for name, inner in value.items()}
        kept[key] = value
    return kept


def _plain(conversation: Conversation) -> str:
    system, messages = collate(conversation.messages)
    parts = [f"<|im_start|>system\n{system}<|im_end|>\n"] if system else []
    parts.extend(
        f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n"
        for message in messages
        if message["role"] in ("user", "assistant")
    )
    return "".join(parts) + "<|im_start|>assistant\n"


def _native(conversation: Conversation) -> str:
    """The Jinja template of models that llama-server renders itself."""
    messages = conversation.messages
    first = _text(messages[0]) if messages and messages[0].get("role") == "system" else None
    parts: list[str] = []
    if conversation.tools:
        parts.append("<|im_start|>system\n" + (f"\n{first}" if first is not None else "") + _TOOLS_HEAD)
        parts.extend("\n" + json.dumps(_native_tool(tool), ensure_ascii=False) for tool in conversation.tools)
        parts.append(f"{_TOOLS_TAIL}<|im_end|>\n")
    elif first is not None:
        parts.append(f"<|im_start|>system\n\n{first}<|im_end|>\n")
    parts.extend(_native_turns(messages, conversation.think))
    return "".join(parts)


def _native_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool.get("function") or {}
    parameters = function.get("parameters") or {}
    properties = {name: kept_schema(schema) for name, schema in (parameters.get("properties") or {}).items()}
    required, described = parameters.get("required"), function.get("description")
    shape = {
        "type": parameters.get("type", ""),
        **({"required": required} if required else {}),
        "properties": properties,
    }
    told = {"description": described} if described else {}
    return {"type": "function", "function": {"name": function.get("name", ""), **told, "parameters": shape}}


def _native_turns(messages: Sequence[Message], think: bool | None) -> Iterator[str]:
    asked = max((i for i, m in enumerate(messages) if m.get("role") == "user"), default=len(messages) - 1)
    for index, message in enumerate(messages):
        role, content, last = message.get("role"), _text(message), index == len(messages) - 1
        if role == "user" or (role == "system" and index > 0):
            switch = ""
            if role == "user" and index == asked and think is not None:
                switch = " /think" if think else " /no_think"
            yield f"<|im_start|>{role}\n{content}{switch}<|im_end|>\n"
        elif role == "assistant":
            yield _native_assistant(message, index > asked, last)
        elif role == "tool":
            before = index > 0 and messages[index - 1].get("role") == "tool"
            after = not last and messages[index + 1].get("role") == "tool"
            yield ("" if before else "<|im_start|>user") + f"\n<tool_response>\n{content}\n</tool_response>"
            yield "" if after else "<|im_end|>\n"
    if not messages or messages[-1].get("role") != "assistant":
        yield "<|im_start|>assistant\n" + (_NO_THOUGHT if think is False else "")


def _native_assistant(message: Message, recent: bool, last: bool) -> str:
    content, thought = _text(message), str(message.get("thinking") or "")
    if "</think>" in content:
        inline, _, content = content.rpartition("</think>")
        thought = thought if thought else inline.rpartition("<think>")[2].strip("\n")
        content = content.lstrip("\n")
    text = "<|im_start|>assistant\n"
    if recent and (last or thought):
        thought = thought.strip("\n")
        text += f"<think>\n{thought}\n</think>\n\n{content.lstrip(chr(10))}"
    else:
        text += content
    for number, call in enumerate(message.get("tool_calls") or ()):
        text += "\n" if number or content else ""
        function = call.get("function") or {}
        arguments = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
        text += (
            f'<tool_call>\n{{"name": "{function.get("name", "")}", "arguments": {arguments}}}\n</tool_call>'
        )
    return text if last else f"{text}<|im_end|>\n"


def _prompt(conversation: Conversation) -> str:
    system, messages = collate(conversation.messages)
    spoken = (message["content"] for message in messages if message["role"] != "system")
    return "\n\n".join([*([system] if system else []), *spoken])


_RENDERERS: dict[TemplateStyle, Callable[[Conversation], str]] = {
    "chatml": _chatml,
    "plain": _plain,
    "native": _native,
    "fim": _plain,
    "prompt": _prompt,
}
