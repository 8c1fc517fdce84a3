"""The simulator's own tokenizer: one byte-level BPE of 1,536 tokens, as a real small model hands it out."""

from __future__ import annotations

import functools
import gzip
import re
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import TYPE_CHECKING, Any

import orjson

from ..tokens.vocabulary.vocabulary import byte_characters

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_DATA = "vocabulary.json.gz"
_CONTROL, _USER_DEFINED = 3, 4
_SURROGATE = re.compile("[\ud800-\udfff]")


@functools.lru_cache(maxsize=1)
def vocabulary() -> dict[str, Any]:
    """The `tokenizer.ggml.*` entries of a verbose /api/show answer."""
    packed = resources.files(__package__).joinpath("data", _DATA).read_bytes()
    loaded: dict[str, Any] = orjson.loads(gzip.decompress(packed))
    return loaded


def _special_tokens() -> list[str]:
    tokens, types = vocabulary()["tokenizer.ggml.tokens"], vocabulary()["tokenizer.ggml.token_type"]
    return [token for token, kind in zip(tokens, types, strict=True) if kind in (_CONTROL, _USER_DEFINED)]


@functools.lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    from tokenizers import Tokenizer, models, pre_tokenizers

    entries = vocabulary()
    ids = {token: index for index, token in enumerate(entries["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ", 1)) for merge in entries["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.add_special_tokens(_special_tokens())
    return tokenizer


@functools.lru_cache(maxsize=1)
def _pieces() -> tuple[bytes, ...]:
    """Token id → bytes."""
    alphabet = {character: byte for byte, character in byte_characters().items()}
    special = set(_special_tokens())
    return tuple(
        token.encode() if token in special else bytes(alphabet[character] for character in token)
        for token in vocabulary()["tokenizer.ggml.tokens"]
    )


def encode(text: str) -> list[int]:
    """Token ids; special tokens written out in the text count as themselves, lone surrogates as U+FFFD."""
    return _tokenizer().encode(_SURROGATE.sub("\ufffd", text), add_special_tokens=False).ids


def count(text: str) -> int:
    """Number of tokens."""
    return len(encode(text))


def decode(ids: Iterable[int]) -> str:
    """The text of tokens; broken UTF-8 becomes U+FFFD."""
    pieces = _pieces()
    return b"".join(pieces[index] for index in ids).decode("utf-8", "replace")


def pieces_of(text: str) -> Iterator[tuple[str, int]]:
    """Text as the server streams it: (characters, tokens spent on them), no character ever split."""
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
