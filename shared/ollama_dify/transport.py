"""The network: httpx clients, their TLS, timeouts and errors, and the two drivers of flows.

Everything that knows httpx is here and in `client`. What comes out is bytes and our errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import sys
import threading
import time
import urllib.request
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx

from .address import is_loopback, is_private
from .advice import connection_advice, in_container
from .classify import error_from_response
from .errors import (
    ConfigurationError,
    ConnectionFailedError,
    IncompleteResponseError,
    OllamaError,
    ProtocolError,
    RequestTimeoutError,
    UnsupportedContentError,
)
from .flows import (
    Answer,
    Close,
    Compute,
    Fetched,
    FetchPinned,
    Flow,
    OpenStream,
    Parallel,
    Resolve,
    Send,
    Sleep,
    Step,
)
from .requests import StreamedBody, WireRequest, encode
from .retry import RetryQuota
from .settings import ConnectionSettings

__all__ = ["AsyncTransport", "Transport", "quota_for"]

T = TypeVar("T")

logger = logging.getLogger("ollama_dify")

ERROR_BODY_LIMIT = 64 * 1024
# Clocks and timers may differ by this much.
_CLOCK_STEP_S = 0.005
# What httpcore says of a body that ended before its end.
_CUT = "without sending complete message body"
_REDIRECTS = 3
# A picture's address may be slow or hostile: all of it within this time.
FETCH_S = 10.0
_KEEP_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), seconds)
    for name, seconds in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 4))
    if hasattr(socket, name)
]
_quotas: dict[str, RetryQuota] = {}


def quota_for(url: str) -> RetryQuota:
    """The retry quota of a server, shared by all clients of this process."""
    return _quotas.setdefault(url, RetryQuota())


@cache
def _system_tls() -> ssl.SSLContext:
    """One per process: loading the certificates costs some 20 ms."""
    return httpx.create_ssl_context()


@cache
def _no_tls() -> ssl.SSLContext:
    """For plain http: trusts nobody, and costs nothing to make."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A `StreamedBody` as httpx sends it; may be sent again."""

    def __init__(self, body: StreamedBody) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._body:
            yield piece


