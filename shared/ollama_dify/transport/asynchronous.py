"""The network, awaited: the twin of `transport`, for one event loop."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeVar

import httpx

from ..errors import OllamaError
from ..settings.model import ConnectionSettings
from ..wire.requests import WireRequest
from .blocking import ERROR_BODY_LIMIT, ERROR_BODY_S, FIRST_LINE, LAST_BYTES_S, LOOK_UP_S, REDIRECTS
from .cancel import Stop
from .endpoint import KEEP_ALIVE, Endpoint
from .errors import Translated
from .exchange import Exchange, current
from .image_download import fetch_async, resolve_async
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
from .pool import AsyncPool

__all__ = ["AsyncTransport"]

T = TypeVar("T")


class AsyncOpened:
    """The async twin of `Opened`."""

    def __init__(
        self, transport: AsyncTransport, request: WireRequest, response: httpx.Response, exchange: Exchange
    ) -> None:
        self._transport = transport
        self._response = response
        self._translated = Translated(transport.endpoint.errors, request, exchange)
        self._exchange = exchange
        self._source = response.stream.__aiter__()  # type: ignore[union-attr]  # async client, async stream
        self._closed = False
        self._finished = False
        self.first = b""

    async def read_first(self) -> None:
        """Read the first line, so that what fails before a chunk is there can still be retried."""
        pieces, size = [], 0
        async for data in self:
            pieces.append(data)
            size += len(data)
            if b"\n" in data or size > FIRST_LINE:
                break
        self.first = b"".join(pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            with self._translated:
                data = await self._source.__anext__()
                if self._exchange.is_late:
                    raise httpx.ReadTimeout("total")
                return data
        except OllamaError:
            if self._finished:
                raise StopAsyncIteration from None
            raise

    def finish(self) -> None:
        """The answer is complete: what follows is framing, and neither waited for long nor missed."""
        self._finished = True
        self._exchange.hurry(LAST_BYTES_S)

    async def close(self) -> None:
        """Give the connection back, or cut it when the answer is not at its end."""
        if not self._closed:
            self._closed = True
            self._exchange.cut = None  # a late abort must not hit the connection's next exchange
            try:
                await self._response.aclose()
            finally:
                self._transport.slots.release()


class _Slots:
    """A semaphore with a time limit that costs no task, and loses no slot to a cancelled wait."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[asyncio.Future[bool]] = deque()

    async def acquire(self, timeout_s: float | None) -> bool:
        """Take a slot, in order of arrival; False when there was none in time."""
        if self._free:
            self._free -= 1
            return True
        loop = asyncio.get_running_loop()
        place: asyncio.Future[bool] = loop.create_future()
        self._waiting.append(place)
        timer = None if timeout_s is None else loop.call_later(timeout_s, _give_up, place)
        try:
            return await place
        except asyncio.CancelledError:
            if not place.cancelled() and place.result():
                self.release()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def release(self) -> None:
        """Hand the slot to who waits longest."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(True)
                return
        self._free += 1


def _give_up(place: asyncio.Future[bool]) -> None:
    if not place.done():
        place.set_result(False)


async def _closing(pool: httpx.AsyncBaseTransport) -> AsyncGenerator[None, None]:
    """Closes a pool when it is closed itself: by us, by garbage collection, or by the loop's end,
    which closes all async generators (`asyncio.run` does)."""
    try:
        yield
    finally:
        await pool.aclose()


def _let_go(pool: httpx.AsyncBaseTransport) -> None:
    """The end of a reference that outlives its owner."""


class AsyncTransport:
    """Drives flows by awaiting; belongs to one event loop."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.endpoint = Endpoint(settings)
        self.slots = _Slots(self.endpoint.max_connections)
        self._client: httpx.AsyncClient | None = settings.http_async_client
        self._pool: AsyncPool | None = None
        self._guard: AsyncGenerator[None, None] | None = None

    async def _connect(self) -> None:
        """Make the pool; what reads files is done off the event loop."""
        if self.endpoint.needs_certificates:
            target = await asyncio.to_thread(self.endpoint.target)
        else:
            target = self.endpoint.target()
        if self._pool is not None:
            return
        self._pool = pool = AsyncPool(target, KEEP_ALIVE)
        # Garbage collection then finds the pool alive, and its sockets are closed by the guard, not dropped.
        weakref.finalize(self, _let_go, pool)
        self._guard = _closing(pool)
        await self._guard.__anext__()

    async def aclose(self) -> None:
        if self._guard is not None:
            await self._guard.aclose()

    async def run(self, flow: Flow[T], stop: Stop | None = None) -> T:
        """Drive a flow to its result; stop: ends it from elsewhere, with an error."""
        try:
            if self._client is None and self._pool is None:
                await self._connect()
            step = next(flow)
            while True:
                try:
                    result = await self._perform(step, stop)
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

    async def _perform(self, step: Step, stop: Stop | None) -> Any:
        if isinstance(step, Send):
            return await self._send(step, stop)
        if isinstance(step, OpenStream):
            return await self._open(step.request, stop)
        if isinstance(step, Close):
            return await step.opened.close()
        if isinstance(step, Sleep):
            return await _pause(step.seconds, stop)
        if isinstance(step, Compute):
            return await asyncio.to_thread(step.work)
        if isinstance(step, Resolve):
            return await resolve_async(step)
        if isinstance(step, FetchPinned):
            return await fetch_async(step)
        return await self._parallel(step)

    async def _parallel(self, step: Parallel) -> list[Any]:
        gate = asyncio.Semaphore(step.limit)

        async def settle(flow: Flow[Any]) -> Any:
            async with gate:
                try:
                    return await self.run(flow)
                except OllamaError as error:
                    return error

        tasks = [asyncio.ensure_future(settle(flow)) for flow in step.flows]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _begin(self, request: WireRequest, stop: Stop | None) -> tuple[httpx.Response, Exchange]:
        """Send a request; a successful response, its body unread, and a slot taken for it."""
        endpoint = self.endpoint
        sent = endpoint.build(request, None if self._client is None else self._client.headers)
        exchange = endpoint.exchange(request)
        if not await self.slots.acquire(endpoint.slot_wait(request)):
            raise endpoint.errors.no_slot(request)
        try:
            with Translated(endpoint.errors, request, exchange):
                if stop is not None:
                    exchange.end_with(stop)
                response, exchange = await self._exchange(sent, exchange)
                try:
                    endpoint.body_follows(response.request, request, exchange)
                    if not 200 <= response.status_code < 300:
                        raise endpoint.failure(response, await self._error_body(response, exchange), request)
                    endpoint.check_encoding(response)
                except BaseException:
                    await response.aclose()
                    raise
        except BaseException:
            self.slots.release()
            raise
        return response, exchange

    async def _exchange(self, sent: httpx.Request, exchange: Exchange) -> tuple[httpx.Response, Exchange]:
        """Send, following what redirects are allowed; once more where an idle connection was closed."""
        for left in reversed(range(REDIRECTS + 1)):
            try:
                response = await self._hand_over(sent, exchange)
            except Exception as error:
                if not self.endpoint.may_replay(error, exchange):
                    raise
                exchange = exchange.again()
                response = await self._hand_over(sent, exchange)
            again = self.endpoint.redirect(sent, response) if left else None
            if again is None:
                break
            await response.aclose()
            sent, exchange = again, exchange.again()
        return response, exchange

    async def _hand_over(self, sent: httpx.Request, exchange: Exchange) -> httpx.Response:
        current.set(exchange)
        if self._pool is None:
            assert self._client is not None
            return await self._client.send(sent, stream=True, follow_redirects=False)
        response = await self._pool.handle_async_request(sent)
        response.request = sent
        return response

    async def _send(self, step: Send, stop: Stop | None) -> Answer:
        response, exchange = await self._begin(step.request, stop)
        try:
            with Translated(self.endpoint.errors, step.request, exchange):
                pieces, size = [], 0
                async for piece in response.stream:  # type: ignore[union-attr]  # async client, async stream
                    pieces.append(piece)
                    size += len(piece)
                    if size > step.limit:
                        raise self.endpoint.errors.too_long(step.request, step.limit)
                    if exchange.is_late:
                        raise httpx.ReadTimeout("total")
                return Answer(b"".join(pieces), response.headers)
        finally:
            try:
                await response.aclose()
            finally:
                self.slots.release()

    async def _error_body(self, response: httpx.Response, exchange: Exchange) -> bytes:
        """As much of it as comes soon; the status alone says enough."""
        exchange.hurry(ERROR_BODY_S)
        body = b""
        try:
            async for piece in response.stream:  # type: ignore[union-attr]  # async client, async stream
                body += piece
                if len(body) > ERROR_BODY_LIMIT or exchange.is_late:
                    break
        except httpx.HTTPError:
            pass
        return body[:ERROR_BODY_LIMIT]

    async def _open(self, request: WireRequest, stop: Stop | None) -> AsyncOpened:
        opened = AsyncOpened(self, request, *await self._begin(request, stop))
        try:
            await opened.read_first()
        except BaseException:
            await opened.close()
            raise
        return opened


async def _pause(seconds: float, stop: Stop | None) -> None:
    """Sleep, looking up now and then whether that is still wanted."""
    until = time.monotonic() + seconds
    left = seconds
    while left > 0 and (stop is None or not stop.asked):
        await asyncio.sleep(left if stop is None else min(left, LOOK_UP_S))
        left = until - time.monotonic()
