"""Embedding many texts: batches in flight together, every vector checked, the bad texts named."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from ..errors import ConfigurationError, EmbeddingError, ModelNotFoundError, OllamaError
from ..language import _
from ..settings.model import EmbeddingSettings
from ..wire.responses import EmbedResult
from .embed_batch import Batch, Job, trouble_of
from .prefixes import Kind, prefix_of, prefixes_of
from .session import Session

__all__ = ["Kind", "Progress", "embed", "embedding_fingerprint", "fingerprint"]

# Called with how many more texts are done, after each batch; one call at a time, but from any thread.
Progress = Callable[[int], object]

_SHOWN = 20


async def embed(
    session: Session,
    settings: EmbeddingSettings,
    texts: Sequence[str],
    *,
    kind: Kind | None = None,
    progress: Progress | None = None,
    skip_failed: bool = False,
) -> EmbedResult:
    """The vectors of all texts, in order.

    Raises EmbeddingError naming the positions of texts without a usable vector and why, with the others'
    vectors in its `partial` (or gives None for them with `skip_failed=True`). Empty texts are sent like all
    others, since texts go as an array, in which the server has a vector for them; with `on_empty="error"`
    they are found before anything is sent. What is no text's fault ends the call: nothing more is asked, and
    what is done is in `partial`.
    """
    prefix = prefix_of(settings, kind)
    texts = _checked_list(texts)
    reasons = _unsendable(texts, may_be_empty=settings.on_empty == "embed")
    if reasons and not skip_failed:
        raise _failure(settings, reasons, len(texts))
    positions: Sequence[int] = range(len(texts))
    if reasons:
        positions = [index for index in positions if index not in reasons]
    size = settings.batch_size
    parts = [positions[start : start + size] for start in range(0, len(positions), size)]
    job = Job(session, settings, prefix)
    batches = [Batch(job, [texts[index] for index in part]) for part in parts]
    advance = _one_at_a_time(progress)
    if reasons:
        advance(len(reasons))
    if batches:
        jobs = [partial(_settled, batch, advance) for batch in batches]
        await session.network.gather(jobs, settings.max_concurrency)
    return _gathered(job, len(texts), parts, batches, reasons, skip_failed=skip_failed)


def fingerprint(settings: EmbeddingSettings, digest: str, dimension: int) -> str:
    """A short name for all that decides what vectors mean: store it beside an index, compare before using it.

    Letters, digits and hyphens, so that it may be part of a file's name or of a key in a store.
    Same model digest, dimension, query and document prefixes and overflow policy (with the context size where
    that decides what is cut or split) give the same text on every machine; anything else another.
    """
    query, document = prefixes_of(settings)
    parts = {
        "digest": digest.lower().removeprefix("sha256:"),
        "dimension": dimension,
        "query_prefix": query,
        "document_prefix": document,
        "overflow": settings.overflow,
        "context_size": None if settings.overflow == "error" else settings.context_size,
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return f"ollama-dify-1-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


async def embedding_fingerprint(session: Session, settings: EmbeddingSettings) -> str:
    """The `fingerprint` of the model as the server has it now; embeds one short text for the dimension."""
    prefixes_of(settings)
    session.cache.digests.clear()  # the model may have been pulled anew
    info = await session.model_info(settings.model)
    if info.digest is None:
        raise ModelNotFoundError(
            f"The server does not list {settings.model!r}, so its digest is unknown.",
            model=settings.model,
            hint=_("Get it with: ollama pull {model}").format(model=settings.model),
        )
    (vector,) = await Batch(Job(session, settings, prefix=""), ["a"]).embed(["a"])
    if isinstance(vector, OllamaError):
        raise vector
    return fingerprint(settings, info.digest, len(vector))


async def _settled(batch: Batch, advance: Callable[[int], None]) -> None:
    try:
        await batch.run()
    except OllamaError as error:
        if batch.job.stopped is None:
            batch.job.stopped = error
    else:
        advance(len(batch.texts))


def _one_at_a_time(progress: Progress | None) -> Callable[[int], None]:
    if progress is None:
        return lambda done: None
    lock = threading.Lock()

    def advance(done: int) -> None:
        with lock:
            progress(done)

    return advance


def _checked_list(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise ConfigurationError(
            f"embed() takes a list of texts, not {type(texts).__name__}; for one text pass [text]."
        )
    listed = list(texts)
    for index, text in enumerate(listed):
        if not isinstance(text, str):
            raise ConfigurationError(
                f"Text {index} is of type {type(text).__name__}; embed() takes texts (str) only."
            )
    return listed


def _unsendable(texts: Sequence[str], *, may_be_empty: bool) -> dict[int, str]:
    """Positions of texts that are not worth sending, and why."""
    reasons = {}
    for index, text in enumerate(texts):
        if not may_be_empty and not text.strip():
            reasons[index] = "empty"
        elif not text.isascii() and not _is_unicode(text):
            reasons[index] = "a lone surrogate, which is not valid Unicode"
    return reasons


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _gathered(
    job: Job,
    count: int,
    parts: Sequence[Sequence[int]],
    batches: Sequence[Batch],
    reasons: dict[int, str],
    *,
    skip_failed: bool,
) -> EmbedResult:
    """The batches as one result. Raises what stopped them, or what is wrong with texts."""
    vectors: list[list[float] | None] = [None] * count
    errors: dict[int, OllamaError] = {}
    for part, batch in zip(parts, batches, strict=True):
        for index, outcome in zip(part, batch.outcomes, strict=False):  # one that was stopped has none
            if isinstance(outcome, OllamaError):
                errors[index] = outcome
            else:
                vectors[index] = outcome
    if job.stopped is not None:
        if job.stopped.partial is None and any(vector is not None for vector in vectors):
            job.stopped.partial = vectors
        raise job.stopped
    reasons = {**reasons, **{index: _reason(error) for index, error in errors.items()}, **_odd(vectors)}
    for index in reasons:
        vectors[index] = None
    if reasons and not skip_failed:
        raise _failure(job.settings, reasons, count, vectors, list(errors.values())) from next(
            iter(errors.values()), None
        )
    return EmbedResult(
        vectors,
        next((batch.model for batch in batches if batch.model), job.settings.model),
        sum(batch.input_tokens for batch in batches),
        sum(batch.total_duration for batch in batches),
        sum(batch.load_duration for batch in batches),
        truncated=_positions(parts, [batch.truncated for batch in batches]),
        split=_positions(parts, [batch.split for batch in batches]),
        failed=tuple(sorted(reasons)),
        reasons=dict(sorted(reasons.items())),
    )


def _positions(parts: Sequence[Sequence[int]], found: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Positions within batches as positions in the caller's list."""
    return tuple(part[index] for part, indexes in zip(parts, found, strict=True) for index in indexes)