class Endpoint:
    """What of the settings a request needs, computed once: address, headers, TLS, proxy, timeouts."""

    def __init__(self, settings: ConnectionSettings) -> None:
        address = settings.address
        self.url = address.url
        self.source = address.source
        self.timeouts = settings.timeouts
        self.follow_redirects = settings.follow_redirects
        self.max_connections = settings.max_connections
        self.proxy = _proxy(settings)
        self.verify = _tls(settings, self.proxy)
        self._urls: dict[str, httpx.URL] = {}
        self._headers = _headers(settings)
        _warn_of_risks(settings, self._headers)

    def build(
        self, request: WireRequest, deadline: float | None, extra_headers: Mapping[str, str] | None = None
    ) -> httpx.Request:
        """The httpx request, with each phase's timeout."""
        url = self._urls.get(request.path)
        if url is None:
            url = self._urls[request.path] = httpx.URL(self.url + request.path)
        headers = {**(extra_headers or {}), **self._headers}
        limits = request.timeouts or self.timeouts
        phases = {
            "connect": _until(deadline, limits.connect),
            "read": _until(deadline, limits.first_byte if request.streamed else None),
            "write": _until(deadline, limits.idle),
            "pool": limits.pool,
        }
        if request.body is None:
            return httpx.Request(request.method, url, headers=headers, extensions={"timeout": phases})
        headers["content-type"] = "application/json"
        body = encode(request.body)
        if isinstance(body, bytes):
            return httpx.Request(
                request.method, url, headers=headers, content=body, extensions={"timeout": phases}
            )
        # httpx adds neither for a body of one's own.
        headers["Host"] = url.netloc.decode("ascii")
        headers["content-length"] = str(body.length)
        return httpx.Request(
            request.method, url, headers=headers, stream=_Body(body), extensions={"timeout": phases}
        )

    def deadline(self, request: WireRequest) -> float | None:
        """When the exchange must be over, on the monotonic clock."""
        total = (request.timeouts or self.timeouts).total
        return None if total is None else time.monotonic() + total

    def redirect(self, sent: httpx.Request, response: httpx.Response) -> httpx.Request | None:
        """The request to send instead, for a 307 or 308 within the same origin when that is wanted."""
        if not self.follow_redirects or response.status_code not in (307, 308):
            return None
        try:
            target = urljoin(str(sent.url), response.headers.get("location", ""))
            ours, theirs = urlsplit(str(sent.url)), urlsplit(target)
        except ValueError:
            return None
        if (ours.scheme, ours.netloc) != (theirs.scheme, theirs.netloc):
            return None
        return httpx.Request(
            sent.method, target, headers=sent.headers, stream=sent.stream, extensions=sent.extensions
        )

    def check_encoding(self, response: httpx.Response) -> None:
        """Compressed bodies are refused: they were not asked for and may unpack to any size."""
        encoding = response.headers.get("content-encoding", "identity")
        if encoding.strip().lower() not in ("", "identity"):
            raise ProtocolError(
                f"The answer is encoded as {encoding[:40]!r}, which was not asked for.",
                url=str(response.request.url),
                hint="A proxy may be compressing; switch that off for this server.",
            )

    def failure(self, response: httpx.Response, body: bytes, request: WireRequest) -> OllamaError:
        """The error for a response that is no success."""
        return error_from_response(
            response.status_code,
            response.headers,
            body,
            url=str(response.request.url),
            model=request.model,
            now_s=time.time(),
        )

    def translate(
        self, error: Exception, request: WireRequest, deadline: float | None, *, begun: bool = False
    ) -> OllamaError:
        """Our error for one of httpx's; the caller chains it.

        deadline: see `deadline`. begun: whether a body was being read that means success.
        """
        url = f"{self.url}{request.path}"
        if isinstance(error, httpx.TimeoutException):
            return self._timed_out(error, request, deadline, begun=begun)
        if begun and (isinstance(error, httpx.NetworkError) or _CUT in str(error)):
            return IncompleteResponseError(
                f"The connection to {url} broke in the middle of the answer: "
                f"{str(error) or type(error).__name__}.",
                url=url,
                model=request.model,
                retryable=True,
                hint="The server may have restarted or run out of memory, or a proxy cut the answer: see the "
                "logs. What had arrived is in the error's `partial`.",
            )
        if isinstance(error, (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError)):
            return ConfigurationError(f"The request to {url} cannot be sent: {error}.", url=url)
        if isinstance(error, httpx.ConnectError):
            return self._not_connected(error, request, url)
        if isinstance(error, httpx.ProxyError):
            return ConnectionFailedError(
                f"The proxy did not let the request through to {url}: {error}.",
                url=url,
                model=request.model,
                retryable=True,
                hint="Check proxy=, HTTP_PROXY and NO_PROXY.",
            )
        if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error).lower():
            return ProtocolError(
                f"The answer of {url} breaks the rules of HTTP: {error}.",
                url=url,
                model=request.model,
                hint="Is this an Ollama server? A proxy may have cut the answer short.",
            )
        return ConnectionFailedError(
            f"The connection to {url} broke: {str(error) or type(error).__name__}.",
            url=url,
            model=request.model,
            retryable=True,
            hint="The server may have restarted or run out of memory: see its log.",
        )

    def _timed_out(
        self, error: Exception, request: WireRequest, deadline: float | None, *, begun: bool = False
    ) -> RequestTimeoutError:
        if isinstance(error, httpx.PoolTimeout):
            phase = "pool"
        elif deadline is not None and time.monotonic() >= deadline - _CLOCK_STEP_S:
            phase = "total"
        elif isinstance(error, httpx.ConnectTimeout):
            phase = "connect"
        elif begun or isinstance(error, httpx.WriteTimeout):
            phase = "idle"
        else:
            phase = "first_byte"
        hint = {
            "connect": self._advice("timed out"),
            "pool": "Too many requests at once: raise max_connections, or close streams that are not read "
            "to their end.",
            "idle": "The server stopped in the middle: see its log, or raise Timeouts(idle=…).",
        }.get(phase, "Loading a model takes its time: raise timeout=, or call warmup() first.")
        seconds = getattr(request.timeouts or self.timeouts, phase)
        return RequestTimeoutError(
            f"{self.url}{request.path} did not answer in time: the limit for {phase} is {seconds} s.",
            phase=phase,
            url=f"{self.url}{request.path}",
            model=request.model,
            retryable=phase == "connect",
            hint=hint,
        )

    def _not_connected(self, error: Exception, request: WireRequest, url: str) -> ConnectionFailedError:
        causes = list(_causes(error))
        if any(isinstance(cause, socket.gaierror) for cause in causes):
            reason, passing = "the name cannot be resolved", False
        elif any(isinstance(cause, ssl.SSLError) for cause in causes):
            reason, passing = f"TLS failed ({error})", False
        elif any(isinstance(cause, ConnectionRefusedError) for cause in causes):
            reason, passing = "connection refused", True
        else:
            reason, passing = str(error) or type(error).__name__, True
        return ConnectionFailedError(
            f"No connection to {self.url}: {reason}.",
            url=url,
            model=request.model,
            retryable=passing,
            hint=self._advice(reason),
        )

    def _advice(self, reason: str) -> str:
        return connection_advice(
            self.url, source=self.source, in_container=in_container(), platform=sys.platform, reason=reason
        )


