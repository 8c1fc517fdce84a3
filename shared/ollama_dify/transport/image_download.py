"""Fetching an image: its host looked up and checked, its address pinned, all within the given time and size.

No cookies, no credentials, no proxy: only a GET to an address that was checked before.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any
from urllib.parse import urljoin

import httpx

from ..address import without_credentials
from ..errors import UnsupportedContentError
from ..media.urls import ParsedUrl, check_image_url, check_public_address
from .connection import AnySocket, target_of
from .endpoint import system_tls
from .pool import Pool
from .state import RequestState, with_state

__all__ = ["download", "resolve", "resolve_async"]

Addresses = Sequence[Any]  # as of socket.getaddrinfo
REDIRECTS = 3
FETCH_S = 10.0
"""An image's address may be slow or hostile: names, redirects and body come within this time."""


async def download(
    url: str,
    limit: int,
    where: str,
    seconds: float | None,
    *,
    resolve: Callable[[str, int, float], Awaitable[Addresses]],
    new_socket: Callable[[], AnySocket],
) -> bytes:
    """The bytes of an image.

    Every address of the host must be public, the connection goes to the one that was checked, each redirect
    is checked anew, and no credentials are sent.
    """
    state = RequestState(time.monotonic() + (FETCH_S if seconds is None else min(FETCH_S, seconds)))
    for _ in range(REDIRECTS + 1):
        target = check_image_url(url, where=where)
        found = await _looked_up(target, state, resolve)
        for ip in found:
            check_public_address(ip, where=where)
        if not found:
            raise UnsupportedContentError(f"{where}: the host {target.host!r} has no address.")
        try:
            answer = await _fetched(target, found[0], limit, state, new_socket)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            shown, why = without_credentials(target.url), str(error) or type(error).__name__
            raise UnsupportedContentError(
                f"The image at {shown} could not be fetched: {why}.",
                hint="Fetch it yourself and send its bytes.",
            ) from error
        if isinstance(answer, bytes):
            return answer
        url = urljoin(url, answer)
    raise UnsupportedContentError(f"{where}: the address redirects more than {REDIRECTS} times.")


async def _looked_up(
    target: ParsedUrl, state: RequestState, resolve: Callable[[str, int, float], Awaitable[Addresses]]
) -> list[str]:
    """The IP addresses of a host."""
    try:
        found = await resolve(target.host, target.port, _left(state))
    except (TimeoutError, FutureTimeoutError, asyncio.TimeoutError) as error:
        raise UnsupportedContentError(
            f"Looking up the host {target.host!r} of an image's address takes too long.",
            hint="Fetch the image yourself and send its bytes.",
        ) from error
    except (OSError, UnicodeError) as error:
        raise UnsupportedContentError(
            f"The host {target.host!r} of an image's address cannot be resolved: {error}."
        ) from error
    return list(dict.fromkeys(str(row[4][0]) for row in found))


def _left(state: RequestState) -> float:
    assert state.deadline is not None
    return max(state.deadline - time.monotonic(), 0.001)


async def resolve(host: str, port: int, limit_s: float) -> Addresses:
    """Look a host up, blocking."""
    found: Future[Addresses] = Future()

    def look_up() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.set_exception(error)

    # The system's resolver takes no timeout; a daemon thread that hangs in it holds up nobody.
    threading.Thread(target=look_up, name="image-host", daemon=True).start()
    return found.result(limit_s)


async def resolve_async(host: str, port: int, limit_s: float) -> Addresses:
    """The async twin of `resolve`."""
    await asyncio.to_thread(system_tls)  # reads files the first time
    looking_up = asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return await asyncio.wait_for(looking_up, limit_s)


async def _fetched(
    target: ParsedUrl, ip: str, limit: int, state: RequestState, new_socket: Callable[[], AnySocket]
) -> bytes | str:
    """GET an image of at most `limit` bytes from exactly this IP address; or where it redirects to."""
    url = httpx.URL(target.url)
    # The name of the host is for the server and for TLS.
    pool = Pool(target_of(url, system_tls())._replace(host=ip), new_socket)
    headers = {"Host": url.netloc.decode("ascii"), "Accept": "image/*", "Accept-Encoding": "identity"}
    phases = dict.fromkeys(("connect", "read", "write", "pool"), _left(state))
    request = httpx.Request("GET", url, headers=headers, extensions={"timeout": phases})

    def refused(what: str) -> UnsupportedContentError:
        return UnsupportedContentError(f"The image at {without_credentials(target.url)} {what}.")

    try:
        response = await pool.handle_async_request(with_state(request, state))
        if response.is_redirect and "location" in response.headers:
            return str(response.headers["location"])
        if response.status_code != 200:
            raise refused(f"answers {response.status_code}")
        pieces: list[bytes] = []
        size = 0
        async for piece in response.stream:  # type: ignore[union-attr]  # of our pool, blocking or not
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise refused(f"is over {limit} bytes")
            if state.is_late:
                raise refused("takes too long")
        return b"".join(pieces)
    finally:
        pool.drop()
