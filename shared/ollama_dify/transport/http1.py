"""HTTP/1.1 for one exchange: the heads by h11, the body here. Pure.

h11 makes an event of each chunk of a body and copies what follows it: 5 µs a token, where a server sends
every token as a chunk. All chunks that one read brings are one piece here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import cast

import h11
import httpx

__all__ = ["HEAD_LIMIT", "WRITE_SIZE", "Body", "Http1"]

HEAD_LIMIT = 256 * 1024
# What is handed to the socket at once.
WRITE_SIZE = 64 * 1024
_TRAILER_LIMIT = 16 * 1024
# The size of a chunk and what may follow it, which is not interpreted.
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,20})(?:[ \t]*(?:;[\t\x20-\x7e\x80-\xff]{0,4096})?)?\r\n")
_PART_OF_CHUNK = re.compile(rb"[0-9A-Fa-f]{1,20}[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r?")
_CHUNK_LINE_LIMIT = 4200
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")
_SHOWN = 40


class Body:
    """Takes bytes off the wire, gives those of the body.

    length: as announced, None for a body that ends with the connection. finished: the body is complete.
    clean: nothing came after it, so that the connection can serve again. error: the framing broke; what came
    before was given.
    """

    __slots__ = ("_left", "clean", "error", "finished")

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
        """The server closed; raises RemoteProtocolError when that came too early."""
        if self._left is not None:
            raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")
        self.finished = True


class Http1:
    """The request as bytes to send, and the response from bytes.

    It alone holds the request's bytes, and forgets them once they are sent: what fails later shows none.
    status, headers, body: known once `feed` said so; `rest` then is what came of the body already.
    keeps: the server lets the connection serve another exchange.
    """

    __slots__ = (
        "_h11",
        "_method",
        "_pieces",
        "_received",
        "_unsent",
        "body",
        "headers",
        "keeps",
        "rest",
        "status",
    )

    def __init__(
        self,
        request: httpx.Request,
        *,
        target: bytes | None = None,
        more_headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        """target: instead of the path, for a proxy. more_headers: for it alone. Raises LocalProtocolError."""
        self._method = request.method.encode("ascii")
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)
        self._received = 0
        try:
            head = self._h11.send(
                h11.Request(
                    method=self._method,
                    target=request.url.raw_path if target is None else target,
                    headers=[*request.headers.raw, *more_headers],
                )
            )
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error
        # A streamed body of ours can be read without awaiting, in async calls too.
        self._pieces = _joined(head or b"", cast(Iterable[bytes], request.stream))
        self._unsent = memoryview(b"")

    def unsent(self) -> memoryview:
        """What to send next, empty at the end."""
        while not self._unsent and (piece := next(self._pieces, None)) is not None:
            self._unsent = memoryview(piece)
        return self._unsent[:WRITE_SIZE]

    def sent(self, count: int) -> None:
        """So many bytes of `unsent` were taken."""
        self._unsent = self._unsent[count:]

    def stop_sending(self) -> None:
        """Forget the request's bytes; a connection whose request was cut short serves no other."""
        self._unsent, self._pieces = memoryview(b""), iter(())

    def feed(self, data: bytes) -> bool:
        """Take bytes; whether the response's head is complete. Raises RemoteProtocolError."""
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
        # What says where the body ends (RFC 9112, section 6.3); h11 has checked it.
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


def _joined(head: bytes, body: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces to send; a head and what fits beside it make one packet."""
    pieces = iter(body)
    first = next(pieces, b"")
    if len(first) > WRITE_SIZE:
        yield head
        yield first
    else:
        yield head + first
    yield from pieces


class _Chunked(Body):
    """A body in chunks."""

    __slots__ = ("_ending", "_held", "_trailers")
    _left: int  # of the chunk; then comes its line break

    def __init__(self) -> None:
        super().__init__(0)
        self.finished = False
        self._held = b""
        self._ending = False
        # Bytes of trailers so far, -1 before the last chunk.
        self._trailers = -1

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
            self._break(f"a chunk of the body is framed wrongly: {self._held[:_SHOWN]!r}")

    def _end_with_trailers(self, data: bytes, at: int) -> None:
        """Read past the fields after the last chunk, which are checked and not used."""
        while True:
            end = data.find(b"\r\n", at)
            size = (len(data) if end < 0 else end) - at
            if self._trailers + size > _TRAILER_LIMIT:
                return self._break("the fields after the body do not end")
            if end < 0:
                self._held = data[at:]
                return None
            if not size:
                self.finished = True
                self.clean = end + 2 == len(data)
                return None
            if _TRAILER.fullmatch(data, at, end) is None:
                return self._break(f"a field after the body is malformed: {data[at:end][:_SHOWN]!r}")
            self._trailers += size
            at = end + 2

    def _break(self, why: str) -> None:
        self.error = httpx.RemoteProtocolError(why)


def _may_become_size(start: bytes) -> bool:
    """Whether more bytes can make this the line of a chunk's size."""
    if len(start) > _CHUNK_LINE_LIMIT:
        return False
    return not start or _PART_OF_CHUNK.fullmatch(start) is not None