def _warn_of_risks(settings: ConnectionSettings, headers: Mapping[str, str]) -> None:
    address = settings.address
    if address.url.startswith("https:"):
        if settings.verify is False:
            logger.warning("The TLS certificate of %s is not verified (verify=False).", address.url)
    elif "authorization" in headers and not is_loopback(address.host):
        logger.warning("Credentials for %s travel unencrypted: use https.", address.url)


def _until(deadline: float | None, limit_s: float | None) -> float | None:
    """Seconds a phase may take: its own limit, and no longer than the whole exchange."""
    if deadline is None:
        return limit_s
    left = max(deadline - time.monotonic(), _CLOCK_STEP_S)
    return left if limit_s is None else min(limit_s, left)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _headers(settings: ConnectionSettings) -> dict[str, str]:
    """Names in lower case, as httpx has them, so that one replaces the other and none is sent twice."""
    headers = {
        "accept": "application/json, application/x-ndjson",
        "accept-encoding": "identity",
        "user-agent": "ollama-dify",
    }
    if settings.api_key is not None:
        headers["authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
    return {**headers, **{name.lower(): value for name, value in settings.headers.items()}}


def _proxy(settings: ConnectionSettings) -> str | None:
    """The proxy for this server: the one given, else the environment's unless the address is private."""
    if settings.proxy is not None:
        return _checked_proxy(settings.proxy.get_secret_value())
    host = settings.address.host
    if not settings.trust_env or is_private(host) or urllib.request.proxy_bypass(host):
        return None
    known = urllib.request.getproxies()
    found = known.get(urlsplit(settings.address.url).scheme) or known.get("all")
    return None if not found else _checked_proxy(found if "://" in found else f"http://{found}")


def _checked_proxy(url: str) -> str:
    """Raises ConfigurationError, without showing the address: it may hold a password."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https", "socks5", "socks5h") or not parsed.host:
        raise ConfigurationError(
            "The proxy (proxy=, or HTTP_PROXY and its kin) is no address that can be used.",
            hint="A good one looks like http://proxy.example:3128; proxy variables are ignored with "
            "trust_env=False.",
        )
    return url


def _tls(settings: ConnectionSettings, proxy: str | None) -> ssl.SSLContext:
    verify = settings.verify
    if isinstance(verify, ssl.SSLContext):
        return verify
    if not settings.address.url.startswith("https:") and not (proxy or "").startswith("https:"):
        return _no_tls()
    if verify is True:
        return _system_tls()
    if verify is False:
        return httpx.create_ssl_context(verify=False)
    try:
        return ssl.create_default_context(cafile=os.fspath(verify))
    except (OSError, ssl.SSLError, TypeError) as error:
        raise ConfigurationError(f"verify={verify!r} is no usable CA bundle: {error}.") from error


def _transport_options(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "verify": endpoint.verify,
        "proxy": endpoint.proxy,
        "socket_options": _KEEP_ALIVE,
        "limits": httpx.Limits(
            max_connections=endpoint.max_connections,
            max_keepalive_connections=endpoint.max_connections,
            keepalive_expiry=30.0,
        ),
    }


def _too_long(url: str, limit: int) -> ProtocolError:
    return ProtocolError(
        f"The answer of {url} is over {limit} bytes.",
        url=url,
        hint="An answer to this request is far shorter; is this an Ollama server?",
    )


def _idle_limit(endpoint: Endpoint, request: WireRequest, deadline: float | None) -> float | None:
    return _until(deadline, (request.timeouts or endpoint.timeouts).idle)


class Opened:
    """A streamed response under way; iterate for its bytes, close it in any case."""

    def __init__(
        self, transport: Transport, request: WireRequest, response: httpx.Response, deadline: float | None
    ) -> None:
        self._transport = transport
        self._request = request
        self._response = response
        self._deadline = deadline
        # httpcore reads this when it starts on the body; Ollama sends the head together with the first piece.
        response.request.extensions["timeout"]["read"] = _idle_limit(transport.endpoint, request, deadline)
        self._source = iter(response.stream)  # type: ignore[arg-type]  # a sync client gives a sync stream
        self._closed = False
        self.first = b""

    def read_first(self) -> None:
        self.first = next(self, b"")

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            data = next(self._source)
            if self._deadline is not None and time.monotonic() > self._deadline:
                raise httpx.ReadTimeout("")
            return data
        except StopIteration:
            raise
        except Exception as error:
            translate = self._transport.endpoint.translate
            raise translate(error, self._request, self._deadline, begun=True) from error

    def close(self) -> None:
        """Give the connection back, or cut it when the answer is not at its end."""
        if not self._closed:
            self._closed = True
            try:
                self._response.close()
            finally:
                self._transport.slots.release()


class Transport:
    """Drives flows by calling: one httpx.Client, a semaphore in front of its pool."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.endpoint = Endpoint(settings)
        self.slots = threading.BoundedSemaphore(self.endpoint.max_connections)
        self._own = settings.http_client is None
        if self._own:
            try:
                pool = httpx.HTTPTransport(**_transport_options(self.endpoint))
            except (ValueError, ImportError) as error:
                raise ConfigurationError(f"The proxy cannot be used: {error}.") from error
            self._client = httpx.Client(transport=pool, trust_env=False)
            # Sockets of a client nobody closed are closed when it is collected, in its own process.
            self._finalizer = weakref.finalize(self, _close_in, os.getpid(), self._client)
        else:
            self._client = settings.http_client

    def close(self) -> None:
        if self._own:
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
            with _unresolved(step):
                return _ips(socket.getaddrinfo(step.host, step.port, type=socket.SOCK_STREAM))
        if isinstance(step, FetchPinned):
            return self._fetch(step)
        return self._parallel(step)

    def _fetch(self, step: FetchPinned) -> Fetched:
        with (
            _not_fetched(step),
            httpx.HTTPTransport(verify=_system_tls()) as pool,
            httpx.Client(transport=pool, trust_env=False) as client,
        ):
            response = client.send(_picture_request(step), stream=True, follow_redirects=False)
            picture = _Picture(step, response)
            if picture.location is None:
                for piece in response.iter_raw():
                    picture.add(piece)
            response.close()
            return picture.fetched()

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

    def _begin(self, request: WireRequest, deadline: float | None) -> httpx.Response:
        limits = request.timeouts or self.endpoint.timeouts
        if not self.slots.acquire(timeout=_until(deadline, limits.pool)):
            raise self.endpoint.translate(httpx.PoolTimeout(""), request, deadline)
        try:
            return self._exchange(request, deadline)
        except OllamaError:
            self.slots.release()
            raise
        except Exception as error:
            self.slots.release()
            raise self.endpoint.translate(error, request, deadline) from error
        except BaseException:
            self.slots.release()
            raise

    def _exchange(self, request: WireRequest, deadline: float | None) -> httpx.Response:
        sent = self.endpoint.build(request, deadline, None if self._own else self._client.headers)
        response = self._client.send(sent, stream=True, follow_redirects=False)
        try:
            for _ in range(_REDIRECTS):
                again = self.endpoint.redirect(sent, response)
                if again is None:
                    break
                response.close()
                sent = again
                response = self._client.send(sent, stream=True, follow_redirects=False)
            self.endpoint.check_encoding(response)
            if not 200 <= response.status_code < 300:
                body = self._read(response, ERROR_BODY_LIMIT, deadline, cut=True)
                raise self.endpoint.failure(response, body, request)
        except BaseException:
            response.close()
            raise
        return response

    def _send(self, step: Send) -> Answer:
        deadline = self.endpoint.deadline(step.request)
        response = self._begin(step.request, deadline)
        try:
            return Answer(self._read(response, step.limit, deadline), response.headers)
        except OllamaError:
            raise
        except Exception as error:
            raise self.endpoint.translate(error, step.request, deadline, begun=True) from error
        finally:
            try:
                response.close()
            finally:
                self.slots.release()

    def _read(
        self, response: httpx.Response, limit: int, deadline: float | None, *, cut: bool = False
    ) -> bytes:
        pieces, size = [], 0
        for piece in response.stream:  # type: ignore[union-attr]  # a sync client gives a sync stream
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                if cut:
                    break
                raise _too_long(str(response.request.url), limit)
            if deadline is not None and time.monotonic() > deadline:
                raise httpx.ReadTimeout("")
        return b"".join(pieces)[:limit]

    def _open(self, request: WireRequest) -> Opened:
        deadline = self.endpoint.deadline(request)
        opened = Opened(self, request, self._begin(request, deadline), deadline)
        try:
            opened.read_first()
        except BaseException:
            opened.close()
            raise
        return opened


def _ips(found: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(str(row[4][0]) for row in found))


@contextlib.contextmanager
def _unresolved(step: Resolve) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeError) as error:
        raise UnsupportedContentError(
            f"The host {step.host!r} of a picture's address cannot be resolved: {error}."
        ) from error


