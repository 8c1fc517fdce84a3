"""The network: httpx's connection pools and the two drivers of flows, one calling, one awaiting.

What comes out is bytes and our errors. Each async function differs from its twin only where it awaits.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx

from .endpoint import Endpoint, Translated
from .errors import ConfigurationError, OllamaError
from .flows import (
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
from .picture_fetch import fetch, fetch_async, resolve, resolve_async
from .pool import AsyncPool, Pool
from .requests import WireRequest
from .settings import ConnectionSettings
from .sockets import Exchange, Sockets, current, sweep, watch

__all__ = ["AsyncTransport", "Transport"]

T = TypeVar("T")

ERROR_BODY_LIMIT = 64 * 1024
# The first chunk of an answer is some hundred bytes; a line that is longer is waited for by the decoder.
_FIRST_LINE = 64 * 1024
_ERROR_BODY_S = 10.0
# What is left of a body after `done:true` is framing.
_LAST_BYTES_S = 2.0
_REDIRECTS = 3


class Opened:
    """A streamed response under way; iterate for its bytes, close it in any case."""

    def __init__(
        self, transport: Transport, request: WireRequest, response: httpx.Response, exchange: Exchange
    ) -> None:
        self._transport = transport
        self._response = response
        self._translated = Translated(transport.endpoint, request, exchange)
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
            if b"\n" in data or size > _FIRST_LINE:
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
        self._exchange.hurry(_LAST_BYTES_S)

    def abort(self) -> None:
        """Cut the connection while another thread reads from it."""
        self._exchange.abort()

    def close(self) -> None:
        """Give the connection back, or cut it when the answer is not at its end."""
        if not self._closed:
            self._closed = True
            try:
                self._response.close()
            finally:
                self._transport.slots.release()


class Transport:
    """Drives flows by calling: one connection pool, a semaphore in front of it."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.endpoint = Endpoint(settings)
        self.slots = threading.BoundedSemaphore(self.endpoint.max_connections)
        self._client: httpx.Client | None = settings.http_client
        self._pool: httpx.BaseTransport | None = None
        if self._client is None:
            pool, sockets = self._make_pool()
            self._pool = pool
            # Sockets of a client nobody closed are closed when it is collected.
            self._finalizer = weakref.finalize(self, _close_in, os.getpid(), pool, sockets)

    def _make_pool(self) -> tuple[httpx.BaseTransport, Sockets | None]:
        options = self.endpoint.pool_options()
        if self.endpoint.proxy is None:
            direct = Pool(httpx.URL(self.endpoint.url), options["verify"], options["socket_options"])
            return direct, direct.sockets
        try:
            pool = httpx.HTTPTransport(**options)
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            raise ConfigurationError(f"The proxy cannot be used: {error}.") from error
        return pool, watch(pool)

    def close(self) -> None:
        if self._pool is not None:
            self._finalizer()

    def run(self, flow: Flow[T]) -> T:
        """Drive a flow to its result."""
        try:
            step = next(flow)
            while True:
                try:
                    result = self._perform(step)
                except OllamaError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # a generator's return value is untyped here
        finally:
            flow.close()

    def _perform(self, step: Step) -> Any:
        if isinstance(step, Send):
            return self._send(step)
        if isinstance(step, OpenStream):
            return self._open(step.request)
        if isinstance(step, Close):
            return step.opened.close()
        if isinstance(step, Sleep):
            return time.sleep(step.seconds)
        if isinstance(step, Compute):
            return step.work()
        if isinstance(step, Resolve):
            return resolve(step)
        if isinstance(step, FetchPinned):
            return fetch(step)
        return self._parallel(step)

    def _parallel(self, step: Parallel) -> list[Any]:
        def settle(flow: Flow[Any]) -> Any:
            try:
                return self.run(flow)
            except OllamaError as error:
                return error

        if len(step.flows) == 1:
            return [settle(step.flows[0])]
        with ThreadPoolExecutor(min(step.limit, len(step.flows)), "ollama-dify") as pool:
            try:
                return list(pool.map(settle, step.flows))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _begin(self, request: WireRequest) -> tuple[httpx.Response, Exchange]:
        """Send a request; a successful response, its body unread, and a slot taken for it."""
        endpoint = self.endpoint
        sent = endpoint.build(request, None if self._client is None else self._client.headers)
        exchange = endpoint.exchange(request)
        wait = endpoint.slot_wait(request)
        if not self.slots.acquire(timeout=wait):
            raise endpoint.no_slot(request)
        try:
            with Translated(endpoint, request, exchange):
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
        for left in reversed(range(_REDIRECTS + 1)):
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

    def _send(self, step: Send) -> Answer:
        response, exchange = self._begin(step.request)
        try:
            with Translated(self.endpoint, step.request, exchange):
                pieces, size = [], 0
                for piece in response.stream:  # type: ignore[union-attr]  # a sync client gives a sync stream
                    pieces.append(piece)
                    size += len(piece)
                    if size > step.limit:
                        raise self.endpoint.too_long(step.request, step.limit)
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
        exchange.hurry(_ERROR_BODY_S)
        body = b""
        try:
            for piece in response.stream:  # type: ignore[union-attr]  # a sync client gives a sync stream
                body += piece
                if len(body) > ERROR_BODY_LIMIT or exchange.is_late:
                    break
        except httpx.HTTPError:
            pass
        return body[:ERROR_BODY_LIMIT]

    def _open(self, request: WireRequest) -> Opened:
        opened = Opened(self, request, *self._begin(request))
        try:
            opened.read_first()
        except BaseException:
            opened.close()
            raise
        return opened


