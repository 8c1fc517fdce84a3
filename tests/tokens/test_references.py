"""Token ids against a slow, independent reference on random texts, and what holds for any text."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ollama_dify.tokens.tokenizer import TokenEstimator

from .test_tokens import NAMES, recorded, tokenizer

FEW_EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=40)
PLAIN = st.text(st.sampled_from("ab the in er 10,.!?'\n\t é中😀ßя"), max_size=120)
PIECES = st.tuples(st.sampled_from(["a", " ", "the", "ing", "  ", "\n", "er", "é", "😀"]), st.integers(1, 30))
REPEATING = st.lists(PIECES, max_size=8).map(lambda parts: "".join(text * times for text, times in parts))


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


@pytest.mark.parametrize("name", ["tok-spm-noprefix", "tok-spm-gemma"])
@FEW_EXAMPLES
@given(text=ANY_TEXT | PLAIN | REPEATING)
def test_sentencepiece_against_greedy_merging(name: str, text: str) -> None:
    info = recorded(name)["model_info"]
    for special in ("<", "\n", "\t", "▁▁"):
        text = text.replace(special, ".")
    assert tokenizer(name).encode(text, special=False) == sentencepiece(text, info)


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
