"""A web server with images, and with the tricks of a hostile one; it notes what it is asked."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

PNG = (Path(__file__).parent.parent / "data" / "images" / "png_rgb.png").read_bytes()


class ImageServer(ThreadingHTTPServer):
    """`asked`: path and headers of each request, in order."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def address(self, path: str, host: str = "images.example.com") -> str:
        return f"http://{host}:{self.port}{path}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


class _Handler(BaseHTTPRequestHandler):
    server: ImageServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        kind, _, rest = self.path.lstrip("/").partition("?")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            getattr(self, f"_{kind.partition('.')[0]}")(unquote(rest))

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _cat(self, rest: str) -> None:
        self._send(200, PNG, Content_Type="text/plain", Set_Cookie="a=b")

    def _text(self, rest: str) -> None:
        self._send(200, b"<html>no image</html>", Content_Type="image/png")

    def _missing(self, rest: str) -> None:
        self._send(404, b"")

    def _to(self, rest: str) -> None:
        self._send(302, b"", Location=rest, Set_Cookie="a=b")

    def _loop(self, rest: str) -> None:
        self._send(302, b"", Location="/loop")

    def _big(self, rest: str) -> None:
        self._send(200, PNG + bytes(20 << 20))

    def _slow(self, rest: str) -> None:
        self.send_response(200)
        self.end_headers()
        for byte in PNG:
            self.wfile.write(bytes([byte]))
            time.sleep(0.02)


@contextlib.contextmanager
def image_server() -> Iterator[ImageServer]:
    """The server, listening on the loopback address."""
    server = ImageServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Names:
    """A resolver in place of the system's.

    table: each name's answers, one per look-up, the last for good.
    """

    def __init__(self, table: dict[str, list[list[str]]], delay_s: float = 0.0) -> None:
        self.table = table
        self.asked: list[str] = []
        self._real = socket.getaddrinfo
        self._delay_s = delay_s

    def __call__(self, host: str, port: int, *rest: object, **named: object) -> list[object]:
        if host not in self.table:
            return self._real(host, port, *rest, **named)  # type: ignore[arg-type, return-value]  # passed on
        time.sleep(self._delay_s)
        self.asked.append(host)
        answers = self.table[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if not found:
            raise socket.gaierror(-2, "Name or service not known")
        families = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(families[":" in ip], socket.SOCK_STREAM, 6, "", (ip, port)) for ip in found]
