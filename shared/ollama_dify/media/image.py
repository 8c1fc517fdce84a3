"""`Image` and `Audio`: checked files as parts of a message, kept in the form they were given, never decoded.

    bytes · base64 · data: URL · explicit file path  →  Image or Audio  →  base64 in pieces

Strings from messages are never opened as a path and never fetched.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from typing_extensions import Self

from .source import (
    DEFAULT_LIMITS,
    SMALLER,
    ImageLimits,
    Source,
    check_base64,
    check_size,
    data_url_start,
    read_file,
    refusal,
    text_start,
)

__all__ = ["Audio", "Image", "ImageUrl", "MediaFile"]

_PIECE_CHARS = 65_536  # a multiple of 4, so that each piece is base64 by itself


@dataclass(frozen=True, slots=True, eq=False)
class MediaFile(Source):
    """A file that Ollama reads, as a part of a message; built by the `from_…` methods, which check it.

    media_type: read from the content, not from a label.
    """

    kind: ClassVar[str] = "file"
    media_type: str

    @classmethod
    def _checked(cls, source: Source, limits: ImageLimits, where: str) -> Self:
        """Check the file's header; base64 text was checked before."""
        raise NotImplementedError

    @classmethod
    def _encoded(cls, text: bytes | str, start: int, limits: ImageLimits, where: str) -> Self:
        text = text if isinstance(text, str) else bytes(text)
        check_base64(text, start, limits, where, what=cls.kind)
        return cls._checked(Source(text, start, True), limits, where)

    @classmethod
    def from_bytes(cls, data: bytes, *, limits: ImageLimits = DEFAULT_LIMITS, where: str = "") -> Self:
        """Check a file's bytes; `where` names it in errors. Raises UnsupportedContentError."""
        source, where = Source(bytes(data), 0, False), where or cls.kind
        check_size(source.size, limits, where, what=cls.kind)
        if not data:
            raise refusal(where, "this is empty")
        return cls._checked(source, limits, where)

    @classmethod
    def from_base64(cls, text: str | bytes, *, limits: ImageLimits = DEFAULT_LIMITS, where: str = "") -> Self:
        """Check strict base64 text, str or bytes: standard alphabet, padded, no white space."""
        return cls._encoded(text, 0, limits, where or cls.kind)

    @classmethod
    def from_data_url(cls, url: str, *, limits: ImageLimits = DEFAULT_LIMITS, where: str = "") -> Self:
        """Check a `data:…;base64,…` URL; its media type is only a label and may be wrong."""
        return cls._encoded(url, data_url_start(url, where or cls.kind), limits, where or cls.kind)

    @classmethod
    def from_path(
        cls,
        path: Path | str,
        *,
        allowed: bool | Path = True,
        limits: ImageLimits = DEFAULT_LIMITS,
        where: str = "",
    ) -> Self:
        """Read a file; `allowed` as for `read_file`."""
        data = read_file(path, allowed=allowed, limits=limits, where=where or cls.kind)
        return cls.from_bytes(data, limits=limits, where=where)

    @classmethod
    def parse(
        cls,
        source: bytes | str,
        *,
        encoded: bool = False,
        limits: ImageLimits = DEFAULT_LIMITS,
        where: str = "",
    ) -> Self:
        """Check bytes, base64 or a data: URL, detected by their form; a path or an address is refused.

        encoded: `bytes` are base64 or a data: URL too, not the file itself.
        """
        if not isinstance(source, str) and not encoded:
            return cls.from_bytes(source, limits=limits, where=where)
        return cls._encoded(source, text_start(source, where or cls.kind), limits, where or cls.kind)

    @property
    def data(self) -> bytes:
        """The file's bytes (decoded if it was given as text)."""
        return self.read(0, self.size)

    @property
    def base64_length(self) -> int:
        """Length of the base64 text in characters."""
        return -(-self.size // 3) * 4

    def base64_pieces(self) -> Iterator[bytes]:
        """The base64 text as ASCII bytes, some 64 KiB at a time."""
        payload = self.payload
        if isinstance(payload, bytes) and not self.encoded:
            step = _PIECE_CHARS // 4 * 3
            for begin in range(0, len(payload), step):
                yield binascii.b2a_base64(memoryview(payload)[begin : begin + step], newline=False)
            return
        for begin in range(self.start, len(payload), _PIECE_CHARS):
            text = payload[begin : begin + _PIECE_CHARS]
            yield text.encode("ascii") if isinstance(text, str) else text

    def base64(self) -> str:
        """The whole base64 text."""
        return b"".join(self.base64_pieces()).decode("ascii")

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same file, in any form."""
        if not isinstance(other, MediaFile):
            return NotImplemented
        if (self.media_type, self.size) != (other.media_type, other.size):
            return False
        pairs = zip(self.base64_pieces(), other.base64_pieces(), strict=True)
        return all(mine == theirs for mine, theirs in pairs)

    def __hash__(self) -> int:
        return hash((self.media_type, self.size))


@dataclass(frozen=True, slots=True, eq=False)
class Image(MediaFile):
    """An image that Ollama reads: PNG, JPEG, static WebP, GIF or BMP.

    width, height: pixels, as the file's header declares them.
    """

    kind: ClassVar[str] = "image"
    width: int
    height: int

    @classmethod
    def _checked(cls, source: Source, limits: ImageLimits, where: str) -> Self:
        # Imported here, because most programs send no image.
        from .headers import inspect_image

        media_type, width, height = inspect_image(source, where)
        size = f"this image is {width} × {height}"
        if width == 0 or height == 0:
            raise refusal(where, f"{size} pixels, so there is nothing to see")
        if width * height > limits.max_pixels:
            megapixels, most = width * height / 1e6, limits.max_pixels / 1e6
            raise refusal(where, f"{size} = {megapixels:.1f} megapixels; at most {most:g} are taken", SMALLER)
        return cls(source.payload, source.start, source.encoded, media_type, width, height)


@dataclass(frozen=True, slots=True, eq=False)
class Audio(MediaFile):
    """An audio file that Ollama reads: WAV or MP3, detected by content; the model needs capability `audio`.

    Ollama accepts it since 0.20, in the field `images`. Source: the server's own detection (`RIFF…WAVE`,
    `ID3`, an MPEG frame at the start); no recorded exchange has audio yet.
    """

    kind: ClassVar[str] = "audio"

    @classmethod
    def _checked(cls, source: Source, limits: ImageLimits, where: str) -> Self:
        from .headers import inspect_audio

        return cls(source.payload, source.start, source.encoded, inspect_audio(source, where))


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """An image to be fetched (only with `allow_image_urls=True`). where: its name in errors."""

    url: str
    where: str = "image"
