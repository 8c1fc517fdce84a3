"""`Image`: a checked image as a part of a message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .file import ImageLimits, MediaFile

__all__ = ["Image", "ImageUrl"]


@dataclass(frozen=True, slots=True, eq=False)
class Image(MediaFile):
    """An image that Ollama reads: PNG, JPEG, static WebP, GIF or BMP.

    width, height: pixels, as the file's header declares them.
    """

    kind: ClassVar[str] = "image"
    width: int
    height: int

    @classmethod
    def _checked(
        cls, payload: bytes | str, start: int, encoded: bool, limits: ImageLimits, where: str
    ) -> Image:
        from .formats import refusal
        from .headers import inspect_image
        from .sources import checked_source

        source = checked_source(payload, start, encoded, limits, where)
        media_type, width, height = inspect_image(source, where)
        if width == 0 or height == 0:
            raise refusal(where, f"this image is {width} × {height} pixels, so there is nothing to see")
        if width * height > limits.max_pixels:
            raise refusal(
                where,
                f"this image is {width} × {height} = {width * height / 1e6:.1f} megapixels; "
                f"at most {limits.max_pixels / 1e6:g} are taken",
                "Send a smaller image; vision models scale it down anyway.",
            )
        return cls(payload, start, encoded, media_type, width, height)


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """An image still to be fetched, which `allow_image_urls=True` permits. where: names it in errors."""

    url: str
    where: str = "image"
