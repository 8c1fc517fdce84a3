"""`Audio`: a checked sound as a part of a message. Ollama takes it since 0.20, in the field `images`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .file import ImageLimits, MediaFile

__all__ = ["Audio"]


@dataclass(frozen=True, slots=True, eq=False)
class Audio(MediaFile):
    """A sound that Ollama reads: WAV or MP3, recognised by content.

    Source: the server's own detection (`RIFF…WAVE`, `ID3`, an MPEG frame at the start); no recording holds
    it yet. The model needs the capability `audio`.
    """

    kind: ClassVar[str] = "audio"

    @classmethod
    def _checked(
        cls, payload: bytes | str, start: int, encoded: bool, limits: ImageLimits, where: str
    ) -> Audio:
        from .headers import inspect_audio
        from .sources import checked_source

        source = checked_source(payload, start, encoded, limits, where, what="sound")
        return cls(payload, start, encoded, inspect_audio(source, where))
