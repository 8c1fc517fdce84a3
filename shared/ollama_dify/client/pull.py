"""Having the server download a model: its progress lines, and the two generators that read them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import IncompleteResponseError, ModelNotFoundError, OllamaError
from ..language import _
from ..settings.model import ConnectionSettings
from ..transport.network import run
from ..wire.requests import WireRequest
from ..wire.responses import load_json
from ..wire.server_errors import ServerMessage, error_in_stream
from ..wire.streaming import LineSplitter

if TYPE_CHECKING:
    from ..transport.asynchronous import AsyncNetwork
    from ..transport.blocking import BlockingNetwork

__all__ = ["PullProgress", "apull", "pull"]


@dataclass(frozen=True, slots=True)
class PullProgress:
    """Where a download stands. status: the server's words. total, completed: bytes of the layer `digest`."""

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None

    @property
    def share(self) -> float | None:
        """How much of the layer is there, from 0 to 1."""
        return None if not self.total else min(1.0, (self.completed or 0) / self.total)


class _Decoder:
    """Bytes of the answer → progress; `close` raises unless the server said success."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._lines = LineSplitter()
        self._done = False

    def feed(self, data: bytes) -> Iterator[PullProgress]:
        yield from map(self._read, self._lines.feed(data))

    def close(self) -> Iterator[PullProgress]:
        yield from map(self._read, self._lines.flush())
        if not self._done:
            raise IncompleteResponseError(
                f"The download of {self._model!r} ended before its end.",
                model=self._model,
                retryable=True,
                hint=_("Pull again: what is there already is kept."),
            )

    def _read(self, line: bytes) -> PullProgress:
        value: Any = load_json(line)
        if not isinstance(value, dict) or "error" in value:
            raise self._error(value)
        status = str(value.get("status", ""))
        self._done = self._done or status == "success"
        numbers = [value.get(key) for key in ("total", "completed")]
        total, completed = (number if isinstance(number, int) else None for number in numbers)
        digest = value.get("digest")
        return PullProgress(status, digest if isinstance(digest, str) else None, total, completed)

    def _error(self, value: Any) -> OllamaError:
        text = str(value.get("error")) if isinstance(value, dict) else ""
        if "file does not exist" in text:
            return ModelNotFoundError(
                f"The registry has no model {self._model!r}: {text}.",
                model=self._model,
                hint=_("Check the name: models are listed at https://ollama.com/library"),
            )
        return error_in_stream(ServerMessage(text, {}), model=self._model)


def _request(settings: ConnectionSettings, model: str | None) -> WireRequest:
    """Checking a large layer says nothing for minutes, so that a line may take as long as an answer."""
    timeouts = settings.timeouts
    patient = timeouts.model_copy(update={"first_byte": timeouts.answer, "idle": timeouts.answer})
    name = model or getattr(settings, "model", None)
    body = {"model": name, "stream": True}
    return WireRequest("POST", "/api/pull", body, name, streamed=True, timeouts=patient)


def pull(
    settings: ConnectionSettings, network: Callable[[], BlockingNetwork], model: str | None
) -> Iterator[PullProgress]:
    """Progress until the model is there; leaving the loop early ends the download.

    network: makes the network of a call that begins now.
    """
    request = _request(settings, model)
    stream = run(network().open(request))
    decoder = _Decoder(request.model or "")
    try:
        yield from decoder.feed(stream.first)
        for data in stream:
            yield from decoder.feed(data)
        yield from decoder.close()
    finally:
        stream.close()


async def apull(
    settings: ConnectionSettings, network: Callable[[], AsyncNetwork], model: str | None
) -> AsyncIterator[PullProgress]:
    """The async twin of `pull`."""
    request = _request(settings, model)
    stream = await network().open(request)
    decoder = _Decoder(request.model or "")
    try:
        for progress in decoder.feed(stream.first):
            yield progress
        async for data in stream:
            for progress in decoder.feed(data):
                yield progress
        for progress in decoder.close():
            yield progress
    finally:
        await stream.aclose()
