"""Optional conversion: with Pillow, what Ollama does not read becomes PNG or JPEG."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image as Pillow

from ollama_dify.errors import ConfigurationError, UnsupportedContentError
from ollama_dify.media.conversion import convert_image
from ollama_dify.media.image import Image

FILES = Path(__file__).parent.parent / "data" / "images"
PNG = (FILES / "png_rgb.png").read_bytes()
CONVERTIBLE = """
tiff.tiff tiff_lzw.tiff ico.ico ico_bmp.ico psd_like.icns jp2.jp2 ppm.ppm tga.tga pcx.pcx webp_animated.webp
"""


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


FORMS: dict[str, Callable[[bytes], bytes | str]] = {
    "bytes": bytes,
    "base64": text_of,
    "data url": lambda data: "data:image/x;base64," + text_of(data),
    "base64 as bytes": lambda data: text_of(data).encode(),
}


@pytest.mark.parametrize("name", CONVERTIBLE.split())
@pytest.mark.parametrize("form", FORMS)
def test_unread_formats(name: str, form: str) -> None:
    data = (FILES / name).read_bytes()
    image = convert_image(FORMS[form](data), encoded=form == "base64 as bytes")
    with Pillow.open(io.BytesIO(data)) as before, Pillow.open(io.BytesIO(image.data)) as after:
        assert image.media_type == "image/png"
        assert after.size == before.size
        assert after.convert("RGB").getpixel((20, 20)) == before.convert("RGB").getpixel((20, 20))


def test_what_is_read_is_untouched() -> None:
    for name in ("png_rgb.png", "jpeg_cmyk.jpg", "gif_animated.gif", "webp_alpha.webp"):
        data = (FILES / name).read_bytes()
        assert convert_image(data, max_edge=56).data == data


def test_orientation_is_honoured() -> None:
    image = convert_image((FILES / "jpeg_exif6.jpg").read_bytes())
    with Pillow.open(io.BytesIO(image.data)) as turned:
        top, bottom = turned.getpixel((28, 10)), turned.getpixel((28, 100))
    assert (image.media_type, image.width, image.height) == ("image/jpeg", 56, 112)
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert top[0] > 200 > 60 > top[2]
    assert bottom[2] > 200 > 60 > bottom[0]


@pytest.mark.parametrize(
    ("name", "edge", "size"),
    [
        ("png_1024x768.png", 512, (512, 384)),
        ("jpeg_exif6.jpg", 56, (28, 56)),
        ("png_palette.png", 28, (28, 28)),
    ],
)
def test_an_edge_is_bounded(name: str, edge: int, size: tuple[int, int]) -> None:
    image = convert_image(Image.from_path(FILES / name), max_edge=edge)
    assert (image.width, image.height) == size


def test_bombs_are_not_decoded() -> None:
    buffer = io.BytesIO()
    Pillow.new("1", (8_000, 8_000)).save(buffer, "TIFF", compression="group4")
    for data in (buffer.getvalue(), (FILES / "png_40000x40000_header.png").read_bytes()):
        with pytest.raises(UnsupportedContentError, match=r"megapixels|Bomb"):
            convert_image(data)


@pytest.mark.parametrize("name", ["svg.svg", "pdf.pdf", "heic_header.heic", "text.txt", "png_truncated.png"])
def test_what_cannot_be_converted(name: str) -> None:
    with pytest.raises(UnsupportedContentError, match="cannot be converted"):
        convert_image((FILES / name).read_bytes())


def test_paths_are_not_opened() -> None:
    with pytest.raises(UnsupportedContentError, match="file path"):
        convert_image(str(FILES / "tiff.tiff"))


def test_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ConfigurationError, match=r"ollama-dify\[images\]"):
        convert_image(PNG)
