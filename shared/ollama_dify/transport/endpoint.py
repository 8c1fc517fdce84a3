"""Values computed once from the settings: address, headers, TLS, proxy, limits; and the queue."""

from __future__ import annotations

import itertools
import logging
import os
import ssl
import urllib.request
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import cache, lru_cache, partial
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from ..address import is_loopback, is_private
from ..errors import ConfigurationError
from ..media.image import MediaFile
from ..settings import ConnectionSettings, Timeouts
from ..wire.requests import WireRequest, encode
from .pool import STATE, Pool, RequestState, Target

__all__ = ["Endpoint", "Slots", "is_look_up", "system_tls"]

logger = logging.getLogger("ollama_dify")

LOOK_UP_S = 60.0
_GOOD_PROXY = (
    "A good one looks like http://proxy.example:3128; proxy variables are ignored with trust_env=False."
)


class Endpoint:
    """A server as the settings describe it, and the queue in front of its connections."""

    connected: Callable[[], Awaitable[Pool]]  # used unless the caller gave a client

    def __init__(self, settings: ConnectionSettings, client: httpx.Client | httpx.AsyncClient | None) -> None:
        """client: the caller's own, whose headers are sent too."""
        address = settings.address
        self.url, self.source = address.url, address.source
        self.client = client
        self._timeouts = timeouts = settings.timeouts
        answer = LOOK_UP_S if timeouts.answer is None else min(timeouts.answer, LOOK_UP_S)
        self._look_up_timeouts = timeouts.model_copy(update={"answer": answer})
        self.max_connections = most = settings.max_connections
        requests_at_once = min(most, getattr(settings, "max_concurrency", most))
        # Waiting because of `max_concurrency` has no timeout: it lasts as long as the object's other calls.
        self.is_queue_timed = requests_at_once == most
        self.slots = Slots(requests_at_once)
        self._proxy = _proxy_of(settings)
        self.via = None if self._proxy is None else f"http://{self._proxy.url.netloc.decode('ascii')}"
        self._verify = settings.verify
        self._follow_redirects = settings.follow_redirects
        # Names in lower case as in httpx, so that no header is sent twice.
        self._headers = {
            **({} if client is None else client.headers),
            "accept": "application/json, application/x-ndjson",
            "accept-encoding": "identity",
            "user-agent": "ollama-dify",
            **settings.sent_headers(),
        }
        if self.url.startswith("http:"):
            if "authorization" in self._headers and not is_loopback(address.host):
                _warn_once(f"Credentials for {self.url} travel unencrypted: use https.")
        elif self._verify is False:
            _warn_once(
                f"The TLS certificate of {self.url} is not verified (verify=False): anybody on the way can "
                "read and change everything, credentials included. Better give verify= the path of its CA."
            )

    def target(self) -> Target:
        """Where the pool connects to; for https this reads files."""
        url, tls = _parsed(self.url), None
        if url.scheme == "https":
            tls = system_tls() if self._verify is True else _tls(self._verify)
        return Target(url, tls, self._proxy)

    def limits(self, request: WireRequest) -> Timeouts:
        """The timeouts of a request; a look-up is given at most a minute."""
        if request.timeouts is not None:
            return request.timeouts
        return self._look_up_timeouts if is_look_up(request) else self._timeouts

    def build(self, request: WireRequest, state: RequestState) -> httpx.Request:
        """The httpx request, with each phase's timeout."""
        url = _parsed(self.url + request.path)
        headers = dict(self._headers)
        limits = self.limits(request)
        # Our state's deadline limits the whole head; a client of httpx itself only knows this read timeout.
        bounds = (limits.first_byte if request.streamed else limits.answer, limits.total)
        read = min((bound for bound in bounds if bound is not None), default=None)
        phases = {"connect": limits.connect, "read": read, "write": limits.idle, "pool": limits.pool}
        more: dict[str, Any] = {"extensions": {"timeout": phases, STATE: state}}
        if request.body is not None:
            headers["content-type"] = "application/json"
            body = encode(request.body)
            if isinstance(body, bytes):
                more["content"] = body
            else:
                # httpx adds neither header for a custom body.
                stream = more["stream"] = _Body(body)
                headers["Host"] = url.netloc.decode("ascii")
                headers["content-length"] = str(stream.length)
        return httpx.Request(request.method, url, headers=headers, **more)

    async def hand_over(self, sent: httpx.Request) -> httpx.Response:
        """Send a request and read the response's head."""
        if isinstance(self.client, httpx.AsyncClient):
            return await self.client.send(sent, stream=True, follow_redirects=False)
        if self.client is not None:
            return self.client.send(sent, stream=True, follow_redirects=False)
        # Not by httpx.Client: no cookies kept from an answer, no authentication flow, no log line per call.
        return await (await self.connected()).handle_async_request(sent)

    def redirect(self, sent: httpx.Request, response: httpx.Response) -> httpx.Request | None:
        """The request to send instead, for a 307 or 308 within the same origin, if redirects are allowed."""
        location = response.headers.get("location")
        if not self._follow_redirects or response.status_code not in (307, 308) or not location:
            return None
        try:
            target = sent.url.join(location)
        except (httpx.InvalidURL, ValueError):
            return None
        if _origin(target) != _origin(sent.url) or target.userinfo:
            return None
        return httpx.Request(
            sent.method, target, headers=sent.headers, extensions=sent.extensions, stream=sent.stream
        )


