"""The proxy on the way to a server: the one given, else the environment's."""

from __future__ import annotations

import http.client
import urllib.request
from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes, urlsplit

import httpx
from pydantic import SecretStr

from ..address import is_private
from ..errors import ConfigurationError
from ..settings.connection import ConnectionSettings

__all__ = ["Proxy", "ProxyRefusedError", "proxy_of"]

_EXAMPLE = (
    "A good one looks like http://proxy.example:3128; proxy variables are ignored with trust_env=False."
)


@dataclass(frozen=True, slots=True)
class Proxy:
    """headers: what it alone gets, its credentials."""

    host: str
    port: int
    headers: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


class ProxyRefusedError(httpx.ProxyError):
    """The proxy answered CONNECT with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"it answers {status} {http.client.responses.get(status, '')}".rstrip())
        self.status = status


def proxy_of(settings: ConnectionSettings) -> Proxy | None:
    """The proxy given, else the environment's unless the address is private.

    Raises ConfigurationError, without showing the address: it may hold a password.
    """
    address = _address(settings)
    if address is None:
        return None
    scheme = address.get_secret_value().partition("://")[0].lower()
    if scheme in ("https", "socks4", "socks5", "socks5h"):
        raise ConfigurationError(
            f"A proxy that is itself reached by {scheme}:// is not supported.",
            hint=f"Use the http:// port of the proxy, which carries https too. {_EXAMPLE}",
        )
    proxy = _parsed(address)
    if proxy is None:
        raise ConfigurationError(
            "The proxy (proxy=, or HTTP_PROXY and its kin) is no address that can be used.", hint=_EXAMPLE
        )
    return proxy


def _address(settings: ConnectionSettings) -> SecretStr | None:
    given = settings.secret("proxy")
    if given is not None:
        return SecretStr(given)
    host = settings.address.host
    if not settings.trust_env or is_private(host) or urllib.request.proxy_bypass(host):
        return None
    known = urllib.request.getproxies()
    found = known.get(urlsplit(settings.address.url).scheme) or known.get("all")
    return None if not found else SecretStr(found if "://" in found else f"http://{found}")


def _parsed(address: SecretStr) -> Proxy | None:
    """None for what cannot be used; no error is raised while the password is in a local variable."""
    try:
        url = httpx.URL(address.get_secret_value())
        # httpx encodes what no host may hold, in `raw_host` alone, and takes any number for a port.
        host, port = url.raw_host.decode("ascii"), 80 if url.port is None else url.port
        if url.scheme != "http" or not host or "%" in url.host + host or not 0 < port < 65536:
            return None
        userinfo = url.userinfo
    except httpx.InvalidURL:
        return None
    if not userinfo:
        return Proxy(host, port)
    name, _, password = userinfo.partition(b":")
    basic = b64encode(unquote_to_bytes(name) + b":" + unquote_to_bytes(password))
    return Proxy(host, port, ((b"Proxy-Authorization", b"Basic " + basic),))
