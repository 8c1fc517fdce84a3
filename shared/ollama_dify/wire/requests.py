"""Build a request's path and body from settings and messages.

Sources for the API: Ollama's docs/api.md and recorded exchanges. Unset values are not in the body.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from ..errors import CapabilityError, ConfigurationError, UnsupportedContentError
from ..media.image import Audio, Image, ImageUrl, MediaFile
from ..media.source import DEFAULT_LIMITS, refusal
from ..settings import (
    ChatSettings,
    ConnectionSettings,
    EmbeddingSettings,
    ModelSettings,
    RerankSettings,
    Timeouts,
)
from ..settings.names import unknown_name
from .json_schema import tool_parameters
from .messages import Content, Message, TextPart, Tool, placed_text
from .think_tags import thinking_apart

# Settings that a call cannot change: name → why.
_CONNECTION = ConnectionSettings.model_fields.keys() - {"timeout", "max_retries"}
_LOADING = ("num_ctx", "context_size", *ModelSettings.option_fields)
_NOT_PER_CALL: Mapping[str, str] = {
    **dict.fromkeys(_CONNECTION, "it belongs to the connection"),
    **dict.fromkeys(_LOADING, "changing it makes the server load the model again"),
    "mode": "it decides between /api/chat and /api/generate",
}

# Maximum nesting of lists and dictionaries in a request; orjson's own limit is a little higher.
_MAX_DEPTH = 250


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One HTTP request.

    body: JSON values, with `Image` or `Audio` objects in place of their base64 text.
    model: for error messages.
    streamed: whether the answer comes in pieces, which decides what timeouts mean.
    timeouts: of this request; None means those of the connection.
    """

    method: str
    path: str
    body: Mapping[str, Any] | None = field(default=None, repr=False)  # no prompts in error reports
    model: str | None = None
    streamed: bool = False
    timeouts: Timeouts | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """The arguments of /api/generate that are not settings. `raw` skips the model's template."""

    text: str
    system: str | None = None
    suffix: str | None = None
    template: str | None = None
    raw: bool = False
    images: tuple[Image | Audio | ImageUrl, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise UnsupportedContentError(
                f"A prompt is a text, not a value of type {type(self.text).__name__}.", hint="Pass a str."
            )

    @classmethod
    def of(cls, prompt: str | Prompt) -> Prompt:
        """A text as a prompt."""
        return prompt if isinstance(prompt, Prompt) else cls(prompt)


def encode(body: Mapping[str, Any]) -> bytes | list[bytes | MediaFile]:
    """JSON bytes of a body; with images, a list: the JSON pieces, and each image in place of its base64 text.

    Raises UnsupportedContentError for text that is not valid Unicode, and for values that JSON cannot hold.
    """
    images: list[MediaFile] = []
    # A random marker: no message can contain it, so splitting at it is safe.
    mark = secrets.token_hex(16)

    def place_image(value: Any) -> Any:
        if isinstance(value, MediaFile):
            images.append(value)
            return mark
        if isinstance(value, Mapping):
            return dict(value)
        raise TypeError(type(value).__name__)

    try:
        # A `MediaFile` is a dataclass, which orjson would otherwise write out field by field.
        text = orjson.dumps(body, default=place_image, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    except (TypeError, RecursionError) as error:
        why = _find_not_json(body, "") or f"The request cannot be written as JSON: {error}."
        raise UnsupportedContentError(why) from error
    # orjson writes NaN and infinity as null, which the server ignores silently.
    if b"null" in text and (found := _find_not_json(body, "")):
        raise UnsupportedContentError(found)
    if not images:
        return text
    first, *literals = text.split(mark.encode())
    pieces: list[bytes | MediaFile] = [first]
    for image, literal in zip(images, literals, strict=True):
        pieces += (image, literal)
    return pieces


def check_call(settings: ChatSettings, call: Mapping[str, Any]) -> ChatSettings:
    """The settings of one call: those of the object, overridden by those of the call, validated.

    `max_tokens` of a call, like `num_predict`, may not exceed the object's bound.
    """
    if not call:
        return settings
    values = dict(call)
    for name in values:
        if name in _NOT_PER_CALL:
            field = "context_size" if name == "num_ctx" else name
            raise ConfigurationError(
                f"{name!r} cannot change per call: {_NOT_PER_CALL[name]}. "
                f"Set {field}= on the object, or make a second object."
            )
        if name not in ChatSettings.model_fields and name != "response_format":
            raise ConfigurationError(unknown_name(name, ChatSettings.model_fields))
    if "max_tokens" in values:
        if "num_predict" in values:
            raise ConfigurationError(
                "max_tokens and num_predict of one call mean the same: give one of them."
            )
        values["num_predict"] = values.pop("max_tokens")
    if values.get("response_format") is not None:
        if "format" in values:
            raise ConfigurationError("format= and response_format= say the same thing; leave one out.")
        values["format"] = values["response_format"]
    values.pop("response_format", None)
    if "options" in values:
        values["options"] = {**settings.options, **(values["options"] or {})}
    explicit = settings.explicit(fields=ChatSettings)
    explicit["base_url"] = settings.base_url or settings.address.url
    return ChatSettings(**{**explicit, **values})


def chat_request(
    settings: ChatSettings, messages: Sequence[Message], *, tools: Sequence[Tool] = (), streamed: bool = False
) -> WireRequest:
    """POST /api/chat. Raises CapabilityError for an image or a tool that the settings forbid."""
    if not messages:
        raise UnsupportedContentError(
            "There are no messages to answer: without one the server only loads the model.\n"
            "Pass at least one user message; to load the model ahead of time use warmup()."
        )
    images = _check_files(settings, [part for message in messages for part in message.content])
    body: dict[str, Any] = {
        "model": settings.model,
        "messages": [wire_message(thinking_apart(message), with_images=images > 0) for message in messages],
        "stream": streamed,
    }
    if tools:
        if settings.function_call_support is False:
            raise _ruled_out(
                settings, f"{len(tools)} tool(s) given", "function_call_support", "calls functions"
            )
        body["tools"] = [wire_tool(tool) for tool in tools]
    body |= _generation(settings)
    return WireRequest("POST", "/api/chat", body, settings.model, streamed, settings.timeouts)


def generate_request(settings: ChatSettings, prompt: Prompt, *, streamed: bool = False) -> WireRequest:
    """POST /api/generate."""
    if not prompt.text and prompt.suffix is None and not prompt.images:
        raise UnsupportedContentError(
            "The prompt is empty: without one the server only loads the model.\n"
            "Pass a prompt; to load the model ahead of time use warmup()."
        )
    _check_files(settings, prompt.images)
    body = _prompt(settings.model, prompt, streamed=streamed) | _generation(settings)
    return WireRequest("POST", "/api/generate", body, settings.model, streamed, settings.timeouts)


def rerank_request(settings: RerankSettings, prompt: Prompt) -> WireRequest:
    """POST /api/generate for one token and its 20 likeliest alternatives; the server cuts nothing."""
    body = _prompt(settings.model, prompt, streamed=False) | _loading(settings)
    body["options"] |= {"temperature": 0, "num_predict": 1}
    body |= {"think": False, "logprobs": True, "top_logprobs": 20, "truncate": False, "shift": False}
    return WireRequest("POST", "/api/generate", body, settings.model)


def _prompt(model: str, prompt: Prompt, *, streamed: bool) -> dict[str, Any]:
    text = prompt.text
    if prompt.images and not (prompt.raw or prompt.template is not None or prompt.suffix is not None):
        text = placed_text((*prompt.images, TextPart(text)))
    raw, images = prompt.raw or None, list(prompt.images) or None
    texts = _told(suffix=prompt.suffix, system=prompt.system, template=prompt.template)
    return {"model": model, "prompt": text, "stream": streamed, **texts, **_told(raw=raw, images=images)}


def embed_request(settings: EmbeddingSettings, texts: Sequence[str]) -> WireRequest:
    """POST /api/embed for one batch; only `overflow="truncate"` lets the server cut."""
    cuts = settings.overflow == "truncate"
    body = {"model": settings.model, "input": list(texts), "truncate": cuts}
    body |= {**_told(dimensions=settings.dimensions), **_loading(settings)}
    return WireRequest("POST", "/api/embed", body, settings.model)


def load_request(settings: ModelSettings) -> WireRequest:
    """POST /api/generate without a prompt: the server loads the model and says `done_reason: "load"`."""
    body = {"model": settings.model, "stream": False, **_loading(settings)}
    return WireRequest("POST", "/api/generate", body, settings.model)


def wire_message(message: Message, *, with_images: bool) -> dict[str, Any]:
    """Ollama's message: one text, a list of images. with_images: whether the conversation has any."""
    calls = [
        {
            **({"id": call.id} if call.id else {}),
            "function": {"index": index, "name": call.name, "arguments": call.arguments},
        }
        for index, call in enumerate(message.tool_calls)
    ]
    told = _told(
        thinking=message.thinking or None,
        images=list(message.images) or None,
        tool_calls=calls or None,
        tool_name=message.tool_name or None,
        tool_call_id=message.tool_call_id or None,
    )
    content = placed_text(message.content) if with_images else message.text
    return {"role": message.role, "content": content, **told}


def wire_tool(tool: Tool) -> dict[str, Any]:
    """Ollama's tool definition; `$ref` is inlined because the server drops `$defs`."""
    parameters = tool_parameters(tool.parameters)
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def _generation(settings: ChatSettings) -> dict[str, Any]:
    """The part of the body that chat and generate share."""
    body = _loading(settings)
    if (limit := settings.answer_limit) is not None:
        body["options"]["num_predict"] = limit
    body |= _told(format=settings.format, think=settings.think)
    body |= _told(logprobs=settings.logprobs, top_logprobs=settings.top_logprobs)
    server_cuts = settings.context_overflow == "truncate"
    body["truncate"] = server_cuts
    body["shift"] = server_cuts
    return body


def _loading(settings: ModelSettings) -> dict[str, Any]:
    """keep_alive and options; the context size is the same in every request of one object."""
    values = settings.__dict__
    options = {name: values[name] for name in settings.option_fields if values[name] is not None}
    if settings.context_size is not None:
        options["num_ctx"] = settings.context_size
    options |= settings.options
    return {"options": options, **_told(keep_alive=settings.keep_alive)}


def _told(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _check_files(settings: ChatSettings, parts: Sequence[Content]) -> int:
    """The number of files. Raises for images that the settings forbid, and for too many files."""
    count = sum(not isinstance(part, TextPart) for part in parts)
    if count > (most := DEFAULT_LIMITS.max_count):
        problem = f"it carries {count} images; at most {most} are taken"
        raise refusal("request", problem, "Spread them over several requests, or leave out older ones.")
    if settings.vision_support is False and any(isinstance(part, (Image, ImageUrl)) for part in parts):
        raise _ruled_out(settings, "An image was given", "vision_support", "reads images")
    return count


def _ruled_out(settings: ChatSettings, given: str, field: str, does: str) -> CapabilityError:
    return CapabilityError(
        f"{given}, but {field}=False for {settings.model!r}.",
        model=settings.model,
        hint=f"Set {field}=True if the model {does}, or leave it unset to ask the server.",
    )


def _find_not_json(value: Any, place: str, depth: int = 0) -> str:
    """Why a value cannot be sent as JSON, and where; "" if it can."""
    at = place or "the top"
    if depth > _MAX_DEPTH:
        deep = f"nested over {_MAX_DEPTH} levels deep, which cannot be sent"
        return f"The value at {place[:60]}… is {deep}.\nFlatten it."
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                return f"The key {key!r} at {at} is no text; JSON objects have text keys."
            inside = f"{place}.{key}" if place else key
            if found := _find_not_json(key, f"a key of {at}") or _find_not_json(item, inside, depth + 1):
                return found
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            if found := _find_not_json(item, f"{place}[{index}]", depth + 1):
                return found
    elif not isinstance(value, MediaFile) and not _is_json(value):
        why = next(text for kind, text in _NOT_JSON.items() if isinstance(value, kind))
        return f"The value at {at} {why.format(value=value, kind=type(value).__name__)}"
    return ""


# Type of a value that JSON cannot hold → why; `object` is any other type.
_NOT_JSON: Mapping[type, str] = {
    str: "holds a lone surrogate, which is not valid Unicode and cannot be sent.\nRepair it, for example: "
    'text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").',
    int: "has more than 64 bits, which cannot be sent.\nSend it as text.",
    float: "is {value}, which JSON cannot hold.\nUse a finite number, or none.",
    object: "is of type {kind}, which JSON cannot hold.\n"
    "Use text, numbers, true/false, lists and dictionaries.",
}


def _is_json(value: Any) -> bool:
    try:
        text = orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    except TypeError:
        return False
    return value is None or text != b"null"
