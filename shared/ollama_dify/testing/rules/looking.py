"""What is in an image, by rule: its main colours and how light it is."""

from __future__ import annotations

import colorsys
import functools
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

from ..images import look

Pixel = Sequence[int]
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_MOST_BYTES = 2_000_000
_ACROSS = 64
# Where each hue ends, in degrees.
_HUES = {15: "red", 42: "orange", 70: "yellow", 165: "green", 195: "cyan", 255: "blue", 290: "purple"}


@functools.lru_cache(maxsize=64)
def described(data: bytes) -> str | None:
    """`a PNG image, 56 by 56 pixels: mostly red; …`; formats other than 8-bit PNG by format and size only."""
    image = look(data)
    if image is None:
        return None
    pixels = _pixels(data) if image.format == "PNG" and image.whole else []
    article = "an" if image.format[0] in "HM" else "a"
    known = f"{article} {image.format} image, {image.width} by {image.height} pixels"
    return f"{known}: {_colours(pixels)}; {_light(pixels)}" if pixels else known


def _pixels(data: bytes) -> list[Pixel]:
    """At most 64 by 64 pixels; none where the image is too large, interlaced, or not of 8 bits a channel."""
    width, height, depth, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    channels = _CHANNELS.get(kind, 0)
    if depth != 8 or interlaced or not 0 < channels * width * height <= _MOST_BYTES:
        return []
    packed, palette, position = b"", b"", 8
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length]
        packed += body if name == b"IDAT" else b""
        palette = body if name == b"PLTE" and kind == 3 else palette
        position += 12 + length
    pixels: list[Pixel] = []
    try:
        rows = list(_rows(zlib.decompress(packed), height, channels * width, channels))
        for row in rows[:: -(-height // _ACROSS)]:
            for x in range(0, len(row), channels * -(-width // _ACROSS)):
                at = 3 * row[x] if palette else x
                pixels.append((palette or row)[at : at + 3] if palette or channels > 2 else (row[x],) * 3)
    except (zlib.error, IndexError):
        return []
    return pixels


def _rows(raw: bytes, height: int, stride: int, step: int) -> Iterator[bytearray]:
    """The rows with PNG's five filters undone."""
    above = bytearray(stride)
    for start in range(0, height * (stride + 1), stride + 1):
        kind, row = raw[start], bytearray(raw[start + 1 : start + 1 + stride])
        for x in range(stride) if kind else ():
            left, corner = (row[x - step], above[x - step]) if x >= step else (0, 0)
            up = above[x]
            guess = left + up - corner
            nearest = min((left, up, corner), key=lambda value: abs(guess - value))
            row[x] = (row[x] + (0, left, up, (left + up) // 2, nearest)[kind]) & 255
        yield row
        above = row


def _name(pixel: Pixel) -> str:
    hue, light, saturation = colorsys.rgb_to_hls(*(value / 255 for value in pixel))
    if not 0.09 <= light <= 0.95:
        return "black" if light < 0.09 else "white"
    found = next((name for end, name in _HUES.items() if hue * 360 < end), "pink" if hue < 0.93 else "red")
    found = "grey" if saturation < 0.15 else found
    return f"dark {found}" if light < 0.3 else f"light {found}" if light > 0.75 else found


def _colours(pixels: Sequence[Pixel]) -> str:
    counted = Counter(map(_name, pixels)).most_common(3)
    shares = [(name, round(100 * count / len(pixels))) for name, count in counted]
    listed = [f"{name} ({share} %)" for name, share in shares if share >= 3]
    if len(listed) < 2:
        return f"mostly {shares[0][0]}"
    return f"mainly {', '.join(listed[:-1])} and {listed[-1]}"


def _light(pixels: Sequence[Pixel]) -> str:
    whole = sum(0.299 * red + 0.587 * green + 0.114 * blue for red, green, blue in pixels) / len(pixels) / 255
    return "dark" if whole < 0.25 else "light" if whole > 0.65 else "of medium brightness"
