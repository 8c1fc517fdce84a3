"""The simulator's own tokenizer: one byte-level BPE of 1,536 tokens, as a real small model hands it out."""

from __future__ import annotations

import functools
import gzip
import re
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_TOKEN = "<|im_end|>"
_DATA = "vocabulary.json.gz"
_CONTROL, _USER_DEFINED = 3, 4
_SURROGATE = re.compile("[\ud800-\udfff]")


@functools.lru_cache(maxsize=1)
def vocabulary() -> dict[str, Any]:
    """The `tokenizer.ggml.*` entries of a verbose /api/show answer."""
    packed = resources.files(__package__).joinpath("data", _DATA).read_bytes()
    loaded: dict[str, Any] = orjson.loads(gzip.decompress(packed))
    return loaded


@functools.lru_cache(maxsize=1)
def _special_tokens() -> dict[str, int]:
    entries = vocabulary()
    types = entries["tokenizer.ggml.token_type"]
    tokens = entries["tokenizer.ggml.tokens"]
    return {token: index for index, token in enumerate(tokens) if types[index] in (_CONTROL, _USER_DEFINED)}


@functools.lru_cache(maxsize=1)
def _special_pattern() -> re.Pattern[str]:
    longest_first = sorted(_special_tokens(), key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")


@functools.lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    from tokenizers import Tokenizer, models, pre_tokenizers

    entries = vocabulary()
    ids = {token: index for index, token in enumerate(entries["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ", 1)) for merge in entries["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return tokenizer


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in printable}
    spare = 256
    for byte in range(256):
        if byte not in printable:
            table[chr(spare)] = byte
            spare += 1
    return table


@functools.lru_cache(maxsize=1)
def _pieces() -> tuple[bytes, ...]:
    """Token id → bytes."""
    alphabet, special = _byte_alphabet(), _special_tokens()
    return tuple(
        token.encode() if token in special else bytes(alphabet[character] for character in token)
        for token in vocabulary()["tokenizer.ggml.tokens"]
    )


def encode(text: str) -> list[int]:
    """Token ids; special tokens written out in the text count as themselves, lone surrogates as U+FFFD."""
    if not text:
        return []
    ids: list[int] = []
    special, tokenizer = _special_tokens(), _tokenizer()
    for part in _special_pattern().split(text):
        if part in special:
            ids.append(special[part])
        elif part:
            ids.extend(tokenizer.encode(_SURROGATE.sub("\ufffd", part), add_special_tokens=False).ids)
    return ids


def count(text: str) -> int:
    """Number of tokens."""
    return len(encode(text))


def decode(ids: Iterable[int]) -> str:
    """The text of tokens; broken UTF-8 becomes U+FFFD."""
    pieces = _pieces()
    return b"".join(pieces[index] for index in ids).decode("utf-8", "replace")


def pieces_of(text: str) -> Iterator[tuple[str, int]]:
    """Text as the server streams it: (characters, tokens spent on them), no character ever split."""
    if not text:
        return
    pieces, held, spent = _pieces(), b"", 0
    for index in encode(text):
        held += pieces[index]
        spent += 1
        try:
            whole = held.decode()
        except UnicodeDecodeError:
            continue
        yield whole, spent
        held, spent = b"", 0
    if held:
        yield held.decode("utf-8", "replace"), spent
