"""What is in an image, by rule: its main colours, how light it is, where the bright parts are."""

from __future__ import annotations

import colorsys
import functools
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate

from ..images import look

Pixel = tuple[int, int, int]
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_MOST_BYTES = 4_000_000
_ACROSS = 64
_HUES = (
    (15, "red"),
    (42, "orange"),
    (70, "yellow"),
    (165, "green"),
    (195, "cyan"),
    (255, "blue"),
    (290, "purple"),
)
_DOWN = ("upper", "middle", "lower")
_ALONG = ("left", "centre", "right")


@functools.lru_cache(maxsize=64)
def described(data: bytes) -> str | None:
    """`a PNG image, 56 by 56 pixels: mostly red; …`; formats other than 8-bit PNG by format and size only."""
    image = look(data)
    if image is None:
        return None
    rows = _pixels(data) if image.format == "PNG" and image.whole else []
    article = "an" if image.format[0] in "HM" else "a"
    known = f"{article} {image.format} image, {image.width} by {image.height} pixels"
    return f"{known}: {_colours(rows)}; {_light(rows)}" if rows else known


def _pixels(data: bytes) -> list[list[Pixel]]:
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
    try:
        raw = zlib.decompress(packed)
        lines = [_thinned(row, channels, palette) for row in _rows(raw, height, channels * width, channels)]
    except (zlib.error, IndexError):
        return []
    return lines[:: -(-height // _ACROSS)]


def _rows(raw: bytes, height: int, stride: int, step: int) -> Iterator[bytearray]:
    """The rows with PNG's five filters undone."""
    above = bytearray(stride)
    for start in range(0, height * (stride + 1), stride + 1):
        kind, row = raw[start], bytearray(raw[start + 1 : start + 1 + stride])
        if kind == 1:
            for channel in range(step):
                row[channel::step] = bytes(value & 255 for value in accumulate(row[channel::step]))
        elif kind == 2:
            row = bytearray((value + up) & 255 for value, up in zip(row, above, strict=True))
        else:
            for x in range(stride) if kind else ():
                left, up, corner = (
                    (row[x - step], above[x], above[x - step]) if x >= step else (0, above[x], 0)
                )
                row[x] = (row[x] + (_nearest(left, up, corner) if kind == 4 else (left + up) // 2)) & 255
        yield row
        above = row


def _nearest(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda value: abs(guess - value))


def _thinned(row: bytearray, channels: int, palette: bytes) -> list[Pixel]:
    pixels: list[Pixel] = []
    for x in range(0, len(row), channels * -(-len(row) // channels // _ACROSS or 1)):
        at = 3 * row[x] if palette else x
        red, green, blue = (palette or row)[at : at + 3] if palette or channels > 2 else (row[x],) * 3
        pixels.append((red, green, blue))
    return pixels


def _name(pixel: Pixel) -> str:
    hue, light, saturation = colorsys.rgb_to_hls(*(value / 255 for value in pixel))
    if light < 0.09:
        return "black"
    if light > 0.95:
        return "white"
    if saturation < 0.15:
        return "dark grey" if light < 0.35 else "light grey" if light > 0.7 else "grey"
    found = next((name for limit, name in _HUES if hue * 360 < limit), "pink" if hue * 360 < 335 else "red")
    if found == "orange" and light < 0.35:
        return "brown"
    return f"dark {found}" if light < 0.3 else f"light {found}" if light > 0.75 else found


def _colours(rows: Sequence[Sequence[Pixel]]) -> str:
    counted = Counter(_name(pixel) for row in rows for pixel in row)
    total = sum(counted.values())
    shares = [(name, round(100 * count / total)) for name, count in counted.most_common(3)]
    listed = [f"{name} ({share} %)" for name, share in shares if share >= 3]
    return (
        f"mostly {shares[0][0]}" if len(listed) < 2 else f"mainly {', '.join(listed[:-1])} and {listed[-1]}"
    )


def _light(rows: Sequence[Sequence[Pixel]]) -> str:
    """How light it is as a whole, and which ninth of it is the brightest."""
    cells: dict[str, list[float]] = {}
    for y, row in enumerate(rows):
        for x, (red, green, blue) in enumerate(row):
            place = f"{_DOWN[3 * y // len(rows)]} {_ALONG[3 * x // len(row)]}"
            cells.setdefault(place, []).append((0.299 * red + 0.587 * green + 0.114 * blue) / 255)
    means = {place: sum(values) / len(values) for place, values in cells.items()}
    whole = sum(map(sum, cells.values())) / sum(map(len, cells.values()))
    tone = "dark" if whole < 0.25 else "light" if whole > 0.65 else "of medium brightness"
    brightest = max(means, key=lambda place: means[place])
    even = means[brightest] - min(means.values()) < 0.04
    return (
        f"{tone}, evenly lit"
        if even
        else f"{tone}, brightest at the {brightest.replace('middle centre', 'centre')}"
    )
