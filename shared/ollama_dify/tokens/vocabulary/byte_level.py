"""Byte-pair encoding by merge rank, on the `tokenizers` library."""

from __future__ import annotations

import re

from .vocabulary import Encode, Vocabulary

_MAX_SPELLED = 50_000
"""Limit of symbols in merges that are not tokens; real vocabularies have few."""
_NEWLINES = re.compile("(\n+)")


def byte_pair_encoder(vocabulary: Vocabulary) -> Encode:
    """Cut words by the rules of `tokenizer.ggml.pre`, then merge inside each."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    rules, known, size = vocabulary.rules, vocabulary.ids, len(vocabulary.tokens)
    ids, merges, spelled = _complete(vocabulary)
    tokenizer = Tokenizer(
        models.BPE(ids, merges, ignore_merges=rules.ignore_merges, byte_fallback=not rules.byte_level)
    )
    steps: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in rules.patterns
    ]
    if rules.byte_level:
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)

    def encode(text: str) -> list[int]:
        found = tokenizer.encode(text, add_special_tokens=False).ids
        if not spelled or max(found, default=0) < size:
            return found
        return [real for id in found for real in spelled.get(id, (id,))]

    def encode_raw(text: str) -> list[int]:
        found: list[int] = []
        for piece in _NEWLINES.split(text.replace(" ", "▁")):
            if rules.as_gemma4 and piece.startswith("\n") and piece in known:
                found.append(known[piece])
            else:
                found += encode(piece)
        return found

    return encode if rules.byte_level else encode_raw


def _complete(vocabulary: Vocabulary) -> tuple[dict[str, int], list[tuple[str, str]], dict[int, list[int]]]:
    """Ids and merges in which every symbol exists, and the spelling of symbols that are not tokens.

    The server also merges into texts that are not tokens, and then writes them byte by byte; the library
    refuses such merges, so these texts get ids beyond the vocabulary.
    """
    ids = dict(vocabulary.ids)
    merges: dict[tuple[str, str], None] = {}
    spelled: dict[int, list[int]] = {}
    for line in vocabulary.merges:
        # The first character may be a space of its own, not the space between the two halves.
        cut = line.find(" ", 1)
        if cut < 0:
            continue
        left, right = line[:cut], line[cut + 1 :]
        merges.setdefault((left, right))
        for symbol in (left, right, left + right):
            if symbol not in ids:
                if len(spelled) >= _MAX_SPELLED:
                    raise ValueError("most merges of the vocabulary make no tokens")
                id = ids[symbol] = len(vocabulary.tokens) + len(spelled)
                spelled[id] = _spell(symbol, vocabulary)
    return ids, list(merges), spelled


def _spell(symbol: str, vocabulary: Vocabulary) -> list[int]:
    if vocabulary.rules.byte_level:
        names = [chr(byte) if byte < 128 else "" for byte in symbol.encode()]
    else:
        names = [f"<0x{byte:02X}>" for byte in symbol.encode()]
    return [vocabulary.ids[name] for name in names if name in vocabulary.ids]
