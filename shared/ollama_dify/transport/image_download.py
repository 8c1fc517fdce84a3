"""Fetching an image: resolve and check its host, connect to that address, with limits on time and size.

No cookies, no credentials, no proxy: only a GET to an address that was checked before.
"""

from __future__ import annotations

import contextlib
from urllib.parse import urljoin

import httpx

from ..address import without_credentials
from ..errors import UnsupportedContentError
from ..media.urls import ParsedUrl, check_image_url, check_public_address
from .addresses import Resolver
from .endpoint import system_tls
from .network import CancelToken
from .pool import STATE, Pool, RequestState, Target
from .sockets import AnySocket

__all__ = ["download"]

REDIRECTS = 3
FETCH_S = 10.0
"""Time limit for resolving, redirects and body together, because the server may be slow or hostile."""


async def download(
    url: str, limit: int, where: str, token: CancelToken, resolve: Resolver, new_socket: type[AnySocket]
) -> bytes:
    """The bytes of an image. Every address of its host, and of each redirect's host, must be public."""
    state = RequestState(token.deadline, token)
    state.hurry(FETCH_S)
    for _ in range(REDIRECTS + 1):
        target = check_image_url(url, where=where)
        try:
            found = await resolve(target.host, target.port, state.limit(None))
            addresses = list(dict.fromkeys(str(row[4][0]) for row in found))
            for ip in addresses:
                check_public_address(ip, where=where)
            answer = await _fetched(target, addresses[0], limit, state, new_socket)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            shown, why = without_credentials(target.url), str(error) or type(error).__name__
            if isinstance(error, (httpx.TimeoutException, TimeoutError)):
                why = "it takes too long"
            raise UnsupportedContentError(
                f"The image at {shown} could not be fetched: {why}.",
                hint="Fetch it yourself and send its bytes.",
            ) from error
        if isinstance(answer, bytes):
            return answer
        url = urljoin(url, answer)
    raise UnsupportedContentError(f"{where}: the address redirects more than {REDIRECTS} times.")


async def _fetched(
    target: ParsedUrl, ip: str, limit: int, state: RequestState, new_socket: type[AnySocket]
) -> bytes | str:
    """GET an image of at most `limit` bytes from exactly this IP address; returns it or its redirect."""
    url = httpx.URL(target.url)
    pool = Pool(Target(url, system_tls() if url.scheme == "https" else None, ip=ip), new_socket)
    headers = {"Host": url.netloc.decode("ascii"), "Accept": "image/*", "Accept-Encoding": "identity"}
    phases = dict.fromkeys(("connect", "read", "write"))  # the state's deadline is the only limit
    request = httpx.Request("GET", url, headers=headers, extensions={"timeout": phases, STATE: state})

    def refused(what: str) -> UnsupportedContentError:
        return UnsupportedContentError(f"The image at {without_credentials(target.url)} {what}.")

    try:
        response = await pool.handle_async_request(request)
        with contextlib.closing(response):
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
            return b"".join(pieces)
    finally:
        pool.close()
