"""Read image size or audio type from the header, and check that the file is complete; nothing is decoded.

Formats that Ollama reads, recorded on 0.24, 0.32.15 and 0.33: PNG, JPEG, GIF, BMP on all, static WebP
from 0.32. Refused here although some servers accept it: Radiance HDR, PPM and TGA (no reliable magic
number, or no use for it) and a cut JPEG (the server invents the missing half). If a file declares its
size more than once, the largest counts, because decoders differ in which one they use.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from ..errors import UnsupportedContentError
from .source import ACCEPTED_FORMATS, Source, refusal

__all__ = ["inspect_audio", "inspect_image"]

CONVERTIBLE = frozenset(
    {"TIFF", "AVIF", "ICO", "ICNS", "JPEG 2000", "PPM", "TGA", "PCX", "Photoshop (PSD)", "animated WebP"}
)
"""Formats that `conversion` may turn into PNG or JPEG."""

_READ_BY_SOME_SERVERS = frozenset({"Radiance HDR", "PPM", "TGA"})
_CRC_MAX_BYTES = 4 << 20
_MAX_CHUNKS = 65_536
_MAX_GIF_BLOCKS = 1 << 18

# Media type, width and height in pixels.
Facts = tuple[str, int, int]

# The beginning of a file, and the format's name.
_MAGIC = (
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"GIF8[79]a", "GIF"),
    (rb"RIFF....WEBP", "WebP"),
    (rb"RIFF....WAVE", "audio (WAV)"),
    (rb"RIFF....AVI ", "video (AVI)"),
    (rb"II[*+]\0|MM\0[*+]", "TIFF"),
    (rb"....ftypavi[fs]", "AVIF"),
    (rb"....ftyp(?:hei[cxms]|hevc|mif1|msf1)", "HEIC"),
    (rb"....ftypM4A ", "audio (M4A)"),
    (rb"....ftyp", "video (MP4)"),
    (rb"\0\0\x01\0", "ICO"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "JPEG XL"),
    (rb"8BPS", "Photoshop (PSD)"),
    (rb"icns", "ICNS"),
    (rb"#\?(?:RADIANCE|RGBE)", "Radiance HDR"),
    (rb"\x76\x2f\x31\x01", "OpenEXR"),
    (rb"DDS ", "DDS"),
    (rb"%PDF", "PDF"),
    (rb"%!PS", "PostScript"),
    (rb"PK\x03\x04", "a ZIP archive or office document"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"ID3|\xff[\xfb\xfa\xf3\xf2]", "audio (MP3)"),
    (rb"fLaC", "audio (FLAC)"),
    (rb"OggS", "audio (Ogg)"),
    (rb"\x1aE\xdf\xa3", "video (Matroska or WebM)"),
    (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BMP"),  # by the length of the second header
    (rb"P[1-6]\s", "PPM"),
    (rb"\n[\0\x02-\x05]\x01", "PCX"),
)


def identify(source: Source) -> str:
    """The name of the format, by magic number; "" if it is unknown."""
    head = source.read(0, 512)
    for pattern, kind in _MAGIC:
        if re.match(pattern, head, re.DOTALL):
            return kind
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


def _unsupported(kind: str, where: str) -> UnsupportedContentError:
    hint = f"Send {ACCEPTED_FORMATS}."
    if kind in CONVERTIBLE:
        hint += ' Or set convert_images=True, which needs Pillow: pip install "ollama-dify[images]".'
    verdict = "which is not taken" if kind in _READ_BY_SOME_SERVERS else "which Ollama does not read"
    return refusal(where, f"this is {kind}, {verdict}", hint)


def _damaged(kind: str, where: str, why: str) -> UnsupportedContentError:
    return refusal(where, f"this {kind} is damaged: {why}", "Send the complete, undamaged file.")


def inspect_image(source: Source, where: str) -> Facts:
    """Check an image's format and completeness; returns its media type and size.

    Raises UnsupportedContentError that says what the file is and why it is refused.
    """
    kind = identify(source)
    if kind in _READERS:
        return _READERS[kind](source, where)
    if not kind:
        head = source.read(0, 8).hex(" ")
        raise refusal(where, f"this is not an image that can be recognised (it begins with {head})")
    raise _unsupported(kind, where)


def _read_png(source: Source, where: str) -> Facts:
    """Walk the chunks to IEND; verify their checksums, the most expensive part, in files up to 4 MiB."""
    offset, width, height, has_data = 8, 0, 0, False
    for number in range(_MAX_CHUNKS):
        header = source.read(offset, 8)
        if len(header) < 8:
            raise _damaged("PNG", where, "it ends before its end mark (IEND)")
        length, kind = struct.unpack(">I4s", header)
        if not kind.isalpha():
            raise _damaged("PNG", where, f"byte {offset} does not begin a chunk")
        end = offset + 8 + length
        if end + 4 > source.size:
            raise _damaged("PNG", where, "it ends inside a chunk")
        if source.size <= _CRC_MAX_BYTES:
            checksum = zlib.crc32(source.read(offset + 4, length + 4))
            if checksum.to_bytes(4, "big") != source.read(end, 4):
                raise _damaged("PNG", where, f"the checksum of a {kind.decode()} chunk is wrong")
        if kind == b"IHDR" and length == 13:
            size = struct.unpack(">II", source.read(offset + 8, 8))
            width, height = max(width, size[0]), max(height, size[1])
        elif number == 0 and kind != b"CgBI":
            raise _damaged("PNG", where, "it does not begin with its header (IHDR)")
        has_data = has_data or (kind == b"IDAT" and length > 0)
        if kind == b"IEND":
            if not has_data:
                raise _damaged("PNG", where, "it holds no image data (IDAT)")
            return "image/png", width, height
        offset = end + 4
    raise _damaged("PNG", where, f"it has more than {_MAX_CHUNKS:,} chunks")


_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _read_jpeg(source: Source, where: str) -> Facts:
    """Walk the segments to the first scan, then find the end marker after it."""
    offset, sizes = 2, [(0, 0)]
    for _ in range(_MAX_CHUNKS):
        head = source.read(offset, 4)
        if len(head) < 4:
            raise _damaged("JPEG", where, "it ends before its image data")
        if head[0] != 0xFF or head[1] in (0xFF, 0x00):
            offset += 1
            continue
        marker, length = head[1], int.from_bytes(head[2:], "big")
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            offset += 2
            continue
        if marker == 0xD9 or length < 2:
            raise _damaged("JPEG", where, f"segment {marker:02X} at byte {offset} is broken")
        if marker in _JPEG_FRAMES:
            sizes.append(_jpeg_frame(marker, source.read(offset + 4, 5), where))
        offset += 2 + length
        if marker == 0xDA:
            break
    if len(sizes) == 1:
        raise _damaged("JPEG", where, "its size is missing")
    if not source.contains_from_end(b"\xff\xd9", offset):
        raise _damaged("JPEG", where, "it ends before its end mark (EOI)")
    width, height = map(max, zip(*sizes, strict=True))
    return "image/jpeg", width, height


def _jpeg_frame(marker: int, frame: bytes, where: str) -> tuple[int, int]:
    if len(frame) < 5:
        raise _damaged("JPEG", where, "it ends inside its header")
    precision, height, width = struct.unpack(">BHH", frame)
    if marker not in (0xC0, 0xC1, 0xC2) or precision != 8:
        what = f"frame {marker:02X}, {precision} bits: arithmetic, lossless or more than 8 bits"
        why = f"this is a JPEG of a rare kind ({what}), which Ollama does not read"
        raise refusal(where, why, "Save it as a baseline or progressive JPEG, or as PNG.")
    return width, height


def _read_webp(source: Source, where: str) -> Facts:
    end = int.from_bytes(source.read(4, 4), "little") + 8
    if end > source.size:
        raise _damaged("WebP", where, f"it has {source.size} of {end} bytes")
    width, height = 0, 0
    for kind, begin, length in _riff_chunks(source, end):
        body = source.read(begin, 10)
        if begin + length > end:
            raise _damaged("WebP", where, "it ends inside a chunk")
        if kind in (b"ANIM", b"ANMF") or (kind == b"VP8X" and body[:1] and body[0] & 2):
            raise _unsupported("animated WebP", where)
        if kind == b"VP8X" and len(body) == 10:
            width, height = int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
        if kind == b"VP8 " and len(body) == 10 and body[3:6] == b"\x9d\x01\x2a":
            sizes = struct.unpack("<HH", body[6:10])
            return "image/webp", max(width, sizes[0] & 0x3FFF), max(height, sizes[1] & 0x3FFF)
        if kind == b"VP8L" and body[:1] == b"\x2f":
            bits = int.from_bytes(body[1:5], "little")
            return "image/webp", max(width, (bits & 0x3FFF) + 1), max(height, (bits >> 14 & 0x3FFF) + 1)
    raise _damaged("WebP", where, "it holds no image data")


def _riff_chunks(source: Source, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and length of each chunk's content, in WebP and WAV."""
    offset = 20
    for _ in range(_MAX_CHUNKS):
        head = source.read(offset - 8, 8)
        if offset > end or len(head) < 8:
            return
        length = int.from_bytes(head[4:], "little")
        yield head[:4], offset, length
        offset += length + (length & 1) + 8


