"""Texts over the limit: cut by the server, or split and averaged."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ollama_dify import EmbeddingError
from ollama_dify.wire.vectors import mean_vector

from .scripted_server import NAN, TOO_LONG, Body, Server, good, refused, vector_of


def limited(limit: int) -> Server:
    """A server whose context holds `limit` characters; cuts on request."""

    def handle(texts: list[str], body: Body) -> Any:
        if not body["truncate"] and any(len(text) > limit for text in texts):
            raise refused(400, TOO_LONG)
        return good([text[:limit] for text in texts])

    return Server(handle)


def test_truncate_cuts_only_what_is_too_long_and_says_which() -> None:
    server = limited(10)
    texts = ["short", "x" * 11, "y" * 10, "z" * 300]
    result = server.embed(texts, overflow="truncate")
    assert result.vectors == [vector_of(text[:10]) for text in texts]
    assert result.truncated == (1, 3)
    assert [body["input"] for body in server.bodies if body["truncate"]] == [["x" * 11, "z" * 300]]


def test_split_is_the_length_weighted_mean_of_pieces() -> None:
    server = limited(12)
    text = "One two. Three four five."
    result = server.embed(["a", text], overflow="split")
    accepted = ["One two. ", "Three four ", "five."]
    assert [piece for asked in server.asked for piece in asked][-3:] == accepted
    expected = mean_vector([vector_of(piece) for piece in accepted], [9, 11, 5])
    assert expected is not None
    assert result.vectors[1] == pytest.approx(expected)
    assert math.hypot(*result.vectors[1]) == pytest.approx(1.0)
    assert result.vectors[0] == vector_of("a")
    assert result.split == (1,)


def test_split_asks_few_requests_for_a_very_long_text() -> None:
    server = limited(500)
    result = server.embed([" ".join(f"word{n}" for n in range(20_000))], overflow="split")
    assert result.split == (0,)
    # halved from 168,890 to 330 characters, then the pieces in batches of 64
    assert len(server.asked) < 25


def test_split_carries_the_prefix_on_every_piece() -> None:
    server = limited(30)
    server.embed(["word " * 30], overflow="split", document_prefix="passage: ", kind="document")
    assert all(text.startswith("passage: ") for asked in server.asked for text in asked)


@pytest.mark.parametrize("text", ["x", "xx", "x" * 9, " " * 40], ids=["one", "two", "nine", "spaces"])
def test_split_gives_up_where_not_even_a_character_fits(text: str) -> None:
    def handle(texts: list[str], body: Body) -> Any:
        if texts != ["fits"]:
            raise refused(400, TOO_LONG)
        return good(texts)

    server = Server(handle)
    with pytest.raises(EmbeddingError, match="text 1: longer than the model's context") as caught:
        server.embed(["fits", text], overflow="split")
    assert caught.value.partial == [vector_of("fits"), None]
    assert len(server.asked) < 10


def test_a_piece_that_fails_fails_its_text() -> None:
    def handle(texts: list[str], body: Body) -> Any:
        if any(len(text) > 8 for text in texts):
            raise refused(400, TOO_LONG)
        if any("bad" in text for text in texts):
            raise refused(400, NAN)
        return good(texts)

    with pytest.raises(EmbeddingError, match="text 0: the model makes NaN") as caught:
        Server(handle).embed(["one two bad four", "five"], overflow="split")
    assert caught.value.partial == [None, vector_of("five")]