@contextlib.contextmanager
def _not_fetched(step: FetchPinned) -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise UnsupportedContentError(
            f"The picture at {step.target.url[:120]} could not be fetched: {error or type(error).__name__}.",
            hint="Fetch it yourself and send its bytes.",
        ) from error


def _picture_request(step: FetchPinned) -> httpx.Request:
    """A request to the checked IP address that names the host, for the server and for TLS."""
    target = step.target
    url = httpx.URL(target.url)
    return httpx.Request(
        "GET",
        url.copy_with(host=step.ip),
        headers={"Host": url.netloc.decode("ascii"), "Accept": "image/*", "Accept-Encoding": "identity"},
        extensions={
            "sni_hostname": target.host,
            "timeout": dict.fromkeys(("connect", "read", "write", "pool"), FETCH_S),
        },
    )


class _Picture:
    """Collects a fetched picture within its bounds of time and size."""

    def __init__(self, step: FetchPinned, response: httpx.Response) -> None:
        self._step = step
        self._deadline = time.monotonic() + FETCH_S
        self._pieces: list[bytes] = []
        self._size = 0
        self.location = response.headers.get("location") if response.is_redirect else None
        if self.location is None and response.status_code != 200:
            raise self._refused(f"answers {response.status_code}")

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._step.limit:
            raise self._refused(f"is over {self._step.limit} bytes")
        if time.monotonic() > self._deadline:
            raise self._refused(f"takes over {FETCH_S} s")

    def fetched(self) -> Fetched:
        return Fetched(b"".join(self._pieces), self.location)

    def _refused(self, what: str) -> UnsupportedContentError:
        return UnsupportedContentError(f"The picture at {self._step.target.url[:120]} {what}.")


