"""One request over HTTP, and the network's half that is the same whether it blocks or awaits."""

from __future__ import annotations

import contextlib
import time
from typing import Generic, NoReturn, TypeVar

import httpx

from ..errors import OllamaError
from ..settings.model import Timeouts
from ..wire.requests import WireRequest
from .endpoint import Endpoint
from .network import ANSWER_LIMIT, Answer, CancelToken
from .state import RequestState, with_state
from .tracing import Span, begin_span

__all__ = ["HttpNetwork", "HttpStream"]

ERROR_BODY_LIMIT = 64 * 1024
# The first chunk of an answer is some hundred bytes; a line that is longer is waited for by the decoder.
FIRST_LINE = 64 * 1024
ERROR_BODY_S = 10.0
# What is left of a body after `done:true` is framing.
LAST_BYTES_S = 2.0
REDIRECTS = 3
LOOK_UP_S = 0.1
_LOST = (httpx.NetworkError, httpx.RemoteProtocolError)
_PASSED_ON = (OllamaError, MemoryError, StopIteration, StopAsyncIteration)


class HttpStream:
    """One request of a call: its place in the queue, its connection, its answer.

    It is made before anything is taken, and closing it gives back whatever was taken. Should an interrupt
    prevent that, its place in the queue goes when the object does.
    """

    def __init__(self, endpoint: Endpoint, request: WireRequest, token: CancelToken) -> None:
        self.endpoint = endpoint
        self.place = 0
        self.first = b""
        self.response: httpx.Response | None = None
        self._request = request
        self._token = token
        self._state = RequestState(token=token)
        self._sent = with_state(endpoint.build(request), self._state)
        self._finished = False
        self._span: Span | None = None

    async def start(self) -> None:
        """Take a slot, send the request, read the head of a successful answer."""
        await self._take_slot()
        endpoint, request, state = self.endpoint, self._request, self._state
        endpoint.set_deadline(state, request, self._token)
        self._token.under_way.add(state)
        if not endpoint.is_users_client:  # what instruments httpx has a span for that one
            self._span = begin_span(self._sent)
        try:
            state.check_wanted()
            response = await self._send()
        except Exception as error:
            self._fail(error)
        state.in_body = True
        limits = endpoint.errors.limits(request)
        if request.streamed:
            state.deadline, state.phase = self._token.deadline, "total"
        # From now on the wait is between pieces; this is read again for each.
        response.request.extensions["timeout"]["read"] = limits.idle
        if self._span is not None:
            self._span.status(response.status_code)
        if not 200 <= response.status_code < 300:
            raise endpoint.failure(response, await self._error_body(), request)
        endpoint.check_encoding(response)

    async def read_first(self) -> None:
        """Read the first line, so that what fails before a chunk is there can still be retried."""
        pieces: list[bytes] = []
        await self._collect(pieces, FIRST_LINE, line=True)
        self.first = b"".join(pieces)

    async def read_whole(self, limit: int) -> bytes:
        pieces: list[bytes] = []
        if await self._collect(pieces, limit) > limit:
            raise self.endpoint.errors.too_long(self._request, limit)
        return b"".join(pieces)

    def finish(self) -> None:
        """The answer is complete: what follows is framing, and neither waited for long nor missed."""
        self._finished = True
        self._end_span()
        self._state.hurry(LAST_BYTES_S)

    async def aclose(self) -> None:
        """Give the connection back, or cut it when the answer is not at its end; leave the queue."""
        # A late abort must not hit the connection's next request.
        self._state.cut = None
        self._token.under_way.discard(self._state)
        try:
            await self._close_response()
        finally:
            self.endpoint.slots.leave(self)
            self._end_span()

    def _end_span(self) -> None:
        if self._span is not None:
            self._span.end()

    async def _close_response(self) -> None:
        response, self.response = self.response, None
        if response is not None:
            await self._close(response)

    async def _take_slot(self) -> None:
        """Wait for a slot, as long as the limits allow and the call is wanted."""
        self.endpoint.slots.enter(self)
        if self.endpoint.slots.has_turn(self):
            return
        pool, total = self.endpoint.errors.limits(self._request).pool, self._token.left()
        pool = pool if self.endpoint.is_queue_timed else None
        phase = "pool" if total is None or (pool is not None and pool < total) else "total"
        wait = pool if phase == "pool" else total
        until = None if wait is None else time.monotonic() + wait
        while not (self.endpoint.slots.has_turn(self) or self._token.cancelled):
            left = LOOK_UP_S if until is None else min(until - time.monotonic(), LOOK_UP_S)
            if left <= 0:
                raise self.endpoint.errors.late(phase, self._request)
            await self._rest(left)

    async def _send(self) -> httpx.Response:
        """Send, following what redirects are allowed; once more where an idle connection was closed."""
        state = self._state
        for left in reversed(range(REDIRECTS + 1)):
            try:
                self.response = await self.endpoint.hand_over(self._sent)
            except _LOST:
                # The connection had served before, and no byte came back: it was closed while it was idle.
                if not state.reused or state.received:
                    raise
                state.reset()
                state.fresh = True  # where one had ended, others may have
                self.response = await self.endpoint.hand_over(self._sent)
            response = self.response
            again = self.endpoint.redirect(self._sent, response) if left else None
            if again is None:
                break
            await self._close_response()
            self._sent = again
            state.reset()
        self._begin(response)
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
        while size <= limit and (data := await self.read()) is not None:
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
        ours = self.endpoint.errors.translate(error, self._request, self._state)
        if self._span is not None:
            self._span.error(ours)
        raise ours from cause or error

    # What waits is another for the blocking and the awaiting network.

    def wake(self) -> None:
        """It may be this request's turn."""

    async def _rest(self, seconds: float) -> None:
        """Wait for `wake`, at most so long."""
        raise NotImplementedError

    def _begin(self, response: httpx.Response) -> None:
        """The head is here; the body is read next."""
        raise NotImplementedError

    async def read(self) -> bytes | None:
        """The next piece of the body; None at its end."""
        raise NotImplementedError

    async def _close(self, response: httpx.Response) -> None:
        raise NotImplementedError


S = TypeVar("S", bound=HttpStream)


class HttpNetwork(Generic[S]):
    """The network as one call sees it: `send`, `open` and the time until its deadline."""

    def __init__(self, endpoint: Endpoint, timeouts: Timeouts, token: CancelToken) -> None:
        self.token = token
        self._endpoint = endpoint
        self._timeouts = timeouts

    async def send(self, request: WireRequest, limit: int = ANSWER_LIMIT) -> Answer:
        stream = self._stream(request)
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

    async def open(self, request: WireRequest) -> S:
        stream = self._stream(request)
        try:
            await stream.start()
            await stream.read_first()
        except BaseException as error:
            await stream.aclose()
            self._check_wanted(error)
            raise
        return stream

    async def sleep(self, seconds: float) -> None:
        left = self.token.left()
        if left is not None and seconds >= left:
            raise self._endpoint.errors.late("total", WireRequest("", "", timeouts=self._timeouts))
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.token.cancelled:
            await self._pause(min(left, LOOK_UP_S))

    def _check_wanted(self, error: BaseException) -> None:
        """What fails because the call was cancelled is not tried again."""
        if self.token.cancelled and isinstance(error, OllamaError):
            error.retryable = False

    def _stream(self, request: WireRequest) -> S:
        raise NotImplementedError

    async def _pause(self, seconds: float) -> None:
        raise NotImplementedError
