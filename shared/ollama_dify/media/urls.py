"""Which image addresses may be fetched. Pure: no network.

`transport/image_download.py` resolves the name, passes every resolved address to `check_public_address`,
connects to exactly that address, and starts again here for each redirect.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import quote

from ..address import ascii_host, is_private, without_credentials
from ..errors import UnsupportedContentError

__all__ = ["ParsedUrl", "check_image_url", "check_public_address", "is_public"]

_HINT = "Send the image's bytes or base64, or an http(s) address on the public internet."
_PORTS = {"http": 80, "https": 443}

# https://www.iana.org/assignments/iana-ipv4-special-registry without what is globally reachable; then the
# parts of 2000::/3 that are not public: Teredo and other protocols, documentation, 6to4, documentation.
_SPECIAL = (
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24"
    " 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3"
    " 2001::/23 2001:db8::/32 2002::/16 3fff::/20"
)
_CLOSED = [ipaddress.ip_network(network) for network in _SPECIAL.split()]
_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class ParsedUrl(NamedTuple):
    """A checked address of an image.

    url: ready to be sent: ASCII host, no credentials, no fragment.
    host: name or IP address, without brackets; a name still has to be resolved and checked.
    """

    url: str
    scheme: str
    host: str
    port: int


def is_public(ip: str) -> bool:
    """Whether an IP address belongs to the public internet.

    IPv4 inside IPv6 (mapped, NAT64) is checked as IPv4; 6to4 and Teredo, which tunnel to any IPv4
    address, are never public.
    """
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        inner = address.ipv4_mapped
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is None and address not in _GLOBAL_IPV6:
            return False
        address = inner or address
    return not any(address in closed for closed in _CLOSED)


def check_public_address(ip: str, *, where: str = "image") -> None:
    """Refuse an IP address that is not on the public internet (UnsupportedContentError)."""
    if not is_public(ip):
        raise _refused(ip, "is not on the public internet, so nothing is fetched from it", where)


def check_image_url(url: str, *, where: str = "image") -> ParsedUrl:
    """Parse an image's address and refuse what must not be fetched.

    Refused: other schemes than http and https, credentials, control characters, white space and
    backslashes, ports outside 1–65535, names of local networks, IP addresses that are not public or not in
    their usual form (`2130706433`, `0x7f.1`, `0177.0.0.1`). Raises UnsupportedContentError.
    """
    if len(url) > 8192 or any(c.isspace() or c < " " or c in "\\\x7f" for c in url):
        raise _refused(url, "is too long or holds a space, a backslash or a control character", where)
    match = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)(?:#.*)?", url)
    if match is None or (scheme := match[1].lower()) not in _PORTS:
        raise _refused(url, "is not an http or https address", where)
    if "@" in match[2]:
        raise _refused(url, "holds credentials, which are never sent", where)
    authority = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?", match[2])
    if authority is None or not authority[1]:
        raise _refused(url, "has no valid host and port", where)
    port = int(authority[2] or _PORTS[scheme])
    if not 1 <= port <= 65535:
        raise _refused(url, f"has the port {port}; a port is a number from 1 to 65535", where)
    host = _checked_host(authority[1], url, where)
    shown = f"[{host}]" if ":" in host else host
    place = shown if port == _PORTS[scheme] else f"{shown}:{port}"
    tail = match[3] if match[3].startswith("/") else f"/{match[3]}"
    try:
        tail = quote(tail, safe="/?%:@!$&'()*+,;=~-._[]|")
    except UnicodeEncodeError:
        raise _refused(url, "holds half a character (a lone surrogate)", where) from None
    return ParsedUrl(f"{scheme}://{place}{tail}", scheme, host, port)


def _checked_host(text: str, url: str, where: str) -> str:
    try:
        if text.startswith("["):
            address = ipaddress.IPv6Address(text[1:-1])
            check_public_address(text[1:-1], where=where)
            return address.compressed
        host = ascii_host(text).removesuffix(".")
    except UnsupportedContentError:
        raise
    except ValueError as exc:
        raise _refused(url, f"has no valid host ({exc})", where) from exc
    last = host.rpartition(".")[2]
    if last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last):
        if not re.fullmatch(r"(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})", host):
            raise _refused(url, "spells an IP address in an unusual form", where)
        check_public_address(host, where=where)
    elif is_private(host):
        raise _refused(url, "names a machine of a local network", where)
    return host


def _refused(url: str, problem: str, where: str) -> UnsupportedContentError:
    shown = without_credentials(url)[:120]
    return UnsupportedContentError(f"{where}: the address {shown!r} {problem}.", hint=_HINT)
