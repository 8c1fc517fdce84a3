"""The single entry point for images and audio; the settings say what is accepted.

A text in a message is only ever base64 or a `data:` URL: it is never opened as a path, and fetched
only with `allow_image_urls=True`, from public addresses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ..errors import UnsupportedContentError
from .image import Audio, Image, ImageUrl
from .source import DEFAULT_LIMITS, read_file
from .urls import check_image_url

__all__ = ["MediaRules", "check_fetching_allowed", "load_audio", "load_image"]


class MediaRules(Protocol):
    """The settings that say which files are accepted; `ChatSettings` has them."""

    @property
    def allow_image_paths(self) -> bool | Path: ...
    @property
    def allow_image_urls(self) -> bool: ...
    @property
    def convert_images(self) -> bool: ...
    @property
    def max_image_edge(self) -> int | None: ...


def load_image(
    source: Image | Path | bytes | str, rules: MediaRules, *, encoded: bool = False, where: str = "image"
) -> Image | ImageUrl:
    """An image from a path object, bytes, base64, a `data:` URL, or (if allowed) an http(s) address.

    encoded: `bytes` are base64 or a `data:` URL too, not the file itself; they are not copied.
    where: names the image in errors, for example "message 2, image 1". Raises UnsupportedContentError.
    """
    if encoded and isinstance(source, bytes) and source[:4].lower() == b"http":
        source = source.decode("utf-8", "replace")
    if isinstance(source, str) and source[:8].lower().startswith(("http://", "https://")):
        check_fetching_allowed(rules, where)
        return ImageUrl(check_image_url(source, where=where).url, where)
    if isinstance(source, Path):
        source = read_file(source, allowed=rules.allow_image_paths, limits=DEFAULT_LIMITS, where=where)
        encoded = False
    if rules.convert_images:
        from .conversion import convert_image

        return convert_image(source, encoded=encoded, max_edge=rules.max_image_edge, where=where)
    return source if isinstance(source, Image) else Image.parse(source, encoded=encoded, where=where)


def load_audio(
    source: Audio | Path | bytes | str, rules: MediaRules, *, encoded: bool = False, where: str = "audio"
) -> Audio:
    """Audio from a path object, bytes, base64 or a `data:` URL; web addresses are not fetched.

    encoded, where: as for `load_image`. `allow_image_paths` applies to audio too.
    """
    if isinstance(source, Audio):
        return source
    if isinstance(source, Path):
        return Audio.from_path(source, allowed=rules.allow_image_paths, where=where)
    return Audio.parse(source, encoded=encoded, where=where)


def check_fetching_allowed(rules: MediaRules, where: str) -> None:
    """Refuse an image's address unless the settings allow fetching."""
    if not rules.allow_image_urls:
        raise UnsupportedContentError(
            f"{where}: this image is a web address, and those are not fetched unless that is allowed.",
            hint="Send the image's bytes or base64, or set allow_image_urls=True (public hosts only).",
        )
