"""Sounds: WAV and MP3 recognised by content, in the same input forms and limits as images."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import pytest

from ollama_dify import Audio, ImageLimits, UnsupportedContentError

SAMPLES = struct.pack("<400h", *range(400))


def wav(samples: bytes = SAMPLES, *, length: int | None = None, form: bytes = b"WAVE") -> bytes:
    sound = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    sound += b"data" + struct.pack("<I", len(samples) if length is None else length) + samples
    return b"RIFF" + struct.pack("<I", len(sound) + 4) + form + sound


MP3 = b"\xff\xfb\x90\x00" + bytes(413)

SOUNDS = {
    "wav": (wav(), "audio/wav"),
    "wav of a pipe, its length unknown": (wav(length=0xFFFFFFFF), "audio/wav"),
    "mp3 with a tag": (b"ID3\x04\x00\x00\x00\x00\x00\x00" + MP3, "audio/mpeg"),
    "mp3 frame": (MP3, "audio/mpeg"),
    "mp3 of MPEG 2.5": (b"\xff\xe3\x18\xc4" + bytes(100), "audio/mpeg"),
}


@pytest.mark.parametrize(("data", "media_type"), SOUNDS.values(), ids=SOUNDS)
def test_a_sound_is_told_by_its_content_in_every_input_form(
    data: bytes, media_type: str, tmp_path: Path
) -> None:
    path = tmp_path / "sound.bin"
    path.write_bytes(data)
    text = base64.b64encode(data).decode()
    found = [
        Audio.from_bytes(data),
        Audio.from_base64(text),
        Audio.from_data_url(f"data:image/png;base64,{text}"),
        Audio.from_path(path),
        Audio.parse(text),
    ]
    assert {sound.media_type for sound in found} == {media_type}
    assert all(sound.data == data and sound.base64() == text and sound == found[0] for sound in found)


REFUSED = {
    "empty": (b"", "empty"),
    "an image": (b"\x89PNG\r\n\x1a\n" + bytes(20), "PNG"),
    "FLAC": (b"fLaC" + bytes(20), "FLAC"),
    "Ogg": (b"OggS" + bytes(20), "Ogg"),
    "text": (b"hello, this is a sound", "text"),
    "unknown bytes": (bytes(range(1, 9)), "begins with 01 02"),
    "AVI in RIFF": (wav(form=b"AVI "), "AVI"),
    "a WAV cut short": (wav()[:-10], "last sample"),
    "a WAV without a format": (b"RIFF\x10\0\0\0WAVEdata\x04\0\0\0abcd", "format"),
    "a WAV without data": (wav()[:36], "no sound data"),
}


@pytest.mark.parametrize(("data", "why"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_sound_is_refused_with_its_place_and_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(UnsupportedContentError, match=rf"^message 2: .*{why}"):
        Audio.from_bytes(data, where="message 2")


def test_sounds_have_the_limits_and_the_safety_of_images() -> None:
    with pytest.raises(UnsupportedContentError, match="MiB are taken"):
        Audio.from_bytes(wav(), limits=ImageLimits(max_bytes=100))
    with pytest.raises(UnsupportedContentError, match="paths in messages are never opened"):
        Audio.parse("/tmp/sound.wav")
