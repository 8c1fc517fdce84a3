"""Every shape in which a LangChain message holds an image, as a checked `Image`.

The shapes: OpenAI (`image_url`, `input_image`), LangChain's blocks v0 (`source_type`) and v1 (`base64`,
`url`), Anthropic (`source`), Bedrock (`image` with bytes), Google (`media`), and ours: `{"type": "image",
"path": Path(…)}` and `{"type": "image", "image": Image(…)}`. What an image is, its content says, not its
label.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ollama_dify import ChatSettings, Image, ImageUrl, UnsupportedContentError, load_image

__all__ = ["image", "image_settings", "is_image"]

_SETTINGS = ("allow_image_paths", "allow_image_urls", "convert_images", "max_image_edge")

_TYPES = frozenset({"image", "image_url", "input_image"})


def image_settings(model: ChatSettings, call: Mapping[str, Any]) -> ChatSettings:
    """The settings that say what images are taken, of one call."""
    changed = {name: call[name] for name in _SETTINGS if name in call}
    return ChatSettings.from_settings(model, **changed) if changed else model


def is_image(block: Mapping[str, Any]) -> bool:
    """Whether a content block is meant as an image."""
    kind = block.get("type")
    if kind == "media":
        return str(block.get("mime_type", "")).startswith("image/")
    return kind in _TYPES or (kind is None and "image" in block)


def image(block: Mapping[str, Any], settings: ChatSettings, where: str) -> Image | ImageUrl:
    """The image of a block; only a path object is a path, never a text.

    Raises UnsupportedContentError, which names the place, for a file id, for what is no image, and for an
    address unless the settings allow it.
    """
    source = _source(block)
    if isinstance(source, (bytearray, memoryview)):
        source = bytes(source)
    if isinstance(source, (Image, Path, bytes, str)):
        return load_image(source, settings, where=where)
    if _file_id(block):
        raise UnsupportedContentError(
            f"{where}: this image is the id of a file that another provider keeps.",
            hint="Send the image's bytes or base64.",
        )
    raise UnsupportedContentError(
        f"{where}: this {block.get('type', 'image')!r} block holds no image; its keys are "
        f"{', '.join(map(repr, block))}.",
        hint='Write {"type": "image", "base64": …, "mime_type": "image/png"} or '
        '{"type": "image_url", "image_url": {"url": "data:…"}}.',
    )


def _source(block: Mapping[str, Any]) -> Any:
    """Where the image is in the block; None when it is nowhere."""
    for key in ("base64", "data", "path", "url"):
        if block.get(key) is not None:
            return block[key]
    for key in ("image_url", "image", "source"):
        inner = block.get(key)
        if isinstance(inner, Mapping):
            return _source(inner) if key != "source" else _inner_source(inner)
        if inner is not None:
            return inner
    return None


def _inner_source(source: Mapping[str, Any]) -> Any:
    """Anthropic's and Bedrock's `source`."""
    return source["bytes"] if "bytes" in source else _source(source)


def _file_id(block: Mapping[str, Any]) -> bool:
    source = block.get("source")
    places = (block, source) if isinstance(source, Mapping) else (block,)
    return any("file_id" in place or place.get("source_type") == "id" for place in places)
