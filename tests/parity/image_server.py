"""A web server with images, and with the tricks of a hostile one; and a resolver in place of the system's."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

from tests.faults.server import FaultServer, Request, Step, head, whole

PNG = (Path(__file__).parent.parent / "data" / "images" / "png_rgb.png").read_bytes()


def images(request: Request) -> Iterable[Step]:
    """The answer to a path: an image, a page, a redirect, too much, or too slow."""
    kind, _, rest = request.path.lstrip("/").partition("?")
    answers: dict[str, list[Step]] = {
        "cat.png": [whole(PNG, Content_Type="text/plain", Set_Cookie="a=b")],
        "text.png": [whole(b"<html>no image</html>", Content_Type="image/png")],
        "missing.png": [whole(b"", 404)],
        "to": [whole(b"", 302, Location=unquote(rest), Set_Cookie="a=b")],
        "loop": [whole(b"", 302, Location="/loop")],
        "big.png": [whole(PNG + bytes(20 << 20))],
        "slow.png": [head(length=len(PNG)), *(step for byte in PNG for step in (bytes([byte]), 0.02))],
    }
    return answers[kind]


class ImageServer(FaultServer):
    """`asked`: path and headers of each request, in order."""

    @property
    def asked(self) -> list[tuple[str, dict[str, str]]]:
        return [(request.path, request.headers) for request in self.requests]

    def address(self, path: str, host: str = "images.example.com") -> str:
        return f"http://{host}:{self.port}{path}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


@contextlib.contextmanager
def image_server() -> Iterator[ImageServer]:
    """The server, listening on the loopback address."""
    with ImageServer(images) as server:
        yield server


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
