"""SentencePiece BPE: merge the neighbours whose joined text has the best score, leftmost first among equals.

The `tokenizers` library ranks every pair of pieces apart, while here any two neighbours that spell a token
may merge and all spellings of one token share its score; runs of equal characters then come out differently.
Deriving its merge list also costs seconds for 256k tokens. Hence code of our own, on words no token crosses.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from itertools import pairwise

from .vocabulary import Vocabulary

_NEVER = float("-inf")
_SHORT = 48
"""Characters up to which scanning all pairs beats a heap."""
_REMEMBERED = 50_000


class SentencePieceModel:
    """Token ids of plain texts; texts and ids of special tokens come in order in `parts`."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        tokens = vocabulary.tokens
        self._space_prefix = vocabulary.space_prefix
        self._ids = {text: id for id, text in enumerate(tokens)}
        self._scores = dict(zip(tokens, vocabulary.scores, strict=False))
        unknown = vocabulary.unknown if vocabulary.unknown is not None else 0
        self._bytes = [
            self._ids.get(f"<0x{byte:02X}>", self._ids.get(chr(byte), unknown) if byte < 128 else unknown)
            for byte in range(256)
        ]
        pairs: set[tuple[str, str]] = set()
        for token in tokens:
            pairs.update(pairwise(token))
        self._joined = pairs
        """Neighbouring characters that some token holds; everywhere else the text is cut."""
        self._remembered: dict[str, tuple[int, ...]] = {}

    def encode(self, parts: Iterable[str | int]) -> list[int]:
        ids: list[int] = []
        after_special = True
        for part in parts:
            if isinstance(part, int):
                ids.append(part)
                after_special = True
                continue
            text = f" {part}" if self._space_prefix and after_special else part
            after_special = False
            for word in self._words(text.replace(" ", "▁")):
                ids.extend(self._remembered.get(word) or self._word(word))
        return ids

    def _words(self, text: str) -> list[str]:
        joined = self._joined
        cuts = [0]
        cuts.extend(at for at, pair in enumerate(pairwise(text), 1) if pair not in joined)
        cuts.append(len(text))
        return [text[start:end] for start, end in pairwise(cuts)]

    def _word(self, word: str) -> tuple[int, ...]:
        symbols = self._merge_short(word) if len(word) <= _SHORT else self._merge_long(word)
        ids: list[int] = []
        for symbol in symbols:
            id = self._ids.get(symbol)
            if id is None:
                ids.extend(self._bytes[byte] for byte in symbol.encode())
            else:
                ids.append(id)
        result = tuple(ids)
        if len(word) <= _SHORT:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[word] = result
        return result

    def _merge_short(self, word: str) -> Sequence[str]:
        score_of = self._scores.get
        symbols = list(word)
        scores = [score_of(left + right, _NEVER) for left, right in pairwise(symbols)]
        while scores:
            best = max(scores)
            if best == _NEVER:
                break
            at = scores.index(best)
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
            del scores[at]
            if at < len(scores):
                scores[at] = score_of(symbols[at] + symbols[at + 1], _NEVER)
            if at > 0:
                scores[at - 1] = score_of(symbols[at - 1] + symbols[at], _NEVER)
        return symbols

    def _merge_long(self, word: str) -> Sequence[str]:
        score_of = self._scores.get
        symbols = list(word)
        following = [*range(1, len(symbols)), -1]
        preceding = list(range(-1, len(symbols) - 1))
        queue: list[tuple[float, int, int, int]] = []

        def offer(left: int, right: int) -> None:
            text = symbols[left] + symbols[right]
            score = score_of(text)
            if score is not None:
                heapq.heappush(queue, (-score, left, right, len(text)))

        for right in range(1, len(symbols)):
            offer(right - 1, right)
        while queue:
            _, left, right, size = heapq.heappop(queue)
            # A symbol that was merged away is empty; one that grew since makes the offer stale.
            if not symbols[left] or not symbols[right] or len(symbols[left]) + len(symbols[right]) != size:
                continue
            symbols[left] += symbols[right]
            symbols[right] = ""
            after = following[left] = following[right]
            if after >= 0:
                preceding[after] = left
                offer(left, after)
            if preceding[left] >= 0:
                offer(preceding[left], left)
        return [symbol for symbol in symbols if symbol]
