"""Messages and tools for a model, independent of the frameworks: frozen values that both adapters build.

A `Message` is a role and an ordered content of texts and images. Ollama's own message has one
text and a list of images; `requests` converts it.
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
    """A call that the model requests. `arguments` is the object that the server sent, not parsed again.

    id: the server's id, or a unique new one if it sent none; None only in messages that the caller built.
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

    content: texts, images and audio, in order.
    thinking: the model's reasoning in an assistant turn, sent back in tool loops.
    tool_calls: calls of an assistant turn.
    tool_name, tool_call_id: which call a tool turn answers; both are sent, because some chat renderers
        use the one and some the other.
    """

    role: Role
    content: tuple[Content, ...] = ()
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_name: str | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The texts of the content, each on its own line, as they are sent."""
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def images(self) -> tuple[Image | Audio, ...]:
        """The content of Ollama's field `images`: the images and audio files, in order."""
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
    """A call's arguments as an object; histories of other models have them as JSON text.

    where: names the call in errors. Raises UnsupportedContentError if they are not an object.
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
    """The texts of a content, each on its own line, with `[img]` placeholders if it has several images.

    The server replaces the `[img]` placeholders in a message's text by its images in order, and puts the
    other images before the text; then it reads `[img-0]` as the first image of the conversation. Models
    with a renderer inside the server always have their images before the text.

    A single image needs no placeholder. Two images next to each other make servers since 0.30 fail with
    "Chunk not found" if an earlier prompt had the same first image and another second one, so a line break
    is put between them. A placeholder in the caller's text gets a word joiner, so that no image goes there.
    """
    texts = [_LIKE_A_PLACE.sub("[\u2060", part.text) for part in content if isinstance(part, TextPart)]
    if len(content) - len(texts) < 2:
        return "\n".join(texts)
    left = iter(texts)
    return "\n".join(next(left) if isinstance(part, TextPart) else "[img]" for part in content)
