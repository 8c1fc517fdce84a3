"""HTTP/1.1 for one exchange: the heads by h11, the body here. Pure.

h11 makes an event of each chunk of a body and copies what follows it: 5 µs a token, where a server sends
every token as a chunk. All chunks that one read brings are one piece here.
"""

from __future__ import annotations

import re
from typing import Protocol

import h11
import httpx

from .exchange import HEAD_LIMIT

__all__ = ["Body", "Dialogue"]

Headers = list[tuple[bytes, bytes]]

_TRAILER_LIMIT = 16 * 1024
# The size of a chunk and what may follow it, which is not looked at.
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,20})(?:[ \t]*(?:;[^\r\n]{0,4096})?)?\r\n")
_CHUNK_LINE_LIMIT = 4200
_SHOWN = 40


class Body(Protocol):
    """Takes bytes off the wire, gives those of the body.

    finished: the body is complete. clean: nothing came after it, so that the connection can serve again.
    error: the framing broke; what came before was given.
    """

    finished: bool
    clean: bool
    error: httpx.RemoteProtocolError | None

    def feed(self, data: bytes) -> bytes: ...

    def end(self) -> None:
        """The server closed; raises RemoteProtocolError when that came too early."""


class Dialogue:
    """The request's head as bytes, and the answer's from bytes.

    head: to send before the body. status, headers, body: known once `feed` said so. keeps: the server lets
    the connection serve another exchange.
    """

    __slots__ = ("_h11", "_method", "body", "head", "headers", "keeps", "rest", "status")

    def __init__(self, request: httpx.Request) -> None:
        self._method = request.method.encode("ascii")
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)
        try:
            asked = h11.Request(method=self._method, target=request.url.raw_path, headers=request.headers.raw)
            self.head = self._h11.send(asked) or b""
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error

    def feed(self, data: bytes) -> bool:
        """Take bytes; whether the answer's head is complete. `rest` then is what came of the body.

        Raises RemoteProtocolError.
        """
        if not data:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        try:
            self._h11.receive_data(data)
            event = self._h11.next_event()
            while isinstance(event, h11.InformationalResponse):
                event = self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error)) from error
        if not isinstance(event, h11.Response):
            return False
        self.rest = self._h11.trailing_data[0]
        self.status = event.status_code
        self.headers: Headers = event.headers.raw_items()
        known = _values(event)
        self.body = _body(self._method, event.status_code, known)
        self.keeps = event.http_version >= b"1.1" and b"close" not in known.get(b"connection", ())
        return True


def _values(event: h11.Response) -> dict[bytes, list[bytes]]:
    """The headers that say where the body ends; h11 has checked them."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in event.headers:
        if name in (b"connection", b"content-length", b"transfer-encoding"):
            found.setdefault(name, []).extend(part.strip().lower() for part in value.split(b","))
    return found


def _body(method: bytes, status: int, known: dict[bytes, list[bytes]]) -> Body:
    """RFC 9112, section 6.3."""
    if status in (204, 304) or method == b"HEAD":
        return _Sized(0)
    if b"transfer-encoding" in known:
        return _Chunked()
    if b"content-length" in known:
        return _Sized(int(known[b"content-length"][0]))
    return _UntilClose()


class _Sized:
    """A body whose length was announced."""

    __slots__ = ("_left", "clean", "error", "finished")

    def __init__(self, length: int) -> None:
        self._left = length
        self.finished = length == 0
        self.clean = True
        self.error: httpx.RemoteProtocolError | None = None

    def feed(self, data: bytes) -> bytes:
        left = self._left - len(data)
        if left < 0:
            self.clean = False
            data = data[: self._left]
            left = 0
        self._left = left
        self.finished = left == 0
        return data

    def end(self) -> None:
        raise httpx.RemoteProtocolError(
            f"peer closed connection without sending complete message body (missing {self._left} bytes)"
        )


class _UntilClose:
    """A body that ends with the connection."""

    __slots__ = ("clean", "error", "finished")

    def __init__(self) -> None:
        self.finished = False
        self.clean = False
        self.error: httpx.RemoteProtocolError | None = None

    def feed(self, data: bytes) -> bytes:
        return data

    def end(self) -> None:
        self.finished = True


class _Chunked:
    """A body in chunks."""

    __slots__ = ("_ending", "_held", "_left", "_trailers", "clean", "error", "finished")

    def __init__(self) -> None:
        self._held = b""
        # Bytes of the chunk still to come; then its line break.
        self._left = 0
        self._ending = False
        # Bytes of trailers so far, -1 before the last chunk.
        self._trailers = -1
        self.finished = False
        self.clean = True
        self.error: httpx.RemoteProtocolError | None = None

    def feed(self, data: bytes) -> bytes:
        if self._held:
            data = self._held + data
            self._held = b""
        pieces: list[bytes] = []
        at = 0
        while self._trailers < 0:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
                self._ending = True
            if self._ending:
                if data[at : at + 2] != b"\r\n":
                    self._want(data, at, b"\r\n".startswith(data[at : at + 2]))
                    break
                at += 2
                self._ending = False
            size = _CHUNK.match(data, at)
            if size is None:
                self._want(data, at, _may_become_size(data[at:]))
                break
            at = size.end()
            self._left = int(size[1], 16)
            if not self._left:
                self._trailers = 0
        if self._trailers >= 0:
            self._end_with_trailers(data, at)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _want(self, data: bytes, at: int, possible: bool) -> None:
        """Keep what is half a line, unless it can become none."""
        self._held = data[at:]
        if not possible:
            self.error = httpx.RemoteProtocolError(
                f"a chunk of the body is framed wrongly: {self._held[:_SHOWN]!r}"
            )

    def _end_with_trailers(self, data: bytes, at: int) -> None:
        """Read past the fields after the last chunk; nobody needs them."""
        while not self.finished:
            end = data.find(b"\r\n", at)
            self._trailers += (len(data) if end < 0 else end) - at
            if self._trailers > _TRAILER_LIMIT:
                self.error = httpx.RemoteProtocolError("the fields after the body do not end")
                return
            if end < 0:
                self._trailers -= len(data) - at
                self._held = data[at:]
                return
            self.finished = end == at
            at = end + 2
        self.clean = at == len(data)

    def end(self) -> None:
        raise httpx.RemoteProtocolError(
            "peer closed connection without sending complete message body (incomplete chunked read)"
        )


def _may_become_size(start: bytes) -> bool:
    """Whether more bytes can make this the line of a chunk's size."""
    if len(start) > _CHUNK_LINE_LIMIT or b"\n" in start:
        return False
    return not start or re.fullmatch(rb"[0-9A-Fa-f]{1,20}[ \t]*(?:;[^\r]*)?\r?", start) is not None
