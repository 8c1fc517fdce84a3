"""Token ids against slow, independent references on random texts, and what holds for any text."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ollama_dify.tokens.tokenizer import ModelTokenizer, TokenEstimator
from ollama_dify.tokens.vocabulary.vocabulary import byte_characters

from .test_tokens import NAMES, recorded, tokenizer

FEW_EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=40)
PLAIN = st.text(st.sampled_from("ab the in er 10,.!?'\n\t é中😀ßя"), max_size=120)


def gpt2_words(text: str) -> list[str]:
    """The words of GPT-2's expression, by hand: contraction, letters, numbers, other, spaces."""

    def kind(char: str) -> str:
        category = unicodedata.category(char)[0]
        return (
            "s"
            if char.isspace() and char not in "\x1c\x1d\x1e\x1f"
            else category
            if category in "LN"
            else "o"
        )

    result = []
    at = 0
    while at < len(text):
        short = next(
            (s for s in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d") if text.startswith(s, at)), None
        )
        start = at + (text[at] == " " and at + 1 < len(text) and kind(text[at + 1]) != "s")
        if short:
            end = at + len(short)
        elif kind(text[start]) != "s":
            end = start
            while end < len(text) and kind(text[end]) == kind(text[start]):
                end += 1
        else:
            end = at
            while end < len(text) and kind(text[end]) == "s":
                end += 1
            end -= end < len(text) and end - at > 1
        result.append(text[at:end])
        at = end
    return result


def merged(symbols: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    while True:
        pairs = list(pairwise(symbols))
        known = [pair for pair in pairs if pair in ranks]
        if not known:
            return symbols
        at = pairs.index(min(known, key=lambda pair: ranks[pair]))
        symbols = [*symbols[:at], symbols[at] + symbols[at + 1], *symbols[at + 2 :]]


@FEW_EXAMPLES
@given(ANY_TEXT | PLAIN)
def test_byte_pairs_against_greedy_merging(text: str) -> None:
    info = recorded("tok-bpe-gpt2")["model_info"]
    ids = {token: id for id, token in enumerate(info["tokenizer.ggml.tokens"])}
    lines = info["tokenizer.ggml.merges"]
    ranks = {tuple(line.split(" ")): rank for rank, line in enumerate(lines)}
    table = byte_characters()
    if "<" in text:
        text = text.replace("<", "(")  # No special tokens here.
    expected = [
        ids[symbol]
        for word in gpt2_words(text)
        for symbol in merged([table[byte] for byte in word.encode()], ranks)  # type: ignore[arg-type]
    ]
    assert tokenizer("tok-bpe-gpt2").encode(text, special=False) == expected


def sentencepiece(text: str, info: dict[str, Any]) -> list[int]:
    """Merge the best-scored neighbours, leftmost first, until none joins to a token."""
    tokens = info["tokenizer.ggml.tokens"]
    ids = {token: id for id, token in enumerate(tokens)}
    scores = dict(zip(tokens, info["tokenizer.ggml.scores"], strict=True))
    symbols = list(text.replace(" ", "▁"))
    while True:
        best = max(
            ((scores[a + b], -at) for at, (a, b) in enumerate(pairwise(symbols)) if a + b in ids),
            default=None,
        )
        if best is None:
            break
        at = -best[1]
        symbols = [*symbols[:at], symbols[at] + symbols[at + 1], *symbols[at + 2 :]]
    return [
        id
        for symbol in symbols
        for id in ([ids[symbol]] if symbol in ids else [ids[f"<0x{byte:02X}>"] for byte in symbol.encode()])
    ]


REPEATING = st.lists(
    st.tuples(
        st.sampled_from(["a", " ", "the", "ing", "ab", "  ", "\n", "er", "é", "😀"]), st.integers(1, 30)
    ),
    max_size=8,
).map(lambda parts: "".join(text * times for text, times in parts))


@pytest.mark.parametrize("name", ["tok-spm-noprefix", "tok-spm-gemma"])
@FEW_EXAMPLES
@given(text=ANY_TEXT | PLAIN | REPEATING)
def test_sentencepiece_against_greedy_merging(name: str, text: str) -> None:
    info = recorded(name)["model_info"]
    for special in ("<", "\n", "\t", "▁▁"):
        text = text.replace(special, ".")
    assert tokenizer(name).encode(text, special=False) == sentencepiece(text, info)


@FEW_EXAMPLES
@given(st.text("aehirt ", min_size=60, max_size=400))
def test_long_words_against_greedy_merging(text: str) -> None:
    """Every pair of these letters is inside some token, so that texts are not cut and the heap is used."""
    letters = "aehirt▁"
    pairs = [a + b for a in letters for b in letters]
    tokens = [*letters, *pairs, "the", "▁the", "hat", "heat", "tata", "aaa", "aaaa", "▁▁▁"]
    scores = (
        [0.0] * len(letters)
        + [-float(hash_free(pair)) for pair in pairs]
        + [-3.0, -9.0, -3.0, -1.0, -9.0, 0, 0, 0]
    )
    info: dict[str, Any] = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.scores": scores}
    flags = {"model": "llama", "add_space_prefix": False, "add_bos_token": False}
    info.update({f"tokenizer.ggml.{name}": value for name, value in flags.items()})
    own = ModelTokenizer.from_show({"model_info": info})
    assert own.encode(text) == sentencepiece(text, info)


def hash_free(pair: str) -> int:
    """A number with many ties, the same in every process."""
    return (ord(pair[0]) * 7 + ord(pair[1])) % 11


@FEW_EXAMPLES
@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789 ,.", max_size=80))
def test_unigram_against_exhaustive_search(text: str) -> None:
    info = recorded("tok-t5")["model_info"]
    types, scores = info["tokenizer.ggml.token_type"], info["tokenizer.ggml.scores"]
    normal = {token: id for id, token in enumerate(info["tokenizer.ggml.tokens"]) if types[id] == 1}
    unknown = min(scores[id] for id in normal.values()) - 10
    own = tokenizer("tok-t5")
    spaced = "".join(f"▁{word}" for word in text.split())
    best: list[float] = [0.0]
    for end in range(1, len(spaced) + 1):
        options = [best[end - 1] + unknown] if spaced[end - 1] not in normal else []
        options += [
            best[start] + scores[normal[spaced[start:end]]]
            for start in range(max(0, end - 20), end)
            if spaced[start:end] in normal
        ]
        best.append(max(options))
    ids = own.encode(text, special=False)
    tokens = info["tokenizer.ggml.tokens"]
    if info.get("tokenizer.ggml.unknown_token_id", 2) not in ids:
        assert "".join(tokens[id] for id in ids) == spaced
        assert sum(scores[id] for id in ids) == pytest.approx(best[-1])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=ANY_TEXT | PLAIN)
def test_any_text_has_a_count_and_no_more_tokens_than_bytes(name: str, text: str) -> None:
    own = tokenizer(name)
    assert 0 <= own.count_text(text) <= TokenEstimator().count(text)
    size = len(recorded(name)["model_info"]["tokenizer.ggml.tokens"])
    assert all(0 <= id < size for id in own.encode(text))


@pytest.mark.parametrize("name", ["tiny-chat", "tok-bpe-llama3", "tok-spm-noprefix", "tok-bpe-tekken"])
@FEW_EXAMPLES
@given(left=PLAIN, right=PLAIN)
def test_texts_around_a_special_token_do_not_meet(name: str, left: str, right: str) -> None:
    own = tokenizer(name)
    special = recorded(name)["model_info"]["tokenizer.ggml.tokens"][2]
    joined = own.encode(f"{left}{special}{right}", special=False)
    assert joined == [*own.encode(left, special=False), 2, *own.encode(right, special=False)]
