"""Unigram: the most probable segmentation, on the `tokenizers` library, after SentencePiece's normalisation.

The library's `Precompiled` normalizer works on grapheme clusters, SentencePiece and the server on the longest
prefix that the character map holds; hence the map is walked here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable

from .vocabulary import NORMAL, UNUSED, USER_DEFINED, Vocabulary

_ASCII_RUN = re.compile(r"[\x00-\x7f]+")
_LONGEST_PREFIX = 64
"""Characters looked at for one prefix; the maps in use hold prefixes of a few."""
_LONGEST_REPLACEMENT = 256
"""Bytes, so that no map makes a long text of a short one; the maps in use have up to 33."""


class CharacterMap:
    """SentencePiece's precompiled character map: longest prefix → replacement.

    The bytes hold a little-endian length, a double-array trie of 32-bit units, then NUL-terminated UTF-8
    replacements. A unit packs the label in its low byte, "has a value" in bit 8, the offset in the rest.
    """

    def __init__(self, data: bytes) -> None:
        size = struct.unpack_from("<I", data)[0] if len(data) >= 4 else 0
        self._units = struct.unpack_from(f"<{size // 4}I", data, 4) if len(data) >= 4 + size else ()
        self._replacements = data[4 + size :]
        self._characters: dict[str, tuple[str, bool]] = {}
        self._ascii = {code: self._character(chr(code))[0] for code in range(128)}

    def normalise(self, text: str) -> str:
        if not self._units:
            return text
        pieces: list[str] = []
        done = 0
        for match in _ASCII_RUN.finditer(text):
            # A longer prefix may begin with the last ASCII character before a combining mark.
            last = match.end() == len(text)
            end = match.end() if last else match.end() - 1
            pieces.append(self._other(text[done : match.start()]))
            pieces.append(text[match.start() : end].translate(self._ascii))
            done = end
        pieces.append(self._other(text[done:]))
        return "".join(pieces)

    def _other(self, text: str) -> str:
        """Replace character by character, walking only where a longer prefix may begin."""
        result: list[str] = []
        data = b""
        at = 0
        while at < len(text):
            replacement, alone = self._characters.get(text[at]) or self._character(text[at])
            length = 1
            if not alone:
                data = text[at : at + _LONGEST_PREFIX].encode()
                longest, used = self._walk(data)
                if longest is not None:
                    replacement, length = longest, max(1, len(data[:used].decode(errors="ignore")))
            result.append(replacement)
            at += length
        return "".join(result)

    def _character(self, character: str) -> tuple[str, bool]:
        """What a character becomes by itself, and whether no longer prefix begins with it."""
        data = character.encode()
        replacement, _ = self._walk(data)
        node = self._node(data)
        alone = node < 0 or not any(
            (node ^ label) < len(self._units) and self._units[node ^ label] & 0x800000FF == label
            for label in range(0x80, 0x100)
        )
        entry = self._characters[character] = (character if replacement is None else replacement, alone)
        return entry

    def _node(self, data: bytes) -> int:
        """The trie node after `data`, or -1."""
        units = self._units
        if not units:
            return -1
        node = _offset(units[0])
        for label in data:
            node ^= label
            if label == 0 or node >= len(units) or units[node] & 0x800000FF != label:
                return -1
            node ^= _offset(units[node])
        return node

    def _walk(self, data: bytes) -> tuple[str | None, int]:
        """The replacement of the longest known prefix of `data`, and its length in bytes."""
        units = self._units
        found, length = -1, 0
        node = _offset(units[0]) if units else 0
        for index, label in enumerate(data):
            node ^= label
            if label == 0 or node >= len(units) or units[node] & 0x800000FF != label:
                break
            has_value = units[node] >> 8 & 1
            node ^= _offset(units[node])
            if has_value and node < len(units):
                found, length = units[node] & 0x7FFFFFFF, index + 1
        if found < 0:
            return None, 0
        end = self._replacements.find(b"\0", found, found + _LONGEST_REPLACEMENT)
        if end < 0:
            return None, 0
        return self._replacements[found:end].decode(errors="replace"), length


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 0x200) >> 6)


class UnigramModel:
    """Token ids of plain texts; texts and ids of special tokens come in order in `parts`."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        from tokenizers import Tokenizer, models

        single = struct.Struct("<f")
        entries: list[tuple[str, float]] = []
        for id, text in enumerate(vocabulary.tokens):
            type = vocabulary.types[id]
            score = single.unpack(single.pack(vocabulary.scores[id]))[0]
            if type == USER_DEFINED:
                entries.append((text, 0.0))
            elif type in (NORMAL, UNUSED):
                entries.append((text, score))
            else:
                # Never produced from text, only cut out of it before.
                entries.append((f"\0{id}", 0.0))
        unknown = vocabulary.unknown if vocabulary.unknown is not None else 0
        self._tokenizer = Tokenizer(models.Unigram(entries, unk_id=unknown, byte_fallback=False))
        self._space_prefix = vocabulary.space_prefix
        self._merge_spaces = vocabulary.merge_spaces
        self._characters = CharacterMap(vocabulary.charsmap)

    def encode(self, parts: Iterable[str | int]) -> list[int]:
        ids: list[int] = []
        for part in parts:
            if isinstance(part, int):
                ids.append(part)
                continue
            text = self._spaced(self._characters.normalise(part))
            if text:
                ids.extend(self._tokenizer.encode(text, add_special_tokens=False).ids)
        return ids

    def _spaced(self, text: str) -> str:
        if self._merge_spaces:
            words = [word for word in text.split(" ") if word]
            return "".join(f"▁{word}" for word in words)
        if self._space_prefix and text.strip(" "):
            spaces = len(text) - len(text.lstrip(" "))
            text = f"{text[:spaces]} {text[spaces:]}"
        return text.replace(" ", "▁")
