"""HTTP/1.1 for one exchange: the heads by h11, the body here. Pure.

h11 creates an event for each chunk of a body and copies the bytes after it: 5 µs per token, because servers
send every token as a chunk. Here all chunks of one read are returned as one piece.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import cast

import h11
import httpx

__all__ = ["Http1"]

Pairs = Sequence[tuple[bytes, bytes]]
HEAD_LIMIT = 256 * 1024
# Bytes given to the socket at once.
WRITE_SIZE = 64 * 1024
# The line break after the previous chunk; the size of a chunk; its extensions, which are ignored.
_CHUNK = re.compile(rb"\r\n([0-9A-Fa-f]{1,20})(?:[ \t]*(?:;[\t\x20-\x7e\x80-\xff]{0,4096})?)?\r\n")
_CHUNK_LINE_LIMIT = 4200
_TRAILERS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)*")
_TRAILER_LIMIT = 16 * 1024


class Body:
    """Takes the received bytes, returns those of the body.

    length: Content-Length, None for a body that ends with the connection. finished: the body is complete.
    clean: no bytes came after it. error: the framing is invalid; the bytes before that were returned.
    """

    def __init__(self, length: int | None) -> None:
        self._left = length
        self.finished = length == 0
        self.clean = length is not None
        self.error: httpx.RemoteProtocolError | None = None

    def feed(self, data: bytes) -> bytes:
        left = self._left
        if left is None:
            return data
        if len(data) > left:
            self.clean = False
            data = data[:left]
        self._left = left = left - len(data)
        self.finished = left == 0
        return data

    def end(self) -> None:
        """The server closed the connection; raises RemoteProtocolError if that was too early."""
        if self._left is not None:
            raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")
        self.finished = True


class Http1:
    """The request as bytes to send, and the response from bytes.

    request: the bytes to send, in pieces, referenced only here, so that tracebacks of later errors show none.
    status, headers, body: known once `feed` returned True; `rest` is then the received part of the body.
    keeps: the server allows another exchange on the connection.
    """

    def __init__(self, request: httpx.Request, target: bytes | None = None, more_headers: Pairs = ()) -> None:
        """target: replaces the path, for a proxy. more_headers: for it alone. Raises LocalProtocolError."""
        self._method = request.method.encode("ascii")
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)
        self._received = 0
        target = request.url.raw_path if target is None else target
        headers = [*request.headers.raw, *more_headers]
        try:
            head = self._h11.send(h11.Request(method=self._method, target=target, headers=headers))
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error
        # Our own streamed bodies can be read without awaiting, in async calls too.
        self.request = _pieces(head or b"", cast(Iterable[bytes], request.stream))

    def feed(self, data: bytes) -> bool:
        """Take bytes; returns whether the response's head is complete. Raises RemoteProtocolError."""
        if not data:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        self._received += len(data)
        try:
            self._h11.receive_data(data)
            event = self._h11.next_event()
            while isinstance(event, h11.InformationalResponse) and event.http_version.startswith(b"1."):
                event = self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error)) from error
        rest = self._h11.trailing_data[0]
        complete = isinstance(event, h11.Response)
        if self._received - (len(rest) if complete else 0) > HEAD_LIMIT:
            raise httpx.RemoteProtocolError(f"the answer's head is over {HEAD_LIMIT} bytes")
        if isinstance(event, (h11.Response, h11.InformationalResponse)):
            self._begin(event, rest)
        return complete

    def _begin(self, event: h11.Response | h11.InformationalResponse, rest: bytes) -> None:
        if not event.http_version.startswith(b"1."):
            version = event.http_version.decode("ascii")
            raise httpx.RemoteProtocolError(f"the answer is HTTP/{version}, which was not asked for")
        self.status = event.status_code
        self.headers: list[tuple[bytes, bytes]] = event.headers.raw_items()
        # The headers that determine the body's end (RFC 9112, section 6.3); h11 has checked them.
        known = dict(event.headers)
        chunked = b"transfer-encoding" in known
        length = known.get(b"content-length")
        if event.status_code in (204, 304) or self._method in (b"HEAD", b"CONNECT"):
            self.body = Body(0)
        elif chunked:
            self.body = _Chunked()
        else:
            self.body = Body(None if length is None else int(length.split(b",")[0]))
        self.rest = self.body.feed(rest) if rest else b""
        said = b",".join(value.lower() for name, value in event.headers if name == b"connection")
        closes = b"close" in [part.strip() for part in said.split(b",")]
        self.keeps = not (closes or event.http_version < b"1.1" or (chunked and length is not None))


def _pieces(head: bytes, body: Iterable[bytes]) -> Iterator[memoryview]:
    """The head and the beginning of the body go into one packet."""
    rest = iter(body)
    first = next(rest, b"")
    start = (head + first,) if len(first) <= WRITE_SIZE else (head, first)
    for piece in chain(start, rest):
        for at in range(0, len(piece), WRITE_SIZE):
            yield memoryview(piece)[at : at + WRITE_SIZE]


class _Chunked(Body):
    """A body in chunks."""

    _left: int  # of the chunk

    def __init__(self) -> None:
        super().__init__(0)
        self.finished = False
        # An incomplete line; the first chunk is parsed as if another one had ended before it.
        self._held = b"\r\n"
        self._is_last = False

    def feed(self, data: bytes) -> bytes:
        data, self._held = self._held + data, b""
        pieces: list[bytes] = []
        at = 2 if self._is_last else 0
        while not self._is_last:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
            size = _CHUNK.match(data, at)
            if size is None:
                self._held = data[at:]
                if len(self._held) > _CHUNK_LINE_LIMIT or self._held.find(b"\n", 2) >= 0:
                    self._break(f"a chunk of the body is framed wrongly: {self._held[:40]!r}")
                break
            at = size.end()
            self._left = int(size[1], 16)
            self._is_last = not self._left
        if self._is_last:
            self._end_with_trailers(data, at)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _end_with_trailers(self, data: bytes, at: int) -> None:
        """Skip the fields after the last chunk; they are checked but not used."""
        end = data.find(b"\r\n\r\n", at - 2)
        if (len(data) if end < 0 else end) - at > _TRAILER_LIMIT:
            self._break("the fields after the body do not end")
        elif end < 0:
            self._held = data[at - 2 :]
        elif _TRAILERS.fullmatch(data, at, end + 2) is None:
            self._break(f"a field after the body is malformed: {data[at:end][:40]!r}")
        else:
            self.finished = True
            self.clean = end + 4 == len(data)

    def _break(self, why: str) -> None:
        self.error = httpx.RemoteProtocolError(why)
