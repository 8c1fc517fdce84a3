"""Images as the settings want them: the one door through which both adapters bring them in.

A text out of a message is base64 or a `data:` URL and nothing else: never opened as a path, and fetched
only with `allow_image_urls=True`, from public addresses.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..errors import UnsupportedContentError
from ..media.image import DEFAULT_LIMITS, Image
from ..media.urls import check_image_url
from ..settings.model import ChatSettings
from ..transport.network import Network
from ..wire.messages import ImageUrl

__all__ = ["check_fetching_allowed", "fetch_image", "read_image"]


def read_image(
    source: Image | Path | bytes | str, settings: ChatSettings, *, encoded: bool = False, where: str = "image"
) -> Image | ImageUrl:
    """An image from a path object, bytes, base64, a `data:` URL, or (allowed) an http(s) address.

    encoded: bytes are such text too, not a file's; they are not copied.
    where: names the image in errors, for example "message 2, image 1". Raises UnsupportedContentError.
    """
    if encoded and isinstance(source, bytes) and source[:4].lower() == b"http":
        source = source.decode("utf-8", "replace")
    if isinstance(source, str) and source[:8].lower().startswith(("http://", "https://")):
        check_fetching_allowed(settings, where)
        return ImageUrl(check_image_url(source, where=where).url, where)
    if isinstance(source, Path):
        from ..media.load import read_image_file

        allowed = settings.allow_image_paths
        source = read_image_file(source, allowed=allowed, limits=DEFAULT_LIMITS, where=where)
        encoded = False
    return _checked(source, settings, where, encoded=encoded)


def check_fetching_allowed(settings: ChatSettings, where: str) -> None:
    """Refuse an image's address unless the settings allow fetching."""
    if not settings.allow_image_urls:
        raise UnsupportedContentError(
            f"{where}: this image is a web address, and those are not fetched unless that is allowed.",
            hint="Send the image's bytes or base64, or set allow_image_urls=True (public hosts only).",
        )


def _checked(
    source: Image | bytes | str, settings: ChatSettings, where: str, *, encoded: bool = False
) -> Image:
    if settings.convert_images:
        from ..media.conversion import convert_image

        return convert_image(source, encoded=encoded, max_edge=settings.max_image_edge, where=where)
    return source if isinstance(source, Image) else Image.parse(source, encoded=encoded, where=where)


async def fetch_image(address: ImageUrl, settings: ChatSettings, network: Network) -> Image:
    """Fetch an image from a public address."""
    body = await network.fetch_image(address.url, limit=DEFAULT_LIMITS.max_bytes, where=address.where)
    return await network.compute(partial(_checked, body, settings, address.where))
