"""`Image`: a checked image, kept in the form it came in and never decoded.

    bytes · base64 · data: URL · explicit file path  →  Image  →  base64 in pieces

A 20 MB image given as base64 text, be it str or ASCII bytes, is neither decoded nor copied as a whole.
Strings from messages are never opened as a path and never fetched. `image_reading` and `image_formats` do the
checking; they are imported with the first image, since most programs send none.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["DEFAULT_LIMITS", "Image", "ImageLimits", "check_image_count"]

_PIECE_CHARS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What one request may carry.

    max_bytes: size of one image's file in bytes.
    max_pixels: width × height that the file's header declares.
    max_count: images per request.
    """

    max_bytes: int = 20 << 20
    max_pixels: int = 50_000_000
    max_count: int = 16


DEFAULT_LIMITS = ImageLimits()


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """An image that Ollama reads, as a part of a message; built by the `from_…` methods, which check it.

    payload: the file's bytes, or strict base64 text as it came.
    start: where the base64 text begins inside `payload` (behind the head of a data: URL).
    encoded: whether the payload is that text, as str or as bytes.
    media_type: by content, not by label.
    width, height: pixels, as the file's header declares them.
    """

    payload: bytes | str = field(repr=False)
    start: int
    media_type: str
    width: int
    height: int
    encoded: bool = False

    @classmethod
    def from_bytes(cls, data: bytes, *, limits: ImageLimits = DEFAULT_LIMITS, where: str = "image") -> Image:
        """Check the bytes of an image's file; `where` names the image in errors."""
        return cls._checked(bytes(data), 0, False, limits, where)

    @classmethod
    def from_base64(
        cls, text: str | bytes, *, limits: ImageLimits = DEFAULT_LIMITS, where: str = "image"
    ) -> Image:
        """Check strict base64 text, str or bytes: standard alphabet, padded, no white space."""
        return cls._encoded(text, 0, limits, where)

    @classmethod
    def from_data_url(cls, url: str, *, limits: ImageLimits = DEFAULT_LIMITS, where: str = "image") -> Image:
        """Check a `data:…;base64,…` URL; its media type is only a label and may be wrong."""
        from .load import data_url_start

        return cls._encoded(url, data_url_start(url, where), limits, where)

    @classmethod
    def from_path(
        cls,
        path: Path | str,
        *,
        allowed: bool | Path = True,
        limits: ImageLimits = DEFAULT_LIMITS,
        where: str = "image",
    ) -> Image:
        """Read an image from a file; `allowed` as for `read_image_file`."""
        from .load import read_image_file

        data = read_image_file(path, allowed=allowed, limits=limits, where=where)
        return cls._checked(data, 0, False, limits, where)

    @classmethod
    def parse(
        cls,
        source: bytes | str,
        *,
        encoded: bool = False,
        limits: ImageLimits = DEFAULT_LIMITS,
        where: str = "image",
    ) -> Image:
        """Check bytes, base64 or a data: URL, told apart by shape; a path or an address is refused.

        encoded: bytes are such text too, not a file's.
        """
        if not isinstance(source, str) and not encoded:
            return cls.from_bytes(source, limits=limits, where=where)
        from .load import text_start

        return cls._encoded(source, text_start(source, where), limits, where)

    @classmethod
    def _encoded(cls, text: bytes | str, start: int, limits: ImageLimits, where: str) -> Image:
        from .load import check_base64

        text = text if isinstance(text, str) else bytes(text)
        check_base64(text, start, limits, where)
        return cls._checked(text, start, True, limits, where)

    @classmethod
    def _checked(
        cls, payload: bytes | str, start: int, encoded: bool, limits: ImageLimits, where: str
    ) -> Image:
        from .load import check_image

        media_type, width, height = check_image(payload, start, encoded, limits, where)
        return cls(payload, start, media_type, width, height, encoded)

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        from .formats import Source

        return Source(self.payload, self.start, encoded=self.encoded).size

    @property
    def data(self) -> bytes:
        """The file's bytes (decoded when the image came as text)."""
        if not self.encoded and isinstance(self.payload, bytes):
            return self.payload
        return binascii.a2b_base64(self.payload[self.start :])

    @property
    def base64_length(self) -> int:
        """Length of the base64 text in characters."""
        return -(-self.size // 3) * 4

    def base64_pieces(self, piece: int = _PIECE_CHARS) -> Iterator[bytes]:
        """The base64 text as ASCII bytes, `piece` characters (a multiple of 4) at a time."""
        if piece < 4 or piece % 4:
            raise ValueError(f"piece must be a positive multiple of 4, not {piece}")
        payload = self.payload
        if self.encoded or isinstance(payload, str):
            for begin in range(self.start, len(payload), piece):
                text = payload[begin : begin + piece]
                yield text.encode("ascii") if isinstance(text, str) else text
            return
        view, step = memoryview(payload), piece // 4 * 3
        for begin in range(0, len(view), step):
            yield binascii.b2a_base64(view[begin : begin + step], newline=False)

    def base64(self) -> str:
        """The whole base64 text."""
        if self.encoded or isinstance(self.payload, str):
            text = self.payload[self.start :]
            return text if isinstance(text, str) else text.decode("ascii")
        return base64.b64encode(self.payload).decode("ascii")

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same file, in whatever form it came."""
        if not isinstance(other, Image):
            return NotImplemented
        if self._header() != other._header():
            return False
        pairs = zip(self.base64_pieces(), other.base64_pieces(), strict=True)
        return all(mine == theirs for mine, theirs in pairs)

    def __hash__(self) -> int:
        return hash(self._header())

    def _header(self) -> tuple[str, int, int, int]:
        return self.media_type, self.width, self.height, self.size


def check_image_count(count: int, *, limits: ImageLimits = DEFAULT_LIMITS, where: str = "request") -> None:
    """Refuse more images than one request may carry."""
    if count > limits.max_count:
        from .formats import refusal

        raise refusal(
            where,
            f"it carries {count} images; at most {limits.max_count} are taken",
            "Spread them over several requests, or leave out older ones.",
        )