def _close_in(pid: int, client: httpx.Client) -> None:
    """Close a client, but not the copy that a forked child inherited."""
    if os.getpid() == pid:
        client.close()


class AsyncOpened:
    """The async twin of `Opened`."""

    def __init__(
        self,
        transport: AsyncTransport,
        request: WireRequest,
        response: httpx.Response,
        deadline: float | None,
    ) -> None:
        self._transport = transport
        self._request = request
        self._response = response
        self._deadline = deadline
        response.request.extensions["timeout"]["read"] = _idle_limit(transport.endpoint, request, deadline)
        self._source = response.stream.__aiter__()  # type: ignore[union-attr]  # async client, async stream
        self._closed = False
        self.first = b""

    async def read_first(self) -> None:
        with contextlib.suppress(StopAsyncIteration):
            self.first = await self.__anext__()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            data = await self._source.__anext__()
            if self._deadline is not None and time.monotonic() > self._deadline:
                raise httpx.ReadTimeout("")
            return data
        except StopAsyncIteration:
            raise
        except Exception as error:
            translate = self._transport.endpoint.translate
            raise translate(error, self._request, self._deadline, begun=True) from error

    async def close(self) -> None:
        """Give the connection back, or cut it when the answer is not at its end."""
        if not self._closed:
            self._closed = True
            try:
                await self._response.aclose()
            finally:
                self._transport.slots.release()


async def _closing(client: httpx.AsyncClient) -> AsyncGenerator[None, None]:
    """Closes a client when it is closed itself: by us, by garbage collection, or by the loop's end,
    which closes all async generators (`asyncio.run` does)."""
    try:
        yield
    finally:
        await client.aclose()


