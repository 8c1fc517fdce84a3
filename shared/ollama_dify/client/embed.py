"""Embed many texts: batches, every vector checked, a failed batch halved until the bad texts are found."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from operator import itemgetter

from ..errors import (
    CapabilityError,
    ContextOverflowError,
    EmbeddingError,
    InvalidRequestError,
    ModelNotFoundError,
    OllamaError,
    ServerError,
)
from ..language import _
from ..settings import EmbeddingSettings
from ..wire.requests import embed_request
from ..wire.responses import EmbedResult
from ..wire.vectors import mean_vector, read_vectors
from .prefixes import Kind, fingerprint, prefix_of, prefixes_of
from .session import Session, settings_of
from .trim import checked_texts, split_text

# Called after each batch with the number of texts it finished; one call at a time, but from any thread.
Progress = Callable[[int], object]

# A text's vector, or the error that is about this text alone.
_Outcome = list[float] | OllamaError

# Errors that one text of a batch may cause. limit, nan: the server says so. vectors, crash: the server may be
# the cause too, so a harmless text is tried first. The text of "vectors" is the error's own.
_REASONS = {
    "limit": "longer than the model's context",
    "nan": "the model makes NaN or infinite numbers of it",
    "crash": "the model's process fails on it, and on no short text ({error.message})",
}
_TOLD = {
    "limit": r"too large to process",  # llama.cpp's server, for a text longer than its physical batch
    "nan": r"\bNaN\b",
    "crash": r"do embedding request|model runner has unexpectedly stopped",
}

_HARMLESS = "a"
_SHOWN = 20
_SURROGATE = re.compile("[\ud800-\udfff]")
# Bounds on an answer: numbers per vector, and bytes per number, of which Ollama writes some 14.
_MOST_NUMBERS = 16_384
_NUMBER_BYTES = 26


async def embed(
    session: Session,
    texts: Sequence[str],
    *,
    kind: Kind | None = None,
    progress: Progress | None = None,
    skip_failed: bool = False,
) -> EmbedResult:
    """The vectors of all texts, in order; see `OllamaClient.embed`.

    An error that no text caused ends the call, with the vectors so far in the error's `partial`.
    """
    settings = settings_of(session.settings, EmbeddingSettings)
    texts = checked_texts("embed", "text", texts)
    call = _Call(session, settings, texts, prefix_of(settings, kind), progress)
    call.find_unsendable()
    if call.outcomes and not skip_failed:
        return call.result(skip_failed=False)
    call.advance(len(call.outcomes))
    sent = [index for index in range(len(texts)) if index not in call.outcomes]
    size = settings.batch_size
    jobs = [partial(call.batch, sent[start : start + size]) for start in range(0, len(sent), size)]
    try:
        await session.network.gather(jobs, settings.max_concurrency)
    except OllamaError as error:
        error.partial = error.partial or call.vectors()
        raise
    return call.result(skip_failed=skip_failed)


async def embedding_fingerprint(session: Session) -> str:
    """The `fingerprint` of the model as the server has it now; embeds one short text for the dimension."""
    settings = settings_of(session.settings, EmbeddingSettings)
    prefixes_of(settings)  # raises if they are not known
    session.cache.digests.clear()  # the model may have been pulled anew
    info = await session.model_info(settings.model)
    if info.digest is None:
        raise ModelNotFoundError(
            f"The server does not list {settings.model!r}, so its digest is unknown.",
            model=settings.model,
            hint=_("Get it with: ollama pull {model}").format(model=settings.model),
        )
    (vector,) = await _Call(session, settings).embed([_HARMLESS])
    if isinstance(vector, OllamaError):
        raise vector
    return fingerprint(settings, info.digest, len(vector))


def _trouble_of(outcome: object) -> str | None:
    """The reason, if single texts may have caused an error; None if halving cannot help, and for a vector."""
    if isinstance(outcome, ContextOverflowError):
        return "limit"
    if isinstance(outcome, EmbeddingError):
        return "vectors"
    if isinstance(outcome, CapabilityError) or not isinstance(outcome, InvalidRequestError | ServerError):
        return None
    return next((trouble for trouble, told in _TOLD.items() if re.search(told, outcome.message)), None)


@dataclass(slots=True)
class _Call:
    """One call of `embed`; positions are those of `texts`.

    outcomes: of the texts so far. shortened: positions of texts that were cut or split. costs: tokens and
    nanoseconds (total, loading) of each request.
    """

    session: Session
    settings: EmbeddingSettings
    texts: Sequence[str] = ()
    prefix: str = ""
    progress: Progress | None = None
    outcomes: dict[int, _Outcome] = field(default_factory=dict)
    shortened: list[int] = field(default_factory=list)
    costs: list[tuple[int, int, int]] = field(default_factory=list)
    model: str = ""
    # Ctrl-C cannot leave it locked for others: Python interrupts only the main thread, which takes the lock
    # only if no worker of this call runs.
    lock: threading.Lock = field(default_factory=threading.Lock)

    def advance(self, done: int) -> None:
        if self.progress is not None and done:
            with self.lock:
                self.progress(done)

    def find_unsendable(self) -> None:
        """Set the outcome of texts that cannot be sent."""
        for index, text in enumerate(self.texts):
            if self.settings.on_empty == "error" and not text.strip():
                self.outcomes[index] = EmbeddingError("empty")
            elif not text.isascii() and _SURROGATE.search(text):
                self.outcomes[index] = EmbeddingError("a lone surrogate, which is not valid Unicode")

    async def batch(self, positions: Sequence[int]) -> None:
        """Embed these texts. Raises errors that no text caused.

        The server's refusal, which takes milliseconds, shows the texts over the limit; only they are cut or
        split, so their positions are known.
        """
        outcomes, overflow = self.outcomes, self.settings.overflow
        outcomes.update(
            zip(positions, await self.embed([self.texts[index] for index in positions]), strict=True)
        )
        over = [index for index in positions if _trouble_of(outcomes[index]) == "limit"]
        if over and overflow == "truncate":
            cut = await self.embed([self.texts[index] for index in over], cut=True)
            outcomes.update(zip(over, cut, strict=True))
        elif overflow == "split":
            for index in over:
                outcomes[index] = await self._averaged(self.texts[index], outcomes[index])
        self.shortened += [index for index in over if not isinstance(outcomes[index], OllamaError)]
        self.advance(len(positions))

    async def embed(self, texts: Sequence[str], *, cut: bool = False, first: bool = True) -> list[_Outcome]:
        """The outcome of each text. cut: whether the server may cut. first: no larger batch failed before.

        Raises errors that no text caused. Between the whole batch and a single text, errors that a text may
        have caused are not retried, because halving sends the texts again.
        """
        alone = len(texts) == 1
        try:
            return await self._ask(texts, cut=cut, patient=first or alone)
        except OllamaError as error:
            trouble = _trouble_of(error)
            if trouble is None:
                raise
            failure = error.with_traceback(None)  # it is stored, and its frames would keep the batch
        if (first and trouble == "vectors") or ((first or alone) and trouble == "crash"):
            await self._check_server(failure)
        # The texts were the cause, so the retries are refunded to the server's budget.
        for _retry in range(failure.attempts - 1):
            self.session.budget.refund(retried=True)
        if alone:
            return [failure]
        middle = (len(texts) + 1) // 2
        left = await self.embed(texts[:middle], cut=cut, first=False)
        return left + await self.embed(texts[middle:], cut=cut, first=False)

    async def _ask(self, texts: Sequence[str], *, cut: bool = False, patient: bool = True) -> list[_Outcome]:
        """One request, retried. patient: also retry errors that a text may have caused."""
        settings = self.settings
        request = embed_request(settings, [self.prefix + text for text in texts] if self.prefix else texts)
        request = replace(request, body={**(request.body or {}), "truncate": cut})
        limit = len(texts) * _MOST_NUMBERS * _NUMBER_BYTES + 65_536

        async def attempt() -> EmbedResult:
            try:
                answer = await self.session.network.send(request, limit)
                result = read_vectors(answer, len(texts))
            except OllamaError as error:
                if not patient and _trouble_of(error) is not None:
                    error.retryable = False
                raise
            if settings.dimensions not in (None, result.dimension):  # servers ignore it in silence
                raise CapabilityError(
                    f"The model {settings.model!r} ignores dimensions={settings.dimensions}: "
                    f"its vectors have {result.dimension} numbers.",
                    model=settings.model,
                    hint="Leave dimensions unset, or choose a model that can shorten its vectors "
                    "(nomic-embed-text v1.5, embeddinggemma, qwen3-embedding).",
                )
            return result

        result = await self.session.retried(attempt)
        self.model = result.model or self.model
        self.costs.append((result.input_tokens, result.total_duration or 0, result.load_duration or 0))
        return list[_Outcome](vector for vector in result.vectors if vector is not None)

    async def _check_server(self, failure: OllamaError) -> None:
        """Raise the failure unless the server can embed a harmless text.

        It costs a retry from the budget, so that a dead server does not get twice the requests.
        """
        budget, added = self.session.budget, ""
        if budget.take():
            try:
                await self._ask([_HARMLESS])
            except OllamaError as error:
                if _trouble_of(error) is None:
                    raise
                added = f", and no better for the text {_HARMLESS!r}"
            else:
                budget.refund(retried=True)
                return
        if isinstance(failure, EmbeddingError):
            model = self.settings.model
            failure = EmbeddingError(
                f"{failure.message}{added}.",
                model=model,
                attempts=failure.attempts,
                hint="This is the fault of the server or the model, not of a text: see the server's log, "
                f"restart it, or get the model again: ollama pull {model}",
            )
        raise failure

    async def _averaged(self, text: str, outcome: _Outcome) -> _Outcome:
        """The mean of a long text's pieces, weighted by their length, as a unit vector."""
        pieces = await self._pieces(text, outcome)
        if isinstance(pieces, OllamaError):
            return pieces
        weights, vectors = zip(*pieces, strict=True)
        if len({len(vector) for vector in vectors}) > 1:
            return EmbeddingError("Its pieces have vectors of different lengths")
        mean = mean_vector(vectors, weights)
        return EmbeddingError("The vectors of its pieces cancel each other out") if mean is None else mean

    async def _pieces(self, text: str, outcome: _Outcome) -> list[tuple[int, list[float]]] | OllamaError:
        """Lengths and vectors of the pieces of a text with this outcome, or why a piece has none.

        The size is halved until the server accepts the first piece; the others are cut to this size and sent
        in batches, and a piece that is still refused is halved again.
        """
        rest: Iterator[str] = iter(())
        head, size = text, len(text)
        while size > 1 and _trouble_of(outcome) == "limit":
            size = (size + 1) // 2
            rest = (piece for piece in split_text(text, size) if not piece.isspace())
            head = next(rest, "")
            if not head:
                break
            (outcome,) = await self.embed([head])
        if isinstance(outcome, OllamaError):
            return outcome
        found = [(len(head), outcome)]
        while batch := list(islice(rest, self.settings.batch_size)):
            for piece, own in zip(batch, await self.embed(batch), strict=True):
                deeper = await self._pieces(piece, own)
                if isinstance(deeper, OllamaError):
                    return deeper
                found += deeper
        return found

    def vectors(self) -> list[list[float] | None] | None:
        """The vectors so far; None if there is none."""
        found = map(self.outcomes.get, range(len(self.texts)))
        vectors = [None if isinstance(outcome, OllamaError) else outcome for outcome in found]
        return vectors if any(vectors) else None

    def result(self, *, skip_failed: bool) -> EmbedResult:
        """The result of all batches. Raises the errors of texts."""
        vectors = self.vectors() or [None for _ in self.texts]
        found = sorted(self.outcomes.items(), key=itemgetter(0))
        errors = {index: outcome for index, outcome in found if isinstance(outcome, OllamaError)}
        reasons = {**{index: _reason(error) for index, error in errors.items()}, **_odd(vectors)}
        for index in reasons:
            vectors[index] = None
        if reasons and not skip_failed:
            failure = _failure(self.settings, reasons, vectors, list(errors.values()))
            raise failure from next(iter(errors.values()), None)
        tokens, total, loading = map(sum, zip((0, 0, 0), *self.costs, strict=True))
        shortened = tuple(sorted(self.shortened))
        return EmbedResult(
            vectors,
            self.model or self.settings.model,
            tokens,
            total,
            loading,
            truncated=shortened if self.settings.overflow == "truncate" else (),
            split=shortened if self.settings.overflow == "split" else (),
            failed=tuple(sorted(reasons)),
            reasons=dict(sorted(reasons.items())),
        )


