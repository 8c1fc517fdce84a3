"""Convert LlamaIndex's messages and tools to the core's. Pure, except for images given by a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import IOBase
from pathlib import Path
from typing import Any, Literal

from llama_index.core.base.llms.types import (
    AudioBlock,
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
    Audio,
    ChatSettings,
    ConfigurationError,
    Image,
    ImageUrl,
    Message,
    TextPart,
    Tool,
    ToolCall,
    UnsupportedContentError,
)
from ollama_dify.adapter import load_audio, load_image, read_arguments

__all__ = ["ROLES", "to_messages", "to_tool", "tool_dict"]

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
    """The conversation as the core's messages.

    settings: say which images are accepted. A tool's result is matched with its call, so that it has the
    tool's name even if LlamaIndex gives only the call's id. Raises UnsupportedContentError with message
    and block.
    """
    tool_names: dict[str, str] = {}
    converted = []
    for index, message in enumerate(messages):
        turn = _message(message, index, tool_names, settings)
        tool_names.update({call.id: call.name for call in turn.tool_calls if call.id})
        converted.append(turn)
    return converted


def _message(
    message: ChatMessage, index: int, tool_names: Mapping[str, str], settings: ChatSettings
) -> Message:
    content: list[TextPart | Image | ImageUrl | Audio] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for number, block in enumerate(message.blocks):
        where = f"messages[{index}].blocks[{number}]"
        if isinstance(block, TextBlock):
            if block.text:
                content.append(TextPart(block.text))
        elif isinstance(block, (ImageBlock, AudioBlock)):
            content.append(_file(block, where, settings))
        elif isinstance(block, ThinkingBlock):
            if block.content:
                thoughts.append(block.content)
        elif isinstance(block, ToolCallBlock):
            arguments = read_arguments(block.tool_kwargs, where)
            calls.append(ToolCall(block.tool_name, arguments, block.tool_call_id or None))
        elif not isinstance(block, CachePoint):  # The server reuses a common prefix by itself.
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


def _file(block: ImageBlock | AudioBlock, where: str, settings: ChatSettings) -> Image | ImageUrl | Audio:
    """The image or audio of a block, from its content, its path or its address."""
    what, held, load = (
        ("image", block.image, load_image)
        if isinstance(block, ImageBlock)
        else ("audio", block.audio, load_audio)
    )
    if held:
        data, is_text = _bytes(held)
        return load(data, settings, encoded=is_text, where=where)
    if block.path is not None:
        return load(Path(block.path), settings, where=where)
    if block.url is not None:
        return load(str(block.url), settings, where=where)
    raise UnsupportedContentError(
        f"{where}: the {type(block).__name__} holds no {what}.\n"
        f"Give it {what}= (bytes), path= or url= (a data: URL)."
    )


def _bytes(source: bytes | IOBase) -> tuple[bytes, bool]:
    """The content of a block, and whether it is base64.

    LlamaIndex stores given bytes as base64; an open file may have either. A file that Ollama reads has a
    non-ASCII byte or a zero byte near its beginning; text has neither.
    """
    data = source if isinstance(source, bytes) else _read(source)
    return data, b"\0" not in data[:512] and data.isascii()


def _read(file: IOBase) -> bytes:
    """The whole content of an open file; its position is restored."""
    position = file.tell()
    file.seek(0)
    data: bytes = file.read()
    file.seek(position)
    return data


def _unsupported(block: ContentBlock, where: str) -> UnsupportedContentError:
    return UnsupportedContentError(
        f"{where}: Ollama takes no {type(block).__name__}.\n"
        "Texts, images, sounds, thinking and tool calls can be sent: TextBlock, ImageBlock, AudioBlock, "
        "ThinkingBlock, ToolCallBlock. Put a document's text into a TextBlock."
    )


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
    return ToolCall(name, read_arguments(arguments, where), call.get("id") or call.get("tool_id") or None)


def tool_dict(tool: BaseTool) -> dict[str, Any]:
    """A tool as plain data in OpenAI's shape, with its own name and its whole schema.

    LlamaIndex's `to_openai_tool` changes names, which agents then do not find, and drops parts of the schema.
    """
    metadata = tool.metadata
    parameters = metadata.get_parameters_dict()
    whole = {} if metadata.fn_schema is None else metadata.fn_schema.model_json_schema()
    if parameters.get("properties") == whole.get("properties"):
        beside = {key: value for key, value in whole.items() if key not in ("title", "description")}
        parameters = {**beside, **parameters}
    return {
        "type": "function",
        "function": {
            "name": metadata.get_name(),
            "description": metadata.description,
            "parameters": parameters,
        },
    }


def to_tool(tool: Any) -> Tool:
    """A tool of LlamaIndex, or its definition as plain data, as the core's `Tool`."""
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
    return Tool(name, function.get("description") or "", function.get("parameters") or {})
