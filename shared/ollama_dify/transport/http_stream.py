"""One request over HTTP, and the part of the network that blocking and async code share."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, NoReturn

import httpx

from ..errors import OllamaError
from ..settings import Timeouts
from ..wire.requests import WireRequest
from .addresses import Resolver
from .endpoint import Endpoint, system_tls
from .errors import check, late, too_long, translate
from .image_download import download
from .network import ANSWER_LIMIT, CancelToken, Network, countdown, run
from .pool import RequestState
from .sockets import AnySocket

__all__ = ["HttpNetwork", "HttpStream"]

ERROR_BODY_LIMIT = 64 * 1024
# The first chunk of an answer has some hundred bytes; the decoder waits for the rest of a longer line.
FIRST_LINE = 64 * 1024
ERROR_BODY_S = 10.0
# Time to read the rest of a body after `done:true`, which is only framing.
LAST_BYTES_S = 2.0
REDIRECTS = 3
LOOK_UP_S = 0.1
_PASSED_ON = (OllamaError, MemoryError)


class HttpStream:
    """One request of a call: its place in the queue, its connection, its answer.

    Iterate for the answer's bytes (on a blocking network with `for`, else with `async for`), and always close
    it. It is created before a slot or connection is taken, and closing it returns both. If Ctrl-C prevents
    that, its place in the queue is freed with the object.
    """

    def __init__(self, network: HttpNetwork, request: WireRequest) -> None:
        self.place = 0
        self.first = b""
        self.response: httpx.Response | None = None
        self._network = network
        self._request = request
        self._state = RequestState(token=network.token)
        self._sent = network.endpoint.build(request, self._state)
        self._turn: Any = None
        self._source: Any = None
        self._finished = False
        self._span: Any = None
        self._failed = ""

    async def start(self) -> None:
        """Take a slot, send the request, read the head of a successful answer."""
        await self._take_slot()
        endpoint, token = self._network.endpoint, self._network.token
        request, state = self._request, self._state
        limits = endpoint.limits(request)
        state.deadline = token.deadline
        if request.streamed:
            state.hurry(limits.first_byte, "first_byte")
        else:
            state.hurry(limits.answer, "answer")
        token.under_way.add(state)
        if endpoint.client is None:  # instrumented httpx makes the span for a caller's client
            self._span = _begin_span(self._sent)
        try:
            state.begin()
            response = await self._send()
        except Exception as error:
            self._fail(error)
        state.in_body = True
        if request.streamed:
            state.deadline, state.phase = token.deadline, "total"
        # From now on the timeout is between pieces; it is read again for each piece.
        response.request.extensions["timeout"]["read"] = limits.idle
        source: Any = response.stream
        self._source = aiter(source) if self._network.awaits else iter(source)
        body = None
        if not 200 <= response.status_code < 300:
            # Only the part of the body that arrives soon, because the status alone may be enough.
            state.hurry(ERROR_BODY_S)
            body = (await self.collect(ERROR_BODY_LIMIT, lenient=True))[:ERROR_BODY_LIMIT]
        check(response, body, request)

    async def collect(self, limit: int, *, line: bool = False, lenient: bool = False) -> bytes:
        """Read until over `limit` bytes or the end. line: of a line; lenient: a failure ends it too."""
        pieces: list[bytes] = []
        size = 0
        with contextlib.suppress(*((OllamaError,) if lenient else ())):
            while size <= limit:
                data = await anext(self, None) if self._network.awaits else next(self, None)
                if data is None:
                    break
                pieces.append(data)
                size += len(data)
                if line and b"\n" in data:
                    break
        return b"".join(pieces)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            data: bytes = next(self._source)
            self._state.limit(None)
            return data
        except StopIteration:
            raise  # `_fail` would keep the error in its frame, and with it the answer, until a collection
        except Exception as error:
            if self._finished:
                raise StopIteration from None
            self._fail(error)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            data: bytes = await self._source.__anext__()
            self._state.limit(None)
            return data
        except StopAsyncIteration:
            raise
        except Exception as error:
            if self._finished:
                raise StopAsyncIteration from None
            self._fail(error)

    def finish(self) -> None:
        """The answer is complete: wait only briefly for the rest, which is framing; its loss is no error."""
        self._finished = True
        _end_span(self._span, self.response, self._failed)
        self._state.hurry(LAST_BYTES_S)

    def close(self) -> None:
        run(self.aclose())

    async def aclose(self) -> None:
        """Give the connection back, or close it if the answer is incomplete; leave the queue."""
        # A late `cancel` must not end the connection's next request.
        self._state.cut = None
        self._network.token.under_way.discard(self._state)
        try:
            _end_span(self._span, self.response, self._failed)
            await self._close_response()
        finally:
            self._network.endpoint.slots.leave(self)

    async def _close_response(self) -> None:
        response, self.response = self.response, None
        if response is not None and self._network.awaits:
            await response.aclose()
        elif response is not None:
            response.close()

    def wake(self) -> None:
        """It may be this request's turn."""
        if self._turn is not None:
            self._turn.put_nowait(None)

    async def _take_slot(self) -> None:
        """Wait for a slot, until a limit is reached or the call is cancelled."""
        endpoint, token = self._network.endpoint, self._network.token
        slots = endpoint.slots
        slots.enter(self)
        if slots.has_turn(self):
            return
        # From here on `wake` has an effect; a turn that came before is checked again.
        self._turn = self._network.new_queue()
        pool = endpoint.limits(self._request).pool if endpoint.is_queue_timed else None
        total = token.left()
        phase = "pool" if total is None or (pool is not None and pool < total) else "total"
        left = countdown(pool if phase == "pool" else total)
        while not (slots.has_turn(self) or token.cancelled):
            try:
                limit_s = left(LOOK_UP_S)
            except TimeoutError:
                raise late(endpoint, phase, self._request) from None
            await self._network.wait_for(self._turn, limit_s)

    async def _send(self) -> httpx.Response:
        """Send, and follow allowed redirects."""
        for left in reversed(range(REDIRECTS + 1)):
            response = self.response = await self._network.endpoint.hand_over(self._sent)
            again = self._network.endpoint.redirect(self._sent, response) if left else None
            if again is None:
                break
            await self._close_response()
            self._sent = again
        return response

    def _fail(self, error: Exception) -> NoReturn:
        """Raise our own error; an error of another library becomes its cause."""
        if isinstance(error, _PASSED_ON):
            raise error
        # An httpx error that our transport raised only repeats its own cause.
        cause = error.__cause__ if isinstance(error, httpx.HTTPError) else None
        ours = translate(self._network.endpoint, error, self._request, self._state)
        self._failed = type(ours).__name__
        raise ours from cause or error