def _read_gif(source: Source, where: str) -> Facts:
    """Walk the blocks to the trailer."""
    head = source.read(6, 7)
    if len(head) < 7:
        raise _damaged("GIF", where, "it ends inside its header")
    width, height, flags = struct.unpack("<HHB", head[:5])
    offset, in_data, has_frame = 13 + _gif_palette(flags), False, False
    for _ in range(_MAX_GIF_BLOCKS):
        block = source.read(offset, 10)
        if not block:
            raise _damaged("GIF", where, "it ends before its end mark")
        if in_data:
            in_data = block[0] > 0
            offset += 1 + block[0]
        elif block[0] == 0x3B and has_frame:
            return "image/gif", width, height
        elif block[0] == 0x2C:
            left, top, *frame, flags = struct.unpack("<HHHHB", block[1:].ljust(9, b"\0"))
            width, height = max(width, left + frame[0]), max(height, top + frame[1])
            in_data = has_frame = True
            offset += 11 + _gif_palette(flags)
        elif block[0] == 0x21:
            in_data = True
            offset += 2
        else:
            raise _damaged("GIF", where, f"byte {offset} begins no block")
    raise _damaged("GIF", where, f"it has more than {_MAX_GIF_BLOCKS:,} blocks")


def _gif_palette(flags: int) -> int:
    """Length in bytes of the colour table that `flags` announces."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _read_bmp(source: Source, where: str) -> Facts:
    """Read the header; uncompressed pixel data must be complete."""
    head = source.read(0, 34).ljust(34, b"\0")
    begin, header = struct.unpack("<II", head[10:18])
    if header == 12:
        width, height, _, depth = struct.unpack("<HHHH", head[18:26])
        compression = 0
    else:
        width, height, _, depth, compression = struct.unpack("<iiHHI", head[18:34])
        height = abs(height)
    if compression not in (0, 3):
        raise refusal(where, "this is a compressed BMP, which Ollama does not read")
    if width > 0 and height > 0 and source.size < begin + (width * depth + 31) // 32 * 4 * height:
        raise _damaged("BMP", where, "it ends before its last row")
    return "image/bmp", max(0, width), height


_READERS = {"PNG": _read_png, "JPEG": _read_jpeg, "WebP": _read_webp, "GIF": _read_gif, "BMP": _read_bmp}
_AUDIO_HINT = "Send a WAV or MP3 file."
# Lengths that mean "unknown": a WAV written to a pipe has one of these.
_UNKNOWN_LENGTHS = (0, 0xFFFFFFFF)


def inspect_audio(source: Source, where: str) -> str:
    """Check an audio file's format; returns its media type. Raises UnsupportedContentError."""
    kind = identify(source)
    if kind == "audio (WAV)":
        _check_wav(source, where)
        return "audio/wav"
    head = source.read(0, 8)
    sync, version, rate, *_ = head.ljust(4, b"\0")
    is_mpeg = sync == 0xFF and version & 0xE6 == 0xE2 and 0 < rate >> 4 < 15 and rate & 12 != 12
    if kind == "audio (MP3)" or is_mpeg:
        return "audio/mpeg"
    if kind:
        raise refusal(where, f"this is {kind}, which is not taken as a sound", _AUDIO_HINT)
    why = f"this is no sound that can be recognised (it begins with {head.hex(' ')})"
    raise refusal(where, why, _AUDIO_HINT)


def _check_wav(source: Source, where: str) -> None:
    """Walk the chunks to the data."""
    has_format = False
    for kind, begin, length in _riff_chunks(source, source.size):
        has_format = has_format or (kind == b"fmt " and length >= 16)
        if kind == b"data" and has_format:
            if length not in _UNKNOWN_LENGTHS and begin + length > source.size:
                raise _damaged("WAV", where, "it ends before its last sample")
            return
    raise _damaged("WAV", where, "it holds no sound data" if has_format else "its format is missing")
