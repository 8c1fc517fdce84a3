"""What servers since 0.30 keep of earlier prompts with images, and the failure that comes of it.

A new prompt goes on from the earlier one that it shares the most images with, the latest of several. Where
the two part between two images that stand side by side in the earlier one, the answer is `Chunk not found`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from .responses import nested, refuse

_KEPT = 16
_MARK = re.compile(r"(\[img-\d+\])")
_IMAGE = "image:"


@dataclass(slots=True)
class ImageCache:
    """Earlier prompts, as characters and images."""

    prompts: list[tuple[str, ...]] = field(default_factory=list)

    def admit(self, text: str, images: Sequence[str], *, late: bool) -> None:
        """Keep a prompt, or refuse it as the server does."""
        units = _units(text, images)
        shared, _, known = max(
            ((_shared(one, units), number, one) for number, one in enumerate(self.prompts)),
            key=lambda found: (_images(found[2][: found[0]]), found[1]),
            default=(0, 0, ()),
        )
        if shared and _images(known[shared - 1 : shared + 1]) == 2:
            raise refuse(500, nested(500, "got exception: Chunk not found", "server_error"), late_stream=late)
        self.prompts = [*self.prompts[1 - _KEPT :], units]


def _units(text: str, images: Sequence[str]) -> tuple[str, ...]:
    units: list[str] = []
    for piece in _MARK.split(text):
        number = int(piece[5:-1]) if _MARK.fullmatch(piece) else len(images)
        units += [_IMAGE + images[number]] if number < len(images) else piece
    return tuple(units)


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many units two prompts begin with alike."""
    alike = 0
    for mine, yours in zip(one, other, strict=False):
        if mine != yours:
            break
        alike += 1
    return alike


def _images(units: Sequence[str]) -> int:
    return sum(unit.startswith(_IMAGE) for unit in units)
