"""Turn images that Ollama does not read into PNG or JPEG, with Pillow (extra `images`), on request."""

from __future__ import annotations

import binascii
import io
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, UnsupportedContentError
from .image import Image
from .source import DEFAULT_LIMITS, ImageLimits, check_base64, check_size, refusal, text_start

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

__all__ = ["convert_image"]

# Pillow readers that start no other program (EPS starts Ghostscript) and read no document formats
_FORMATS = (
    *("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "ICO", "ICNS", "JPEG2000"),
    *("PPM", "TGA", "PCX", "PSD"),
)
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_ORIENTATION = 0x0112
_JPEG_QUALITY = 90


def convert_image(
    source: Image | bytes | str,
    *,
    encoded: bool = False,
    max_edge: int | None = None,
    limits: ImageLimits = DEFAULT_LIMITS,
    where: str = "image",
) -> Image:
    """An image that Ollama reads, upright and with no edge longer than `max_edge` pixels.

    source: an image file as bytes, base64 or data: URL, in any format that Pillow reads; the first frame is
    used. encoded: `bytes` are base64 text or a data: URL too. An image that needs no change is returned
    unchanged. Raises UnsupportedContentError, and ConfigurationError if Pillow is missing.
    """
    if max_edge is not None and max_edge < 1:
        raise ConfigurationError(f"max_edge must be at least 1 pixel, not {max_edge}.")
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as exc:
        raise ConfigurationError(
            "Converting images needs Pillow, which is not installed.",
            hint='Install it with: pip install "ollama-dify[images]".',
        ) from exc
    ready: Image | None
    if isinstance(source, Image):
        ready, data = source, source.data
    else:
        data = _bytes_of(source, encoded, limits, where)
        try:
            ready = Image.from_bytes(data, limits=limits, where=where)
        except UnsupportedContentError:
            ready = None
    if ready is not None and (max_edge is None or max(ready.width, ready.height) <= max_edge):
        try:
            with _open(PIL, data) as opened:
                orientation = opened.getexif().get(_ORIENTATION, 1)
        except Exception:
            # its header was accepted; if Pillow cannot read the metadata, the file is sent unchanged
            return ready
        if orientation == 1:
            return ready
    try:
        converted = _convert(PIL, data, max_edge, limits, where)
    except UnsupportedContentError:
        raise
    except Exception as exc:
        # Pillow's readers raise many types for a broken file: OSError, SyntaxError, struct.error …
        raise refusal(where, f"this cannot be converted: {type(exc).__name__}: {str(exc)[:200]}") from exc
    return Image.from_bytes(converted, limits=limits, where=where)


def _bytes_of(source: bytes | str, encoded: bool, limits: ImageLimits, where: str) -> bytes:
    if isinstance(source, str) or encoded:
        start = text_start(source, where)
        check_base64(source, start, limits, where, what="image")
        return binascii.a2b_base64(source[start:])
    check_size(len(source), limits, where, what="image")
    return source


def _open(pillow: Any, data: bytes) -> PillowImage:
    """Read the header only; Pillow may be built without some of the formats."""
    pillow.Image.init()
    formats = [name for name in _FORMATS if name in pillow.Image.OPEN]
    opened: PillowImage = pillow.Image.open(io.BytesIO(data), formats=formats)
    return opened


def _convert(pillow: Any, data: bytes, max_edge: int | None, limits: ImageLimits, where: str) -> bytes:
    """Decode, turn upright, shrink and encode; the declared size is checked before anything is decoded."""
    with _open(pillow, data) as opened:
        width, height = opened.size
        if width * height > limits.max_pixels:
            most = f"at most {limits.max_pixels / 1e6:g} megapixels are taken"
            raise refusal(where, f"this image is {width} × {height} pixels; {most}")
        if max_edge is not None:
            # JPEG is then decoded at a fraction of its size
            opened.draft(None, (max_edge, max_edge))
        image: PillowImage = pillow.ImageOps.exif_transpose(opened)
        if max_edge is not None and max(image.size) > max_edge:
            if image.mode in ("P", "1"):
                image = image.convert("RGBA" if "transparency" in image.info else "RGB")
            image.thumbnail((max_edge, max_edge))
        buffer = io.BytesIO()
        if opened.format not in ("JPEG", "MPO"):
            readable = image if image.mode in _PNG_MODES else image.convert("RGB")
            readable.save(buffer, "PNG")
            if buffer.tell() <= limits.max_bytes:
                return buffer.getvalue()
        buffer = io.BytesIO()
        image.convert("L" if image.mode == "L" else "RGB").save(buffer, "JPEG", quality=_JPEG_QUALITY)
        return buffer.getvalue()