class AsyncTransport:
    """Drives flows by awaiting; belongs to one event loop."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.endpoint = Endpoint(settings)
        self.slots = asyncio.Semaphore(self.endpoint.max_connections)
        self._own = settings.http_async_client is None
        self._client: httpx.AsyncClient = (
            self._make_client(settings) if self._own else settings.http_async_client
        )
        self._guard: AsyncGenerator[None, None] | None = None

    def _make_client(self, settings: ConnectionSettings) -> httpx.AsyncClient:
        options = _transport_options(self.endpoint)
        try:
            if settings.http_backend == "aiohttp":
                return httpx.AsyncClient(transport=_aiohttp_transport(options), trust_env=False)
            return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(**options), trust_env=False)
        except (ValueError, ImportError) as error:
            raise ConfigurationError(f"The proxy cannot be used: {error}.") from error

    async def aclose(self) -> None:
        if self._guard is not None:
            await self._guard.aclose()

    async def run(self, flow: Flow[T]) -> T:
        """Drive a flow to its result."""
        if self._own and self._guard is None:
            self._guard = _closing(self._client)
            await self._guard.__anext__()
        try:
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
            with _unresolved(step):
                loop = asyncio.get_running_loop()
                return _ips(await loop.getaddrinfo(step.host, step.port, type=socket.SOCK_STREAM))
        if isinstance(step, FetchPinned):
            return await self._fetch(step)
        return await self._parallel(step)

    async def _fetch(self, step: FetchPinned) -> Fetched:
        with _not_fetched(step):
            async with (
                httpx.AsyncHTTPTransport(verify=_system_tls()) as pool,
                httpx.AsyncClient(transport=pool, trust_env=False) as client,
            ):
                response = await client.send(_picture_request(step), stream=True, follow_redirects=False)
                picture = _Picture(step, response)
                if picture.location is None:
                    async for piece in response.aiter_raw():
                        picture.add(piece)
                await response.aclose()
                return picture.fetched()

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

    async def _begin(self, request: WireRequest, deadline: float | None) -> httpx.Response:
        limits = request.timeouts or self.endpoint.timeouts
        if not self.slots.locked():
            # No waiting, hence no task to wait with.
            await self.slots.acquire()
        else:
            try:
                await asyncio.wait_for(self.slots.acquire(), _until(deadline, limits.pool))
            except asyncio.TimeoutError:
                raise self.endpoint.translate(httpx.PoolTimeout(""), request, deadline) from None
        try:
            return await self._exchange(request, deadline)
        except OllamaError:
            self.slots.release()
            raise
        except Exception as error:
            self.slots.release()
            raise self.endpoint.translate(error, request, deadline) from error
        except BaseException:
            self.slots.release()
            raise

    async def _exchange(self, request: WireRequest, deadline: float | None) -> httpx.Response:
        sent = self.endpoint.build(request, deadline, None if self._own else self._client.headers)
        response = await self._client.send(sent, stream=True, follow_redirects=False)
        try:
            for _ in range(_REDIRECTS):
                again = self.endpoint.redirect(sent, response)
                if again is None:
                    break
                await response.aclose()
                sent = again
                response = await self._client.send(sent, stream=True, follow_redirects=False)
            self.endpoint.check_encoding(response)
            if not 200 <= response.status_code < 300:
                body = await self._read(response, ERROR_BODY_LIMIT, deadline, cut=True)
                raise self.endpoint.failure(response, body, request)
        except BaseException:
            await response.aclose()
            raise
        return response

    async def _send(self, step: Send) -> Answer:
        deadline = self.endpoint.deadline(step.request)
        response = await self._begin(step.request, deadline)
        try:
            return Answer(await self._read(response, step.limit, deadline), response.headers)
        except OllamaError:
            raise
        except Exception as error:
            raise self.endpoint.translate(error, step.request, deadline, begun=True) from error
        finally:
            try:
                await response.aclose()
            finally:
                self.slots.release()

    async def _read(
        self, response: httpx.Response, limit: int, deadline: float | None, *, cut: bool = False
    ) -> bytes:
        pieces, size = [], 0
        async for piece in response.stream:  # type: ignore[union-attr]  # async client, async stream
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                if cut:
                    break
                raise _too_long(str(response.request.url), limit)
            if deadline is not None and time.monotonic() > deadline:
                raise httpx.ReadTimeout("")
        return b"".join(pieces)[:limit]

    async def _open(self, request: WireRequest) -> AsyncOpened:
        deadline = self.endpoint.deadline(request)
        opened = AsyncOpened(self, request, await self._begin(request, deadline), deadline)
        try:
            await opened.read_first()
        except BaseException:
            await opened.close()
            raise
        return opened


def _aiohttp_transport(options: Mapping[str, Any]) -> httpx.AsyncBaseTransport:
    try:
        from httpx_aiohttp import AiohttpTransport
    except ImportError as error:
        raise ConfigurationError(
            'http_backend="aiohttp" needs the extra: pip install "ollama-dify[aiohttp]".'
        ) from error
    return AiohttpTransport(verify=options["verify"], limits=options["limits"], proxy=options["proxy"])
