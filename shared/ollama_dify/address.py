"""Where the server is: `base_url`, else `OLLAMA_HOST` as Ollama's own client reads it, else localhost.

    text → Address(url, authorization, source)

A bad value is a ConfigurationError; nothing ever falls back to localhost.
"""

from __future__ import annotations

import base64
import ipaddress
import logging
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from .errors import ConfigurationError
from .language import _

__all__ = [
    "DEFAULT_URL",
    "Address",
    "ascii_host",
    "is_loopback",
    "is_ollama_cloud",
    "is_private",
    "parse_base_url",
    "parse_ollama_host",
    "resolve_address",
    "without_credentials",
]

logger = logging.getLogger("ollama_dify")

DEFAULT_URL = "http://localhost:11434"
_OLLAMA_PORT = 11434
_SCHEME_PORTS = {"http": 80, "https": 443}
_EXAMPLES = (
    "A good one looks like http://192.168.1.100:11434, http://host.docker.internal:11434, "
    "https://example.com/ollama or just gpu-box."
)
# Forms of ASCII characters as East Asian input methods write them, and their full stop.
_FULL_WIDTH = re.compile("[\uff01-\uff5e\u3002\uff61]")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\Z")
_ZONE = re.compile(r"[A-Za-z0-9._~-]{1,64}\Z")

AddressSource = Literal["base_url", "OLLAMA_HOST", "default"]
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Address:
    """A server's address.

    url: scheme://host:port/prefix, without a slash at the end and without credentials; the port is left
        out where a `base_url` with a scheme left it out.
    authorization: value of the Authorization header, from the address's user and password.
    source: where the address came from.
    """

    url: str
    authorization: str | None = field(default=None, repr=False)
    source: AddressSource = "default"

    @property
    def host(self) -> str:
        """Name or IP address, without brackets."""
        return _host_of(self.url)

    @property
    def url_with_password(self) -> str:
        """`url` with user and password in it, as a `base_url` takes them."""
        if self.authorization is None:
            return self.url
        pair = base64.b64decode(self.authorization.removeprefix("Basic ")).decode()
        userinfo = ":".join(quote(part, safe="") for part in pair.split(":", 1))
        return self.url.replace("://", f"://{userinfo}@", 1)

    @property
    def origin(self) -> str:
        """scheme://host:port, which credentials belong to."""
        parts = urlsplit(self.url)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{parts.scheme}://{host}:{parts.port or _SCHEME_PORTS[parts.scheme]}"


@dataclass(frozen=True, slots=True)
class _Target:
    """The text as given, and what it is called in errors."""

    text: str
    source: AddressSource

    def error(self, problem: str) -> ConfigurationError:
        hint = _EXAMPLES
        if re.search(r"<[^>]+>", self.text):  # the guide's <your-ollama-endpoint-domain>
            hint = _("Replace the placeholder by your server's address, such as {example}").format(
                example="http://192.168.1.100:11434"
            )
        return ConfigurationError(f"{self.source} {without_credentials(self.text)!r} {problem}.", hint=hint)


def resolve_address(base_url: str | None, environ: Mapping[str, str]) -> Address:
    """The address to use: `base_url`, else `OLLAMA_HOST` unless blank, else http://localhost:11434."""
    if base_url is not None:
        return parse_base_url(base_url)
    host = environ.get("OLLAMA_HOST", "")
    if _trim_environment(host):
        return parse_ollama_host(host)
    return Address(DEFAULT_URL)


def parse_base_url(text: str) -> Address:
    """Read a URL, or a bare host, which gets http and port 11434 (`ollama.com`: https and 443).

    A trailing `/`, `/api` or `/v1` is forgiven; any other path is kept as a prefix. Raises
    ConfigurationError for everything that cannot work.
    """
    target = _Target(text, "base_url")
    stripped = text.strip(" ")
    if not stripped:
        raise target.error("is empty")
    _check_characters(stripped, target)
    scheme, separator, rest = stripped.partition("://")
    if not separator:
        scheme, rest = "", stripped
        if stripped.startswith("/") or re.match(r"https?:?(/|\Z)", stripped, re.IGNORECASE):
            raise target.error('has no host; after http or https comes "://" and the host')
    authority, slash, path = rest.partition("/")
    authority, authorization = _split_userinfo(authority)
    default = None
    if not separator:
        cloud = authority.lower() == "ollama.com"
        scheme, default = ("https", None) if cloud else ("http", _OLLAMA_PORT)
    host, port = _split_port(authority, target)
    number = default if port is None else _checked_port(port, target)
    return _build(scheme, host, number, slash + path, authorization, target)


