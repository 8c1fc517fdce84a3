"""The tokens of an image, from the server's description of the model's image encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["UNKNOWN_IMAGE_TOKENS", "image_tokens"]

Size = tuple[int, int]

UNKNOWN_IMAGE_TOKENS = 4096
"""Assumed for an image of unknown cost: llama.cpp's own limit for one image."""
_LARGEST, _MOST_PINPOINTS = 1 << 20, 1000
"""Limit for the numbers, and for how many there are; no known model has more."""


def image_tokens(show: Mapping[str, Any], size: Size | None = None) -> int:
    """Maximum tokens of one image of `size` (width, height in pixels).

    From `projector_info`, or the `<architecture>.vision.*` keys of `model_info` if the image encoder is part
    of the model. Geometry as in llama.cpp; `UNKNOWN_IMAGE_TOKENS` if the projector is unknown.
    """
    projector, info = _mapping(show.get("projector_info")), _mapping(show.get("model_info"))
    architecture = str(info.get("general.architecture", ""))
    prefix, source = ("clip", projector) if projector else (architecture, info)

    def number(name: str, default: int) -> int:
        value = source.get(f"{prefix}.{name}")
        return value if isinstance(value, int) and 0 < value <= _LARGEST else default

    kind = str(projector.get("clip.projector_type", "") or architecture)
    patch = number("vision.patch_size", 14)
    edge = number("vision.image_size", 0)
    grid = math.ceil(edge / patch) ** 2
    if kind.startswith("gemma3"):
        return number("mm.tokens_per_image", 256) + 4
    if kind.startswith(("qwen2vl", "qwen2.5vl", "qwen25vl", "qwen3vl")):
        return _by_pixels(size, patch * number("vision.spatial_merge_size", 2)) + 2
    if kind in ("pixtral", "mistral3"):
        merge = number("vision.spatial_merge_size", number("spatial_merge_size", 1))
        side = math.ceil((edge or 1540) / (patch * merge))
        return side * (side + 1)
    if not edge:
        return UNKNOWN_IMAGE_TOKENS
    if kind in ("mlp", "mlp_norm"):
        pinpoints = source.get("clip.vision.image_grid_pinpoints")
        return grid * (1 + _tiles(pinpoints, edge))
    if kind in ("ldp", "ldpv2"):
        return math.ceil(grid / 4)
    return max(UNKNOWN_IMAGE_TOKENS, grid)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _by_pixels(size: Size | None, cell: int) -> int:
    """One token per cell of pixels; small images are enlarged, large ones reduced by the server."""
    if size is None:
        return UNKNOWN_IMAGE_TOKENS
    width, height = (math.ceil(edge / cell) + 1 for edge in size)
    return min(UNKNOWN_IMAGE_TOKENS, max(64, width * height))


def _tiles(pinpoints: Any, edge: int) -> int:
    """Tiles of the largest image size in a list of width, height, width, height …"""
    if not isinstance(pinpoints, Sequence) or isinstance(pinpoints, str):
        return 0
    edges = [
        edge if isinstance(edge, int) and 0 < edge <= _LARGEST else 0 for edge in pinpoints[:_MOST_PINPOINTS]
    ]
    pairs = zip(edges[::2], edges[1::2], strict=False)
    return max((math.ceil(width / edge) * math.ceil(height / edge) for width, height in pairs), default=0)
