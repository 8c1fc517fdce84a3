"""LlamaIndex's messages and tools into the core's. Pure, but for images named by an explicit path."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from io import IOBase
from pathlib import Path
from typing import Any, Literal

from llama_index.core.base.llms.generic_utils import messages_to_prompt as own_prompt_format
from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ContentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.tools.types import BaseTool

from ollama_dify import (
    CapabilityError,
    ChatSettings,
    ConfigurationError,
    Image,
    ImageUrl,
    Message,
    Prompt,
    TextPart,
    Tool,
    ToolCall,
    UnsupportedContentError,
    load_image,
)

__all__ = ["to_arguments", "to_messages", "to_prompt", "to_tool", "to_tool_choice", "tool_dict"]

ROLES: Mapping[MessageRole, Literal["system", "user", "assistant", "tool"]] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}


def to_messages(messages: Sequence[ChatMessage], settings: ChatSettings) -> list[Message]:
    """The conversation in the core's words.

    settings: say what images are taken. A tool's result is matched with its call, so that it carries the
    tool's name even where LlamaIndex gives only the call's id. Raises UnsupportedContentError naming message
    and block.
    """
    tool_names: dict[str, str] = {}
    converted = []
    for index, message in enumerate(messages):
        turn = _message(message, index, tool_names, settings)
        tool_names.update({call.id: call.name for call in turn.tool_calls if call.id})
        converted.append(turn)
    return converted


def to_prompt(
    messages: Sequence[ChatMessage],
    settings: ChatSettings,
    messages_to_prompt: Callable[[Sequence[ChatMessage]], str],
) -> Prompt:
    """The conversation as one prompt for /api/generate: system apart, the other turns by LlamaIndex's prompt
    format.

    messages_to_prompt: that format. A lone user turn goes as it is under LlamaIndex's own format, because
    the server puts the model's template around it. Raises CapabilityError for tool calls.
    """
    converted = to_messages(messages, settings)
    if any(turn.role == "tool" or turn.tool_calls for turn in converted):
        raise CapabilityError(
            'The conversation holds tool calls, which mode="completion" cannot express.',
            hint='Use mode="chat" for tools.',
        )
    system = [turn.text for turn in converted if turn.role == "system"]
    turns = [turn for turn in converted if turn.role != "system"]
    if messages_to_prompt is own_prompt_format and [turn.role for turn in turns] == ["user"]:
        text = turns[0].text
    elif turns:
        text = messages_to_prompt([message for message in messages if ROLES[message.role] != "system"])
    else:
        text = ""
    images = tuple(part for turn in converted for part in turn.content if not isinstance(part, TextPart))
    return Prompt(text, system="\n\n".join(system) if system else None, images=images)


def _message(
    message: ChatMessage, index: int, tool_names: Mapping[str, str], settings: ChatSettings
) -> Message:
    content: list[TextPart | Image | ImageUrl] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for number, block in enumerate(message.blocks):
        where = f"messages[{index}].blocks[{number}]"
        if isinstance(block, TextBlock):
            if block.text:
                content.append(TextPart(block.text))
        elif isinstance(block, ImageBlock):
            content.append(_image(block, where, settings))
        elif isinstance(block, ThinkingBlock):
            if block.content:
                thoughts.append(block.content)
        elif isinstance(block, ToolCallBlock):
            calls.append(
                ToolCall(block.tool_name, to_arguments(block.tool_kwargs, where), block.tool_call_id or None)
            )
        elif not isinstance(block, CachePoint):  # The server reuses a common beginning without being told.
            raise _unsupported(block, where)
    extra = message.additional_kwargs
    role = ROLES[message.role]
    if role == "tool":
        call_id = extra.get("tool_call_id")
        name = extra.get("name") or extra.get("tool_name") or tool_names.get(call_id or "")
        return Message("tool", tuple(content), tool_name=name, tool_call_id=call_id)
    if not calls and extra.get("tool_calls"):
        calls = [
            _written_call(call, f"messages[{index}].additional_kwargs['tool_calls'][{number}]")
            for number, call in enumerate(extra["tool_calls"])
        ]
    return Message(role, tuple(content), thinking="\n".join(thoughts) or None, tool_calls=tuple(calls))


def _image(block: ImageBlock, where: str, settings: ChatSettings) -> Image | ImageUrl:
    if block.image:
        data = block.image if isinstance(block.image, bytes) else _read(block.image)
        # LlamaIndex keeps the bytes it is given as base64; an open file holds an image, or base64 too.
        # What Ollama reads has a byte beyond ASCII or a zero byte near its beginning; text has neither.
        is_text = b"\0" not in data[:512] and data.isascii()
        return load_image(data, settings, encoded=is_text, where=where)
    if block.path is not None:
        return load_image(Path(block.path), settings, where=where)
    if block.url is not None:
        return load_image(str(block.url), settings, where=where)
    raise UnsupportedContentError(
        f"{where}: the ImageBlock holds no image.\nGive it image= (bytes), path= or url= (a data: URL)."
    )


def _read(file: IOBase) -> bytes:
    """All of an open file, which is left where it was."""
    position = file.tell()
    file.seek(0)
    data: bytes = file.read()
    file.seek(position)
    return data


def _unsupported(block: ContentBlock, where: str) -> UnsupportedContentError:
    return UnsupportedContentError(
        f"{where}: Ollama takes no {type(block).__name__}.\n"
        "Texts, images, thinking and tool calls can be sent: TextBlock, ImageBlock, ThinkingBlock, "
        "ToolCallBlock. Put a document's text into a TextBlock."
    )


def to_arguments(value: Mapping[str, Any] | str | None, where: str) -> Mapping[str, Any]:
    """Arguments as an object; other models' histories hold them as JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else {}
        except ValueError as error:
            raise UnsupportedContentError(
                f"{where}: the tool call's arguments are not JSON ({error}).\n"
                "Give tool_kwargs as a dictionary."
            ) from error
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UnsupportedContentError(
            f"{where}: the tool call's arguments are of type {type(value).__name__}.\n"
            "Give tool_kwargs as a dictionary."
        )
    return value


