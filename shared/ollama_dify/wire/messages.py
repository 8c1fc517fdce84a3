"""What is said to a model, free of any framework: frozen values that both adapters build.

A `Message` is a role and an ordered content of texts and images. Ollama's own message has one
text and a list of images; `requests` makes that out of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from ..errors import UnsupportedContentError
from ..media.image import Audio, Image, ImageUrl

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text."""

    text: str


Content = TextPart | Image | Audio | ImageUrl


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model asks for. `arguments` is the object the server sent, never parsed again.

    id: the server's id, or a unique one made when it sent none; None only in messages the caller built.
    """

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call. `parameters` is a JSON schema of type object; `$ref` is inlined
    when it is sent, since the server drops `$defs`."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    content: texts, images and sounds in the order they are meant.
    thinking: the model's reasoning of an assistant turn, sent back in tool loops.
    tool_calls: calls of an assistant turn.
    tool_name, tool_call_id: which call a tool turn answers; both are sent, since some chat renderers
        match one and some the other.
    """

    role: Role
    content: tuple[Content, ...] = ()
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_name: str | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The texts of the content, each on its own line, as it is sent."""
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def images(self) -> tuple[Image | Audio, ...]:
        """What Ollama's field `images` carries: the images and sounds of the content, in order."""
        return tuple(part for part in self.content if isinstance(part, (Image, Audio)))


def _content(parts: Sequence[str | Content]) -> tuple[Content, ...]:
    for part in parts:
        if not isinstance(part, (str, TextPart, Image, Audio, ImageUrl)):
            raise UnsupportedContentError(
                f"A message takes texts, images and sounds, not a value of type {type(part).__name__}.",
                hint="Pass a str, an Image or an Audio: user('What is this?', Image.from_path('cat.png')).",
            )
    return tuple(TextPart(part) if isinstance(part, str) else part for part in parts)


def system(*parts: str) -> Message:
    """A system message: `system("You are brief.")`."""
    return Message("system", _content(parts))


def user(*parts: str | Content) -> Message:
    """A user message: `user("What is this?", Image.from_path("cat.png"))`."""
    return Message("user", _content(parts))


def assistant(*parts: str | Content, tool_calls: Iterable[ToolCall] = ()) -> Message:
    """An assistant message."""
    return Message("assistant", _content(parts), tool_calls=tuple(tool_calls))


def read_arguments(value: Any, where: str) -> Mapping[str, Any]:
    """A call's arguments as an object; histories of other models hold them as JSON text.

    where: names the call in errors. Raises UnsupportedContentError for what is no object.
    """
    problem = cause = None
    if isinstance(value, str):
        try:
            value = orjson.loads(value) if value.strip() else {}
        except ValueError as error:
            problem, cause = f"are not JSON ({error})", error
    if value is None or isinstance(value, Mapping):
        return value or {}
    problem = problem or f"are of type {type(value).__name__}"
    raise UnsupportedContentError(
        f"{where}: the tool call's arguments {problem}, and Ollama takes an object only.",
        hint="Give them as a dictionary, or leave this call and its result out of the history.",
    ) from cause


_LIKE_A_PLACE = re.compile(r"\[(?=img(?:-\d+)?\])")


def placed_text(content: Sequence[Content]) -> str:
    """The texts of a content, each on its own line, with the places of its images where they are several.

    The server puts the images of a message in the places of `[img]` in its text, one after the other, and
    those without a place before it; then it reads `[img-0]` as the first image of the conversation. Models
    with a renderer inside the server have their images before the text in any case.

    An image alone needs no place. Two of them side by side make servers since 0.30 fail with "Chunk not
    found" once an earlier prompt shared the first and not the second, so a line break stands between them.
    What looks like a place in a text of the caller gets a word joiner, and no image goes there.
    """
    texts = [_LIKE_A_PLACE.sub("[\u2060", part.text) for part in content if isinstance(part, TextPart)]
    if len(content) - len(texts) < 2:
        return "\n".join(texts)
    left = iter(texts)
    return "\n".join(next(left) if isinstance(part, TextPart) else "[img]" for part in content)
