"""SentencePiece BPE: merge the neighbours whose joined text has the best score, leftmost first among equals.

Our own code, because the `tokenizers` library ranks each pair of pieces separately. Here any two neighbours
that form a token may merge, and all ways to form a token have its score: runs of equal characters differ.
Its merge list would also take seconds for 256k tokens. Text is first cut into words that no token crosses.
"""

from __future__ import annotations

import heapq
from functools import lru_cache
from itertools import pairwise

from .vocabulary import Encode, Vocabulary

_REMEMBERED, _REMEMBERED_LENGTH = 50_000, 48
"""Number of words whose ids are cached, and the maximum length of such a word."""


def sentencepiece_encoder(vocabulary: Vocabulary) -> Encode:
    """Cut the text where no token crosses, and merge inside each word."""
    ids, tokens = vocabulary.ids, vocabulary.texts
    scores = dict(zip(tokens, vocabulary.score_of_each, strict=False))
    spelled = [
        ids.get(
            f"<0x{byte:02X}>", ids.get(chr(byte), vocabulary.unknown) if byte < 128 else vocabulary.unknown
        )
        for byte in range(256)
    ]
    joined: set[tuple[str, str]] = set()
    for token in tokens:
        joined.update(pairwise(token))

    def encode_word(word: str) -> list[int]:
        found: list[int] = []
        for symbol in _merged(word, scores):
            found.extend([ids[symbol]] if symbol in ids else [spelled[byte] for byte in symbol.encode()])
        return found

    remembered = lru_cache(_REMEMBERED)(encode_word)

    def encode(text: str) -> list[int]:
        text = f"▁{text}" if vocabulary.space_prefix else text
        text = text.replace(" ", "▁")
        cuts = [at for at, pair in enumerate(pairwise(text), 1) if pair not in joined]
        found: list[int] = []
        for start, end in pairwise([0, *cuts, len(text)]):
            word = text[start:end]
            found += remembered(word) if len(word) <= _REMEMBERED_LENGTH else encode_word(word)
        return found

    return encode


def _merged(word: str, scores: dict[str, float]) -> list[str]:
    """The symbols that remain when no two neighbours form a token."""
    symbols = list(word)
    following = [*range(1, len(symbols)), -1]
    preceding = list(range(-1, len(symbols) - 1))
    queue: list[tuple[float, int, int, int]] = []

    def offer(left: int, right: int) -> None:
        text = symbols[left] + symbols[right]
        if text in scores:
            heapq.heappush(queue, (-scores[text], left, right, len(text)))

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
