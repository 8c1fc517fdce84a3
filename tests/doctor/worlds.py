"""Made-up worlds for the doctor: names, addresses, files and environment; real sockets to 127.0.0.1 only."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ollama_dify.doctor import World

ROUTE = "Iface\tDestination\tGateway\neth0\t00000000\t010012AC\neth0\t000012AC\t00000000\n"
"""A container's default route through 172.18.0.1."""

DOCKER = {"/.dockerenv": "", "/proc/net/route": ROUTE}
WSL = {"/proc/sys/kernel/osrelease": "5.15.90.1-microsoft-standard-WSL2\n", "/proc/net/route": ROUTE}


@dataclass
class MadeUp:
    """names: name → addresses. ports: (address, port) → local port of 127.0.0.1, or the error that it gives.

    Every other address refuses; every other name is unknown. `tried` records what was connected to.
    """

    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ports: Mapping[tuple[str, int], int | OSError] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    platform: str = "linux"
    tried: list[tuple[str, int]] = field(default_factory=list)

    def world(self) -> World:
        return World(self._resolve, self._connect, self._read, self.environ, self.platform)

    def _resolve(self, name: str) -> Sequence[str]:
        if name == "localhost":
            return ["127.0.0.1"]
        if name not in self.names:
            raise socket.gaierror(-2, "Name or service not known")
        return self.names[name]

    def _connect(self, address: str, port: int, timeout_s: float) -> socket.socket:
        self.tried.append((address, port))
        found = self.ports.get((address, port), ConnectionRefusedError(111, "Connection refused"))
        if isinstance(found, OSError):
            raise found
        return socket.create_connection(("127.0.0.1", found), timeout_s)

    def _read(self, path: str) -> str:
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]


@contextmanager
def answering(answer: bytes, *, with_host: Mapping[bytes, bytes] | None = None) -> Iterator[int]:
    """A port that gives one answer to every request; with_host: other answers by Host header."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(2)
                head = b""
                try:
                    while b"\r\n\r\n" not in head:
                        piece = peer.recv(4096)
                        if not piece:
                            break
                        head += piece
                    hosts = with_host or {}
                    chosen = next((a for host, a in hosts.items() if b"\r\nHost: " + host in head), answer)
                    peer.sendall(chosen)
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def response(status: str, body: bytes = b"", *, headers: str = "", kind: str = "application/json") -> bytes:
    """The bytes of an HTTP answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
