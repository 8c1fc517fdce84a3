"""`Image`: a checked picture, kept in the form it came in and never decoded.

    bytes · base64 · data: URL · explicit file path  →  Image  →  base64 in pieces

A 20 MB picture given as base64 text is neither decoded nor copied as a whole. Strings from messages are
never opened as a path and never fetched.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .errors import UnsupportedContentError
from .image_formats import ACCEPTED_FORMATS, Source, inspect_picture, refusal

__all__ = ["DEFAULT_LIMITS", "Image", "ImageLimits", "check_image_count", "decode_text", "read_image_file"]

_PIECE_CHARS = 65_536
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_MARK_INVALID = bytes(chr(code) not in _ALPHABET for code in range(256))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What one request may carry.

    max_bytes: size of one picture's file in bytes.
    max_pixels: width × height that the file's header declares.
    max_count: pictures per request.
    """

    max_bytes: int = 20 << 20
    max_pixels: int = 50_000_000
    max_count: int = 16


DEFAULT_LIMITS = ImageLimits()


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A picture that Ollama reads, as a part of a message; built by the `from_…` methods, which check it.

    payload: the file's bytes, or strict base64 text as it came.
    start: where the base64 text begins inside `payload` (behind the head of a data: URL).
    media_type: by content, not by label.
    width, height: pixels, as the file's header declares them.
    """

    payload: bytes | str = field(repr=False)
    start: int
    media_type: str
    width: int
    height: int

    @classmethod
    def from_bytes(cls, data: bytes, *, limits: ImageLimits = DEFAULT_LIMITS, where: str = "image") -> Image:
        """Check the bytes of a picture's file; `where` names the picture in errors."""
        return cls._checked(bytes(data), 0, limits, where)

    @classmethod
    def from_base64(cls, text: str, *, limits: ImageLimits = DEFAULT_LIMITS, where: str = "image") -> Image:
        """Check strict base64 text: standard alphabet, padded, no white space."""
        _check_base64(text, 0, limits, where)
        return cls._checked(text, 0, limits, where)

    @classmethod
    def from_data_url(cls, url: str, *, limits: ImageLimits = DEFAULT_LIMITS, where: str = "image") -> Image:
        """Check a `data:…;base64,…` URL; its media type is only a label and may be wrong."""
        start = _data_url_start(url, where)
        _check_base64(url, start, limits, where)
        return cls._checked(url, start, limits, where)

    @classmethod
    def from_path(
        cls,
        path: Path | str,
        *,
        allowed: bool | Path = True,
        limits: ImageLimits = DEFAULT_LIMITS,
        where: str = "image",
    ) -> Image:
        """Read a picture from a file; `allowed` as for `read_image_file`."""
        data = read_image_file(path, allowed=allowed, limits=limits, where=where)
        return cls._checked(data, 0, limits, where)

    @classmethod
    def parse(
        cls, source: bytes | str, *, limits: ImageLimits = DEFAULT_LIMITS, where: str = "image"
    ) -> Image:
        """Check bytes, base64 or a data: URL, told apart by shape; a path or an address is refused."""
        if not isinstance(source, str):
            return cls.from_bytes(source, limits=limits, where=where)
        start = _text_start(source, where)
        _check_base64(source, start, limits, where)
        return cls._checked(source, start, limits, where)

    @classmethod
    def _checked(cls, payload: bytes | str, start: int, limits: ImageLimits, where: str) -> Image:
        source = Source(payload, start)
        _check_size(source.size, limits, where)
        media_type, width, height = inspect_picture(source, where)
        if width == 0 or height == 0:
            raise refusal(where, f"this picture is {width} × {height} pixels, so there is nothing to see")
        if width * height > limits.max_pixels:
            raise refusal(
                where,
                f"this picture is {width} × {height} = {width * height / 1e6:.1f} megapixels; "
                f"at most {limits.max_pixels / 1e6:g} are taken",
                "Send a smaller picture; vision models scale it down anyway.",
            )
        return cls(payload, start, media_type, width, height)

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return Source(self.payload, self.start).size

    @property
    def data(self) -> bytes:
        """The file's bytes (decoded when the picture came as text)."""
        if isinstance(self.payload, bytes):
            return self.payload
        return binascii.a2b_base64(self.base64())

    @property
    def base64_length(self) -> int:
        """Length of the base64 text in characters."""
        return -(-self.size // 3) * 4

    def base64_pieces(self, piece: int = _PIECE_CHARS) -> Iterator[bytes]:
        """The base64 text as ASCII bytes, `piece` characters (a multiple of 4) at a time."""
        if piece < 4 or piece % 4:
            raise ValueError(f"piece must be a positive multiple of 4, not {piece}")
        payload = self.payload
        if isinstance(payload, str):
            for begin in range(self.start, len(payload), piece):
                yield payload[begin : begin + piece].encode("ascii")
            return
        view, step = memoryview(payload), piece // 4 * 3
        for begin in range(0, len(view), step):
            yield binascii.b2a_base64(view[begin : begin + step], newline=False)

    def base64(self) -> str:
        """The whole base64 text."""
        if isinstance(self.payload, str):
            return self.payload[self.start :]
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
    """Refuse more pictures than one request may carry."""
    if count > limits.max_count:
        raise refusal(
            where,
            f"it carries {count} images; at most {limits.max_count} are taken",
            "Spread them over several requests, or leave out older ones.",
        )


def read_image_file(
    path: Path | str,
    *,
    allowed: bool | Path = True,
    limits: ImageLimits = DEFAULT_LIMITS,
    where: str = "image",
) -> bytes:
    """The bytes of a regular file of at most `limits.max_bytes`.

    allowed: False refuses every path; a directory refuses what lies outside it, symbolic links resolved.
    Raises UnsupportedContentError, chained to the OSError where there is one.
    """
    if allowed is False:
        raise refusal(
            where,
            "reading pictures from files is switched off (allow_image_paths=False)",
            "Send the picture's bytes or base64.",
        )
    try:
        real = Path(path).resolve(strict=True)
        if isinstance(allowed, Path) and not real.is_relative_to(allowed.resolve()):
            raise refusal(
                where,
                f"{str(path)!r} lies outside the allowed directory {str(allowed)!r}",
                "Move the file there, or allow another directory (allow_image_paths=…).",
            )
        return _read_regular(real, limits, where)
    except (OSError, ValueError, RuntimeError) as exc:
        if isinstance(exc, UnsupportedContentError):
            raise
        why = getattr(exc, "strerror", None) or str(exc)
        raise refusal(
            where, f"{str(path)!r} cannot be read: {why}", "Check the path and its permissions."
        ) from exc


def _read_regular(path: Path, limits: ImageLimits, where: str) -> bytes:
    """Read a file without hanging on a pipe or a device."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise refusal(where, f"{str(path)!r} is not a regular file", "Name a picture's file.")
        _check_size(status.st_size, limits, where)
        data = file.read(limits.max_bytes + 1)
    _check_size(len(data), limits, where)
    return data


def decode_text(text: str, *, limits: ImageLimits = DEFAULT_LIMITS, where: str = "image") -> bytes:
    """The bytes that base64 or a data: URL holds, in whatever format; paths and addresses are refused."""
    start = _text_start(text, where)
    _check_base64(text, start, limits, where)
    return binascii.a2b_base64(text[start:])


def _text_start(text: str, where: str) -> int:
    """Where the base64 begins; a path or an address is refused."""
    if text[:5].lower() == "data:":
        return _data_url_start(text, where)
    _refuse_reference(text, where)
    return 0


def _data_url_start(url: str, where: str) -> int:
    comma = url.find(",", 0, 1024)
    head = url[: max(comma, 0)].lower()
    if not head.startswith("data:") or not head.endswith(";base64"):
        raise refusal(where, "this data: URL holds no base64", "Write data:image/png;base64,… .")
    return comma + 1


def _check_size(size: int, limits: ImageLimits, where: str) -> None:
    if size > limits.max_bytes:
        raise refusal(
            where,
            f"this is {size / (1 << 20):.2f} MiB; at most {limits.max_bytes / (1 << 20):g} MiB are taken",
            "Send a smaller picture; vision models scale it down anyway.",
        )


def _check_base64(text: str, start: int, limits: ImageLimits, where: str) -> None:
    """Validate base64 text piece by piece, without decoding it."""
    _check_size((len(text) - start) // 4 * 3 - 2, limits, where)
    end = len(text) - text.endswith("=", start) - text.endswith("==", start)
    for begin in range(start, end, _PIECE_CHARS):
        piece = text[begin : min(begin + _PIECE_CHARS, end)]
        # "replace" turns what is not ASCII into "?", which is no base64 either
        position = piece.encode("ascii", "replace").translate(_MARK_INVALID).find(1)
        if position >= 0:
            raise _not_base64(where, _explain(piece[position], begin + position - start))
    length = end - start
    if length % 4 == 1:
        raise _not_base64(where, f"{length} characters cannot be base64; the text is cut")
    if len(text) - end != -length % 4:
        raise _not_base64(where, 'its padding ("=" at the end) is wrong or missing')
    spare_bits = {0: 0, 2: 15, 3: 3}[length % 4]
    if spare_bits and _ALPHABET.index(text[end - 1]) & spare_bits:
        raise _not_base64(where, "its last character holds bits that belong to no byte; the text is cut")


def _explain(character: str, position: int) -> str:
    at = f"at position {position}"
    if character in "-_":
        return f"{character!r} {at} belongs to the base64url alphabet"
    if character.isspace():
        return f"there is white space {at}"
    if character == "%":
        return f"it is percent-encoded {at}"
    if character == "=":
        return f"there is padding in the middle, {at}"
    return f"{character!r} {at} is not in the alphabet"


def _not_base64(where: str, why: str) -> UnsupportedContentError:
    return refusal(
        where,
        f"this is not strict base64: {why}",
        f"Send standard base64 (A–Z a–z 0–9 + /, padded, on one line) or the bytes of {ACCEPTED_FORMATS}; "
        "a file goes in through Image.from_path.",
    )


_ADDRESS = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]{1,20}):/")
_PATH = re.compile(r"\s*(~|\.\.?[/\\]|[A-Za-z]:[/\\]|\\\\|/(?!9j/|/)|[^,;=]{1,4096}\.[A-Za-z0-9]{2,5}\s*\Z)")


def _refuse_reference(text: str, where: str) -> None:
    """Refuse a string that is an address or a path rather than a picture."""
    if (match := _ADDRESS.match(text[:100])) is not None:
        scheme = match[1].lower()
        if scheme in ("http", "https"):
            raise refusal(
                where,
                f"this is an {scheme} address, and addresses are not fetched by themselves",
                "Send the picture's bytes or base64, or opt in with allow_image_urls=True.",
            )
        raise refusal(
            where,
            f"this is a {scheme}: address, which is not opened",
            "Send the picture's bytes or base64; a file goes in through Image.from_path.",
        )
    if len(text) <= 4096 and _PATH.match(text) is not None:
        raise refusal(
            where,
            f"{text[:80]!r} looks like a file path, and paths in messages are never opened",
            "Use Image.from_path(path), or send the picture's bytes or base64.",
        )
