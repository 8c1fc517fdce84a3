"""`MediaFile`: a checked image or sound, kept in the form it came in and never decoded.

    bytes · base64 · data: URL · explicit file path  →  Image or Audio  →  base64 in pieces

A 20 MB file given as base64 text, be it str or ASCII bytes, is neither decoded nor copied as a whole.
Strings from messages are never opened as a path and never fetched. The modules that check are imported with
the first file, since most programs send none.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeVar

__all__ = ["DEFAULT_LIMITS", "ImageLimits", "MediaFile", "check_file_count"]

_F = TypeVar("_F", bound="MediaFile")

_PIECE_CHARS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What one request may carry.

    max_bytes: size of one file in bytes.
    max_pixels: width × height that an image's header declares.
    max_count: images and sounds per request.
    """

    max_bytes: int = 20 << 20
    max_pixels: int = 50_000_000
    max_count: int = 16


DEFAULT_LIMITS = ImageLimits()


@dataclass(frozen=True, slots=True, eq=False)
class MediaFile:
    """A file that Ollama reads, as a part of a message; built by the `from_…` methods, which check it.

    payload: the file's bytes, or strict base64 text as it came.
    start: where the base64 text begins inside `payload` (behind the head of a data: URL).
    encoded: whether the payload is that text, as str or as bytes.
    media_type: by content, not by label.
    """

    kind: ClassVar[str] = "file"
    payload: bytes | str = field(repr=False)
    start: int
    encoded: bool
    media_type: str

    @classmethod
    def _checked(
        cls: type[_F], payload: bytes | str, start: int, encoded: bool, limits: ImageLimits, where: str
    ) -> _F:
        """Check what the file says of itself; base64 text was checked before."""
        raise NotImplementedError

    @classmethod
    def from_bytes(
        cls: type[_F], data: bytes, *, limits: ImageLimits = DEFAULT_LIMITS, where: str | None = None
    ) -> _F:
        """Check a file's bytes; `where` names it in errors, "image" or "audio" if
        unset. Raises UnsupportedContentError."""
        return cls._checked(bytes(data), 0, False, limits, where or cls.kind)

    @classmethod
    def from_base64(
        cls: type[_F], text: str | bytes, *, limits: ImageLimits = DEFAULT_LIMITS, where: str | None = None
    ) -> _F:
        """Check strict base64 text, str or bytes: standard alphabet, padded, no white space."""
        return cls._encoded(text, 0, limits, where or cls.kind)

    @classmethod
    def from_data_url(
        cls: type[_F], url: str, *, limits: ImageLimits = DEFAULT_LIMITS, where: str | None = None
    ) -> _F:
        """Check a `data:…;base64,…` URL; its media type is only a label and may be wrong."""
        from .sources import data_url_start

        where = where or cls.kind
        return cls._encoded(url, data_url_start(url, where), limits, where)

    @classmethod
    def from_path(
        cls: type[_F],
        path: Path | str,
        *,
        allowed: bool | Path = True,
        limits: ImageLimits = DEFAULT_LIMITS,
        where: str | None = None,
    ) -> _F:
        """Read a file; `allowed` as for `read_file`."""
        from .sources import read_file

        named = where or cls.kind
        data = read_file(path, allowed=allowed, limits=limits, where=named)
        return cls._checked(data, 0, False, limits, named)

    @classmethod
    def parse(
        cls: type[_F],
        source: bytes | str,
        *,
        encoded: bool = False,
        limits: ImageLimits = DEFAULT_LIMITS,
        where: str | None = None,
    ) -> _F:
        """Check bytes, base64 or a data: URL, told apart by shape; a path or an address is refused.

        encoded: bytes are such text too, not a file's.
        """
        if not isinstance(source, str) and not encoded:
            return cls.from_bytes(source, limits=limits, where=where)
        from .sources import text_start

        where = where or cls.kind
        return cls._encoded(source, text_start(source, where), limits, where)

    @classmethod
    def _encoded(cls: type[_F], text: bytes | str, start: int, limits: ImageLimits, where: str) -> _F:
        from .sources import check_base64

        text = text if isinstance(text, str) else bytes(text)
        check_base64(text, start, limits, where)
        return cls._checked(text, start, True, limits, where)

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        from .formats import Source

        return Source(self.payload, self.start, encoded=self.encoded).size

    @property
    def data(self) -> bytes:
        """The file's bytes (decoded when it came as text)."""
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
        if not isinstance(other, MediaFile):
            return NotImplemented
        if (self.media_type, self.size) != (other.media_type, other.size):
            return False
        pairs = zip(self.base64_pieces(), other.base64_pieces(), strict=True)
        return all(mine == theirs for mine, theirs in pairs)

    def __hash__(self) -> int:
        return hash((self.media_type, self.size))


def check_file_count(count: int, *, limits: ImageLimits = DEFAULT_LIMITS, where: str = "request") -> None:
    """Refuse more images and sounds than one request may carry."""
    if count > limits.max_count:
        from .formats import refusal

        raise refusal(
            where,
            f"it carries {count} images; at most {limits.max_count} are taken",
            "Spread them over several requests, or leave out older ones.",
        )