def _failure(
    settings: EmbeddingSettings,
    reasons: Mapping[int, str],
    vectors: list[list[float] | None],
    errors: Sequence[OllamaError],
) -> EmbeddingError:
    """The error for texts without a vector: every position and reason, grouped by reason."""
    by_reason: dict[str, list[str]] = {}
    for index in sorted(reasons):
        by_reason.setdefault(reasons[index], []).append(str(index))
    lines = []
    for reason, found in by_reason.items():
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        lines.append(f"{'text' if len(found) == 1 else 'texts'} {', '.join(found[:_SHOWN])}{more}: {reason}")
    hint = (
        "Leave these texts out (their positions are in the error's `indexes`), or call "
        "embed(texts, skip_failed=True), which gives None in their place."
    )
    if any(vectors):
        hint = f"The other vectors are in the error's `partial`. {hint}"
    if any(_trouble_of(error) == "limit" for error in errors):
        hint = f'Shorten what is too long, or set overflow="split" (averaged) or "truncate". {hint}'
    message = f"No usable vector for {len(reasons)} of {len(vectors)} texts ({'; '.join(lines)})."
    return EmbeddingError(
        message.replace("\n", " "),
        indexes=tuple(sorted(reasons)),
        partial=vectors,
        model=settings.model,
        status=errors[0].status if errors else None,
        url=errors[0].url if errors else None,
        attempts=max((error.attempts for error in errors), default=0),
        hint=hint,
    )


def _odd(vectors: Sequence[list[float] | None]) -> dict[int, str]:
    """Positions of vectors whose length differs from most others: they cannot be in the same index."""
    lengths = Counter(len(vector) for vector in vectors if vector is not None)
    usual = lengths.most_common(1)[0][0] if lengths else 0
    return {
        index: f"{len(vector)} numbers where most have {usual} (was the model replaced meanwhile?)"
        for index, vector in enumerate(vectors)
        if vector is not None and len(vector) != usual
    }


def _reason(error: OllamaError) -> str:
    """Why a text has no vector, short."""
    known = _REASONS.get(_trouble_of(error) or "")
    return error.message[:1].lower() + error.message[1:] if known is None else known.format(error=error)
