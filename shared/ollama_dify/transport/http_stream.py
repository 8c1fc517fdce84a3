"""One request over HTTP, and the network's half that is the same whether it blocks or awaits."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, NoReturn

import httpx

from ..errors import OllamaError
from ..settings import Timeouts
from ..wire.requests import WireRequest
from .connection import RequestState, nothing
from .endpoint import Endpoint, system_tls
from .errors import check_encoding, failure, late, too_long, translate
from .image_download import Resolver, download
from .network import ANSWER_LIMIT, Answer, CancelToken, Network, countdown, run
from .sockets import AnySocket
from .tracing import begin_span, end_span

__all__ = ["HttpNetwork", "HttpStream"]

ERROR_BODY_LIMIT = 64 * 1024
# The first chunk of an answer is some hundred bytes; a line that is longer is waited for by the decoder.
FIRST_LINE = 64 * 1024
ERROR_BODY_S = 10.0
# What is left of a body after `done:true` is framing.
LAST_BYTES_S = 2.0
REDIRECTS = 3
LOOK_UP_S = 0.1
_PASSED_ON = (OllamaError, MemoryError, StopIteration, StopAsyncIteration)


class HttpStream:
    """One request of a call: its place in the queue, its connection, its answer.

    Iterate for the answer's bytes (on a blocking network with `for`, else with `async for`), and close it in
    any case. It is made before anything is taken, and closing it gives back whatever was taken. Should an
    interrupt prevent that, its place in the queue goes when the object does.
    """

    def __init__(self, network: HttpNetwork, request: WireRequest) -> None:
        self.place = 0
        self.first = b""
        self.response: httpx.Response | None = None
        self._network = network
        self._endpoint = network.endpoint
        self._request = request
        self._token = network.token
        self._state = RequestState(token=network.token)
        self._sent = network.endpoint.build(request, self._state)
        self._turn: Any = None
        self._source: Any = None
        self._finished = False
        self._span: Any = None
        self._status: int | None = None
        self._failed = ""

    async def start(self) -> None:
        """Take a slot, send the request, read the head of a successful answer."""
        await self._take_slot()
        endpoint, request, state = self._endpoint, self._request, self._state
        endpoint.set_deadline(state, request, self._token)
        self._token.under_way.add(state)
        if endpoint.client is None:  # what instruments httpx has a span for a client of the caller's
            self._span = begin_span(self._sent)
        try:
            state.begin()
            response = await self._send()
        except Exception as error:
            self._fail(error)
        state.in_body = True
        if request.streamed:
            state.deadline, state.phase = self._token.deadline, "total"
        # From now on the wait is between pieces; this is read again for each.
        response.request.extensions["timeout"]["read"] = endpoint.limits(request).idle
        body: Any = response.stream
        self._source = aiter(body) if self._network.awaits else iter(body)
        self._status = response.status_code
        if not 200 <= response.status_code < 300:
            raise failure(response, await self._error_body(), request)
        check_encoding(response)

    async def read_first(self) -> None:
        """Read the first line, so that what fails before a chunk is there can still be retried."""
        pieces: list[bytes] = []
        await self._collect(pieces, FIRST_LINE, line=True)
        self.first = b"".join(pieces)

    async def read_whole(self, limit: int) -> bytes:
        pieces: list[bytes] = []
        if await self._collect(pieces, limit) > limit:
            raise too_long(self._endpoint, self._request, limit)
        return b"".join(pieces)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return self._in_time(next(self._source))
        except Exception as error:
            if self._finished:
                raise StopIteration from None
            self._fail(error)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return self._in_time(await self._source.__anext__())
        except Exception as error:
            if self._finished:
                raise StopAsyncIteration from None
            self._fail(error)

    def _in_time(self, data: bytes) -> bytes:
        if self._state.is_late:
            raise httpx.ReadTimeout(self._state.phase)
        return data

    def finish(self) -> None:
        """The answer is complete: what follows is framing, and neither waited for long nor missed."""
        self._finished = True
        end_span(self._span, self._status, self._failed)
        self._state.hurry(LAST_BYTES_S)

    def close(self) -> None:
        run(self.aclose())

    async def aclose(self) -> None:
        """Give the connection back, or cut it when the answer is not at its end; leave the queue."""
        # Cutting late must not hit the connection's next request.
        self._state.cut = nothing
        self._token.under_way.discard(self._state)
        try:
            await self._close_response()
        finally:
            self._endpoint.slots.leave(self)
            end_span(self._span, self._status, self._failed)

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
        """Wait for a slot, as long as the limits allow and the call is wanted."""
        slots = self._endpoint.slots
        slots.enter(self)
        if slots.has_turn(self):
            return
        # From here on `wake` is heard; what came before it is looked at once more.
        self._turn = self._network.new_queue()
        pool = self._endpoint.limits(self._request).pool if self._endpoint.is_queue_timed else None
        total = self._token.left()
        phase = "pool" if total is None or (pool is not None and pool < total) else "total"
        left = countdown(pool if phase == "pool" else total)
        while not (slots.has_turn(self) or self._token.cancelled):
            try:
                limit_s = left(LOOK_UP_S)
            except TimeoutError:
                raise late(self._endpoint, phase, self._request) from None
            await self._network.wait_for(self._turn, limit_s)

    async def _send(self) -> httpx.Response:
        """Send, following what redirects are allowed."""
        for left in reversed(range(REDIRECTS + 1)):
            response = self.response = await self._endpoint.hand_over(self._sent)
            again = self._endpoint.redirect(self._sent, response) if left else None
            if again is None:
                break
            await self._close_response()
            self._sent = again
        return response

    async def _error_body(self) -> bytes:
        """As much of it as comes soon; the status alone says enough."""
        self._state.hurry(ERROR_BODY_S)
        pieces: list[bytes] = []
        with contextlib.suppress(OllamaError):
            await self._collect(pieces, ERROR_BODY_LIMIT)
        return b"".join(pieces)[:ERROR_BODY_LIMIT]

    async def _collect(self, pieces: list[bytes], limit: int, *, line: bool = False) -> int:
        """Read until over `limit` bytes, or to the end (with line: a line's); how many bytes there are."""
        size = 0
        while size <= limit:
            data = await anext(self, None) if self._network.awaits else next(self, None)
            if data is None:
                break
            pieces.append(data)
            size += len(data)
            if line and b"\n" in data:
                break
        return size

    def _fail(self, error: Exception) -> NoReturn:
        """Nothing but our errors gets out; where one of another library was, it is the cause."""
        if isinstance(error, _PASSED_ON):
            raise error
        # An error of ours in httpx's words only repeats the one below it.
        cause = error.__cause__ if isinstance(error, httpx.HTTPError) else None
        ours = translate(self._endpoint, error, self._request, self._state)
        self._failed = type(ours).__name__
        raise ours from cause or error


class HttpNetwork(Network):
    """The network as one call sees it; `BlockingNetwork` and `AsyncNetwork` say how it waits."""

    awaits: bool
    new_queue: type[Any]
    new_socket: type[AnySocket]
    resolve: Resolver

    def __init__(self, endpoint: Endpoint, timeouts: Timeouts, token: CancelToken) -> None:
        self.token = token
        self.endpoint = endpoint
        self._timeouts = timeouts

    async def send(self, request: WireRequest, limit: int = ANSWER_LIMIT) -> Answer:
        stream = HttpStream(self, request)
        try:
            await stream.start()
            body = await stream.read_whole(limit)
            assert stream.response is not None
            return Answer(body, stream.response.headers)
        except OllamaError as error:
            self._check_wanted(error)
            raise
        finally:
            await stream.aclose()

    async def open(self, request: WireRequest) -> HttpStream:
        stream = HttpStream(self, request)
        try:
            await stream.start()
            await stream.read_first()
        except BaseException as error:
            await stream.aclose()
            self._check_wanted(error)
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

    async def wait_for(self, queue: Any, limit_s: float | None) -> None:
        """Wait until there is something in a queue of `new_queue`, or the time is over."""
        raise NotImplementedError

    def _check_wanted(self, error: BaseException) -> None:
        """What fails because the call was cancelled is not tried again."""
        if self.token.cancelled and isinstance(error, OllamaError):
            error.retryable = False
