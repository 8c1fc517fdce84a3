"""One batch of texts: asked, checked, and on trouble halved until the bad texts stand alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

from ..errors import (
    CapabilityError,
    ContextOverflowError,
    EmbeddingError,
    InvalidRequestError,
    OllamaError,
    ServerError,
)
from ..settings.model import EmbeddingSettings
from ..wire.requests import embed_request
from ..wire.responses import EmbedResult
from ..wire.vectors import mean_vector, read_vectors
from .session import Session
from .split_text import split_text

__all__ = ["Batch", "Job", "Outcome", "Trouble", "trouble_of"]

# A text's vector, or the error that is about this text alone.
Outcome = list[float] | OllamaError

# What may be the fault of one text in a batch. limit, nan: the server says so. vectors, crash: it may as well
# be the server, so a harmless text is tried before a text is blamed.
Trouble = Literal["limit", "nan", "vectors", "crash"]

# llama.cpp's server, for a text longer than its physical batch.
_TOO_LARGE = re.compile(r"too large to process")
_NOT_A_NUMBER = re.compile(r"\bNaN\b")
_CRASH = re.compile(r"do embedding request|model runner has unexpectedly stopped")

_HARMLESS = "a"
# Bounds on an answer: numbers per vector, and bytes per number, of which Ollama writes some 14.
_MOST_NUMBERS = 16_384
_NUMBER_BYTES = 26


def trouble_of(error: OllamaError) -> Trouble | None:
    """Whether an error may be about single texts; None for one that halving cannot help."""
    if isinstance(error, ContextOverflowError):
        return "limit"
    if isinstance(error, EmbeddingError):
        return "vectors"
    if isinstance(error, CapabilityError) or not isinstance(error, InvalidRequestError | ServerError):
        return None
    if _TOO_LARGE.search(error.message):
        return "limit"
    if _NOT_A_NUMBER.search(error.message):
        return "nan"
    return "crash" if _CRASH.search(error.message) else None


class _Abandoned(OllamaError):
    """Another batch failed for good, so this one is not asked any more. Never reaches the caller."""


@dataclass(slots=True)
class Job:
    """What the batches of one call share. stopped: the error that ended it; the others then give up."""

    session: Session
    settings: EmbeddingSettings
    prefix: str
    stopped: OllamaError | None = None


@dataclass(slots=True)
class Batch:
    """Texts that go to the server together, and after `run` what became of each.

    truncated, split: positions in `texts`. The counts and durations of all its requests are added up.
    """

    job: Job
    texts: Sequence[str]
    outcomes: list[Outcome] = field(default_factory=list)
    truncated: list[int] = field(default_factory=list)
    split: list[int] = field(default_factory=list)
    model: str = ""
    input_tokens: int = 0
    total_duration: int = 0
    load_duration: int = 0

    async def run(self) -> None:
        """Fill in `outcomes`. Raises what is no text's fault.

        Texts over the limit are found by the server's refusal, which costs milliseconds; only they are cut
        or split, so it is known which.
        """
        outcomes = self.outcomes = await self.embed(self.texts)
        over = [index for index, outcome in enumerate(outcomes) if _is_over_limit(outcome)]
        if over and self.job.settings.overflow == "truncate":
            cut = await self.embed([self.texts[index] for index in over], cut=True)
            for index, outcome in zip(over, cut, strict=True):
                outcomes[index] = outcome
                if not isinstance(outcome, OllamaError):
                    self.truncated.append(index)
        elif over and self.job.settings.overflow == "split":
            for index in over:
                outcome = outcomes[index] = await self._averaged(self.texts[index], outcomes[index])
                if not isinstance(outcome, OllamaError):
                    self.split.append(index)

    async def embed(self, texts: Sequence[str], *, cut: bool = False, first: bool = True) -> list[Outcome]:
        """The outcome of each text. cut: whether the server may cut. first: no larger batch failed before.

        Raises what is no text's fault. Between the whole batch and the single text nothing dubious is
        retried: halving it again asks again.
        """
        alone = len(texts) == 1
        try:
            return await self._ask(texts, cut=cut, patient=first or alone)
        except OllamaError as error:
            trouble = trouble_of(error)
            if trouble is None:
                raise
            failure = error.with_traceback(None)  # it is kept, and its frames would hold the batch
        if (first and trouble == "vectors") or ((first or alone) and trouble == "crash"):
            await self._check_server(failure)
        # It is the texts, so what their retries cost says nothing about the server.
        for _ in range(failure.attempts - 1):
            self.job.session.budget.refund(retried=True)
        if alone:
            return [failure]
        middle = (len(texts) + 1) // 2
        left = await self.embed(texts[:middle], cut=cut, first=False)
        return left + await self.embed(texts[middle:], cut=cut, first=False)

    async def _ask(self, texts: Sequence[str], *, cut: bool = False, patient: bool = True) -> list[Outcome]:
        """One request, retried. patient: also what may be a text's fault."""
        job = self.job
        request = embed_request(job.settings, [job.prefix + text for text in texts] if job.prefix else texts)
        request = replace(request, body={**(request.body or {}), "truncate": cut})
        limit = len(texts) * _MOST_NUMBERS * _NUMBER_BYTES + 65_536

        async def attempt() -> EmbedResult:
            if job.stopped is not None:
                raise _Abandoned("Another batch failed.")
            try:
                answer = await job.session.network.send(request, limit)
                result = read_vectors(answer.body, len(texts))
            except OllamaError as error:
                if not patient and trouble_of(error) is not None:
                    error.retryable = False
                raise
            _check_dimensions(job.settings, result)
            return result

        result = await job.session.retried(attempt)
        self.model = result.model
        self.input_tokens += result.input_tokens
        self.total_duration += result.total_duration or 0
        self.load_duration += result.load_duration or 0
        return list[Outcome](vector for vector in result.vectors if vector is not None)

    async def _check_server(self, failure: OllamaError) -> None:
        """Raise the failure unless the server can embed a harmless text.

        Paid from the retry budget, so that a dead server is not asked twice as often.
        """
        budget = self.job.session.budget
        tried = budget.take()
        if tried:
            probe = Batch(self.job, [_HARMLESS])
            try:
                await probe._ask(probe.texts)
            except OllamaError as error:
                if trouble_of(error) is None:
                    raise
            else:
                budget.refund(retried=True)
                return
        if not isinstance(failure, EmbeddingError):
            raise failure
        raise EmbeddingError(
            f"{failure.message}{f', and no better for the text {_HARMLESS!r}' if tried else ''}.",
            model=self.job.settings.model,
            attempts=failure.attempts,
            hint="This is the fault of the server or the model, not of a text: see the server's log, restart "
            f"it, or get the model again: ollama pull {self.job.settings.model}",
        )

    async def _averaged(self, text: str, failure: Outcome) -> Outcome:
        """The mean of a long text's pieces, weighted by their length, as a unit vector."""
        pieces = await self._pieces(text, failure)
        if isinstance(pieces, OllamaError):
            return pieces
        weights, vectors = zip(*pieces, strict=True)
        if len({len(vector) for vector in vectors}) > 1:
            return EmbeddingError("Its pieces have vectors of different lengths")
        mean = mean_vector(vectors, weights)
        return EmbeddingError("The vectors of its pieces cancel each other out") if mean is None else mean

    async def _pieces(self, text: str, failure: Outcome) -> list[tuple[int, list[float]]] | OllamaError:
        """Lengths and vectors of the pieces of a text that was refused whole, or why a piece has none.

        The size is halved until the server takes the first piece; the others are cut to the same size and
        go in batches, and one that is refused all the same is halved further.
        """
        size = len(text)
        while _is_over_limit(failure):
            size = (size + 1) // 2
            pieces = (piece for piece in split_text(text, size) if not piece.isspace())
            head = next(pieces, "") if len(text) > 1 else ""
            if not head:
                break
            failure = (await self.embed([head]))[0]
            if size == 1:
                break
        if isinstance(failure, OllamaError):
            return failure
        found = [(len(head), failure)]
        while batch := list(islice(pieces, self.job.settings.batch_size)):
            for piece, outcome in zip(batch, await self.embed(batch), strict=True):
                if not isinstance(outcome, OllamaError):
                    found.append((len(piece), outcome))
                    continue
                deeper = await self._pieces(piece, outcome)
                if isinstance(deeper, OllamaError):
                    return deeper
                found += deeper
        return found


def _is_over_limit(outcome: Outcome) -> bool:
    return isinstance(outcome, OllamaError) and trouble_of(outcome) == "limit"


def _check_dimensions(settings: EmbeddingSettings, result: EmbedResult) -> None:
    """Servers ignore a `dimensions` the model cannot do, in silence."""
    asked, got = settings.dimensions, result.dimension
    if asked is not None and got is not None and got != asked:
        raise CapabilityError(
            f"The model {settings.model!r} ignores dimensions={asked}: its vectors have {got} numbers.",
            model=settings.model,
            hint="Leave dimensions unset, or choose a model that can shorten its vectors "
            "(nomic-embed-text v1.5, embeddinggemma, qwen3-embedding).",
        )
