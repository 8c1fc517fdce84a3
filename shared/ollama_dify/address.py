"""Where the server is: `base_url`, else `OLLAMA_HOST` as Ollama's own client reads it, else localhost.

A bad value is a ConfigurationError; nothing ever falls back to localhost.
"""

from __future__ import annotations

import base64
import ipaddress
import logging
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from .errors import ConfigurationError
from .language import _

__all__ = [
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

_OLLAMA_PORT = 11434
_SCHEME_PORTS = {"http": 80, "https": 443}
_EXAMPLES = (
    "A good one looks like http://192.168.1.100:11434, http://host.docker.internal:11434, "
    "https://example.com/ollama or just gpu-box."
)
# Full-width forms of ASCII characters, and the full stops, that East Asian input methods write.
_FULL_WIDTH = re.compile("[\uff01-\uff5e\u3002\uff61]")
_REFUSED = {"control character": "[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "space": r"\s", "backslash": r"\\"}
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\Z")
_ZONE = re.compile(r"[A-Za-z0-9._~-]{1,64}\Z")

AddressSource = Literal["base_url", "OLLAMA_HOST", "default"]


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
        """scheme://host:port; credentials belong to one origin."""
        parts = urlsplit(self.url)
        port = "" if parts.port is not None else f":{_SCHEME_PORTS[parts.scheme]}"
        return f"{parts.scheme}://{parts.netloc}{port}"


def resolve_address(base_url: str | None, environ: Mapping[str, str]) -> Address:
    """The address to use: `base_url`, else `OLLAMA_HOST` unless blank, else http://localhost:11434."""
    if base_url is not None:
        return parse_base_url(base_url)
    host = environ.get("OLLAMA_HOST", "")
    return parse_ollama_host(host) if _trim_environment(host) else Address("http://localhost:11434")


def parse_base_url(text: str) -> Address:
    """Read a URL, or a bare host, which gets http and port 11434 (`ollama.com`: https and 443).

    A trailing `/`, `/api` or `/v1` is removed; any other path is kept as a prefix. Raises
    ConfigurationError for an address that cannot work.
    """
    return _parse(text, "base_url", _read_base_url)


def parse_ollama_host(text: str) -> Address:
    """Read `OLLAMA_HOST` as Ollama's own client does (`envconfig.Host`).

    An empty value is 127.0.0.1; a port that is not a number from 0 to 65535 is replaced by the default, with
    a warning in the log. Unlike that client, this function accepts credentials and IPv6 zones, removes a
    trailing `/api` or `/v1`, and raises ConfigurationError for an impossible host.
    """
    return _parse(text, "OLLAMA_HOST", _read_ollama_host)


def _parse(text: str, source: AddressSource, read: Callable[[str], tuple[str, str | None]]) -> Address:
    """read: returns URL and authorization, or raises ValueError that says what is wrong."""
    try:
        return Address(*read(text), source)
    except ValueError as problem:
        hint = _EXAMPLES
        if re.search(r"<[^>]+>", text):  # the guide's <your-ollama-endpoint-domain>
            hint = _("Replace the placeholder by your server's address, such as {example}")
            hint = hint.format(example="http://192.168.1.100:11434")
        raise ConfigurationError(f"{source} {without_credentials(text)!r} {problem}.", hint=hint) from None


def _read_base_url(text: str) -> tuple[str, str | None]:
    text = text.strip(" ")
    if not text:
        raise ValueError("is empty")
    scheme, authority, path, authorization = _split(text)
    port = None
    if scheme is None:
        if re.match(r"/|https?:?(/|\Z)", text, re.IGNORECASE):
            raise ValueError('has no host; after http or https comes "://" and the host')
        scheme, port = ("https", None) if authority.lower() == "ollama.com" else ("http", _OLLAMA_PORT)
    if authority.count(":") > 1 and _as_ip(authority) is not None:
        if "://" in text:
            raise ValueError("has an IPv6 address without brackets; write http://[::1]:11434")
        authority = f"[{authority}]"
    match = re.fullmatch(r"(?:\[([^\]]*)\]|([^:\[]*))(?::(.*))?", authority)
    if match is None:
        raise ValueError("has unbalanced brackets")
    bracketed, name, number = match.groups()
    if bracketed is not None and _as_ip(bracketed) is None:
        raise ValueError("has no valid host: only an IPv6 address goes into brackets")
    if number is not None:
        if not re.fullmatch(r"[0-9]{1,5}", number) or not 1 <= int(number) <= 65535:
            raise ValueError(f"has the port {number!r}; a port is a number from 1 to 65535")
        port = int(number)
    return _url(scheme, bracketed or name, port, path), authorization


def _read_ollama_host(text: str) -> tuple[str, str | None]:
    text = _trim_environment(text)
    scheme, authority, path, authorization = _split("https://ollama.com" if text == "ollama.com" else text)
    if path.startswith("//") and not authority:
        raise ValueError("has no host in front of its slashes; leave them out")
    default = str(_SCHEME_PORTS.get(scheme or "", _OLLAMA_PORT))
    # What Go's `net.SplitHostPort` splits.
    match = re.fullmatch(r"(?:\[([^\[\]]*)\]|([^:\[\]]*)):([^:\[\]]*)", authority)
    if match is None:
        bare = authority.strip("[]")
        host, port = (authority if _as_ip(bare) is None else bare), default
    else:
        host, port = match[1] or match[2], match[3]
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", port) or not 0 <= int(port) <= 65535:
        logger.warning("OLLAMA_HOST has the port %r, which is none: %s is used instead.", port[:20], default)
        port = default
    scheme = "http" if scheme is None else scheme
    return _url(scheme, host or "127.0.0.1", int(port), re.sub(r"/{2,}", "/", path)), authorization


def _trim_environment(text: str) -> str:
    """Spaces, quotes and spaces are trimmed off, as Ollama does."""
    return text.strip().strip("\"'").strip()


def _split(text: str) -> tuple[str | None, str, str, str | None]:
    """Scheme (None without "://"), host with port, path, credentials as value of the Authorization header."""
    for what, characters in _REFUSED.items():
        if re.search(characters, text):
            raise ValueError(f"holds a {what}")
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    authority, slash, path = rest.partition("/")
    # The last "@" ends the credentials, because an "@" inside them is often not quoted.
    userinfo, at, authority = authority.rpartition("@")
    if "@" in path:
        raise ValueError('has "@" behind the first slash; inside a password a slash is written %2F')
    wide = _FULL_WIDTH.search(scheme + authority + path)
    if wide:
        plain = unicodedata.normalize("NFKC", wide[0]).replace("。", ".")
        raise ValueError(f"holds the full-width character {wide[0]!r} of an input method; type {plain!r}")
    if set("?#") & set(authority + path):
        raise ValueError('has a query or a fragment ("?" or "#"), which an address of a server cannot have')
    user, _sign, password = userinfo.partition(":")
    pair = f"{unquote(user)}:{unquote(password)}".encode()
    authorization = "Basic " + base64.b64encode(pair).decode("ascii") if at else None
    return scheme.lower() if separator else None, authority, slash + path, authorization


def _url(scheme: str, host: str, port: int | None, path: str) -> str:
    if scheme not in _SCHEME_PORTS:
        raise ValueError(f"begins with {scheme!r}; only http and https work")
    if not host:
        raise ValueError("has no host")
    try:
        host = ascii_host(host)
    except ValueError as error:
        raise ValueError(f"has no valid host: {error}") from None
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    place = (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")
    # Repeated until none is left, so that parsing the result again changes nothing.
    while path.endswith(("/", "/api", "/v1")):
        path = path.rpartition("/")[0]
    return f"{scheme}://{place}" + quote(path, safe="/%:@!$&'()*+,;=~-._")


def ascii_host(host: str) -> str:
    """A host as it is sent: IP addresses in their usual form, names in lower case and punycode.

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
        except UnicodeError as exc:
            raise ValueError(f"the international name cannot be encoded ({exc})") from None
    labels = name.removesuffix(".").split(".")
    if len(name) > 253 or not all(_LABEL.match(label) for label in labels):
        raise ValueError("a name consists of letters, digits, hyphens and dots")
    if labels[-1].isdigit() and _as_ip(name) is None:
        raise ValueError("an IPv4 address has four numbers from 0 to 255")
    return name


@lru_cache(maxsize=256)  # called several times for each object
def _as_ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address in `text`; IPv4 mapped into IPv6 counts as IPv4, as in Go."""
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


_RANGES = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10")
_PRIVATE_NETWORKS = tuple(map(ipaddress.ip_network, (*_RANGES, "::1/128", "fc00::/7", "fe80::/10")))
_PRIVATE_SUFFIXES = (".local", ".localhost", ".internal", ".lan", ".localdomain", ".home.arpa")


def is_loopback(host: str) -> bool:
    """Whether a host (or a URL's) is this machine: localhost, 127/8, ::1."""
    name = _host_of(host)
    address = _as_ip(name)
    return f".{name}".endswith(".localhost") if address is None else address.is_loopback


def is_private(host: str) -> bool:
    """Whether a host (or a URL's) is on this machine or a local network, so that no proxy is used.

    Loopback, RFC 1918, link-local, unique local and carrier-grade (Tailscale) addresses; names without a
    dot (Compose services, LAN machines) and those under .local, .internal, .lan and the like.
    """
    name = _host_of(host)
    address = _as_ip(name)
    if address is None:
        return bool(name) and ("." not in name or name.endswith(_PRIVATE_SUFFIXES))
    return any(address in network for network in _PRIVATE_NETWORKS)


def is_ollama_cloud(host: str) -> bool:
    """Whether a host (or a URL's) is ollama.com, the only one `OLLAMA_API_KEY` is for."""
    return f".{_host_of(host)}".endswith(".ollama.com")


def without_credentials(url: str) -> str:
    """`url` for use in a message: no user, password or query, at most 200 characters."""
    shown = re.sub(r"\A((?:[A-Za-z][A-Za-z0-9+.-]*:)?//)?.*@", r"\1***@", url, flags=re.DOTALL)
    shown = re.sub(r"[?#].*", "?…", shown, flags=re.DOTALL)
    return shown if len(shown) <= 200 else shown[:199] + "…"
