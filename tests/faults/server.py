"""A raw-socket server that can do anything at any byte.

A script is a function from a request to steps: bytes are sent as they are, a number is seconds to wait, an
`End` says what becomes of the connection. `FaultServer` runs it in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import gzip
import itertools
import json
import socket
import ssl
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import Self

LINGER_ZERO = struct.pack("ii", 1, 0)
CONTROL = "/_counts"


class End(enum.Enum):
    """What becomes of the connection after an answer; without one it is kept for the next request."""

    FIN = "closed properly"
    RST = "reset (SO_LINGER 0)"
    STALL = "silent until the client leaves"
    FIN_LATER = "closed once the client may think it idle"


@dataclass(frozen=True)
class Request:
    """number: of this request, from 0. on_connection: how many came before it on the same connection."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    number: int
    on_connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


Step = bytes | float | End
Script = Callable[[Request], Iterable[Step]]


@dataclass
class Counts:
    """connections: accepted in all. left: answers that the client did not wait for, with the times."""

    requests: int = 0
    connections: int = 0
    open: int = 0
    most_open: int = 0
    left: list[float] = field(default_factory=list)


def head(status: int = 200, *, length: int | None = None, **headers: str) -> bytes:
    """A response head: chunked unless a length is given."""
    fields = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
    fields |= {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode()


def whole(body: bytes, status: int = 200, **headers: str) -> bytes:
    """A response in one piece."""
    return head(status, length=len(body), **headers) + body


def chunk(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


LAST = b"0\r\n\r\n"


def line(text: str = "", *, generated: bool = False, **more: Any) -> bytes:
    """One NDJSON line of a streamed answer."""
    said = {"response": text} if generated else {"message": {"role": "assistant", "content": text}}
    created = "2025-01-01T00:00:00Z"
    return json.dumps({"model": "m", "created_at": created, **said, "done": False, **more}).encode() + b"\n"


def last_line(*, generated: bool = False, **more: Any) -> bytes:
    counts = {"prompt_eval_count": 3, "eval_count": 2, "total_duration": 5}
    return line("", generated=generated, **{"done": True, "done_reason": "stop", **counts, **more})


def answer(request: Request, *texts: str) -> Iterator[Step]:
    """A proper answer to any request of a client."""
    path = request.path.partition("?")[0]
    if path == "/api/embed":
        yield whole(json.dumps(embedded(request.json["input"])).encode())
    elif path in ("/api/chat", "/api/generate"):
        generated = path == "/api/generate"
        said = texts or ("Hel", "lo")
        if request.json.get("stream", True):
            yield head(Content_Type="application/x-ndjson")
            for text in said:
                yield chunk(line(text, generated=generated))
            yield chunk(last_line(generated=generated)) + LAST
        else:
            full = json.loads(last_line(generated=generated))
            if generated:
                full["response"] = "".join(said)
            else:
                full["message"]["content"] = "".join(said)
            yield whole(json.dumps(full).encode())
    elif path == "/api/tags":
        yield whole(b'{"models":[{"name":"m:latest","digest":"d","size":1,"details":{"family":"f"}}]}')
    elif path == "/api/show":
        yield whole(b'{"capabilities":["completion","tools","vision"],"model_info":{},"details":{}}')
    elif path == "/api/version":
        yield whole(b'{"version":"0.33.0"}')
    elif path == "/api/ps":
        yield whole(b'{"models":[]}')
    else:
        yield whole(b"404 page not found", 404, Content_Type="text/plain")


def embedded(texts: Sequence[str] | str) -> dict[str, Any]:
    """What this server makes of texts: vectors that tell them apart."""
    given = [texts] if isinstance(texts, str) else texts
    return {"model": "m", "embeddings": [vector(text) for text in given], "prompt_eval_count": len(given)}


def vector(text: str) -> list[float]:
    """`"text 17"` → [1.0, 17.0]."""
    number = text.rpartition(" ")[2]
    return [1.0, float(number) if number.isdigit() else float(len(text))]


def bomb(size: int) -> bytes:
    """Gzip that unpacks to `size` zero bytes."""
    return gzip.compress(bytes(size), 9)


def in_turn(*scripts: Script | Iterable[Step], then: Script = answer) -> Script:
    """One script per request of a kind that generates, whatever comes in between; then the last for ever."""
    numbers = itertools.count()

    def turn(request: Request) -> Iterable[Step]:
        if request.path not in ("/api/chat", "/api/generate", "/api/embed"):
            return then(request)
        number = next(numbers)
        chosen = scripts[number] if number < len(scripts) else then
        return chosen(request) if callable(chosen) else list(chosen)

    return turn


class _Connection(asyncio.Protocol):
    def __init__(self, server: Listener) -> None:
        self._server = server
        self._counts = server.counts
        self._data = bytearray()
        self._arrived = asyncio.Event()
        self._gone = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self.transport: Any = None
        self._task: asyncio.Task[None] | None = None
        self._answering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._counts.connections += 1
        self._counts.open += 1
        self._counts.most_open = max(self._counts.most_open, self._counts.open)
        self._server.protocols.add(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._arrived.set()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._counts.open -= 1
        if self._answering:
            self._counts.left.append(time.monotonic())
        self._gone.set()
        self._arrived.set()
        self._may_write.set()
        self._server.protocols.discard(self)
        # Python 3.10 holds a TLS transport for open until it was told, whoever closed the connection.
        self.transport.close()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    async def _read(self, number: int) -> Request | None:
        """The next request, None when the client left."""
        while b"\r\n\r\n" not in self._data:
            if self._gone.is_set():
                return None
            self._arrived.clear()
            await self._arrived.wait()
        top, _, _rest = bytes(self._data).partition(b"\r\n\r\n")
        first, *lines = top.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (row.partition(": ") for row in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self._data) < len(top) + 4 + length:
            if self._gone.is_set():
                return None
            self._arrived.clear()
            await self._arrived.wait()
        body = bytes(self._data[len(top) + 4 : len(top) + 4 + length])
        del self._data[: len(top) + 4 + length]
        method, path, _ = first.split(" ")
        self._counts.requests += path != CONTROL
        return Request(method, path, headers, body, self._counts.requests - 1, number)

    async def _serve(self) -> None:
        for number in itertools.count():
            try:
                request = await self._read(number)
            except ValueError:
                self.transport.abort()
                return
            if request is None:
                return
            if request.path == CONTROL:
                self.transport.write(whole(json.dumps(vars(self._counts)).encode()))
                continue
            self._server.requests.append(request)
            self._answering = True
            try:
                if await self._play(self._server.played(request)):
                    return
            except json.JSONDecodeError:
                self.transport.write(whole(b'{"error":"no JSON"}', 400))
            except Exception:
                # A script with a mistake must not look like a silent server.
                traceback.print_exc()
                self.transport.write(whole(b"the script failed", 599))
            finally:
                self._answering = self._answering and self._gone.is_set()

    async def _play(self, steps: Iterable[Step]) -> bool:
        """True when the connection is over."""
        for step in steps:
            if self._gone.is_set() or self.transport.is_closing():
                return True
            if isinstance(step, bytes):
                self.transport.write(step)
                if not self._may_write.is_set():
                    await self._may_write.wait()
            elif isinstance(step, End):
                return await self._end(step)
            elif step < 0.05:
                await asyncio.sleep(step)
            else:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._gone.wait(), step)
        return False

    async def _end(self, how: End) -> bool:
        if how is End.STALL:
            await self._gone.wait()
            return True
        self._answering = False
        if how is End.FIN:
            self.transport.close()
        elif how is End.RST:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            self.transport.abort()
        elif how is End.FIN_LATER:
            # As a server that closes an idle connection the moment the next request is on its way.
            while not self._data and not self._gone.is_set():
                self._arrived.clear()
                await self._arrived.wait()
            self._counts.requests += 1
            self.transport.close()
        return True


class Listener:
    def __init__(self, script: Script) -> None:
        self.played = script
        self.counts = Counts()
        self.requests: list[Request] = []
        self.protocols: set[_Connection] = set()

    async def listen(
        self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> tuple[asyncio.Server, int]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(self), host, 0, backlog=2048, ssl=tls)
        return server, server.sockets[0].getsockname()[1]


class FaultServer(Listener):
    """The server in a thread: `with FaultServer(script) as server: … server.url, server.counts`."""

    def __init__(self, script: Script = answer, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(script)
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    @property
    def generations(self) -> list[Request]:
        """Without look-ups."""
        return [it for it in self.requests if it.path in ("/api/chat", "/api/generate", "/api/embed")]

    def script(self, script: Script) -> None:
        self.played = script

    def wait(self, done: Callable[[Counts], bool], seconds: float = 5.0) -> bool:
        """Wait for something to be seen here; False when it never was."""
        # What is seen counts, not how soon: a busy machine may take long.
        until = time.monotonic() + max(seconds, 20.0)
        while not done(self.counts):
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
        return True

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        async def serve() -> None:
            self._stop = asyncio.Event()
            server, self.port = await self.listen(tls=self._tls)
            self._ready.set()
            await self._stop.wait()
            # asyncio forgets a connection that is just being accepted when its server is closed, so it is
            # waited for, a few rounds of the loop, and closed like the others.
            for sock in server.sockets:
                self._loop.remove_reader(sock.fileno())
            for _ in range(6):
                for protocol in set(self.protocols):
                    protocol.transport.abort()
                await asyncio.sleep(0)
            server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._loop.run_until_complete(serve())
        self._loop.close()
