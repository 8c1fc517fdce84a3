"""Fetching a picture from a checked, pinned address, and looking up hosts: within 10 s and the given size."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from .endpoint import system_tls
from .errors import UnsupportedContentError
from .flows import Fetched, FetchPinned, Resolve
from .sockets import Exchange, current, watch

__all__ = ["fetch", "fetch_async", "resolve", "resolve_async"]

# A picture's address may be slow or hostile: all of it within this time.
FETCH_S = 10.0


def resolve(step: Resolve) -> list[str]:
    """The IP addresses of a host."""
    with _unresolved(step):
        return _ips(socket.getaddrinfo(step.host, step.port, type=socket.SOCK_STREAM))


async def resolve_async(step: Resolve) -> list[str]:
    """The async twin of `resolve`."""
    with _unresolved(step):
        loop = asyncio.get_running_loop()
        return _ips(await loop.getaddrinfo(step.host, step.port, type=socket.SOCK_STREAM))


def fetch(step: FetchPinned) -> Fetched:
    """GET a picture; a redirect is given back, not followed."""
    with _not_fetched(step), httpx.HTTPTransport(verify=system_tls()) as pool:
        picture = _Picture(step)
        watch(pool)
        current.set(picture.exchange)
        response = pool.handle_request(_request(step))
        try:
            picture.begin(response)
            for piece in () if picture.location else response.stream:  # type: ignore[union-attr]  # sync
                picture.add(piece)
        finally:
            response.close()
        return picture.fetched()


async def fetch_async(step: FetchPinned) -> Fetched:
    """The async twin of `fetch`."""
    tls = await asyncio.to_thread(system_tls)
    with _not_fetched(step):
        async with httpx.AsyncHTTPTransport(verify=tls) as pool:
            picture = _Picture(step)
            watch(pool)
            current.set(picture.exchange)
            response = await pool.handle_async_request(_request(step))
            try:
                picture.begin(response)
                if not picture.location:
                    async for piece in response.stream:  # type: ignore[union-attr]  # async
                        picture.add(piece)
            finally:
                await response.aclose()
            return picture.fetched()


class _Picture:
    """Collects a picture within its bounds of time and size."""

    def __init__(self, step: FetchPinned) -> None:
        self._step = step
        self.exchange = Exchange(time.monotonic() + FETCH_S)
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
            raise self._refused(f"takes over {FETCH_S} s")

    def fetched(self) -> Fetched:
        return Fetched(b"".join(self._pieces), self.location)

    def _refused(self, what: str) -> UnsupportedContentError:
        return UnsupportedContentError(f"The picture at {self._step.target.url[:120]} {what}.")


def _request(step: FetchPinned) -> httpx.Request:
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