class Slots:
    """A queue of places in order of arrival; owners of the first `count` places may use a connection.

    owner: has `place`, its number, and `wake()`, called when it may be its turn (from any thread, also after
    it stopped waiting). Safe if Ctrl-C comes between any two lines: one operation takes or leaves a place,
    and a collected owner loses it. No lock, because garbage collection may close a stream at any point.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._places: dict[int, weakref.ref[Any]] = {}
        self._numbers = itertools.count(1)

    def enter(self, owner: Any) -> None:
        """Take the last place."""
        number = owner.place = next(self._numbers)
        # `pop` is called as pop(number, dead reference): the reference is its default, so it never raises.
        self._places[number] = weakref.ref(owner, partial(self._places.pop, number))

    def has_turn(self, owner: Any) -> bool:
        """Whether the owner's place is a slot."""
        places = self._places
        return len(places) <= self._count or owner.place in list(places)[: self._count]

    def leave(self, owner: Any) -> None:
        """Give the place up and wake the owner that now has a slot. A second call does nothing."""
        left = self._places.pop(owner.place, None)
        if left is not None and len(self._places) >= self._count:
            for reference in list(self._places.values())[: self._count]:
                follower = reference()
                if follower is not None:
                    follower.wake()


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body with images, encoded while it is sent; may be sent again."""

    def __init__(self, pieces: Sequence[bytes | MediaFile]) -> None:
        self._pieces = pieces
        self.length = sum(len(piece) if isinstance(piece, bytes) else piece.base64_length for piece in pieces)

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            yield from (piece,) if isinstance(piece, bytes) else piece.base64_pieces()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


_parsed = lru_cache(maxsize=256)(httpx.URL)  # costs as much as sending a request does
_warn_once = cache(logger.warning)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port  # None for the scheme's own port


def is_look_up(request: WireRequest) -> bool:
    """Whether a request only asks for information, which the server answers without a model."""
    return request.method == "GET" or request.path == "/api/show"


def _tls(verify: Any) -> ssl.SSLContext:
    """The TLS context; a context of the caller is not changed."""
    if isinstance(verify, ssl.SSLContext):
        return verify
    try:
        if isinstance(verify, bool):
            made = httpx.create_ssl_context(verify)
        else:
            kind = "capath" if os.path.isdir(verify) else "cafile"
            made = ssl.create_default_context(**{kind: os.fspath(verify)})
    except (OSError, ssl.SSLError, TypeError, ValueError) as error:
        raise ConfigurationError(f"verify={verify!r} is no usable CA bundle: {error}.") from error
    made.set_alpn_protocols(["http/1.1"])
    return made


# One per process: loading the certificates costs some 20 ms.
system_tls = cache(partial(_tls, True))


def _proxy_of(settings: ConnectionSettings) -> httpx.Proxy | None:
    """The proxy given, else the environment's unless the address is private. Errors show no password."""
    given, host = settings.secret("proxy"), settings.address.host
    if given is None and settings.trust_env and not is_private(host):
        given = None if urllib.request.proxy_bypass(host) else _from_environment(settings.address.url)
    if given is None:
        return None
    address, given = SecretStr(given), None
    scheme = address.get_secret_value().partition("://")[0].lower()
    if scheme in ("https", "socks4", "socks5", "socks5h"):
        raise ConfigurationError(
            f"A proxy that is itself reached by {scheme}:// is not supported.",
            hint=f"Use the http:// port of the proxy, which carries https too. {_GOOD_PROXY}",
        )
    proxy = _parsed_proxy(address)
    if proxy is None:
        raise ConfigurationError(
            "The proxy (proxy=, or HTTP_PROXY and its kin) is no address that can be used.", hint=_GOOD_PROXY
        )
    return proxy


def _from_environment(url: str) -> str | None:
    known = urllib.request.getproxies()
    found = known.get(urlsplit(url).scheme) or known.get("all")
    if not found:
        return None
    return found if "://" in found else f"http://{found}"


def _parsed_proxy(address: SecretStr) -> httpx.Proxy | None:
    """None for what cannot be used; no error is raised while the password is in a local variable."""
    try:
        proxy = httpx.Proxy(address.get_secret_value())
    except (httpx.InvalidURL, ValueError):
        return None
    url = proxy.url
    # httpx encodes invalid characters of a host, but only in `raw_host`, and accepts any number as a port.
    host = url.host + url.raw_host.decode("ascii")
    port = 80 if url.port is None else url.port
    return proxy if url.scheme == "http" and host and "%" not in host and 0 < port < 65536 else None