def _odd(vectors: Sequence[list[float] | None]) -> dict[int, str]:
    """Positions of vectors that are not as long as most: they cannot share an index."""
    lengths = Counter(len(vector) for vector in vectors if vector is not None)
    if len(lengths) < 2:
        return {}
    usual = lengths.most_common(1)[0][0]
    return {
        index: f"{len(vector)} numbers where most have {usual} (was the model replaced meanwhile?)"
        for index, vector in enumerate(vectors)
        if vector is not None and len(vector) != usual
    }


def _reason(error: OllamaError) -> str:
    """Why a text has no vector, short."""
    trouble = trouble_of(error)
    if trouble == "limit":
        return "longer than the model's context"
    if trouble == "nan":
        return "the model makes NaN or infinite numbers of it"
    if trouble == "crash":
        return f"the model's process fails on it, and on no short text ({error.message})"
    return error.message[:1].lower() + error.message[1:]


def _failure(
    settings: EmbeddingSettings,
    reasons: Mapping[int, str],
    count: int,
    vectors: list[list[float] | None] | None = None,
    errors: Sequence[OllamaError] = (),
) -> EmbeddingError:
    """The error for texts without a vector: every position, and why, those of one reason together."""
    indexes = tuple(sorted(reasons))
    by_reason: dict[str, list[int]] = {}
    for index in indexes:
        by_reason.setdefault(reasons[index], []).append(index)
    lines = []
    for reason, positions in by_reason.items():
        more = f" and {len(positions) - _SHOWN} more" if len(positions) > _SHOWN else ""
        listed = ", ".join(map(str, positions[:_SHOWN]))
        lines.append(f"{'text' if len(positions) == 1 else 'texts'} {listed}{more}: {reason}")
    hints = []
    if any(trouble_of(error) == "limit" for error in errors):
        hints.append('Shorten what is too long, or set overflow="split" (pieces, averaged) or "truncate".')
    if vectors is not None:
        hints.append("The other vectors are in the error's `partial`.")
    hints.append(
        "Leave these texts out (their positions are in the error's `indexes`), or call "
        "embed(texts, skip_failed=True), which gives None in their place."
    )
    first = errors[0] if errors else None
    return EmbeddingError(
        f"No usable vector for {len(indexes)} of {count} texts ({'; '.join(lines)}).".replace("\n", " "),
        indexes=indexes,
        partial=vectors,
        model=settings.model,
        status=None if first is None else first.status,
        url=None if first is None else first.url,
        attempts=max((error.attempts for error in errors), default=0),
        hint=" ".join(hints),
    )