def _written_call(call: Any, where: str) -> ToolCall:
    """A call as older LlamaIndex histories hold it: OpenAI's shape, Ollama's, or a flat one."""
    if not isinstance(call, Mapping):
        dump = getattr(call, "model_dump", None)
        call = dump() if dump is not None else {}
    function = call.get("function") or call
    name = function.get("name") or function.get("tool_name")
    if not isinstance(name, str):
        raise UnsupportedContentError(f"{where}: a tool call without a name.\nUse a ToolCallBlock instead.")
    arguments = function.get("arguments", function.get("tool_kwargs"))
    return ToolCall(name, to_arguments(arguments, where), call.get("id") or call.get("tool_id") or None)


def tool_dict(tool: BaseTool) -> dict[str, Any]:
    """A tool as plain data in OpenAI's shape, with its own name and its whole schema.

    LlamaIndex's `to_openai_tool` changes names the agents then do not find, and keeps a part of the schema.
    """
    metadata = tool.metadata
    whole = {} if metadata.fn_schema is None else metadata.fn_schema.model_json_schema()
    beside = {key: value for key, value in whole.items() if key not in ("title", "description")}
    return {
        "type": "function",
        "function": {
            "name": metadata.get_name(),
            "description": metadata.description,
            "parameters": {**beside, **metadata.get_parameters_dict()},
        },
    }


def to_tool(tool: Any) -> Tool:
    """A tool of LlamaIndex, or its definition as plain data, in the core's words."""
    if isinstance(tool, Tool):
        return tool
    source = tool_dict(tool) if isinstance(tool, BaseTool) else tool
    function = source.get("function", source) if isinstance(source, Mapping) else {}
    name = function.get("name")
    if not isinstance(name, str):
        raise ConfigurationError(
            f"A tool of type {type(tool).__name__} has no name.\n"
            'Pass a LlamaIndex tool (FunctionTool.from_defaults(…)) or {"type": "function", "function": {…}}.'
        )
    parameters = function.get("parameters")
    if parameters is None:
        parameters = {"type": "object", "properties": {}}
    return Tool(name, function.get("description") or "", parameters)


def to_tool_choice(choice: Any) -> str | None:
    """A choice in the core's words; LlamaIndex passes OpenAI's objects on, which name a tool."""
    if isinstance(choice, Mapping):
        function = choice.get("function", choice)
        name = function.get("name") if isinstance(function, Mapping) else None
        if isinstance(name, str):
            return name
    elif choice is None or isinstance(choice, str):
        return choice
    raise ConfigurationError(
        f'tool_choice={choice!r} names no tool: use "auto", "none", "required" or a tool\'s name.'
    )
