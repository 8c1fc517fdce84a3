"""`ollama_dify.ray.Embedder` on tables, without a cluster; with one: test_ray_data.py."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from ollama_dify import (
    ConfigurationError,
    ConnectionFailedError,
    EmbeddingError,
    EmbeddingSettings,
    ModelNotFoundError,
    OllamaClient,
    OllamaError,
    ServerError,
)
from ollama_dify.testing import Fault, SimulatedOllama

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (the extra `ray`)")
from ollama_dify.ray import Embedder  # noqa: E402  # it imports pyarrow

LONG = "The cat sat on the mat and looked at the dog. " * 300
# What a text is, and the reason that its row has: None for a vector.
TEXTS: dict[str, tuple[str | None, str | None]] = {
    "first": ("one", None),
    "null": (None, "null"),
    "long": (LONG, "longer than the model's context"),
    "blank": ("  ", None),
    "last": ("two", None),
}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("ollama_dify.client.session.random.random", lambda: 0.0)
    return None


def settings(url: str, **values: Any) -> EmbeddingSettings:
    return EmbeddingSettings(**{"model": "all-minilm", "base_url": url, "context_size": 256, **values})


def table(**columns: Any) -> Any:
    return pa.table({"id": range(len(next(iter(columns.values())))), **columns})


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary", "chunks"])
def test_every_row_and_column_comes_out(server: SimulatedOllama, kind: str) -> None:
    texts = [text for text, _ in TEXTS.values()]
    column = pa.array(texts, pa.large_string() if kind == "large_string" else pa.string())
    if kind == "dictionary":
        column = column.dictionary_encode()
    if kind == "chunks":
        column = pa.chunked_array([column[:2], column[2:]])
    given = table(text=column).replace_schema_metadata({"made": "by a test"})
    got = Embedder(settings(server.base_url, batch_size=2))(given)

    assert got.drop_columns(["embedding", "embedding_error"]) == given
    assert got.schema.metadata == {b"made": b"by a test"}
    assert got.schema.field("embedding").type == pa.list_(pa.float32(), 384)
    assert got.schema.field("embedding_error").type == pa.string()
    vectors, errors = got["embedding"].to_pylist(), got["embedding_error"].to_pylist()
    for (text, reason), vector, error in zip(TEXTS.values(), vectors, errors, strict=True):
        assert (vector is None) == (reason is not None), text
        assert error == reason or (reason is not None and reason in error)
    with OllamaClient(settings(server.base_url)) as client:
        (expected,) = client.embed(["two"]).vectors
    assert vectors[-1] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("texts", [[], [None, None], [LONG]], ids=["no row", "nulls", "all bad"])
def test_batches_without_a_vector_have_the_same_columns(server: SimulatedOllama, texts: list[Any]) -> None:
    embedder = Embedder(settings(server.base_url))
    got = embedder(table(text=pa.array(texts, pa.string())))
    assert got.schema.field("embedding").type == pa.list_(pa.float32(), 384)
    assert got.schema.field("embedding_error").type == pa.string()
    assert got["embedding"].null_count == len(texts)


def test_other_names_of_columns(server: SimulatedOllama) -> None:
    got = Embedder(settings(server.base_url), text="body", vector="v", error="e")(table(body=["one"]))
    assert got.column_names == ["id", "body", "v", "e"]


@pytest.mark.parametrize("on_server_error", ["raise", "column"])
@pytest.mark.parametrize("failures", [8, 9])
def test_a_server_fault_is_retried_eight_times(
    server: SimulatedOllama, on_server_error: Any, failures: int
) -> None:
    server.fault(Fault("status", status=503), times=failures)
    embedder = Embedder(settings(server.base_url), on_server_error=on_server_error)
    if failures == 8:
        assert embedder(table(text=["one"]))["embedding_error"].to_pylist() == [None]
    elif on_server_error == "raise":
        with pytest.raises(OllamaError) as caught:
            embedder(table(text=["one"]))
        assert (caught.value.status, caught.value.attempts) == (503, 9)
    else:
        got = embedder(table(text=["one", None]))
        assert got["embedding"].to_pylist() == [None, None]
        assert "busy" in got["embedding_error"][0].as_py()
        # The next batch is asked as if nothing had been.
        assert embedder(table(text=["one"]))["embedding_error"].to_pylist() == [None]
    asked = [request for request in server.requests if request.path == "/api/embed"]
    assert len(asked) >= 9


def test_a_fault_costs_only_the_rows_of_its_request(server: SimulatedOllama) -> None:
    server.fault(
        Fault("status", status=500),
        times=20,
        when=lambda request: "text 3" in (request.body or {}).get("input", ()),
    )
    embedder = Embedder(
        settings(server.base_url, batch_size=1, max_concurrency=1), on_server_error="column", batch_retries=1
    )
    errors = embedder(table(text=[f"text {number}" for number in range(4)]))["embedding_error"].to_pylist()
    assert [error is None for error in errors] == [True, True, True, False]


@pytest.mark.parametrize("on_server_error", ["raise", "column"])
def test_what_every_row_would_suffer_raises(server: SimulatedOllama, on_server_error: Any) -> None:
    with pytest.raises(ModelNotFoundError):
        Embedder(settings(server.base_url, model="none"), on_server_error=on_server_error)(
            table(text=["one"])
        )


def test_a_server_that_is_away_from_the_start() -> None:
    with SimulatedOllama() as gone:
        url = gone.base_url
    got = Embedder(settings(url), on_server_error="column", batch_retries=0)(table(text=["one"]))
    assert got["embedding"].to_pylist() == [None]
    assert "connect" in got["embedding_error"][0].as_py().lower()
    with pytest.raises(ConnectionFailedError):
        Embedder(settings(url), batch_retries=0)(table(text=["one"]))


def test_servers_with_different_models_end_the_job(server: SimulatedOllama) -> None:
    embedder = Embedder(settings(server.base_url), on_server_error="column")
    embedder(table(text=["one"]))
    server.install(replace(server.models["all-minilm:latest"], dimensions=5))
    with pytest.raises(EmbeddingError, match="others have 384"):
        embedder(table(text=["two"]))


def test_the_fingerprint_is_compared_before_any_row(server: SimulatedOllama) -> None:
    with OllamaClient(settings(server.base_url)) as client:
        stored = client.embedding_fingerprint()
    Embedder(settings(server.base_url), fingerprint=stored)
    with pytest.raises(ConfigurationError, match="fingerprint"):
        Embedder(settings(server.base_url, document_prefix="passage: "), fingerprint=stored)


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        ({"text": "body"}, {"text": ["one"]}, "no column 'body'; it has id, text"),
        ({"text": "id"}, {"text": ["one"]}, "holds int64"),
        ({"vector": "id"}, {"text": ["one"]}, "a column 'id' already"),
        ({"vector": "text"}, {"text": ["one"]}, "two of the names"),
        ({"on_server_error": "ignore"}, {"text": ["one"]}, '"raise" or "column"'),
    ],
    ids=["no column", "no texts", "taken", "equal", "word"],
)
def test_mistakes_are_told_before_anything_is_sent(
    server: SimulatedOllama, arguments: dict[str, Any], given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Embedder(settings(server.base_url), **arguments)(table(**given))
    assert server.requests == []


def test_no_key_travels(server: SimulatedOllama, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray pickles the settings or the object, and an error on its way back; none holds the key."""
    monkeypatch.setenv("SCALE_KEY", "sk-very-secret")
    given = settings(server.base_url, api_key_env="SCALE_KEY")
    embedder = Embedder(given, batch_retries=0)
    embedder(table(text=["one"]))
    server.fault(Fault("status", status=500), times=1)
    with pytest.raises(ServerError) as caught:
        embedder(table(text=["one"]))
    for what in (given, embedder, caught.value):
        packed = pickle.dumps(what)
        assert b"very-secret" not in packed
    again = pickle.loads(pickle.dumps(embedder))
    assert again(table(text=["two"]))["embedding_error"].null_count == 1
    assert {request.header("authorization") for request in server.requests} == {"Bearer sk-very-secret"}