def _close_in(pid: int, pool: httpx.BaseTransport, sockets: Sockets | None) -> None:
    """Close a pool; of one that a forked child inherited only the child's copies of the sockets."""
    if os.getpid() == pid:
        pool.close()
    elif sockets is not None:
        sockets.drop()


class AsyncOpened:
    """The async twin of `Opened`."""

    def __init__(
        self, transport: AsyncTransport, request: WireRequest, response: httpx.Response, exchange: Exchange
    ) -> None:
        self._transport = transport
        self._response = response
        self._translated = Translated(transport.endpoint, request, exchange)
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
            if b"\n" in data or size > _FIRST_LINE:
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
        self._exchange.hurry(_LAST_BYTES_S)

    def abort(self) -> None:
        """Cut the connection while another task reads from it."""
        self._exchange.abort()

    async def close(self) -> None:
        """Give the connection back, or cut it when the answer is not at its end."""
        if not self._closed:
            self._closed = True
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
        self._uses_aiohttp = settings.http_backend == "aiohttp"
        self._pool: httpx.AsyncBaseTransport | None = None
        self._guard: AsyncGenerator[None, None] | None = None

    async def _connect(self) -> None:
        """Make the pool; what reads files is done off the event loop."""
        if self.endpoint.needs_certificates:
            options = await asyncio.to_thread(self.endpoint.pool_options)
        else:
            options = self.endpoint.pool_options()
        if self._pool is not None:
            return
        self._pool = pool = self._make_pool(options)
        # Garbage collection then finds the pool alive, and its sockets are closed by the guard, not dropped.
        weakref.finalize(self, _let_go, pool)
        self._guard = _closing(pool)
        await self._guard.__anext__()

    def _make_pool(self, options: dict[str, Any]) -> httpx.AsyncBaseTransport:
        if self.endpoint.proxy is None and not self._uses_aiohttp:
            return AsyncPool(httpx.URL(self.endpoint.url), options["verify"], options["socket_options"])
        try:
            pool = _aiohttp_pool(options) if self._uses_aiohttp else httpx.AsyncHTTPTransport(**options)
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            raise ConfigurationError(f"The proxy cannot be used: {error}.") from error
        watch(pool)
        return pool

    async def aclose(self) -> None:
        if self._guard is not None:
            await self._guard.aclose()

    async def run(self, flow: Flow[T]) -> T:
        """Drive a flow to its result."""
        try:
            if self._client is None and self._pool is None:
                await self._connect()
            step = next(flow)
            while True:
                try:
                    result = await self._perform(step)
                except OllamaError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # a generator's return value is untyped here
        finally:
            flow.close()

    async def _perform(self, step: Step) -> Any:
        if isinstance(step, Send):
            return await self._send(step)
        if isinstance(step, OpenStream):
            return await self._open(step.request)
        if isinstance(step, Close):
            return await step.opened.close()
        if isinstance(step, Sleep):
            return await asyncio.sleep(step.seconds)
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

    async def _begin(self, request: WireRequest) -> tuple[httpx.Response, Exchange]:
        """Send a request; a successful response, its body unread, and a slot taken for it."""
        endpoint = self.endpoint
        sent = endpoint.build(request, None if self._client is None else self._client.headers)
        exchange = endpoint.exchange(request)
        if not await self.slots.acquire(endpoint.slot_wait(request)):
            raise endpoint.no_slot(request)
        try:
            with Translated(endpoint, request, exchange):
                response, exchange = await self._exchange(sent, exchange)
                try:
                    endpoint.body_follows(response.request, request, exchange)
                    if not 200 <= response.status_code < 300:
                        raise endpoint.failure(response, await self._error_body(response, exchange), request)
                    endpoint.check_encoding(response)
                except BaseException:
                    await response.aclose()
                    raise
        except BaseException as error:
            try:
                if not isinstance(error, Exception):
                    await sweep(self._pool)
            finally:
                self.slots.release()
            raise
        return response, exchange

    async def _exchange(self, sent: httpx.Request, exchange: Exchange) -> tuple[httpx.Response, Exchange]:
        """Send, following what redirects are allowed; once more where an idle connection was closed."""
        for left in reversed(range(_REDIRECTS + 1)):
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

    async def _send(self, step: Send) -> Answer:
        response, exchange = await self._begin(step.request)
        try:
            with Translated(self.endpoint, step.request, exchange):
                pieces, size = [], 0
                async for piece in response.stream:  # type: ignore[union-attr]  # async client, async stream
                    pieces.append(piece)
                    size += len(piece)
                    if size > step.limit:
                        raise self.endpoint.too_long(step.request, step.limit)
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
        exchange.hurry(_ERROR_BODY_S)
        body = b""
        try:
            async for piece in response.stream:  # type: ignore[union-attr]  # async client, async stream
                body += piece
                if len(body) > ERROR_BODY_LIMIT or exchange.is_late:
                    break
        except httpx.HTTPError:
            pass
        return body[:ERROR_BODY_LIMIT]

    async def _open(self, request: WireRequest) -> AsyncOpened:
        opened = AsyncOpened(self, request, *await self._begin(request))
        try:
            await opened.read_first()
        except BaseException:
            await opened.close()
            raise
        return opened


def _aiohttp_pool(options: dict[str, Any]) -> httpx.AsyncBaseTransport:
    try:
        from httpx_aiohttp import AiohttpTransport
    except ImportError as error:
        raise ConfigurationError(
            'http_backend="aiohttp" needs the extra: pip install "ollama-dify[aiohttp]".'
        ) from error
    proxy = None if options["proxy"] is None else httpx.Proxy(options["proxy"])
    return AiohttpTransport(verify=options["verify"], limits=options["limits"], proxy=proxy)
