"""Fetching an image: its host looked up and checked, its address pinned, all within the given time and size.

No cookies, no credentials, no proxy, no redirects: only a GET to an address that was checked before.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urljoin

import httpx

from ..errors import UnsupportedContentError
from ..media.urls import ParsedUrl, check_image_url, check_public_address
from .connection import Target
from .endpoint import system_tls
from .exchange import Exchange, current
from .pool import AsyncPool, Pool, target_of

__all__ = ["download", "fetch", "fetch_async", "resolve", "resolve_async"]

REDIRECTS = 3
FETCH_S = 10.0
"""An image's address may be slow or hostile: names, redirects and body come within this time."""


@dataclass(slots=True)
class TimeLeft:
    """Seconds that several steps may take together; each takes off what it took."""

    seconds: float


class Resolve(NamedTuple):
    """Look a host up."""

    host: str
    port: int
    within: TimeLeft


class FetchPinned(NamedTuple):
    """GET an image of at most `limit` bytes from exactly this IP address."""

    target: ParsedUrl
    ip: str
    limit: int
    within: TimeLeft


class Fetched(NamedTuple):
    """A body, or where it redirects to."""

    body: bytes = b""
    location: str | None = None


async def download(
    url: str,
    limit: int,
    where: str,
    seconds: float | None,
    *,
    resolve: Callable[[Resolve], Awaitable[list[str]]],
    fetch: Callable[[FetchPinned], Awaitable[Fetched]],
) -> bytes:
    """The bytes of an image.

    Every address of the host must be public, the connection goes to the one that was checked, each redirect
    is checked anew, and no credentials are sent.
    """
    within = TimeLeft(FETCH_S if seconds is None else min(FETCH_S, seconds))
    for _ in range(REDIRECTS + 1):
        target = check_image_url(url, where=where)
        found = await resolve(Resolve(target.host, target.port, within))
        for ip in found:
            check_public_address(ip, where=where)
        if not found:
            raise UnsupportedContentError(f"{where}: the host {target.host!r} has no address.")
        answer = await fetch(FetchPinned(target, found[0], limit, within))
        if answer.location is None:
            return answer.body
        url = urljoin(url, answer.location)
    raise UnsupportedContentError(f"{where}: the address redirects more than {REDIRECTS} times.")


def resolve(step: Resolve) -> list[str]:
    """The IP addresses of a host."""
    with _unresolved(step), _timed(step.within):
        found: Future[list[Any]] = Future()

        def look_up() -> None:
            try:
                found.set_result(socket.getaddrinfo(step.host, step.port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                found.set_exception(error)

        # The system's resolver takes no timeout; a daemon thread that hangs in it holds up nobody.
        threading.Thread(target=look_up, name="image-host", daemon=True).start()
        return _ips(found.result(max(step.within.seconds, 0)))


async def resolve_async(step: Resolve) -> list[str]:
    """The async twin of `resolve`."""
    with _unresolved(step), _timed(step.within):
        loop = asyncio.get_running_loop()
        looking_up = loop.getaddrinfo(step.host, step.port, type=socket.SOCK_STREAM)
        return _ips(await asyncio.wait_for(looking_up, max(step.within.seconds, 0)))


def fetch(step: FetchPinned) -> Fetched:
    """GET an image; a redirect is given back, not followed."""
    with _not_fetched(step), _timed(step.within), Pool(_target(step), ()) as pool:
        image = _Download(step)
        current.set(image.exchange)
        response = pool.handle_request(_request(step))
        try:
            image.begin(response)
            for piece in () if image.location else response.stream:  # type: ignore[union-attr]  # sync
                image.add(piece)
        finally:
            response.close()
        return image.fetched()


async def fetch_async(step: FetchPinned) -> Fetched:
    """The async twin of `fetch`."""
    await asyncio.to_thread(system_tls)  # reads files the first time
    with _not_fetched(step), _timed(step.within):
        async with AsyncPool(_target(step), ()) as pool:
            image = _Download(step)
            current.set(image.exchange)
            response = await pool.handle_async_request(_request(step))
            try:
                image.begin(response)
                if not image.location:
                    async for piece in response.stream:  # type: ignore[union-attr]  # async
                        image.add(piece)
            finally:
                await response.aclose()
            return image.fetched()


class _Download:
    """Collects an image within its bounds of time and size."""

    def __init__(self, step: FetchPinned) -> None:
        self._step = step
        self.exchange = Exchange(time.monotonic() + step.within.seconds)
        self._pieces: list[bytes] = []
        self._size = 0
        self.location: str | None = None

    def begin(self, response: httpx.Response) -> None:
        """The head is here."""
        self.exchange.in_body = True
        self.location = response.headers.get("location") if response.is_redirect else None
        if self.location is None and response.status_code != 200:
            raise self._refused(f"answers {response.status_code}")

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._step.limit:
            raise self._refused(f"is over {self._step.limit} bytes")
        if self.exchange.is_late:
            raise self._refused("takes too long")

    def fetched(self) -> Fetched:
        return Fetched(b"".join(self._pieces), self.location)

    def _refused(self, what: str) -> UnsupportedContentError:
        return UnsupportedContentError(f"The image at {self._step.target.url[:120]} {what}.")


def _target(step: FetchPinned) -> Target:
    """The checked IP address, under the name of the host."""
    return target_of(httpx.URL(step.target.url), system_tls())._replace(host=step.ip)


def _request(step: FetchPinned) -> httpx.Request:
    """A request to the checked IP address that names the host, for the server and for TLS."""
    target = step.target
    url = httpx.URL(target.url)
    return httpx.Request(
        "GET",
        url,
        headers={"Host": url.netloc.decode("ascii"), "Accept": "image/*", "Accept-Encoding": "identity"},
        extensions={
            "timeout": dict.fromkeys(("connect", "read", "write", "pool"), max(step.within.seconds, 0.001)),
        },
    )


def _ips(found: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(str(row[4][0]) for row in found))


@contextlib.contextmanager
def _timed(within: TimeLeft) -> Iterator[None]:
    """Take the time that passes off what is left."""
    began = time.monotonic()
    try:
        yield
    finally:
        within.seconds -= time.monotonic() - began


@contextlib.contextmanager
def _unresolved(step: Resolve) -> Iterator[None]:
    try:
        yield
    except (TimeoutError, FutureTimeoutError, asyncio.TimeoutError) as error:
        raise UnsupportedContentError(
            f"Looking up the host {step.host!r} of an image's address takes too long.",
            hint="Fetch the image yourself and send its bytes.",
        ) from error
    except (OSError, UnicodeError) as error:
        raise UnsupportedContentError(
            f"The host {step.host!r} of an image's address cannot be resolved: {error}."
        ) from error


@contextlib.contextmanager
def _not_fetched(step: FetchPinned) -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise UnsupportedContentError(
            f"The image at {step.target.url[:120]} could not be fetched: {error or type(error).__name__}.",
            hint="Fetch it yourself and send its bytes.",
        ) from error
