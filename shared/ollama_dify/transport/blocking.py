"""The network, called: a connection pool and the driver of flows. What comes out is bytes and our errors.

`async_transport` is its twin, which awaits and else differs in nothing.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import httpx

from ..errors import OllamaError
from ..settings.model import ConnectionSettings
from ..wire.requests import WireRequest
from .cancel import Stop
from .endpoint import KEEP_ALIVE, Endpoint
from .errors import Translated
from .exchange import Exchange, current
from .image_download import fetch, resolve
from .network import (
    Answer,
    Close,
    Compute,
    FetchPinned,
    Flow,
    OpenStream,
    Parallel,
    Resolve,
    Send,
    Sleep,
    Step,
)
from .pool import Pool

__all__ = ["Transport"]

T = TypeVar("T")

ERROR_BODY_LIMIT = 64 * 1024
# The first chunk of an answer is some hundred bytes; a line that is longer is waited for by the decoder.
FIRST_LINE = 64 * 1024
ERROR_BODY_S = 10.0
# What is left of a body after `done:true` is framing.
LAST_BYTES_S = 2.0
REDIRECTS = 3
LOOK_UP_S = 0.1
# More than a process has ports to one server.
_MOST_SLOTS = 65536


class Opened:
    """A streamed response under way; iterate for its bytes, close it in any case."""

    def __init__(
        self, transport: Transport, request: WireRequest, response: httpx.Response, exchange: Exchange
    ) -> None:
        self._transport = transport
        self._response = response
        self._translated = Translated(transport.endpoint.errors, request, exchange)
        self._exchange = exchange
        self._source = iter(response.stream)  # type: ignore[arg-type]  # a sync client gives a sync stream
        self._closed = False
        self._finished = False
        self.first = b""

    def read_first(self) -> None:
        """Read the first line, so that what fails before a chunk is there can still be retried."""
        pieces, size = [], 0
        for data in self:
            pieces.append(data)
            size += len(data)
            if b"\n" in data or size > FIRST_LINE:
                break
        self.first = b"".join(pieces)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            with self._translated:
                data = next(self._source)
                if self._exchange.is_late:
                    raise httpx.ReadTimeout("total")
                return data
        except OllamaError:
            if self._finished:
                raise StopIteration from None
            raise

    def finish(self) -> None:
        """The answer is complete: what follows is framing, and neither waited for long nor missed."""
        self._finished = True
        self._exchange.hurry(LAST_BYTES_S)

    def close(self) -> None:
        """Give the connection back, or cut it when the answer is not at its end."""
        if not self._closed:
            self._closed = True
            self._exchange.cut = None  # a late abort must not hit the connection's next exchange
            try:
                self._response.close()
            finally:
                self._transport.slots.release()


class _Slots:
    """A semaphore that may be released anywhere, even by garbage collection in the midst of `acquire`.

    That closes abandoned streams; threading's semaphore would then wait for ever for its own lock.
    """

    def __init__(self, count: int) -> None:
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(min(count, _MOST_SLOTS)):
            self._free.put(None)

    def acquire(self, timeout_s: float | None) -> bool:
        """Take a slot; False when there was none in time."""
        try:
            self._free.get(timeout=timeout_s)
        except Empty:
            return False
        return True

    def release(self) -> None:
        self._free.put(None)


class Transport:
    """Drives flows by calling: one connection pool, a semaphore in front of it."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.endpoint = Endpoint(settings)
        self.slots = _Slots(self.endpoint.max_connections)
        self._client: httpx.Client | None = settings.http_client
        self._pool: Pool | None = None
        if self._client is None:
            self._pool = pool = Pool(self.endpoint.target(), KEEP_ALIVE)
            # Sockets of a client nobody closed are closed when it is collected.
            self._finalizer = weakref.finalize(self, _close_in, os.getpid(), pool)

    def close(self) -> None:
        if self._pool is not None:
            self._finalizer()

    def run(self, flow: Flow[T], stop: Stop | None = None) -> T:
        """Drive a flow to its result; stop: ends it from elsewhere, with an error."""
        try:
            step = next(flow)
            while True:
                try:
                    result = self._perform(step, stop)
                except OllamaError as error:
                    if stop is not None and stop.asked:
                        error.retryable = False
                        raise
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # a generator's return value is untyped here
        finally:
            flow.close()

    def _perform(self, step: Step, stop: Stop | None) -> Any:
        if isinstance(step, Send):
            return self._send(step, stop)
        if isinstance(step, OpenStream):
            return self._open(step.request, stop)
        if isinstance(step, Close):
            return step.opened.close()
        if isinstance(step, Sleep):
            return _pause(step.seconds, stop)
        if isinstance(step, Compute):
            return step.work()
        if isinstance(step, Resolve):
            return resolve(step)
        if isinstance(step, FetchPinned):
            return fetch(step)
        return self._parallel(step)

    def _parallel(self, step: Parallel) -> list[Any]:
        stop = Stop()

        def settle(flow: Flow[Any]) -> Any:
            try:
                return self.run(flow, stop)
            except OllamaError as error:
                return error

        if len(step.flows) == 1:
            return [settle(step.flows[0])]
        with ThreadPoolExecutor(min(step.limit, len(step.flows)), "ollama-dify") as pool:
            try:
                return list(pool.map(settle, step.flows))
            except BaseException:
                # Ctrl-C: the workers are not waited for until their answers come.
                pool.shutdown(wait=False, cancel_futures=True)
                stop.now()
                raise

    def _begin(self, request: WireRequest, stop: Stop | None) -> tuple[httpx.Response, Exchange]:
        """Send a request; a successful response, its body unread, and a slot taken for it."""
        endpoint = self.endpoint
        sent = endpoint.build(request, None if self._client is None else self._client.headers)
        exchange = endpoint.exchange(request)
        wait = endpoint.slot_wait(request)
        if not self.slots.acquire(wait):
            raise endpoint.errors.no_slot(request)
        try:
            with Translated(endpoint.errors, request, exchange):
                if stop is not None:
                    exchange.end_with(stop)
                response, exchange = self._exchange(sent, exchange)
                try:
                    endpoint.body_follows(response.request, request, exchange)
                    if not 200 <= response.status_code < 300:
                        raise endpoint.failure(response, self._error_body(response, exchange), request)
                    endpoint.check_encoding(response)
                except BaseException:
                    response.close()
                    raise
        except BaseException:
            self.slots.release()
            raise
        return response, exchange

    def _exchange(self, sent: httpx.Request, exchange: Exchange) -> tuple[httpx.Response, Exchange]:
        """Send, following what redirects are allowed; once more where an idle connection was closed."""
        for left in reversed(range(REDIRECTS + 1)):
            try:
                response = self._hand_over(sent, exchange)
            except Exception as error:
                if not self.endpoint.may_replay(error, exchange):
                    raise
                exchange = exchange.again()
                response = self._hand_over(sent, exchange)
            again = self.endpoint.redirect(sent, response) if left else None
            if again is None:
                break
            response.close()
            sent, exchange = again, exchange.again()
        return response, exchange

    def _hand_over(self, sent: httpx.Request, exchange: Exchange) -> httpx.Response:
        current.set(exchange)
        if self._pool is None:
            assert self._client is not None
            return self._client.send(sent, stream=True, follow_redirects=False)
        # Past httpx.Client: no cookies kept from an answer, no authentication flow, no log line per call.
        response = self._pool.handle_request(sent)
        response.request = sent
        return response

    def _send(self, step: Send, stop: Stop | None) -> Answer:
        response, exchange = self._begin(step.request, stop)
        try:
            with Translated(self.endpoint.errors, step.request, exchange):
                pieces, size = [], 0
                for piece in response.stream:  # type: ignore[union-attr]  # a sync client gives a sync stream
                    pieces.append(piece)
                    size += len(piece)
                    if size > step.limit:
                        raise self.endpoint.errors.too_long(step.request, step.limit)
                    if exchange.is_late:
                        raise httpx.ReadTimeout("total")
                return Answer(b"".join(pieces), response.headers)
        finally:
            try:
                response.close()
            finally:
                self.slots.release()

    def _error_body(self, response: httpx.Response, exchange: Exchange) -> bytes:
        """As much of it as comes soon; the status alone says enough."""
        exchange.hurry(ERROR_BODY_S)
        body = b""
        try:
            for piece in response.stream:  # type: ignore[union-attr]  # a sync client gives a sync stream
                body += piece
                if len(body) > ERROR_BODY_LIMIT or exchange.is_late:
                    break
        except httpx.HTTPError:
            pass
        return body[:ERROR_BODY_LIMIT]

    def _open(self, request: WireRequest, stop: Stop | None) -> Opened:
        opened = Opened(self, request, *self._begin(request, stop))
        try:
            opened.read_first()
        except BaseException:
            opened.close()
            raise
        return opened


def _pause(seconds: float, stop: Stop | None) -> None:
    """Sleep, looking up now and then whether that is still wanted."""
    until = time.monotonic() + seconds
    left = seconds
    while left > 0 and (stop is None or not stop.asked):
        time.sleep(left if stop is None else min(left, LOOK_UP_S))
        left = until - time.monotonic()


def _close_in(pid: int, pool: Pool) -> None:
    """Close a pool; of one that a forked child inherited only the child's copies of the sockets."""
    if os.getpid() == pid:
        pool.close()
    else:
        pool.drop()
