"""The checks of one answer's vectors, and their mean."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from ollama_dify import EmbeddingError, ProtocolError
from ollama_dify.wire.vectors import mean_vector, read_vectors


@pytest.mark.parametrize(
    ("vectors", "bad"),
    [
        pytest.param([[1.0, 2.0], [1.0]], (1,), id="ragged"),
        pytest.param([[1.0, 2.0], [0.0, 0.0]], (1,), id="zero"),
        pytest.param([[1.0, 2.0], [1.0, math.nan]], (1,), id="NaN"),
        pytest.param([[1.0, 2.0], [math.inf, -math.inf]], (1,), id="both infinities"),
        pytest.param([[1.0, 2.0], [1e308, 1e308]], (1,), id="too large a sum"),
        pytest.param([[1.0, 2.0], [True, 1.0]], (1,), id="boolean"),
        pytest.param([[1.0, 2.0], [1.0, "2"]], (1,), id="text"),
        pytest.param([[1.0, 2.0], None], (1,), id="null"),
        pytest.param([[1.0, 2.0], {"0": 1}], (1,), id="object"),
        pytest.param([[], []], (0, 1), id="all empty"),
        pytest.param([[1.0, 2.0]], (), id="too few"),
        pytest.param([[1.0, 2.0]] * 3, (), id="too many"),
    ],
)
def test_unsound_vectors(vectors: list[Any], bad: tuple[int, ...]) -> None:
    with pytest.raises(EmbeddingError) as caught:
        read_vectors(json.dumps({"embeddings": vectors}).encode(), 2)
    assert caught.value.indexes == bad
    assert caught.value.retryable


@pytest.mark.parametrize("vector", [[1, 0], [-1.0, 1.0], [0.0, 1e-300], [3, -3]], ids=str)
def test_sound_vectors(vector: list[float]) -> None:
    assert read_vectors(json.dumps({"embeddings": [vector]}).encode(), 1).vectors == [vector]


def test_pieces_that_cancel_out_have_no_mean() -> None:
    assert mean_vector([[1.0, 0.0], [-1.0, 0.0]], [1, 1]) is None
    assert mean_vector([[1.0, 0.0], [0.0, 1.0]], [3, 4]) == pytest.approx([0.6, 0.8])


def test_what_an_answer_says_of_itself() -> None:
    body = b'{"model":"m","embeddings":[[0.5]],"prompt_eval_count":3,"load_duration":4}'
    answer = read_vectors(body, 1)
    assert (answer.vectors, answer.model, answer.input_tokens, answer.load_duration) == ([[0.5]], "m", 3, 4)


@pytest.mark.parametrize("body", [b"null", b"[]", b"{}", b'{"embeddings":null}', b'{"embedding":[1]}'])
def test_no_embed_answer(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_vectors(body, 1)
