"""Convert LangChain's messages to the core's. Pure, except for images given by an explicit path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    ToolMessage,
)

from ollama_dify import (
    Audio,
    ChatSettings,
    Image,
    ImageUrl,
    Message,
    TextPart,
    ToolCall,
    UnsupportedContentError,
)
from ollama_dify.adapter import load_audio, load_image, read_arguments

__all__ = ["core_messages", "with_media_types"]

# Names of roles in LangChain and other providers → Ollama's roles.
_ROLES = {"human": "user", "ai": "assistant", "developer": "system", "function": "tool"}
_TEXT_TYPES = frozenset({"text", "input_text", "output_text", "text-plain"})
_IMAGE_TYPES = frozenset({"image", "image_url", "input_image"})
_CALL_TYPES = frozenset({"tool_call", "tool_use", "function_call", "tool_call_chunk"})


def core_messages(messages: Sequence[BaseMessage], settings: ChatSettings) -> list[Message]:
    """The conversation as the core's messages.

    settings: say which images are accepted. A tool's result gets the tool's name from the call that it
    answers. A message's `name` is not sent: Ollama has no field for it. Raises UnsupportedContentError
    with message and block for everything that Ollama does not accept.
    """
    names: dict[str, str] = {}
    converted: list[Message] = []
    for index, message in enumerate(messages):
        turns = _Turn(message, f"messages[{index}]", names, settings).read()
        for turn in turns:
            names.update({call.id: call.name for call in turn.tool_calls if call.id})
        converted += turns
    return converted


def with_media_types(message: BaseMessage) -> BaseMessage:
    """The message with a media type at each image in base64: LangChain's tracing fails without one.

    It has no effect on the request: that only depends on the bytes.
    """
    if isinstance(message.content, str):
        return message
    content = [
        {"mime_type": "image/*", **block} if isinstance(block, dict) and _is_base64_image(block) else block
        for block in message.content
    ]
    return message if content == message.content else message.model_copy(update={"content": content})


def _is_base64_image(block: Mapping[str, Any]) -> bool:
    return block.get("type") == "image" and ("base64" in block or block.get("source_type") == "base64")


@dataclass
class _Turn:
    """One message being read: its blocks are sorted into contents, thoughts, calls and results."""

    message: BaseMessage
    where: str
    names: Mapping[str, str]
    settings: ChatSettings
    contents: list[TextPart | Image | ImageUrl | Audio] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)

    def read(self) -> list[Message]:
        """The turn; Anthropic's results inside a human message become turns of their own, before it."""
        message = self.message
        role = _role(message, self.where)
        if isinstance(message, AIMessage):
            self._take_calls(message)
        for place, block in _blocks(message.content, self.where):
            self._take(block, place)
        content = tuple(self.contents)
        if role == "tool":
            call_id = getattr(message, "tool_call_id", None)
            name = message.name or self.names.get(call_id or "")
            return [Message("tool", content, tool_name=name, tool_call_id=call_id)]
        if self.results and not content:
            return self.results
        thinking = "\n".join(self.thoughts) or message.additional_kwargs.get("reasoning_content")
        own = Message(role, content, thinking=thinking or None, tool_calls=tuple(self.calls))
        return [*self.results, own]

    def _take_calls(self, message: AIMessage) -> None:
        for bad in message.invalid_tool_calls:
            where = f"{self.where}, {bad.get('name')!r}"
            arguments = read_arguments(bad.get("args") or "no arguments", where)
            self.calls.append(ToolCall(bad.get("name") or "", arguments, bad.get("id")))
        self.calls += [ToolCall(call["name"], call["args"], call["id"]) for call in message.tool_calls]

    def _take(self, block: str | Mapping[str, Any], where: str) -> None:
        if isinstance(block, str):
            self.contents.append(TextPart(block))
            return
        kind = block.get("type")
        if kind in _TEXT_TYPES and isinstance(block.get("text"), str):
            self.contents.append(TextPart(block["text"]))
        elif (media := _media(block)) is not None:
            self.contents.append(_loaded(block, media, self.settings, where))
        elif kind in ("reasoning", "thinking"):
            self.thoughts += _thoughts(block)
        elif kind in _CALL_TYPES:
            self._take_call(block, where)
        elif kind == "tool_result":
            self.results.append(self._result(block, where))
        else:
            raise _refused(block, where)

    def _take_call(self, block: Mapping[str, Any], where: str) -> None:
        """A call among the content: LangChain usually names it in `tool_calls` too."""
        call_id = block.get("call_id") or block.get("id")
        if any(call.id == call_id for call in self.calls):
            return
        found = [block[key] for key in ("args", "input", "arguments") if key in block]
        arguments = read_arguments(found[0] if found else None, where)
        self.calls.append(ToolCall(str(block.get("name") or ""), arguments, call_id))

    def _result(self, block: Mapping[str, Any], where: str) -> Message:
        call_id = block.get("tool_use_id")
        told = ToolMessage(content=block.get("content") or "", tool_call_id=str(call_id or ""))
        (result,) = _Turn(told, where, self.names, self.settings).read()
        return result


