"""LangChain's messages into the core's. Pure, but for images named by an explicit path."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    get_buffer_string,
)

from ollama_dify import (
    CapabilityError,
    ChatSettings,
    Image,
    ImageUrl,
    Message,
    Prompt,
    TextPart,
    ToolCall,
    UnsupportedContentError,
)

from .images import image, is_image

__all__ = ["PROMPT_ARGUMENTS", "core_messages", "core_prompt"]

# Arguments of a call that belong to the prompt of /api/generate, not to the settings.
PROMPT_ARGUMENTS = ("raw", "suffix", "system", "template")

_ROLES = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
}
_TEXT_TYPES = frozenset({"text", "input_text", "output_text", "text-plain"})
_CALL_TYPES = frozenset({"tool_call", "tool_use", "function_call", "tool_call_chunk"})


def core_messages(messages: Sequence[BaseMessage], settings: ChatSettings) -> list[Message]:
    """The conversation in the core's words.

    settings: what they allow of images. A tool's result gets the tool's name from the call it
    answers. A message's `name` is not sent: Ollama has no field for it. Raises UnsupportedContentError
    that names message and block for everything Ollama does not take.
    """
    names: dict[str, str] = {}
    converted: list[Message] = []
    for index, message in enumerate(messages):
        turns = _Turn(message, f"messages[{index}]", names, settings).read()
        for turn in turns:
            names.update({call.id: call.name for call in turn.tool_calls if call.id})
        converted += turns
    return converted


class _Turn:
    """One message being read: its blocks fall into contents, thoughts, calls and results."""

    def __init__(
        self, message: BaseMessage, where: str, names: Mapping[str, str], settings: ChatSettings
    ) -> None:
        self._message = message
        self._where = where
        self._names = names
        self._settings = settings
        self._contents: list[TextPart | Image | ImageUrl] = []
        self._thoughts: list[str] = []
        self._calls: list[ToolCall] = []
        self._results: list[Message] = []

    def read(self) -> list[Message]:
        """The turn; Anthropic's results inside a human message become turns of their own, before it."""
        message = self._message
        role = _role(message, self._where)
        if isinstance(message, AIMessage):
            self._take_calls(message)
        for place, block in _blocks(message.content, self._where):
            self._take(block, place)
        content = tuple(self._contents)
        if role == "tool":
            call_id = getattr(message, "tool_call_id", None)
            name = message.name or self._names.get(call_id or "")
            return [Message("tool", content, tool_name=name, tool_call_id=call_id)]
        if self._results and not content:
            return self._results
        thinking = "\n".join(self._thoughts) or message.additional_kwargs.get("reasoning_content")
        own = Message(role, content, thinking=thinking or None, tool_calls=tuple(self._calls))
        return [*self._results, own]

    def _take_calls(self, message: AIMessage) -> None:
        for call in message.invalid_tool_calls:
            raise UnsupportedContentError(
                f"{self._where}: the tool call {call.get('name')!r} has arguments that are not JSON, and "
                "Ollama takes arguments as an object only.",
                hint="Leave this call and its result out of the history, or repair its arguments.",
            )
        self._calls += [ToolCall(call["name"], call["args"], call["id"]) for call in message.tool_calls]

    def _take(self, block: str | Mapping[str, Any], where: str) -> None:
        if isinstance(block, str):
            self._contents.append(TextPart(block))
            return
        kind = block.get("type")
        if kind in _TEXT_TYPES and isinstance(block.get("text"), str):
            self._contents.append(TextPart(block["text"]))
        elif is_image(block):
            self._contents.append(image(block, self._settings, where))
        elif kind in ("reasoning", "thinking"):
            self._thoughts += _thoughts(block)
        elif kind in _CALL_TYPES:
            self._take_call(block, where)
        elif kind == "tool_result":
            self._results.append(self._result(block, where))
        else:
            raise _refused(block, where)

    def _take_call(self, block: Mapping[str, Any], where: str) -> None:
        """A call among the content: LangChain usually names it in `tool_calls` too."""
        call_id = block.get("call_id") or block.get("id")
        if any(call.id == call_id for call in self._calls):
            return
        found = [block[key] for key in ("args", "input", "arguments") if key in block]
        arguments = found[0] if found else {}
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except ValueError as error:
                raise UnsupportedContentError(
                    f"{where}: the tool call's arguments are not JSON ({error})."
                ) from error
        self._calls.append(ToolCall(str(block.get("name") or ""), arguments, call_id))

    def _result(self, block: Mapping[str, Any], where: str) -> Message:
        call_id = block.get("tool_use_id")
        told = ToolMessage(content=block.get("content") or "", tool_call_id=str(call_id or ""))
        (result,) = _Turn(told, where, self._names, self._settings).read()
        return result


def _blocks(content: Any, where: str) -> Iterator[tuple[str, str | Mapping[str, Any]]]:
    """The blocks of a content, each with its place; an empty text is no block."""
    if isinstance(content, str):
        if content:
            yield where, content
        return
    for number, block in enumerate(content):
        foreign = isinstance(block, dict) and block.get("type") == "non_standard"
        yield f"{where}.content[{number}]", block.get("value", block) if foreign else block


def _role(message: BaseMessage, where: str) -> Any:
    if isinstance(message, HumanMessage):
        return "user"
    if isinstance(message, AIMessage):
        return "assistant"
    if isinstance(message, SystemMessage):
        return "system"
    if isinstance(message, (ToolMessage, FunctionMessage)):
        return "tool"
    if isinstance(message, ChatMessage) and message.role.lower() in _ROLES:
        return _ROLES[message.role.lower()]
    role = f" with the role {message.role!r}" if isinstance(message, ChatMessage) else ""
    raise UnsupportedContentError(
        f"{where}: Ollama has no {type(message).__name__}{role}.",
        hint="Its roles are system, user, assistant and tool: use SystemMessage, HumanMessage, AIMessage, "
        "ToolMessage.",
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
    media = block.get("mime_type")
    label = f" ({media})" if isinstance(media, str) else ""
    return UnsupportedContentError(
        f"{where}: Ollama takes no block of type {kind!r}{label}.",
        hint="Texts, images, reasoning and tool calls can be sent. Put a document's text into a text "
        "block; send the frames of a video as images.",
    )


def core_prompt(messages: Sequence[BaseMessage], settings: ChatSettings, **extra: Any) -> Prompt:
    """The conversation as one prompt for /api/generate: system apart, the other turns in LangChain's own
    prompt format.

    A lone user turn goes as it is, because the server puts the model's template around it.
    extra: values for `PROMPT_ARGUMENTS`. Raises CapabilityError for tool calls.
    """
    converted = core_messages(messages, settings)
    if any(turn.role == "tool" or turn.tool_calls for turn in converted):
        raise CapabilityError(
            'The conversation holds tool calls, which mode="completion" cannot express.',
            hint='Use mode="chat" for tools.',
        )
    system = [turn.text for turn in converted if turn.role == "system"]
    turns = [turn for turn in converted if turn.role != "system"]
    if [turn.role for turn in turns] == ["user"]:
        text = turns[0].text
    else:
        text = get_buffer_string([_plain(turn) for turn in turns])
    images = tuple(part for turn in converted for part in turn.content if not isinstance(part, TextPart))
    values = {"system": "\n\n".join(system) if system else None, "images": images, **extra}
    return Prompt(text, **values)


def _plain(turn: Message) -> BaseMessage:
    return AIMessage(turn.text) if turn.role == "assistant" else HumanMessage(turn.text)
