"""One TCP connection: HTTP/1.1 in, answers out, faults at any byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from email.utils import formatdate
from http import HTTPStatus
from typing import cast

import h11

from .faults import Fault
from .responses import Answer
from .routes import answer_or_fault
from .state import ServerState

_HEADER_LIMIT = 1_048_576
_FOREVER_S = 86_400.0


class _Cut(Exception):
    """The fault ended the answer."""


class Connection(asyncio.Protocol):
    """Parses with h11; chunks of a stream are framed by hand, which is what makes many streams cheap."""

    _transport: asyncio.Transport

    def __init__(self, server: ServerState) -> None:
        self._server = server
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEADER_LIMIT)
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None
        self._head: h11.Request | None = None
        self._parts: list[bytes] = []
        self._number = 0
        self._closed_here = False
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._number = self._server.opened(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone: whatever is being generated stops at once."""
        self._lost = True
        interrupted = False
        if self._task is not None and not self._task.done():
            self._task.cancel()
            interrupted = not self._closed_here
        self._writable.set()
        self._server.closed(self._transport, interrupted=interrupted)

    def eof_received(self) -> bool:
        """A client that stops sending during an answer has left, as Go's server sees it."""
        return False

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a pipelined request waits until the answer before it is out."""
        self._http.receive_data(data)
        self._advance()

    def _advance(self) -> None:
        while self._task is None and not self._lost:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse_garbage(HTTPStatus(error.error_status_hint))
                return
            if isinstance(event, h11.Request):
                self._head, self._parts = event, []
            elif isinstance(event, h11.Data):
                self._parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage) and self._head is not None:
                self._task = asyncio.get_running_loop().create_task(self._serve(self._head))
            else:
                if self._http.they_are_waiting_for_100_continue:
                    ready = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
                    self._transport.write(self._http.send(ready) or b"")
                return

    def _refuse_garbage(self, status: HTTPStatus) -> None:
        text = f"{status.value} {status.phrase}".encode()
        self._transport.write(
            b"HTTP/1.1 %b\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n%b"
            % (text, text)
        )
        self._close()

    def _close(self, *, reset: bool = False) -> None:
        self._closed_here = True
        if reset:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        self._transport.close()

    async def _serve(self, head: h11.Request) -> None:
        request = self._server.record(head, b"".join(self._parts), self._number)
        answer: Answer | None = None
        try:
            answer, fault = await answer_or_fault(self._server, request)
            await self._send(answer, fault, bodiless=request.method == "HEAD")
        except _Cut:
            return
        finally:
            self._task = None
            if answer is not None and answer.release is not None:
                answer.release()
        if h11.MUST_CLOSE in (self._http.our_state, self._http.their_state):
            self._close()
        elif self._http.our_state is self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._advance()

    async def _send(self, answer: Answer, fault: Fault | None, *, bodiless: bool) -> None:
        framed = answer.is_chunked and self._http.their_http_version != b"1.0"
        head = self._http.send(_head(answer, framed=framed)) or b""
        body = b"" if bodiless else answer.body
        # The head goes with the first byte of the body, as Go's server sends it; a fault looks at each.
        joined = head if fault is None else b""
        async with contextlib.aclosing(self._pieces(body, joined, framed=framed)) as pieces:
            if fault is None:
                async for piece in pieces:
                    await self._write(piece)
            else:
                await self._break_off(head, pieces, fault)

    async def _pieces(
        self, body: bytes | AsyncIterator[bytes], head: bytes, *, framed: bool
    ) -> AsyncGenerator[bytes, None]:
        if isinstance(body, bytes):
            if body:
                yield head + (_frame(body) if framed else body)
                head = b""
        else:
            async with contextlib.aclosing(body) as chunks:  # type: ignore[type-var]  # it is a generator
                async for chunk in chunks:
                    yield head + (_frame(chunk) if framed else chunk)
                    head = b""
        with contextlib.suppress(h11.LocalProtocolError):
            if isinstance(body, bytes) and not framed:
                # h11 counts what it framed itself; the body went around it, so it is told of it here.
                self._http.send_with_data_passthrough(h11.Data(data=body))
            head += self._http.send(h11.EndOfMessage()) or b""
        if head:
            yield head

    async def _write(self, data: bytes) -> None:
        if self._lost:
            raise _Cut
        self._transport.write(data)
        if not self._writable.is_set():
            await self._writable.wait()

    async def _break_off(self, head: bytes, pieces: AsyncIterator[bytes], fault: Fault) -> None:
        """Write the answer up to where the fault strikes, and what it leaves of the rest."""
        left = fault.after + (len(head) if fault.part == "body" else 0)
        struck, chunk = False, 0
        async for piece in _with_first(head, pieces):
            at = left if fault.chunks is None else 0 if chunk > fault.chunks else len(piece)
            before, after = (b"", piece) if struck else (piece[:at], piece[at:])
            left, chunk = left - len(before), chunk + 1
            if before:
                await self._write(before)
            if after and not struck:
                struck = True
                await self._strike(fault)
            size = fault.size if fault.kind == "drip" else max(1, len(after))
            for start in range(0, len(after), size):
                await self._write(after[start : start + size])
                await asyncio.sleep((fault.seconds or 0.0) if fault.kind == "drip" else 0.0)

    async def _strike(self, fault: Fault) -> None:
        if fault.kind == "garbage":
            await self._write(fault.data)
        elif fault.kind == "stall":
            await asyncio.sleep(_FOREVER_S if fault.seconds is None else fault.seconds)
        elif fault.kind in ("end", "cut", "reset"):
            if fault.kind == "end":
                await self._write(self._http.send(h11.EndOfMessage()) or b"")
            self._close(reset=fault.kind == "reset")
            raise _Cut


async def _with_first(head: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for piece in pieces:
        yield piece


def _frame(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _head(answer: Answer, *, framed: bool) -> h11.Response:
    headers = list(answer.headers)
    if answer.content_type is not None:
        headers.append(("Content-Type", answer.content_type))
    headers.append(("Date", formatdate(usegmt=True)))
    if framed:
        headers.append(("Transfer-Encoding", "chunked"))
    elif isinstance(answer.body, bytes):
        headers.append(("Content-Length", str(len(answer.body))))
    reason = HTTPStatus(answer.status).phrase if answer.status in HTTPStatus._value2member_map_ else ""
    return h11.Response(status_code=answer.status, headers=headers, reason=reason)
