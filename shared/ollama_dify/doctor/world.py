"""The world as the doctor sees it: names, connections, files, environment; and one bounded HTTP exchange.

Everything that looks outside is an argument of `World`, so that tests make up worlds of their own. The
library's own transport is not used: what it would hide (which address, which proxy, how long) is the point.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import os
import socket
import ssl
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Literal, TypeVar
from urllib.parse import unquote, urlsplit

import orjson

from ..address import is_private
from ..container import Container, container_kind, file_exists, read_file
from ..errors import OllamaError
from ..wire.models import read_version

__all__ = ["Answer", "Place", "World", "ask", "look_around", "proxy_for", "together"]

T = TypeVar("T")
Problem = Literal["dns", "refused", "timeout", "unreachable", "tls", "certificate", "broken", "proxy"]

PROBE_S = 1.5
_BODY_LIMIT = 8 * 1024 * 1024
_ADDRESSES = 4


def _resolve(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(row[4][0]) for row in found))


def _connect(address: str, port: int, timeout_s: float) -> socket.socket:
    return socket.create_connection((address, port), timeout_s)


@dataclass(frozen=True, slots=True)
class World:
    """What the doctor may look at.

    resolve: a name's addresses, or OSError. connect: a connected socket for (address, port, seconds), or
    OSError. read_text, exists: files. platform: as `sys.platform`.
    """

    resolve: Callable[[str], Sequence[str]] = _resolve
    connect: Callable[[str, int, float], socket.socket] = _connect
    read_text: Callable[[str], str] = read_file
    exists: Callable[[str], bool] = file_exists
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    platform: str = sys.platform


@dataclass(frozen=True, slots=True)
class Place:
    """Where this runs. gateway: of the default route, None where that is not known."""

    container: Container | None
    gateway: str | None
    is_wsl: bool
    platform: str


def look_around(world: World) -> Place:
    """Read the marks of containers and WSL2, and the default route."""
    release = _text(world, "/proc/sys/kernel/osrelease").lower()
    container = container_kind(world.read_text, world.exists, world.environ)
    return Place(container, _gateway(_text(world, "/proc/net/route")), "microsoft" in release, world.platform)


def _text(world: World, path: str) -> str:
    try:
        return world.read_text(path)
    except OSError:
        return ""


def _gateway(routes: str) -> str | None:
    for line in routes.splitlines():
        fields = line.split()
        if len(fields) > 2 and fields[1] == "00000000" and len(fields[2]) == 8:
            try:
                number = bytes.fromhex(fields[2])[::-1]
            except ValueError:
                continue
            if any(number):
                return str(ipaddress.IPv4Address(number))
    return None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request: a `problem` on the way, else status, headers (lower case) and body."""

    url: str
    problem: Problem | None = None
    words: str = ""
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    ms: int = 0

    @property
    def version(self) -> str | None:
        """The version of Ollama, if this is its answer to /api/version."""
        if self.problem is not None or self.status != 200:
            return None
        try:
            return read_version(orjson.loads(self.body))
        except (OllamaError, ValueError):
            return None

    @property
    def is_json(self) -> bool:
        return "json" in self.headers.get("content-type", "")

    def json(self) -> Any:
        """The body; None where it is no JSON."""
        try:
            return orjson.loads(self.body)
        except ValueError:
            return None


def ask(
    world: World,
    url: str,
    path: str = "/api/version",
    *,
    headers: Mapping[str, str] | None = None,
    body: Any = None,
    proxy: str | None = None,
    verify: Any = True,
    timeout_s: float = PROBE_S,
) -> Answer:
    """One request, GET without and POST with a body; nothing is raised. headers: none are added to them."""
    started = time.monotonic()
    problem: Problem | None = None
    received: dict[str, str] = {}
    words, status, data = "", 0, b""
    try:
        sock = _open(world, url, proxy, verify, timeout_s)
        status, received, data = _exchange(sock, url, path, headers or {}, body, proxy, timeout_s)
    except (OSError, http.client.HTTPException, UnicodeError, ValueError) as error:
        problem, words = _problem(error), str(error)
    return Answer(url, problem, words, status, received, data, round((time.monotonic() - started) * 1000))


def _problem(error: Exception) -> Problem:
    kinds: tuple[tuple[type[BaseException], Problem], ...] = (
        (socket.gaierror, "dns"),
        (UnicodeError, "dns"),
        (ConnectionRefusedError, "refused"),
        (ssl.SSLCertVerificationError, "certificate"),
        (ssl.SSLError, "tls"),
        (TimeoutError, "timeout"),
        (ConnectionResetError, "broken"),
        (http.client.HTTPException, "broken"),
    )
    if error.args[:1] == (_REFUSED_TUNNEL,):
        return "proxy"
    return next((name for kind, name in kinds if isinstance(error, kind)), "unreachable")


