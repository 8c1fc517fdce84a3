"""Embedding: retries, halving, limits, checks, against a scripted server."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as bounds
from hypothesis import strategies as st

from ollama_dify import (
    CapabilityError,
    ConnectionFailedError,
    EmbeddingError,
    EmbeddingSettings,
    ModelNotFoundError,
    OllamaError,
    ServerBusyError,
    ServerError,
)
from ollama_dify.client.embed import embed
from ollama_dify.transport.network import run

from .scripted_server import END_OF_FILE, NAN, STOPPED, TOO_LONG, Body, Server, good, refused, vector_of


# How a server fails over one text: what it answers to a request that holds a bad one.
def refuse_with(status: int, text: str) -> Callable[[list[str], set[str]], Any]:
    def answer(texts: list[str], bad: set[str]) -> Any:
        raise refused(status, text)

    return answer


def spoil(change: Callable[[list[float]], Any]) -> Callable[[list[str], set[str]], Any]:
    def answer(texts: list[str], bad: set[str]) -> Any:
        vectors = [change(vector_of(text)) if text in bad else vector_of(text) for text in texts]
        return {"model": "m", "embeddings": [vector for vector in vectors if vector != "missing"]}

    return answer


def spoil_text(number: bytes) -> Callable[[list[str], set[str]], Any]:
    def answer(texts: list[str], bad: set[str]) -> Any:
        rows = [[77, 1, 1] if text in bad else vector_of(text) for text in texts]
        return orjson.dumps({"model": "m", "embeddings": rows}).replace(b"[77,", b"[%b," % number)

    return answer


POISONS: dict[str, tuple[Callable[[list[str], set[str]], Any], str]] = {
    "over the limit": (refuse_with(400, TOO_LONG), "longer than the model's context"),
    "too large for the batch": (
        refuse_with(500, "input (600 tokens) is too large to process. increase the physical batch size"),
        "longer than the model's context",
    ),
    "NaN refused": (refuse_with(400, NAN), "the model makes NaN"),
    "NaN cannot be encoded": (
        refuse_with(500, "failed to encode response: json: unsupported value: NaN"),
        "the model makes NaN",
    ),
    "runner crash": (refuse_with(400, END_OF_FILE), "the model's process fails on it"),
    "runner stopped": (refuse_with(500, STOPPED), "the model's process fails on it"),
    "zeros": (spoil(lambda vector: [0.0] * len(vector)), "the server sent a vector that is all zero"),
    "null": (spoil(lambda vector: [None, *vector[1:]]), "holds what is no finite number"),
    "NaN in the JSON": (spoil_text(b"NaN"), "holds what is no finite number"),
    "a boolean in the JSON": (spoil_text(b"true"), "holds what is no finite number"),
    "-Infinity in the JSON": (spoil_text(b"-Infinity"), "holds what is no finite number"),
    "1e999 in the JSON": (spoil_text(b"1e999"), "holds what is no finite number"),
    "text": (spoil(lambda vector: "1.0"), "is empty"),
    "empty": (spoil(lambda vector: []), "is empty"),
    "missing": (spoil(lambda vector: "missing"), "the server sent no vectors for 1 text"),
}


def poisoned(kind: str, bad: set[str]) -> Server:
    answer, _ = POISONS[kind]

    def handle(texts: list[str], body: Body) -> Any:
        return answer(texts, bad) if bad.intersection(texts) else good(texts)

    return Server(handle)


@pytest.mark.parametrize("kind", POISONS)
def test_a_bad_text_is_named_with_its_reason_and_the_rest_kept(kind: str) -> None:
    texts = [f"text {n}" for n in range(20)]
    server = poisoned(kind, {"text 7", "text 16"})
    with pytest.raises(EmbeddingError) as caught:
        server.embed(texts, batch_size=8)
    error = caught.value
    assert error.indexes == (7, 16)
    assert error.partial == [None if n in (7, 16) else vector_of(text) for n, text in enumerate(texts)]
    assert "2 of 20 texts (texts 7, 16: " in str(error)
    assert POISONS[kind][1] in str(error)
    assert pickle.loads(pickle.dumps(error)).indexes == (7, 16)


def test_each_text_has_its_own_reason() -> None:
    def handle(texts: list[str], body: Body) -> Any:
        if "long" in texts:
            raise refused(400, TOO_LONG)
        if "nan" in texts:
            raise refused(400, NAN)
        return good(texts)

    with pytest.raises(EmbeddingError) as caught:
        Server(handle).embed(["a", "long", "nan", "b", "long"])
    assert caught.value.message == (
        "No usable vector for 3 of 5 texts (texts 1, 4: longer than the model's context; "
        "text 2: the model makes NaN or infinite numbers of it)."
    )
    assert 'overflow="split"' in str(caught.value)
    assert caught.value.status == 400
    assert caught.value.__cause__ is not None


@bounds(max_examples=150, deadline=None)
@given(
    count=st.integers(1, 70),
    positions=st.sets(st.integers(0, 69), max_size=70),
    size=st.integers(1, 40),
    kind=st.sampled_from(sorted(POISONS)),
    retries=st.integers(0, 2),
)
def test_any_poison_any_batch_size(
    count: int, positions: set[int], size: int, kind: str, retries: int
) -> None:
    texts = [f"text {n}" for n in range(count)]
    bad = {n for n in positions if n < count}
    server = poisoned(kind, {texts[n] for n in bad})
    done: list[int] = []
    result = server.embed(texts, batch_size=size, max_retries=retries, skip_failed=True, progress=done.append)
    assert result.vectors == [None if n in bad else vector_of(text) for n, text in enumerate(texts)]
    assert result.failed == tuple(sorted(bad))
    assert sum(done) == count
    assert set(result.reasons) == bad


DEAD: dict[str, tuple[Callable[[list[str]], Any], type[OllamaError], int]] = {
    # error, class, requests at most: of 4 batches of 64, run one after the other here
    "no connection": (
        lambda texts: ConnectionFailedError("Nobody there.", retryable=True),
        ConnectionFailedError,
        3,
    ),
    "busy": (lambda texts: refused(503, "server busy"), ServerBusyError, 3),
    "no model": (
        lambda texts: refused(404, 'model "m" not found, try pulling it first'),
        ModelNotFoundError,
        1,
    ),
    "cannot embed": (
        lambda texts: refused(501, "This server does not support embeddings. Start it with `--embeddings`"),
        CapabilityError,
        1,
    ),
    "out of memory": (
        lambda texts: refused(500, "llama-server process has terminated: exit 1"),
        ServerError,
        1,
    ),
    # and what may be a text's fault, but is not: the harmless text fails as well
    "always EOF": (lambda texts: refused(400, END_OF_FILE), ServerError, 6),
    "always stopped": (lambda texts: refused(500, STOPPED), ServerError, 4),
    "always zeros": (lambda texts: {"embeddings": [[0.0, 0.0] for _ in texts]}, EmbeddingError, 6),
    "always short": (lambda texts: good(texts[:-1]), EmbeddingError, 6),
}


@pytest.mark.parametrize("fault", DEAD)
def test_a_dead_server_is_not_asked_for_each_text(fault: str) -> None:
    answer, kind, most = DEAD[fault]

    def handle(texts: list[str], body: Body) -> Any:
        given = answer(texts)
        if isinstance(given, Exception):
            raise given
        return given

    server = Server(handle)
    for skip_failed in (False, True):  # holes are for bad texts, not for dead servers
        server.asked.clear()
        with pytest.raises(kind) as caught:
            server.embed([f"text {n}" for n in range(256)], skip_failed=skip_failed)
        assert len(server.asked) == most
        assert getattr(caught.value, "indexes", ()) == ()


def test_what_was_done_before_the_server_died_is_kept() -> None:
    def handle(texts: list[str], body: Body) -> Any:
        if "text 5" in texts:
            raise ConnectionFailedError("Gone.")
        return good(texts)

    server = Server(handle)
    with pytest.raises(ConnectionFailedError) as caught:
        server.embed([f"text {n}" for n in range(12)], batch_size=4)
    assert caught.value.partial == [vector_of(f"text {n}") for n in range(4)] + [None] * 8
    assert len(server.asked) == 2


def test_calls_against_a_server_that_always_fails_stay_bounded() -> None:
    """A thousand calls, each failing in the way that is tried once more with a harmless text."""
    server = poisoned("runner crash", {"x", "a"})
    settings = EmbeddingSettings(model="m")
    session = server.session(settings)
    for _ in range(1000):
        with pytest.raises(ServerError):
            run(embed(session, ["x"]))
    assert len(server.asked) <= 1100


def test_a_batch_too_large_for_the_runner_is_halved_until_it_fits() -> None:
    def handle(texts: list[str], body: Body) -> Any:
        if len(texts) > 16:
            raise refused(400, END_OF_FILE)
        return good(texts)

    texts = [f"text {n}" for n in range(64)]
    server = Server(handle)
    assert server.embed(texts).vectors == [vector_of(text) for text in texts]
    # three tries, the harmless text, two halves, four quarters that fit
    assert [len(asked) for asked in server.asked] == [64, 64, 64, 1, 32, 16, 16, 32, 16, 16]


@pytest.mark.parametrize("kind", ["zeros", "runner crash"])
def test_many_bad_texts_do_not_use_up_the_retries(kind: str) -> None:
    bad = {n for n in range(600) if n % 3 == 0}
    server = poisoned(kind, {f"text {n}" for n in bad})
    result = server.embed([f"text {n}" for n in range(600)], skip_failed=True)
    assert set(result.failed) == bad


def test_a_server_that_dies_while_a_batch_is_halved_blames_no_text() -> None:
    def handle(texts: list[str], body: Body) -> Any:
        if "text 3" in texts or len(server.asked) > 8:
            raise refused(400, END_OF_FILE)
        return good(texts)

    server = Server(handle)
    with pytest.raises(ServerError):
        server.embed([f"text {n}" for n in range(16)], skip_failed=True)


def test_a_text_alone_is_tried_again_before_it_is_blamed() -> None:
    seen: set[str] = set()

    def handle(texts: list[str], body: Body) -> Any:
        if len(texts) > 1:
            raise refused(400, END_OF_FILE)
        if texts[0] not in seen:
            seen.add(texts[0])
            return {"embeddings": [[0.0, 0.0, 0.0]]}
        return good(texts)

    texts = ["x", "y", "z"]
    assert Server(handle).embed(texts).vectors == [vector_of(text) for text in texts]


def test_refusals_are_halved_without_waiting() -> None:
    server = poisoned("over the limit", {"text 0"})
    with pytest.raises(EmbeddingError):
        server.embed([f"text {n}" for n in range(8)])
    assert [len(asked) for asked in server.asked] == [8, 4, 2, 1, 1, 2, 4]
    assert server.slept == 0


def test_a_model_that_changes_its_dimension_half_way() -> None:
    def handle(texts: list[str], body: Body) -> Any:
        short = len(server.asked) == 3
        return {"embeddings": [vector_of(text)[: 2 if short else 3] for text in texts]}

    server = Server(handle)
    with pytest.raises(EmbeddingError, match=r"texts 4, 5: 2 numbers where most have 3") as caught:
        server.embed([f"text {n}" for n in range(8)], batch_size=2)
    assert caught.value.indexes == (4, 5)
    assert [vector is None for vector in caught.value.partial] == [False] * 4 + [True] * 2 + [False] * 2


@pytest.mark.parametrize(
    ("texts", "indexes", "message"),
    [
        pytest.param(["a", "", "b", " \n"], (1, 3), "texts 1, 3: empty", id="empty"),
        pytest.param(["a", "\ud800b"], (1,), "text 1: a lone surrogate", id="lone surrogate"),
        pytest.param(["", "é\udfff"], (0, 1), "text 0: empty; text 1: a lone surrogate", id="both"),
    ],
)
def test_what_cannot_be_embedded_is_named_before_sending(
    texts: list[str], indexes: tuple[int, ...], message: str
) -> None:
    server = Server(lambda texts, body: good(texts))
    with pytest.raises(EmbeddingError, match=message) as caught:
        server.embed(texts, on_empty="error")
    assert caught.value.indexes == indexes
    assert server.asked == []
    done: list[int] = []
    result = server.embed(texts, on_empty="error", skip_failed=True, progress=done.append)
    assert result.failed == indexes
    assert result.vectors == [None if n in indexes else vector_of(text) for n, text in enumerate(texts)]
    assert sum(done) == len(texts)


@pytest.mark.parametrize("got", [2, 4], ids=["fewer", "more"])
def test_ignored_dimensions_are_said(got: int) -> None:
    server = Server(lambda texts, body: {"embeddings": [[1.0] * got for _ in texts]})
    with pytest.raises(CapabilityError, match=f"ignores dimensions=3: its vectors have {got} numbers"):
        server.embed(["a", "b"], dimensions=3)
    assert len(server.asked) == 1
