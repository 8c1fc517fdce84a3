"""Texts cut at their natural boundaries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as bounds
from hypothesis import strategies as st

from ollama_dify.client.trim import split_text


@pytest.mark.parametrize(
    ("text", "size", "pieces"),
    [
        pytest.param("aa.\n\nbb. cc", 8, ["aa.\n\n", "bb. cc"], id="paragraph before sentence"),
        pytest.param("One. Two. Three", 10, ["One. Two. ", "Three"], id="sentence"),
        pytest.param("これは文。次の文です", 6, ["これは文。", "次の文です"], id="sentence without spaces"),
        pytest.param("one two three", 9, ["one two ", "three"], id="word"),
        pytest.param("abcdefgh", 3, ["abc", "def", "gh"], id="character"),
        pytest.param("a bcdefghij", 8, ["a bcdefg", "hij"], id="character before a far word"),
        pytest.param("short", 9, ["short"], id="fits"),
        pytest.param("", 3, [], id="nothing"),
    ],
)
def test_pieces_end_at_the_strongest_boundary(text: str, size: int, pieces: list[str]) -> None:
    assert list(split_text(text, size)) == pieces


@bounds(max_examples=200, deadline=None)
@given(text=st.text(alphabet="ab .\n。、\U0001f600"), size=st.integers(1, 30))
def test_pieces_lose_nothing_and_fit(text: str, size: int) -> None:
    pieces = list(split_text(text, size))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= size for piece in pieces)
