"""Prompts against num_ctx: what the server drops, cuts or refuses, per version."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .images import decoded, is_audio, verdict
from .models import SimulatedModel, projector
from .prompts import Conversation, Message, render
from .responses import nested, refuse

_PADDING = 256
_TRIM_IMAGE_TOKENS = 768
_DEFAULT_KEEP = 4
_TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the prompt, "
    "adjust the context length in settings, or use a model with a longer context length"
)
_NO_MEDIA = "Multimodal data provided, but model does not support multimodal requests."
_NO_PROJECTOR = "{} input is not supported - hint: if this is unexpected, you may need to provide the mmproj"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt and how many images its [img-N] marks stand for."""

    text: str
    images: int = 0

    def tokens(self, model: SimulatedModel, per_image: int | None = None) -> int:
        """Tokens of text and images."""
        if not self.images:
            return model.count(self.text)
        per_image = image_tokens() if per_image is None else per_image
        return model.count(re.sub(r"\[img-\d+\]", "", self.text)) + self.images * per_image


Renderer = Callable[[SimulatedModel, Conversation], Prompt]


def image_tokens() -> int:
    """Tokens per image of the simulated projector."""
    return int(projector()["clip.vision.image_size"] // projector()["clip.vision.patch_size"]) ** 2


def render_chat(model: SimulatedModel, conversation: Conversation) -> Prompt:
    """The model's own template, images marked."""
    marked, images = _mark_images(conversation.messages)
    text = render(model.template, replace(conversation, messages=marked))
    return Prompt(text, images if model.sees else 0)


def _mark_images(messages: Sequence[Message]) -> tuple[list[Message], int]:
    marked: list[Message] = []
    number = 0
    for message in messages:
        content = str(message.get("content") or "")
        for _ in message.get("images") or ():
            mark = f"[img-{number}]"
            if "[img]" in content:
                content = content.replace("[img]", mark, 1)
            else:
                at = len(re.match(r"(?:\[img-\d+\])*", content)[0])  # type: ignore[index]  # matches any text
                content = content[:at] + mark + content[at:]
            number += 1
        marked.append({**message, "content": content})
    return marked, number


def prompt_renderer(body: Mapping[str, Any]) -> Renderer:
    """How /api/generate writes its prompt: raw, by the request's template, or by the model's."""
    if body.get("raw"):
        return lambda model, conversation: Prompt(str(body["prompt"]), len(body.get("images") or ()))
    template = body.get("template")
    if template:
        return lambda model, conversation: Prompt(_fill(str(template), conversation))
    if body.get("suffix"):
        return lambda model, conversation: render_chat(model, _with_gap(conversation, str(body["suffix"])))
    return render_chat


def _with_gap(conversation: Conversation, suffix: str) -> Conversation:
    *before, last = conversation.messages
    return replace(conversation, messages=[*before, {**last, "content": f"{last['content']}<FILL>{suffix}"}])


def _fill(template: str, conversation: Conversation) -> str:
    spoken = {message["role"]: message["content"] for message in conversation.messages}
    values = {"Prompt": spoken.get("user", ""), "System": spoken.get("system", ""), "Response": ""}
    return re.sub(r"{{-?\s*\.(\w+)\s*-?}}", lambda found: values.get(found[1], ""), template)


def fit(
    model: SimulatedModel,
    conversation: Conversation,
    body: Mapping[str, Any],
    *,
    context: int,
    modern: bool,
    late: bool,
    render: Renderer,
) -> tuple[Conversation, int]:
    """What the model really reads, and its tokens: without old messages, cut or refused where too long."""
    truncate = body.get("truncate") is not False
    if truncate and len(conversation.messages) > 1:
        conversation = _drop_oldest(model, conversation, context, render)
    _check_images(model, conversation, modern=modern, late=late)
    prompt = render(model, conversation)
    count = prompt.tokens(model)
    if prompt.images:
        return conversation, count
    if not modern:
        if count > context and not truncate:
            raise refuse(400, "the input length exceeds the context length", late_stream=late)
        return conversation, min(count, context)
    padded = padded_context(context)
    if count >= padded and (model.is_native or not truncate):
        sizes = f"request ({count} tokens) exceeds the available context size ({padded} tokens)"
        error = nested(
            400,
            f"{sizes}, try increasing it",
            "exceed_context_size_error",
            n_prompt_tokens=count,
            n_ctx=padded,
        )
        raise refuse(400, error, late_stream=late)
    if count < context or model.is_native or not truncate:
        return conversation, count
    if body.get("shift") is False:
        raise refuse(400, _TOO_LONG, late_stream=late)
    keep = int((body.get("options") or {}).get("num_keep", _DEFAULT_KEEP))
    return conversation, keep + (context - keep) // 2


def padded_context(context: int) -> int:
    """The context llama-server really makes: a multiple of 256."""
    return -(-context // _PADDING) * _PADDING


def _drop_oldest(
    model: SimulatedModel, conversation: Conversation, context: int, render: Renderer
) -> Conversation:
    messages = conversation.messages
    for start in range(len(messages)):
        system = [message for message in messages[:start] if message.get("role") == "system"]
        kept = replace(conversation, messages=[*system, *messages[start:]])
        if start == len(messages) - 1 or render(model, kept).tokens(model, _TRIM_IMAGE_TOKENS) <= context:
            return kept
    return conversation


def _check_images(model: SimulatedModel, conversation: Conversation, *, modern: bool, late: bool) -> None:
    sees, hears = model.can("vision"), model.can("audio")
    for image in (image for message in conversation.messages for image in message.get("images") or ()):
        data = decoded(image)
        kind = "audio" if is_audio(data) else "image"
        if modern and model.is_native and not (hears if kind == "audio" else sees):
            raise refuse(500, nested(500, _NO_PROJECTOR.format(kind), "server_error"), late_stream=late)
        if modern and not (sees or hears):
            raise refuse(400, nested(400, _NO_MEDIA, "invalid_request_error"), late_stream=late)
        if not (sees or hears):
            return
        refused = verdict(data, modern=modern, sees=sees, hears=hears)
        if refused is not None:
            raise refuse(*refused, late_stream=late)


def token_limit(
    options: Mapping[str, Any], body: Mapping[str, Any], *, context: int, prompt_tokens: int, modern: bool
) -> int:
    """How many tokens may be generated: num_predict, ten contexts, and without shift what is left of one."""
    limits = [10 * context]
    if int(options.get("num_predict", -1)) > 0:
        limits.append(int(options["num_predict"]))
    if body.get("shift") is False:
        limits.append(padded_context(context) - prompt_tokens if modern else context - prompt_tokens + 1)
    return max(1, min(limits))
