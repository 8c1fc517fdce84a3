"""Images: every input form gives the same base64, and what the server refuses never leaves."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import struct
import tracemalloc
import zlib
from functools import partial
from pathlib import Path

import pytest
from PIL import Image as Pillow

from ollama_dify.errors import UnsupportedContentError
from ollama_dify.media.image import Image
from ollama_dify.media.source import ImageLimits, read_file

FILES = Path(__file__).parent.parent / "data" / "images"
# HTTP status of three real servers for each file, sent alone to a vision model
VERDICTS: dict[str, dict[str, int]] = json.loads((FILES / "verdicts.json").read_text())
# servers take these, we do not: the cut half is invented, the others are no formats of this product
STRICTER = {"jpeg_truncated.jpg", "tga.tga", "ppm.ppm", "hdr.hdr"}
GOOD = sorted(
    name for name, status in VERDICTS.items() if status["0.33.0-rc2"] == 200 and name not in STRICTER
)
BAD = sorted(VERDICTS.keys() - set(GOOD))

PNG = (FILES / "png_rgb.png").read_bytes()
TEXT = base64.b64encode(PNG).decode()


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png(width: int, height: int, *data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *(chunk(b"IDAT", part) for part in data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg(*segments: bytes, scan: bytes = b"\x12\x34\xff\xd9") -> bytes:
    return b"\xff\xd8" + b"".join(segments) + b"\xff\xda\x00\x02" + scan


def frame(marker: int = 0xC0, precision: int = 8, height: int = 4, width: int = 6) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">HBHHB", 8, precision, height, width, 0)


FORMS = {
    "bytes": lambda data: Image.from_bytes(data),
    "bytes parsed": lambda data: Image.parse(data),
    "bytearray": lambda data: Image.from_bytes(bytearray(data)),
    "base64": lambda data: Image.from_base64(text_of(data)),
    "base64 parsed": lambda data: Image.parse(text_of(data)),
    "base64 as bytes": lambda data: Image.from_base64(text_of(data).encode()),
    "base64 as bytes parsed": lambda data: Image.parse(text_of(data).encode(), encoded=True),
    "base64 as bytearray": lambda data: Image.from_base64(bytearray(text_of(data).encode())),
    "data url": lambda data: Image.from_data_url("data:image/png;base64," + text_of(data)),
    "data url parsed": lambda data: Image.parse("DATA:image/png;charset=utf-8;BASE64," + text_of(data)),
    "data url, no type": lambda data: Image.parse("data:;base64," + text_of(data)),
    "data url as bytes": lambda data: Image.parse(b"data:;base64," + text_of(data).encode(), encoded=True),
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("form", FORMS)
def test_what_servers_read_is_accepted_and_travels_unchanged(name: str, form: str) -> None:
    data = (FILES / name).read_bytes()
    with Pillow.open(io.BytesIO(data)) as opened:
        expected = (Pillow.MIME[opened.format or ""], *opened.size)

    image = FORMS[form](data)

    assert (image.media_type, image.width, image.height) == expected
    assert image.base64() == text_of(data)
    assert b"".join(image.base64_pieces()).decode() == text_of(data)
    assert image.base64_length == len(text_of(data))
    assert (image.data, image.size) == (data, len(data))
    assert image == Image.from_bytes(data)
    assert hash(image) == hash(Image.from_bytes(data))


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("form", FORMS)
def test_what_servers_refuse_is_refused_here(name: str, form: str) -> None:
    data = (FILES / name).read_bytes()
    with pytest.raises(UnsupportedContentError, match=r"\Aimage: "):
        FORMS[form](data)


KINDS = {
    "tiff.tiff": "TIFF",
    "avif.avif": "AVIF",
    "heic_header.heic": "HEIC",
    "ico.ico": "ICO",
    "svg.svg": "SVG",
    "svg_xml.svg": "SVG",
    "pdf.pdf": "PDF",
    "jp2.jp2": "JPEG 2000",
    "psd_like.icns": "ICNS",
    "hdr.hdr": "Radiance HDR",
    "ppm.ppm": "PPM",
    "tga.tga": "TGA",
    "pcx.pcx": "PCX",
    "text.txt": "text",
    "html.html": "HTML",
    "wav.wav": "audio (WAV)",
    "mp3_like.mp3": "audio (MP3)",
    "mp4_like.mp4": "video (MP4)",
    "empty.bin": "empty",
    "webp_animated.webp": "animated WebP",
    "zeros.bin": "begins with 00 00",
    "png_truncated.png": "ends inside a chunk",
    "png_signature_only.png": "before its end mark (IEND)",
    "png_bad_idat_crc.png": "checksum of a IDAT chunk",
    "png_0x0.png": "0 × 0 pixels",
    "png_40000x40000_header.png": "1600.0 megapixels",
    "jpeg_truncated.jpg": "before its end mark (EOI)",
}


@pytest.mark.parametrize(("name", "what"), KINDS.items(), ids=list(KINDS))
def test_a_refusal_says_what_it_is_and_what_is_taken(name: str, what: str) -> None:
    with pytest.raises(UnsupportedContentError) as caught:
        Image.from_bytes((FILES / name).read_bytes(), where="message 2, image 1")
    assert caught.value.message.startswith("message 2, image 1: ")
    assert what in caught.value.message
    assert caught.value.hint


BMP = (FILES / "bmp_24.bmp").read_bytes()
GIF = (FILES / "gif_animated.gif").read_bytes()
WEBP = (FILES / "webp_lossy.webp").read_bytes()
MADE: dict[str, tuple[bytes, str]] = {
    "PNG of 50 MP and a bit": (png(10_000, 5_001, b"x"), "megapixels"),
    "PNG with a second, larger header": (
        png(2, 2)[:33] + png(10_000, 5_001, b"x")[8:33] + png(2, 2, b"x")[33:],
        "megapixels",
    ),
    "JPEG with a second, larger frame": (jpeg(frame(), frame(width=9_000, height=9_000)), "megapixels"),
    "GIF with a frame larger than its screen": (
        GIF[: GIF.index(b"\x2c\0\0\0\0") + 5] + b"\xff\xff\xff\xff" + GIF[GIF.index(b"\x2c\0\0\0\0") + 9 :],
        "megapixels",
    ),
    "PNG without data": (png(2, 2), "no image data"),
    "PNG without header": (PNG[:8] + chunk(b"IDAT", b"x") + chunk(b"IEND", b""), "header"),
    "PNG with 65,537 chunks": (png(2, 2, *[b"x"] * 65_537), "chunks"),
    "PNG cut in the last checksum": (PNG[:-1], "inside a chunk"),
    "JPEG with arithmetic coding": (jpeg(frame(0xC9)), "rare kind"),
    "lossless JPEG": (jpeg(frame(0xC3)), "rare kind"),
    "JPEG of 12 bits": (jpeg(frame(0xC1, 12)), "rare kind"),
    "JPEG without size": (jpeg(), "size is missing"),
    "JPEG without scan": (b"\xff\xd8" + frame() + b"\xff\xd9", "before its image data"),
    "JPEG of zero height": (jpeg(frame(height=0)), "6 × 0"),
    "JPEG whose only end mark is the thumbnail's": (
        jpeg(b"\xff\xe1\x00\x06\xff\xd8\xff\xd9", frame(), scan=b"\x12\x34"),
        "end mark",
    ),
    "GIF without its trailer": (GIF[:-1], "end mark"),
    "GIF cut in a frame": (GIF[:100], "end mark"),
    "GIF of one-byte blocks": (GIF[:-2] + b"\x01x" * 300_000, "blocks"),
    "WebP shorter than declared": (WEBP[:-1], "of 94 bytes"),
    "BMP without its last row": (BMP[:-200], "last row"),
    "run-length BMP": (BMP[:30] + b"\x01" + BMP[31:], "compressed BMP"),
    "QuickTime": (b"\0\0\0\x14ftypqt  \0\0\0\0", "video"),
    "zip": (b"PK\x03\x04" + bytes(30), "ZIP"),
    "SVG behind a comment": (b"<!-- x --><svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "JSON": (b'{"a": 1}', "text"),
}


@pytest.mark.parametrize(("data", "why"), MADE.values(), ids=list(MADE))
def test_damage_and_rarities_get_the_same_verdict_in_every_form(data: bytes, why: str) -> None:
    messages = set()
    for form in FORMS.values():
        with pytest.raises(UnsupportedContentError) as caught:
            form(data)
        messages.add(str(caught.value))
    assert len(messages) == 1
    assert why in messages.pop()


@pytest.mark.parametrize(
    ("data", "size"),
    [
        pytest.param(png(10_000, 5_000, b"x"), (10_000, 5_000), id="PNG of exactly 50 MP"),
        pytest.param(PNG + b"trailing", (56, 56), id="bytes behind a PNG"),
        pytest.param(jpeg(b"\xff\xff\xff\xe0\x00\x02", frame()), (6, 4), id="JPEG with fill bytes"),
        pytest.param(jpeg(frame()) + b"\0" * 60_000, (6, 4), id="bytes behind a JPEG"),
        pytest.param(GIF + b"\0\0", (56, 56), id="bytes behind a GIF"),
        pytest.param(
            BMP[:22] + struct.pack("<i", -struct.unpack("<i", BMP[22:26])[0]) + BMP[26:],
            (56, 56),
            id="BMP from the top down",
        ),
    ],
)
def test_harmless_oddities_pass(data: bytes, size: tuple[int, int]) -> None:
    for form in FORMS.values():
        image = form(data)
        assert (image.width, image.height) == size


BASE64 = {
    "no padding": (text_of(PNG + b"x").rstrip("="), "padding"),
    "too much padding": (text_of(PNG[:-1]) + "=", "padding"),
    "only padding": ("====", "padding"),
    "one character too many": (TEXT + "A", "cut"),
    "spare bits": (text_of(b"\x89PNG")[:-3] + "x==", "bits that belong to no byte"),
    "line break": (TEXT[:76] + "\n" + TEXT[76:], "position 76 is white space"),
    "final line break": (TEXT + "\n", "white space"),
    "leading space": (" " + TEXT, "position 0 is white space"),
    "base64url minus": (TEXT[:8] + "-" + TEXT[9:], "base64url"),
    "base64url underscore": (TEXT[:8] + "_" + TEXT[9:], "base64url"),
    "percent-encoded": (TEXT[:8] + "%2B" + TEXT[9:], "percent-encoding"),
    "padding inside": (TEXT[:8] + "=" + TEXT[9:], "padding in the middle"),
    "beyond ASCII": (TEXT[:8] + "é" + TEXT[9:], "'é' at position 8"),
    "lone surrogate": (TEXT[:8] + "\ud800" + TEXT[9:], "not in the alphabet"),
    "NUL": (TEXT[:8] + "\0" + TEXT[9:], "not in the alphabet"),
    "fault in a late piece": (text_of(PNG + bytes(99_000))[:-5] + "!AAA=", "'!' at position"),
    "empty": ("", "empty"),
    "blank": ("   ", "white space"),
}


@pytest.mark.parametrize("case", BASE64)
def test_base64_is_strict_in_every_form(case: str) -> None:
    text, why = BASE64[case]
    messages = set()
    for form in (Image.from_base64, Image.parse, lambda text: Image.from_data_url("data:;base64," + text)):
        with pytest.raises(UnsupportedContentError) as caught:
            form(text)
        assert why in caught.value.message
    data = text.encode("utf-8", "replace")
    for form_of_bytes in (Image.from_base64, partial(Image.parse, encoded=True)):
        with pytest.raises(UnsupportedContentError) as caught:
            form_of_bytes(data)
        messages.add((str(caught.value), caught.value.hint))
    with pytest.raises(UnsupportedContentError) as caught:
        Image.from_base64(data.decode())
    assert messages == {(str(caught.value), caught.value.hint)}


REFERENCES = {
    "absolute path": ("/etc/passwd", "file path"),
    "path in the base64 alphabet": ("/etc/hosts12", "file path"),
    "relative path": ("./cat.png", "file path"),
    "parent path": ("../../cat", "file path"),
    "bare name": ("cat.jpeg", "file path"),
    "name with spaces": ("my holiday cat.jpeg", "file path"),
    "home": ("~/cat", "file path"),
    "Windows": ("C:\\Users\\me\\cat.png", "file path"),
    "network share": ("\\\\server\\share\\cat", "file path"),
    "https": ("https://user:pw@example.com/cat.png?sig=pw", "https address"),
    "http": ("HTTP://127.0.0.1/", "http address"),
    "file": ("file:///etc/passwd", "file: address"),
    "ftp": ("ftp://example.com/cat.png", "ftp: address"),
    "s3": ("s3://bucket/cat.png", "s3: address"),
    "data url without base64": ("data:image/svg+xml,<svg/>", "no base64"),
    "data url without comma": ("data:image/png;base64", "no base64"),
}


@pytest.mark.parametrize(("text", "why"), REFERENCES.values(), ids=list(REFERENCES))
def test_paths_and_addresses_in_messages_are_refused(
    text: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cat.png", "cat.jpeg", "my holiday cat.jpeg"):
        (tmp_path / name).write_bytes(PNG)
    with pytest.raises(UnsupportedContentError) as caught:
        Image.parse(text)
    assert why in caught.value.message
    assert "pw" not in str(caught.value).replace("/etc/passwd", "")
    assert caught.value.hint
    with pytest.raises(UnsupportedContentError) as again:
        Image.parse(text.encode(), encoded=True)
    assert str(again.value) == str(caught.value)


def test_size_limits_hold_at_the_byte() -> None:
    limits = ImageLimits(max_bytes=len(PNG))
    for form in FORMS:
        assert FORMS[form](PNG).size == len(PNG)
    assert Image.from_bytes(PNG, limits=limits).size == len(PNG)
    assert Image.from_base64(TEXT, limits=limits).size == len(PNG)
    bigger = PNG + b"\0"
    for refused in (
        lambda: Image.from_bytes(bigger, limits=limits),
        lambda: Image.from_base64(text_of(bigger), limits=limits),
        lambda: Image.from_bytes(png(9, 9, bytes(20 << 20))),
    ):
        with pytest.raises(UnsupportedContentError, match="MiB"):
            refused()


@pytest.mark.parametrize("as_bytes", [False, True], ids=["str", "bytes"])
def test_a_large_image_is_neither_decoded_nor_copied_as_a_whole(as_bytes: bool) -> None:
    noise = os.urandom(65_536) * 315
    data = png(2_600, 2_600, *(noise[begin : begin + 65_536] for begin in range(0, len(noise), 65_536)))
    text = "data:image/png;base64," + text_of(data)
    url = text.encode() if as_bytes else text
    tracemalloc.start()
    image = Image.parse(url, encoded=True)
    length = sum(len(piece) for piece in image.base64_pieces())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert image.payload is url
    assert length == image.base64_length == len(url) - 22
    assert peak < 500_000


def test_value_semantics() -> None:
    image, other = Image.from_base64(TEXT), Image.from_bytes((FILES / "png_green.png").read_bytes())
    for same in (image, Image.from_base64(TEXT.encode())):
        assert TEXT[:20] not in repr(same)
        assert pickle.loads(pickle.dumps(same)) == same == image
    assert image not in (other, TEXT)
    with pytest.raises(AttributeError):
        image.width = 3  # type: ignore[misc]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "allowed" / "cat.txt"
    path.parent.mkdir()
    path.write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG)
    (path.parent / "link.png").symlink_to(tmp_path / "secret.png")
    (path.parent / "text.png").write_text("no image")
    os.mkfifo(path.parent / "pipe")
    return path


def test_a_file_is_read_from_where_it_is_allowed(file: Path) -> None:
    for path in (file, str(file)):
        for allowed in (True, file.parent, file.parent.parent):
            assert Image.from_path(path, allowed=allowed) == Image.from_bytes(PNG)


@pytest.mark.parametrize(
    ("name", "allowed", "why"),
    [
        ("cat.txt", False, "allow_image_paths=False"),
        ("../secret.png", ".", "outside the allowed directory"),
        ("link.png", ".", "outside the allowed directory"),
        ("none.png", True, "No such file"),
        (".", True, "regular file|directory"),
        ("pipe", True, "regular file"),
        ("a\0b", True, "cannot be read"),
        ("text.png", True, "this is text"),
    ],
)
def test_a_file_that_is_not_read(file: Path, name: str, allowed: bool | str, why: str) -> None:
    within = file.parent / allowed if isinstance(allowed, str) else allowed
    with pytest.raises(UnsupportedContentError, match=why):
        Image.from_path(file.parent / name, allowed=within)


def test_a_file_that_is_too_large_is_not_read(file: Path) -> None:
    with pytest.raises(UnsupportedContentError, match="MiB"):
        read_file(file, limits=ImageLimits(max_bytes=10))