def parse_ollama_host(text: str) -> Address:
    """Read `OLLAMA_HOST` as Ollama's own client does (`envconfig.Host`).

    An empty value is 127.0.0.1; a port that is no number from 0 to 65535 gives way to the default, with a
    warning in the log. Beyond that client: credentials and IPv6 zones work, a trailing `/api` or `/v1` is
    forgiven, and what can be no host at all is a ConfigurationError here.
    """
    target = _Target(text, "OLLAMA_HOST")
    trimmed = _trim_environment(text)
    scheme, separator, rest = trimmed.partition("://")
    default = str(_OLLAMA_PORT)
    if not separator:
        scheme, rest = "http", trimmed
        if trimmed == "ollama.com":
            scheme, rest = "https", "ollama.com:443"
    else:
        default = str(_SCHEME_PORTS.get(scheme.lower(), default))
    _check_characters(trimmed, target)
    authority, slash, path = rest.partition("/")
    authority, authorization = _split_userinfo(authority)
    split = _split_host_port(authority)
    if split is None:
        bare = authority.strip("[]")
        split = (authority if _as_ip(bare) is None else bare, default)
    host, port = split
    if path.startswith("/") and not authority:
        raise target.error("has no host in front of its slashes; leave them out")
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", port) or not 0 <= int(port) <= 65535:
        logger.warning("OLLAMA_HOST has the port %r, which is none: %s is used instead.", port[:20], default)
        port = default
    path = re.sub(r"/{2,}", "/", slash + path)
    return _build(scheme, host or "127.0.0.1", int(port), path, authorization, target)


def _trim_environment(text: str) -> str:
    """Spaces, quotes and spaces are trimmed off, as Ollama does."""
    return text.strip().strip("\"'").strip()


def _split_host_port(text: str) -> tuple[str, str] | None:
    """Go's `net.SplitHostPort`; None where it reports an error."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":") or ":" in rest[1:]:
            return None
        port = rest[1:]
    else:
        host, colon, port = text.rpartition(":")
        if not colon or ":" in host:
            return None
    return None if set("[]") & set(host + port) else (host, port)


def _split_port(authority: str, target: _Target) -> tuple[str, str | None]:
    """Host and port text of a URL's authority; a bare IPv6 address may go without brackets."""
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise target.error("has unbalanced brackets")
        if _as_ip(host) is None:
            raise target.error("has no valid host: only an IPv6 address goes into brackets")
        return host, rest[1:] if rest else None
    if authority.count(":") > 1 and _as_ip(authority) is not None:
        if "://" in target.text:
            raise target.error("has an IPv6 address without brackets; write http://[::1]:11434")
        return authority, None
    host, colon, port = authority.partition(":")
    return host, port if colon else None


def _checked_port(text: str, target: _Target) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise target.error(f"has the port {text!r}; a port is a number from 1 to 65535")
    return int(text)


def _check_characters(text: str, target: _Target) -> None:
    if any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in text):
        raise target.error("holds a control character")
    if any(c.isspace() for c in text):
        raise target.error("holds a space")
    if "\\" in text:
        raise target.error("holds a backslash")
    scheme, separator, rest = text.partition("://")
    # behind the credentials, which are quoted carelessly and split off by the last "@"
    authority, _sign, path = (rest or text).partition("/")
    if "@" in path:
        raise target.error('has "@" behind the first slash; inside a password a slash is written %2F')
    location = authority.rpartition("@")[2] + path
    wide = _FULL_WIDTH.search(separator and scheme) or _FULL_WIDTH.search(location)
    if wide:
        plain = unicodedata.normalize("NFKC", wide[0]).replace("。", ".")
        raise target.error(f"holds the full-width character {wide[0]!r} of an input method; type {plain!r}")
    if "?" in location or "#" in location:
        raise target.error('has a query or a fragment ("?" or "#"), which an address of a server cannot have')


def _split_userinfo(authority: str) -> tuple[str, str | None]:
    """Authority without credentials, and these as a Basic header value."""
    userinfo, at, host = authority.rpartition("@")
    if not at:
        return authority, None
    user, _sign, password = userinfo.partition(":")
    pair = f"{unquote(user)}:{unquote(password)}".encode()
    return host, "Basic " + base64.b64encode(pair).decode("ascii")


