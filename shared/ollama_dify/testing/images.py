"""Images and audio by their headers: what they are, and what a server of each version says to them."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from .responses import nested

_CRASH = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
    "check ollama server logs for details"
)
_UNREADABLE = "Failed to load image or audio file"
_EMPTY = "Failed to create new sequence: failed to process inputs: received zero length image"
_ANIMATED = "decode WebP image: webp: invalid format"
_MAX_PIXELS = 1 << 30
# Beginning, and where width and height stand; in some they are part of the beginning.
_OTHERS = (
    ("GIF", re.compile(rb"GIF8[79]a"), "<HH", 6),
    ("BMP", re.compile(rb"BM"), "<ii", 18),
    ("PNM", re.compile(rb"P[56]\s+(?:#[^\n]*\n)*(?P<width>\d+)\s+(?P<height>\d+)"), "", 0),
    ("HDR", re.compile(rb"#\?R(?:ADIANCE|GBE)(?s:.*?)-Y (?P<height>\d+) \+X (?P<width>\d+)"), "", 0),
)
_TGA_KINDS = {1: 1, 2: 0, 3: 0, 9: 1, 10: 0, 11: 0}


@dataclass(frozen=True, slots=True)
class SentImage:
    """What an image's header says; `whole` is False where a decoder would give up."""

    format: str
    width: int
    height: int
    whole: bool = True
    animated: bool = False


def decoded(image: str) -> bytes:
    """The bytes of a checked base64 string, padding optional."""
    text = re.sub(r"[\r\n]", "", image).rstrip("=")
    return base64.b64decode(text + "=" * (-len(text) % 4))


def look(data: bytes) -> SentImage | None:
    """What the bytes are, None if no decoder of the server knows them."""
    for reader in _READERS:
        try:
            found = reader(data)
        except (struct.error, IndexError, ValueError):
            continue
        if found is not None:
            return found
    return None


def is_audio(data: bytes) -> bool:
    """Whether the server takes the bytes for WAV or MP3."""
    is_wav = data[:4] == b"RIFF" and data[8:12] == b"WAVE"
    return is_wav or data[:3] == b"ID3" or (data[:1] == b"\xff" and data[1:2] >= b"\xe0")


def verdict(data: bytes, *, modern: bool, sees: bool = True, hears: bool = False) -> tuple[int, str] | None:
    """None if the server takes the image or audio, else its status and error text.

    That it takes audio, and what a native model says to it, is from the server's source, unrecorded.
    """
    if is_audio(data) and hears:
        return None
    image = look(data) if sees else None
    if not modern:
        if not data:
            return 500, _EMPTY
        taken = image is not None and image.whole and image.format != "WebP"
        return None if taken else (500, _CRASH)
    if image is not None and image.format == "WebP" and image.animated:
        return 500, _ANIMATED
    if image is None or not image.whole:
        return 400, nested(400, _UNREADABLE, "invalid_request_error")
    return None


def _png(data: bytes) -> SentImage | None:
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return None
    position, packed, size, ended, intact = 8, b"", (0, 0), False, True
    while position + 12 <= len(data) and not ended:
        length, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length]
        check = data[position + 8 + length : position + 12 + length]
        intact = intact and check == struct.pack(">I", zlib.crc32(kind + body))
        if kind == b"IHDR":
            size = struct.unpack_from(">II", body)
        elif kind == b"IDAT":
            packed += body
        ended = kind == b"IEND"
        position += 12 + length
    whole = ended and intact and bool(packed) and 0 < size[0] * size[1] < _MAX_PIXELS
    return SentImage("PNG", *size, whole=whole)


def _jpeg(data: bytes) -> SentImage | None:
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    position = 2
    while position + 9 < len(data):
        marker, length = data[position + 1], struct.unpack_from(">H", data, position + 2)[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, position + 5)
            return SentImage("JPEG", width, height)
        position += 2 + length
    return SentImage("JPEG", 0, 0, whole=False)


def _webp(data: bytes) -> SentImage | None:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        return SentImage("WebP", width, height, animated=bool(data[20] & 2))
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return SentImage("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    width, height = struct.unpack_from("<HH", data, 26)
    return SentImage("WebP", width & 0x3FFF, height & 0x3FFF)


def _other(data: bytes) -> SentImage | None:
    for name, beginning, layout, at in _OTHERS:
        found = beginning.match(data)
        if found and layout:
            width, height = struct.unpack_from(layout, data, at)
            return SentImage(name, width, abs(height))
        if found:
            return SentImage(name, int(found["width"]), int(found["height"]))
    width, height, depth = struct.unpack_from("<HHB", data, 12)
    known = _TGA_KINDS.get(data[2]) == data[1] and depth in (8, 15, 16, 24, 32)
    return SentImage("TGA", width, height) if known and width and height else None


_READERS: tuple[Callable[[bytes], SentImage | None], ...] = (_png, _jpeg, _webp, _other)
