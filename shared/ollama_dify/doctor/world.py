"""The world as the doctor sees it: names, connections, files, environment; and one bounded HTTP exchange.

All access to the outside is an argument of `World`, so that tests can replace it. The library's own
transport is not used, because it hides what the doctor reports: which address, which proxy, how long.
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
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import orjson

from ..address import is_private
from ..container import read_file
from ..errors import OllamaError
from ..wire.models import read_version

T = TypeVar("T")

PROBE_S = 1.5
_BODY_LIMIT = 8 * 1024 * 1024
_ADDRESSES = 4
_REFUSED_TUNNEL = "the proxy refused the connection"


def _resolve(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(row[4][0]) for row in found))


def _connect(address: str, port: int, timeout_s: float) -> socket.socket:
    return socket.create_connection((address, port), timeout_s)


@dataclass(frozen=True, slots=True)
class World:
    """What the doctor may look at.

    resolve: a name's addresses, or OSError. connect: a connected socket for (address, port, seconds), or
    OSError. read_text: a file, or OSError. platform: as `sys.platform`.
    """

    resolve: Callable[[str], Sequence[str]] = _resolve
    connect: Callable[[str, int, float], socket.socket] = _connect
    read_text: Callable[[str], str] = read_file
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    platform: str = sys.platform


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a request: a `problem`, or status, headers (lower case) and body.

    problem: dns, refused, timeout, unreachable, tls, certificate, broken or proxy.
    """

    url: str
    problem: str | None = None
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    ms: int = 0

    @property
    def version(self) -> str | None:
        """The version of Ollama, if this is its answer to /api/version."""
        try:
            return read_version(self.json()) if self.status == 200 else None
        except OllamaError:
            return None

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
    """One request, GET without and POST with a body; raises nothing. headers: sent as given."""
    started, target = time.monotonic(), urlsplit(url)
    sent = {
        "Host": target.netloc,
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        **(headers or {}),
    }
    where, data = target.path + path, None if body is None else orjson.dumps(body)
    if proxy is not None and target.scheme == "http":
        where, sent = url + path, {**sent, **_proxy_headers(proxy)}
    if data is not None:
        sent["Content-Type"] = "application/json"
    connection = http.client.HTTPConnection(target.hostname or "", _port(target))
    problem, status, received, content = None, 0, {}, b""
    try:
        connection.sock = _open(world, target, proxy, verify, timeout_s)
        connection.sock.settimeout(timeout_s)
        connection.request("GET" if data is None else "POST", where, data, sent)
        response = connection.getresponse()
        received = {name.lower(): value for name, value in response.getheaders()}
        status, content = response.status, response.read(_BODY_LIMIT)
    except (OSError, http.client.HTTPException, ValueError) as error:
        problem = _problem(error)
    finally:
        connection.close()
    return Answer(url, problem, status, received, content, round((time.monotonic() - started) * 1000))


def _problem(error: Exception) -> str:
    kinds: tuple[tuple[type[Exception], str], ...] = (
        (socket.gaierror, "dns"),
        (UnicodeError, "dns"),
        (ConnectionRefusedError, "refused"),
        (ssl.SSLCertVerificationError, "certificate"),
        (ssl.SSLError, "tls"),
        (TimeoutError, "timeout"),
        (ConnectionResetError, "broken"),
        (http.client.HTTPException, "broken"),
    )
    if error.args == (_REFUSED_TUNNEL,):
        return "proxy"
    return next((name for kind, name in kinds if isinstance(error, kind)), "unreachable")


def _open(
    world: World, target: SplitResult, proxy: str | None, verify: Any, timeout_s: float
) -> socket.socket:
    """A socket that leads to the server: direct, or to or through the proxy."""
    first = target if proxy is None else urlsplit(proxy)
    sock = _dial(world, first.hostname or "", _port(first), timeout_s)
    try:
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
    head, piece = b"", b" "
    while piece and not head.endswith(b"\r\n\r\n") and len(head) < 16_384:
        piece = sock.recv(1)
        head += piece
    if head.split(b" ", 2)[1:2] != [b"200"]:
        raise ValueError(_REFUSED_TUNNEL)


def _proxy_headers(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode("ascii")}


def _tls(verify: Any) -> ssl.SSLContext:
    if isinstance(verify, ssl.SSLContext):
        return verify
    path = None if isinstance(verify, bool) else verify
    is_folder = path is not None and os.path.isdir(path)
    context = ssl.create_default_context(
        cafile=None if is_folder else path, capath=path if is_folder else None
    )
    if verify is False:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _port(parts: SplitResult) -> int:
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
    found: list[T | None] = [None] * len(tasks)

    def work(place: int, task: Callable[[], T]) -> None:
        found[place] = task()

    # A name look-up cannot be interrupted, so its thread must not delay the end of the program.
    threads = [threading.Thread(target=work, args=row, daemon=True) for row in enumerate(tasks)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + limit_s
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return list(found)
