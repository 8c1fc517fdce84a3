"""Unigram: the most probable segmentation, on the `tokenizers` library, after SentencePiece's normalisation.

The library's `Precompiled` normalizer works on grapheme clusters, but SentencePiece and the server use the
longest prefix in the character map, so the map is read here.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Callable

from .vocabulary import NORMAL, UNUSED, USER_DEFINED, Encode, Vocabulary

_NOT_ASCII = re.compile(r"([\x00-\x7f]?[^\x00-\x7f]+)")
"""With the ASCII character before it: a known prefix may be such a character and a combining mark."""
_LONGEST_PREFIX, _LONGEST_REPLACEMENT = 256, 256
"""Bytes: limits the time, and how much longer a text can become; real character maps have up to 33."""
_MAX_BYTES = 3_000_000
"""Of all tokens together: the library needs about 350 bytes of memory for each."""


def unigram_encoder(vocabulary: Vocabulary) -> Encode:
    """Normalise by the character map, then find the most probable tokens."""
    from tokenizers import Tokenizer, models

    if sum(len(text.encode()) for text in vocabulary.texts) > _MAX_BYTES:
        raise ValueError(f"a unigram vocabulary of more than {_MAX_BYTES} bytes")
    scores = array("f", vocabulary.score_of_each)  # rounded as in the server
    entries: list[tuple[str, float]] = []
    for id, (text, type) in enumerate(zip(vocabulary.texts, vocabulary.types, strict=True)):
        if type == USER_DEFINED:
            entries.append((text, 0.0))
        elif type in (NORMAL, UNUSED):
            entries.append((text, scores[id]))
        else:  # never made from a text, only split off before
            entries.append((f"\0{id}", 0.0))
    tokenizer = Tokenizer(models.Unigram(entries, unk_id=vocabulary.unknown, byte_fallback=False))
    normalise = character_map(vocabulary.charsmap)

    def encode(text: str) -> list[int]:
        spaced = _spaced(normalise(text), vocabulary)
        return tokenizer.encode(spaced, add_special_tokens=False).ids if spaced else []

    return encode


def _spaced(text: str, vocabulary: Vocabulary) -> str:
    if vocabulary.remove_extra_whitespaces:
        return "".join(f"▁{word}" for word in text.split(" ") if word)
    if vocabulary.space_prefix and text.strip(" "):
        spaces = len(text) - len(text.lstrip(" "))
        text = f"{text[:spaces]} {text[spaces:]}"
    return text.replace(" ", "▁")


def character_map(data: bytes) -> Callable[[str], str]:
    """The function of a precompiled character map: repeatedly replace the longest known prefix.

    The bytes hold a little-endian length, a double-array trie of 32-bit units, then NUL-terminated UTF-8
    replacements. A unit packs the label in its low byte, "has a value" in bit 8, the offset in the rest.
    """
    size = struct.unpack_from("<I", data)[0] if len(data) >= 4 else 0
    if not 4 <= size <= len(data) - 4:
        return lambda text: text
    units = struct.unpack_from(f"<{size // 4}I", data, 4)

    def replaced(text: str) -> str:
        given, result, at = text.encode(), bytearray(), 0
        while at < len(given):
            value, end = -1, at + 1
            node = _offset(units[0])
            for place, label in enumerate(given[at : at + _LONGEST_PREFIX], at + 1):
                node ^= label
                if label == 0 or node >= len(units) or units[node] & 0x800000FF != label:
                    break
                has_value = units[node] >> 8 & 1
                node ^= _offset(units[node])
                if has_value and node < len(units):
                    value, end = 4 + size + (units[node] & 0x7FFFFFFF), place
            closed = data.find(b"\0", value, value + _LONGEST_REPLACEMENT) if value >= 0 else -1
            result += data[value:closed] if closed >= 0 else given[at:end]
            at = end
        return result.decode(errors="replace")

    ascii_table = {code: replaced(chr(code)) for code in range(128)}

    def normalise(text: str) -> str:
        pieces = _NOT_ASCII.split(text)
        pieces[::2] = [piece.translate(ascii_table) for piece in pieces[::2]]
        pieces[1::2] = map(replaced, pieces[1::2])
        return "".join(pieces)

    return normalise


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 0x200) >> 6)
