"""Tell what a file is by its content, never by its label."""

from __future__ import annotations

import binascii
from collections.abc import Iterator

from ..errors import UnsupportedContentError

__all__ = [
    "ACCEPTED_FORMATS",
    "Source",
    "count_padding",
    "identify",
    "refusal",
]

ACCEPTED_FORMATS = "PNG, JPEG, static WebP, GIF or BMP"
_PIECE_BYTES = 49_152


class Source:
    """Random access to an image's bytes, given raw or as base64 text that starts at `start`.

    encoded: whether the payload is that text, as str or as ASCII bytes. It must be valid base64 already;
    only what is read gets decoded.
    """

    __slots__ = ("encoded", "payload", "size", "start")

    def __init__(self, payload: bytes | str, start: int = 0, *, encoded: bool = False) -> None:
        self.payload = payload
        self.start = start
        self.encoded = encoded
        if encoded:
            self.size = (len(payload) - start) // 4 * 3 - count_padding(payload, start)
        else:
            self.size = len(payload) - start

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; fewer at the end of the file."""
        payload, start = self.payload, self.start
        if not self.encoded and isinstance(payload, bytes):
            return payload[start + offset : start + offset + length]
        first, skip = divmod(offset, 3)
        last = -(-(offset + length) // 3)
        return binascii.a2b_base64(payload[start + first * 4 : start + last * 4])[skip : skip + length]

    def pieces(self, offset: int, end: int) -> Iterator[bytes]:
        """The bytes from `offset` to `end`, some 48 KiB at a time."""
        while offset < end:
            piece = self.read(offset, min(_PIECE_BYTES, end - offset))
            yield piece
            offset += len(piece) if piece else end

    def contains_from_end(self, pattern: bytes, offset: int) -> bool:
        """Whether `pattern` occurs at or after `offset`; looks at the end first."""
        end = self.size
        while end > offset:
            begin = max(offset, end - _PIECE_BYTES)
            if pattern in self.read(begin, end - begin + len(pattern) - 1):
                return True
            end = begin
        return False


def count_padding(text: bytes | str, start: int) -> int:
    """How many "=" base64 text that starts at `start` ends with; 2 at most."""
    tail = text[max(start, len(text) - 2) :]
    return len(tail) - len(tail.rstrip("=") if isinstance(tail, str) else tail.rstrip(b"="))


def refusal(where: str, problem: str, hint: str | None = None) -> UnsupportedContentError:
    """The error for image `where` with `problem`; the hint says what would be accepted."""
    return UnsupportedContentError(
        f"{where}: {problem}.", hint=f"Send {ACCEPTED_FORMATS}." if hint is None else hint
    )


_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (8, b"WEBP", "WebP"),
    (8, b"WAVE", "audio (WAV)"),
    (8, b"AVI ", "video (AVI)"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    *((4, b"ftyp" + brand, "HEIC") for brand in _HEIC_BRANDS),
    (4, b"ftypM4A ", "audio (M4A)"),
    (4, b"ftyp", "video (MP4)"),
    (0, b"\0\0\x01\0", "ICO"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"8BPS", "Photoshop (PSD)"),
    (0, b"icns", "ICNS"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"#?RGBE", "Radiance HDR"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"DDS ", "DDS"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"PK\x03\x04", "a ZIP archive or office document"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"ID3", "audio (MP3)"),
    *((0, b"\xff" + layer, "audio (MP3)") for layer in (b"\xfb", b"\xfa", b"\xf3", b"\xf2")),
    (0, b"fLaC", "audio (FLAC)"),
    (0, b"OggS", "audio (Ogg)"),
    (0, b"\x1aE\xdf\xa3", "video (Matroska or WebM)"),
)
_RIFF_KINDS = frozenset({"WebP", "audio (WAV)", "video (AVI)"})
_PCX_VERSIONS = (b"\0", b"\x02", b"\x03", b"\x04", b"\x05")
_BMP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})


def identify(source: Source) -> str:
    """The name of the format, by magic number; "" where nothing is recognised."""
    head = source.read(0, 512)
    for offset, magic, kind in _MAGIC:
        if head.startswith(magic, offset) and (kind not in _RIFF_KINDS or head.startswith(b"RIFF")):
            return kind
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "PPM"
    if (
        head[:1] == b"\n"
        and head[1:2] in (b"\0", b"\x02", b"\x03", b"\x04", b"\x05")
        and head[2:3] == b"\x01"
    ):
        return "PCX"
    if source.size > 18 and source.read(source.size - 18, 16) == b"TRUEVISION-XFILE":
        return "TGA"
    return _identify_text(head)


def _identify_text(head: bytes) -> str:
    text = head.decode("utf-8", "ignore")
    if len(text.encode()) < len(head) - 3 or any(c < " " and c not in "\t\r\n\f" for c in text):
        return ""
    text = text.lstrip("\ufeff \t\r\n").lower()
    if text.startswith("<svg") or (text.startswith(("<?xml", "<!doctype svg", "<!--")) and "<svg" in text):
        return "SVG"
    if text.startswith(("<!doctype html", "<html", "<head", "<body")):
        return "HTML"
    return "XML" if text.startswith("<?xml") else "text"
