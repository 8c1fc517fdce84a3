"""Byte-pair encoding by merge rank, on the `tokenizers` library."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .vocabulary import UnsupportedTokenizerError, Vocabulary, byte_characters

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MAX_SPELLED = 50_000
"""Symbols of merges that are no tokens; a vocabulary in use has few."""
_NEWLINES = re.compile("(\n+)")


class BytePairModel:
    """Token ids of plain texts; texts and ids of special tokens come in order in `parts`."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ids = {text: id for id, text in enumerate(vocabulary.tokens)}
        self._size = len(vocabulary.tokens)
        self._rules = vocabulary.rules
        self._newline_tokens = vocabulary.pre in ("gemma4", "granite-embed-multi-311m")
        self._spelled: dict[int, list[int]] = {}
        self._tokenizer = self._build(vocabulary)

    def _build(self, vocabulary: Vocabulary) -> Tokenizer:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers

        ids, merges = self._complete(vocabulary.merges)
        rules = self._rules
        tokenizer = Tokenizer(
            models.BPE(ids, merges, ignore_merges=rules.ignore_merges, byte_fallback=not rules.byte_level)
        )
        steps: list[pre_tokenizers.PreTokenizer] = [
            pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in rules.patterns
        ]
        if rules.byte_level:
            steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
        return tokenizer

    def _complete(self, lines: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
        """Ids and merges in which every symbol exists.

        The server merges into texts that are no tokens and spells them by their bytes afterwards; the library
        refuses such merges, so these texts get ids beyond the vocabulary, replaced again in `encode`.
        """
        ids = dict(self._ids)
        merges: dict[tuple[str, str], None] = {}

        def known(symbol: str) -> None:
            if symbol not in ids:
                if len(self._spelled) >= _MAX_SPELLED:
                    raise UnsupportedTokenizerError("Most merges of the vocabulary make no tokens.")
                id = ids[symbol] = self._size + len(self._spelled)
                self._spelled[id] = self._spell(symbol)

        for line in lines:
            # The first character may itself be the space that parts the two halves.
            cut = line.find(" ", 1)
            if cut < 0:
                continue
            left, right = line[:cut], line[cut + 1 :]
            merges.setdefault((left, right))
            if left not in ids or right not in ids or left + right not in ids:
                for symbol in (left, right, left + right):
                    known(symbol)
        if self._rules.byte_level:
            for character in byte_characters().values():
                known(character)
        return ids, list(merges)

    def _spell(self, symbol: str) -> list[int]:
        if self._rules.byte_level:
            spelled = (self._ids.get(chr(byte)) if byte < 128 else None for byte in symbol.encode())
        else:
            spelled = (self._ids.get(f"<0x{byte:02X}>") for byte in symbol.encode())
        return [id for id in spelled if id is not None]

    def encode(self, parts: Iterable[str | int]) -> list[int]:
        prepared = list(parts if self._rules.byte_level else self._raw(parts))
        texts = [part for part in prepared if isinstance(part, str)]
        if not texts:
            return [part for part in prepared if isinstance(part, int)]
        # One call for all texts: the library treats them as words given apart and says which id is whose.
        encoding = self._tokenizer.encode(texts, is_pretokenized=True, add_special_tokens=False)
        if len(texts) == len(prepared) == 1:
            return self._replaced(encoding.ids)
        groups: list[list[int]] = [[] for _ in texts]
        for id, owner in zip(encoding.ids, encoding.word_ids, strict=True):
            groups[owner or 0].append(id)
        texts_ids = iter(groups)
        ids: list[int] = []
        for part in prepared:
            ids.extend((part,) if isinstance(part, int) else self._replaced(next(texts_ids)))
        return ids

    def _replaced(self, ids: list[int]) -> list[int]:
        if not self._spelled or max(ids, default=0) < self._size:
            return ids
        return [real for id in ids for real in self._spelled.get(id, (id,))]

    def _raw(self, parts: Iterable[str | int]) -> Iterable[str | int]:
        """Spaces written as U+2581; a run of newlines that is a token stands for itself."""
        for part in parts:
            if isinstance(part, int):
                yield part
                continue
            for piece in _NEWLINES.split(part.replace(" ", "▁")):
                id = self._ids.get(piece) if self._newline_tokens and piece.startswith("\n") else None
                if id is not None:
                    yield id
                elif piece:
                    yield piece