def _begin_span(sent: httpx.Request) -> Any:
    """Begin an OpenTelemetry client span, put its `traceparent` into the headers.

    None without a provider, unless there is a span around the call, whose context is then sent.
    A program with a provider has already imported OpenTelemetry, so it is never imported here.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    # Checked first, because even a span without a provider takes longer than everything else here.
    is_unused = isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    if is_unused and not trace.get_current_span().get_span_context().is_valid:
        return None
    url = sent.url
    described = {
        "http.request.method": sent.method,
        "url.full": str(url),
        "server.address": url.host,
        "server.port": url.port or {"http": 80, "https": 443}.get(url.scheme, 0),
    }
    span = trace.get_tracer("ollama_dify").start_span(
        f"{sent.method} {url.path}", kind=trace.SpanKind.CLIENT, attributes=described
    )
    if not span.get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    importlib.import_module("opentelemetry.propagate").inject(carrier, trace.set_span_in_context(span))
    sent.headers.update(carrier)
    return span


def _end_span(span: Any, response: httpx.Response | None, failed: str) -> None:
    """Only the first call has an effect. failed: the error's class; its text may quote the server."""
    if span is None or not span.is_recording():
        return
    if response is not None:
        span.set_attribute("http.response.status_code", response.status_code)
        failed = str(response.status_code) if response.status_code >= 400 else failed
    if failed:
        span.set_attribute("error.type", failed)
        span.set_status(sys.modules["opentelemetry.trace"].StatusCode.ERROR)
    span.end()


class HttpNetwork(Network):
    """The network of one call; `BlockingNetwork` and `AsyncNetwork` define how it waits.

    wait_for: waits until a queue of `new_queue` has an item, or the time is over.
    """

    awaits: bool
    new_queue: type[Any]
    new_socket: type[AnySocket]
    resolve: Resolver
    wait_for: Callable[[Any, float | None], Awaitable[None]]

    def __init__(self, endpoint: Endpoint, timeouts: Timeouts, token: CancelToken) -> None:
        self.token = token
        self.endpoint = endpoint
        self._timeouts = timeouts

    async def send(self, request: WireRequest, limit: int = ANSWER_LIMIT) -> bytes:
        stream = await self.open(request, limit, line=False)
        await stream.aclose()
        if len(stream.first) > limit:
            raise too_long(self.endpoint, request, limit)
        return stream.first

    async def open(self, request: WireRequest, limit: int = FIRST_LINE, *, line: bool = True) -> HttpStream:
        limits, total = self.endpoint.limits(request), self._timeouts.total
        if limits.total != total:  # the call has its own, and this is a look-up of it
            request = replace(request, timeouts=limits.model_copy(update={"total": total}))
        stream = HttpStream(self, request)
        try:
            await stream.start()
            # Read at once, so that a failure before the first chunk can still be retried.
            stream.first = await stream.collect(limit, line=line)
        except BaseException as error:
            await stream.aclose()
            if self.token.cancelled and isinstance(error, OllamaError):
                error.retryable = False
            raise
        return stream

    async def fetch_image(self, url: str, *, limit: int, where: str) -> bytes:
        await self.compute(system_tls)  # reads files the first time
        return await download(url, limit, where, self.token, self.resolve, self.new_socket)

    async def sleep(self, seconds: float) -> None:
        total = self.token.left()
        if total is not None and seconds >= total:
            raise late(self.endpoint, "total", WireRequest("", "", timeouts=self._timeouts))
        left, never = countdown(seconds), self.new_queue()
        with contextlib.suppress(TimeoutError):
            while not self.token.cancelled:
                await self.wait_for(never, left(LOOK_UP_S))