_REFUSED_TUNNEL = "the proxy refused the connection"


def _open(world: World, url: str, proxy: str | None, verify: Any, timeout_s: float) -> socket.socket:
    """A socket that leads to the server: direct, or to or through the proxy."""
    target, first = urlsplit(url), urlsplit(proxy or url)
    sock = _dial(world, first.hostname or "", _port(first), timeout_s)
    try:
        if proxy is not None and first.scheme == "https":
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=first.hostname)
        if target.scheme == "https":
            if proxy is not None:
                _tunnel(sock, f"{target.hostname}:{_port(target)}", proxy)
            sock = _tls(verify).wrap_socket(sock, server_hostname=target.hostname)
    except BaseException:
        sock.close()
        raise
    return sock


def _dial(world: World, host: str, port: int, timeout_s: float) -> socket.socket:
    try:
        addresses: Sequence[str] = [str(ipaddress.ip_address(host))]
    except ValueError:
        addresses = world.resolve(host)[:_ADDRESSES]
    failure: OSError = socket.gaierror(f"no address for {host}")
    for address in addresses:
        try:
            return world.connect(address, port, timeout_s / len(addresses))
        except OSError as error:
            failure = error
    raise failure


def _tunnel(sock: socket.socket, target: str, proxy: str) -> None:
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    lines += [f"{name}: {value}" for name, value in _proxy_headers(proxy).items()]
    sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
    head = b""
    while not head.endswith(b"\r\n\r\n") and len(head) < 16_384:
        piece = sock.recv(1)
        if not piece:
            break
        head += piece
    if head.split(b" ", 2)[1:2] != [b"200"]:
        raise ValueError(_REFUSED_TUNNEL, head[:80].decode("latin-1"))


def _proxy_headers(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode("ascii")}


def _tls(verify: Any) -> ssl.SSLContext:
    if isinstance(verify, ssl.SSLContext):
        return verify
    if verify is True:
        return ssl.create_default_context()
    if verify is False:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    return ssl.create_default_context(**{"capath" if os.path.isdir(verify) else "cafile": os.fspath(verify)})


def _exchange(
    sock: socket.socket,
    url: str,
    path: str,
    headers: Mapping[str, str],
    body: Any,
    proxy: str | None,
    timeout_s: float,
) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(url)
    sent = {"Host": parts.netloc, "Accept": "application/json", "Accept-Encoding": "identity", **headers}
    where = parts.path + path
    if proxy is not None and parts.scheme == "http":
        where, sent = f"{url}{path}", {**sent, **_proxy_headers(proxy)}
    data = None if body is None else orjson.dumps(body)
    if data is not None:
        sent["Content-Type"] = "application/json"
    sock.settimeout(timeout_s)
    connection = http.client.HTTPConnection(parts.hostname or "", _port(parts))
    connection.sock = sock
    try:
        connection.request("GET" if data is None else "POST", where, data, sent)
        response = connection.getresponse()
        received = {name.lower(): value for name, value in response.getheaders()}
        return response.status, received, response.read(_BODY_LIMIT)
    finally:
        connection.close()


def _port(parts: Any) -> int:
    return parts.port or {"https": 443}.get(parts.scheme, 80)


def proxy_for(world: World, url: str) -> tuple[str, str] | None:
    """The variable that sends requests to `url` through a proxy, and the proxy's URL; None without one.

    As the library does it: loopback and private addresses and those in NO_PROXY go direct.
    """
    parts = urlsplit(url)
    no_proxy = world.environ.get("no_proxy") or world.environ.get("NO_PROXY") or ""
    host = parts.hostname or ""
    bypass: Callable[..., bool] = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]  # there in every Python
    if is_private(host) or bypass(host, {"no": no_proxy}):
        return None
    for name in (f"{parts.scheme}_proxy", f"{parts.scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY"):
        value = world.environ.get(name)
        if value:
            return name, value if "://" in value else f"http://{value}"
    return None


def together(tasks: Sequence[Callable[[], T]], limit_s: float) -> list[T | None]:
    """Run tasks at the same time, each in a thread; None for what is not ready within the limit."""
    done: SimpleQueue[tuple[int, T]] = SimpleQueue()

    def work(place: int, task: Callable[[], T]) -> None:
        done.put((place, task()))

    for place, task in enumerate(tasks):
        # Looking up a name cannot be interrupted: such a thread must not hold up the end of the program.
        threading.Thread(target=work, args=(place, task), daemon=True).start()
    found: list[T | None] = [None] * len(tasks)
    until = time.monotonic() + limit_s
    for _ in tasks:
        try:
            place, result = done.get(timeout=max(0.0, until - time.monotonic()))
        except Empty:
            break
        found[place] = result
    return found
