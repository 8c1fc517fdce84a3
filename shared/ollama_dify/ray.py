"""`Embedder`: texts to vectors in Ray Data; every row is returned, rows that failed with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pyarrow as pa

from .client.blocking import OllamaClient
from .errors import (
    ConfigurationError,
    ConnectionFailedError,
    EmbeddingError,
    ProtocolError,
    RateLimitError,
    ServerBusyError,
    ServerError,
)
from .settings import EmbeddingSettings

__all__ = ["Embedder"]

# Errors that another batch may not have. A wrong key or missing model fails every row, so it always raises.
_BUSY = ConnectionFailedError, ServerError, ServerBusyError, RateLimitError
_SERVER_FAULTS = *_BUSY, ProtocolError, EmbeddingError


class Embedder:
    """Embeds a column of pyarrow tables: `dataset.map_batches(Embedder, fn_constructor_args=(settings,),
    batch_format="pyarrow", batch_size=1024, concurrency=2)`; works without a cluster too.

    text: the column to read. vector, error: the columns to add, `fixed_size_list<float>` and a text; in each
    row one of them is null. on_server_error: if the server still fails after `batch_retries` retries of a
    request, raise, or with "column" put the error into the error column of these rows. fingerprint: what
    `OllamaDifyEmbeddings.fingerprint()` returned for the index; a different one raises ConfigurationError
    before any row. Give the key as `api_key_env`: the settings are stored in Ray's object store.
    """

    def __init__(
        self,
        settings: EmbeddingSettings,
        text: str = "text",
        vector: str = "embedding",
        error: str = "embedding_error",
        on_server_error: Literal["raise", "column"] = "raise",
        batch_retries: int = 8,
        fingerprint: str | None = None,
    ) -> None:
        if not isinstance(settings, EmbeddingSettings):
            raise ConfigurationError(f"Embedder takes EmbeddingSettings, not {type(settings).__name__}.")
        if on_server_error not in ("raise", "column"):
            raise ConfigurationError(f'on_server_error is "raise" or "column", not {on_server_error!r}.')
        if len({text, vector, error}) < 3:
            raise ConfigurationError("text, vector and error name three columns; two of the names are equal.")
        self._names = text, vector, error
        self._raises = on_server_error == "raise"
        self._client = OllamaClient(settings.model_copy(update={"max_retries": batch_retries}))
        self._model, self._size = settings.model, settings.dimensions
        found = fingerprint and self._client.embedding_fingerprint()
        if found != fingerprint:
            raise ConfigurationError(
                f"The fingerprint is {found!r}, not {fingerprint!r}: other vectors than those of the index.",
                model=settings.model,
                hint="Use the model (its digest), prefixes, dimensions and overflow that the index was made "
                "with, or make the index anew.",
            )

    def __call__(self, table: pa.Table) -> pa.Table:
        """The table with two more columns. Raises ConfigurationError if it has no such column of texts."""
        texts = self._texts(table)
        given = [index for index, text in enumerate(texts) if text is not None]
        vectors: list[list[float] | None] = [None] * len(texts)
        errors: list[str | None] = ["null instead of a text"] * len(texts)
        outcomes = self._embedded([texts[index] for index in given])
        for index, outcome in zip(given, outcomes, strict=True):
            vectors[index], errors[index] = outcome
        _, vector_name, error_name = self._names
        table = table.append_column(vector_name, pa.array(vectors, self._type(vectors)))
        return table.append_column(error_name, pa.array(errors, pa.string()))

    def _texts(self, table: pa.Table) -> list[str]:
        name, *new = self._names
        if name not in table.column_names:
            raise ConfigurationError(
                f"The table has no column {name!r}; it has {', '.join(table.column_names)}.",
                hint="Name it with text=.",
            )
        for column in new:
            if column in table.column_names:
                raise ConfigurationError(
                    f"The table has a column {column!r} already.",
                    hint="Drop it before, or give vector= and error= other names.",
                )
        column = table.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise ConfigurationError(f"The column {name!r} holds {column.type}, not texts (string).")
        texts: list[str] = column.to_pylist()
        return texts

    def _embedded(self, texts: Sequence[str]) -> list[tuple[list[float] | None, str | None]]:
        """The vector of each text, or why it has none."""
        try:
            result = self._client.embed(texts, kind="document", skip_failed=True)
        except _SERVER_FAULTS as error:
            if self._raises:
                raise
            partial = error.partial if isinstance(error.partial, list) else [None] * len(texts)
            return [(vector, None if vector is not None else error.message) for vector in partial]
        return [(vector, result.reasons.get(index)) for index, vector in enumerate(result.vectors)]

    def _type(self, vectors: Sequence[list[float] | None]) -> pa.DataType:
        """The vectors' type, the same in all batches: the length is that of the model's vectors."""
        sizes = {len(vector) for vector in vectors if vector is not None}
        if self._size is None and not sizes:
            sizes = {len(vector) for vector, _ in self._embedded(["a"]) if vector is not None}
            if not sizes:  # no answer yet, so the length is unknown; null fits any type
                return pa.null()
        self._size = self._size or sizes.pop()
        if sizes - {self._size}:
            raise EmbeddingError(
                f"Vectors of {sizes.pop()} numbers, where others have {self._size}.",
                model=self._model,
                hint="Do all servers behind this address have the same model? Compare: ollama-dify doctor "
                "--base-url A --base-url B",
            )
        return pa.list_(pa.float32(), self._size)