def _build(
    scheme: str, host: str, port: int | None, path: str, authorization: str | None, target: _Target
) -> Address:
    scheme = scheme.lower()
    if scheme not in _SCHEME_PORTS:
        raise target.error(f"begins with {scheme!r}; only http and https work")
    if not host:
        raise target.error("has no host")
    try:
        host = ascii_host(host)
    except ValueError as exc:
        raise target.error(f"has no valid host: {exc}") from exc
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    place = (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")
    path = path.rstrip("/")
    # Until none is left, so that an address once read reads the same again.
    while path.endswith(("/api", "/v1")):
        path = path.rpartition("/")[0].rstrip("/")
    prefix = quote(path, safe="/%:@!$&'()*+,;=~-._")
    return Address(f"{scheme}://{place}{prefix}", authorization, target.source)


def ascii_host(host: str) -> str:
    """A host as it travels: IP addresses in their usual form, names in lower case and punycode.

    An IPv6 zone (`%eth0`, in a URL also `%25eth0`) is kept. Raises ValueError saying what is wrong with it.
    """
    if ":" in host or "%" in host:
        bare, percent, zone = host.partition("%")
        address = _as_ip(bare)
        zone = zone[2:] if len(zone) > 2 and zone.startswith("25") else zone
        if address is None or ":" not in bare or (percent and not _ZONE.match(zone)):
            raise ValueError("this is neither a name nor an IP address")
        return f"{address.compressed}{percent}{zone}"
    name = host.lower()
    if not host.isascii():
        import idna

        try:
            name = idna.encode(host, uts46=True).decode("ascii").lower()
        except (idna.IDNAError, UnicodeError) as exc:
            raise ValueError(f"the international name cannot be encoded ({exc})") from None
    labels = name.removesuffix(".").split(".")
    if len(name) > 253 or not all(_LABEL.match(label) for label in labels):
        raise ValueError("a name consists of letters, digits, hyphens and dots")
    if labels[-1].isdigit() and _as_ip(name) is None:
        raise ValueError("an IPv4 address has four numbers from 0 to 255")
    return name


@lru_cache(maxsize=256)  # asked several times for each object
def _as_ip(text: str) -> IPAddress | None:
    """The address `text` spells; IPv4 mapped into IPv6 counts as IPv4, as in Go."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def _host_of(target: str) -> str:
    """The host of a URL, or a host itself: lower case, without brackets and the final dot."""
    if "://" in target:
        target = urlsplit(target).hostname or ""
    return target.strip("[]").lower().removesuffix(".")


_RANGES_V4 = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10")
_PRIVATE_NETWORKS = tuple(map(ipaddress.ip_network, (*_RANGES_V4, "fc00::/7", "fe80::/10")))
_PRIVATE_SUFFIXES = (".local", ".localhost", ".internal", ".lan", ".localdomain", ".home.arpa")


def is_loopback(host: str) -> bool:
    """Whether a host (or a URL's) is this machine: localhost, 127/8, ::1."""
    name = _host_of(host)
    address = _as_ip(name)
    return name == "localhost" or name.endswith(".localhost") if address is None else address.is_loopback


def is_private(host: str) -> bool:
    """Whether a host (or a URL's) is on this machine or a local network, so that no proxy leads there.

    Loopback, RFC 1918, link-local, unique local and carrier-grade (Tailscale) addresses; names without a
    dot (Compose services, LAN machines) and those under .local, .internal, .lan and the like.
    """
    name = _host_of(host)
    if is_loopback(name):
        return True
    address = _as_ip(name)
    if address is not None:
        return any(address in network for network in _PRIVATE_NETWORKS)
    return bool(name) and ("." not in name or name.endswith(_PRIVATE_SUFFIXES))


def is_ollama_cloud(host: str) -> bool:
    """Whether a host (or a URL's) is ollama.com, the only one `OLLAMA_API_KEY` is for."""
    name = _host_of(host)
    return name == "ollama.com" or name.endswith(".ollama.com")


def without_credentials(url: str) -> str:
    """`url` fit for a message: no user, password or query, at most 200 characters."""
    shown = re.sub(r"\A((?:[A-Za-z][A-Za-z0-9+.-]*:)?//)?.*@", r"\1***@", url, flags=re.DOTALL)
    shown = re.sub(r"[?#].*", "?…", shown, flags=re.DOTALL)
    return shown if len(shown) <= 200 else shown[:199] + "…"
