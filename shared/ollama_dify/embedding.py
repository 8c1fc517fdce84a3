"""Embedding many texts: batches in flight together, every vector checked, the bad text found. Pure flows."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import ConfigurationError, EmbeddingError
from .flows import Context, Flow, Parallel, Send, with_retries
from .requests import embed_request
from .responses import EmbedResult, load_json, read_embeddings
from .settings import EmbeddingSettings

__all__ = ["embed"]


def embed(context: Context, settings: EmbeddingSettings, texts: Sequence[str]) -> Flow[EmbedResult]:
    """The vectors of all texts, in order.

    Raises EmbeddingError naming the positions of texts without a usable vector; the others' vectors are
    in its `partial`.
    """
    if isinstance(texts, str):
        raise ConfigurationError("embed() takes a list of texts; for one text pass [text].")
    empty = tuple(index for index, text in enumerate(texts) if not text)
    if empty:
        raise EmbeddingError(
            f"Text {', '.join(map(str, empty[:10]))} is empty, and an empty text has no vector.",
            indexes=empty,
            model=settings.model,
            hint="Leave empty texts out.",
        )
    if not texts:
        return EmbedResult([], settings.model)
    size = settings.batch_size
    batches = [texts[start : start + size] for start in range(0, len(texts), size)]
    outcomes = yield Parallel(
        [_batch(context, settings, batch) for batch in batches], settings.max_concurrency
    )
    vectors: list[list[float]] = []
    tokens = 0
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
        vectors += outcome.vectors
        tokens += outcome.input_tokens
    return EmbedResult(vectors, outcomes[0].model, tokens)


def _batch(context: Context, settings: EmbeddingSettings, texts: Sequence[str]) -> Flow[EmbedResult]:
    request = embed_request(settings, texts)

    def attempt() -> Flow[EmbedResult]:
        # A number is some 12 characters; 64 allow for any server's way to write one.
        answer = yield Send(request, limit=len(texts) * 16_384 * 64)
        return read_embeddings(load_json(answer.body), len(texts), settings.dimensions)

    return (yield from with_retries(context, attempt))