def _blocks(content: Any, where: str) -> Iterator[tuple[str, str | Mapping[str, Any]]]:
    """The blocks of a content, each with its place; empty texts are left out."""
    if isinstance(content, str):
        if content:
            yield where, content
        return
    for number, block in enumerate(content):
        foreign = isinstance(block, dict) and block.get("type") == "non_standard"
        yield f"{where}.content[{number}]", block.get("value", block) if foreign else block


def _role(message: BaseMessage, where: str) -> Any:
    given = message.role if isinstance(message, ChatMessage) else message.type.removesuffix("MessageChunk")
    role = _ROLES.get(given.lower(), given.lower())
    if role in ("system", "user", "assistant", "tool"):
        return role
    raise UnsupportedContentError(
        f"{where}: Ollama has no {type(message).__name__} with the role {given!r}.",
        hint="Use SystemMessage, HumanMessage, AIMessage or ToolMessage.",
    )


def _thoughts(block: Mapping[str, Any]) -> list[str]:
    """The text of LangChain's `reasoning`, Anthropic's `thinking` and OpenAI's `summary`."""
    text = block.get("reasoning", block.get("thinking"))
    if isinstance(text, str):
        return [text] if text else []
    summary = block.get("summary")
    parts = summary if isinstance(summary, list) else []
    return [part["text"] for part in parts if isinstance(part, Mapping) and part.get("text")]


def _refused(block: Mapping[str, Any], where: str) -> UnsupportedContentError:
    kind = block.get("type")
    if kind is None:
        return UnsupportedContentError(
            f"{where}: this block has no type; its keys are {', '.join(map(repr, block)) or 'none'}.",
            hint='Write {"type": "text", "text": …} or {"type": "image", "base64": …, "mime_type": …}.',
        )
    media = block.get("mime_type")
    label = f" ({media})" if isinstance(media, str) else ""
    return UnsupportedContentError(
        f"{where}: Ollama takes no block of type {kind!r}{label}.",
        hint="Texts, images, sounds, reasoning and tool calls can be sent. Put a document's text into a text "
        "block; send the frames of a video as images.",
    )


def _media(block: Mapping[str, Any]) -> str | None:
    """Whether a block is an "image" or "audio"; None: neither."""
    kind = block.get("type")
    if kind in ("media", "file"):
        media = str(block.get("mime_type", "")).partition("/")[0]
        return media if media in ("image", "audio") else None
    if kind in _IMAGE_TYPES or (kind is None and "image" in block):
        return "image"
    return "audio" if kind in ("audio", "input_audio") else None


def _loaded(
    block: Mapping[str, Any], media: str, settings: ChatSettings, where: str
) -> Image | ImageUrl | Audio:
    """The image or audio of a block in any supported shape.

    OpenAI (`image_url`, `input_image`, `input_audio`), LangChain v0 (`source_type`) and v1 (`base64`, `url`),
    Anthropic (`source`), Bedrock (`image` with bytes), Google (`media`), and ours: `{"type": "image",
    "path": Path(…)}` and `{"type": "image", "image": Image(…)}`. Only a path object is a path.
    Raises UnsupportedContentError, which names the place.
    """
    source = _source(block)
    if isinstance(source, (bytearray, memoryview)):
        source = bytes(source)
    if media == "audio" and isinstance(source, (Audio, Path, bytes, str)):
        return load_audio(source, settings, where=where)
    if media == "image" and isinstance(source, (Image, Path, bytes, str)):
        return load_image(source, settings, where=where)
    if _file_id(block):
        raise UnsupportedContentError(
            f"{where}: this {media} is the id of a file that another provider keeps.",
            hint="Send its bytes or base64.",
        )
    example = "image/png" if media == "image" else "audio/wav"
    raise UnsupportedContentError(
        f"{where}: this {block.get('type', media)!r} block holds no {media}; its keys are "
        f"{', '.join(map(repr, block))}.",
        hint=f'Write {{"type": "{media}", "base64": …, "mime_type": "{example}"}}.',
    )


def _source(block: Mapping[str, Any]) -> Any:
    """The value that contains the bytes of an image or audio; None if there is none."""
    for key in ("base64", "data", "bytes", "path", "url"):
        if block.get(key) is not None:
            return block[key]
    for key in ("image_url", "image", "audio", "input_audio", "source"):
        inner = block.get(key)
        if inner is not None:
            return _source(inner) if isinstance(inner, Mapping) else inner
    return None


def _file_id(block: Mapping[str, Any]) -> bool:
    source = block.get("source")
    places = (block, source) if isinstance(source, Mapping) else (block,)
    return any("file_id" in place or place.get("source_type") == "id" for place in places)
