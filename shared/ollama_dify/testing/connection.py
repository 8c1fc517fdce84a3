"""One TCP connection: HTTP/1.1 in, answers out, faults at any byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Protocol, cast

import h11

from . import wire
from .faults import Fault, RecordedRequest
from .responses import Answer

_HEADER_LIMIT = 1_048_576
_FOREVER_S = 86_400.0


class Host(Protocol):
    """What a connection needs of the server."""

    def opened(self, connection: Connection) -> int:
        """Number a new connection."""

    def closed(self, connection: Connection, *, interrupted: bool) -> None:
        """Forget a connection; `interrupted` if it broke off during an answer."""

    async def answer(self, request: RecordedRequest) -> tuple[Answer, Fault | None]:
        """Work on a request."""

    def parse(
        self, method: str, path: str, headers: list[tuple[bytes, bytes]], raw: bytes, connection: int
    ) -> RecordedRequest:
        """Record a request."""


class _Cut(Exception):
    """The fault ended the answer."""


class Connection(asyncio.Protocol):
    """Parses with h11; chunks of a stream are framed by hand, which is what makes many streams cheap."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEADER_LIMIT)
        self._transport: asyncio.Transport | None = None
        self._writable: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._head: h11.Request | None = None
        self._parts: list[bytes] = []
        self._number = 0
        self._aborted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._writable = asyncio.Event()
        self._writable.set()
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._number = self._host.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone: whatever is being generated stops at once."""
        busy = self._task is not None and not self._task.done()
        if busy and self._task is not None:
            self._task.cancel()
        if self._writable is not None:
            self._writable.set()
        self._host.closed(self, interrupted=busy and not self._aborted)
        self._transport = None

    def eof_received(self) -> bool:
        """A client that stops sending during an answer has left, as Go's server sees it."""
        return False

    def pause_writing(self) -> None:
        if self._writable is not None:
            self._writable.clear()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a pipelined request waits until the answer before it is out."""
        self._http.receive_data(data)
        if self._task is None:
            self._advance()

    def close(self) -> None:
        """Close from the server's side."""
        self._aborted = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection with whatever was still to be sent."""
        self._aborted = True
        if self._transport is not None:
            self._transport.abort()

    def _advance(self) -> None:
        try:
            self._read_events()
        except h11.RemoteProtocolError as error:
            self._refuse_garbage(error)

    def _read_events(self) -> None:
        while self._transport is not None and self._task is None:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    self._write(
                        self._http.send(
                            h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
                        )
                    )
                return
            if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return
            if isinstance(event, h11.Request):
                self._head, self._parts = event, []
            elif isinstance(event, h11.Data):
                self._parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._start()

    def _start(self) -> None:
        head = self._head
        if head is None:
            return
        raw_headers = [(bytes(name), bytes(value)) for name, value in head.headers]
        method, target = head.method.decode("ascii"), head.target.decode("latin-1")
        request = self._host.parse(method, target, raw_headers, b"".join(self._parts), self._number)
        self._task = asyncio.get_running_loop().create_task(self._serve(request))

    def _refuse_garbage(self, error: h11.RemoteProtocolError) -> None:
        if self._transport is None:
            return
        status = HTTPStatus(error.error_status_hint)
        text = f"{status.value} {status.phrase}".encode()
        self._write(
            b"HTTP/1.1 %b\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n%b"
            % (text, text)
        )
        self.close()

    async def _serve(self, request: RecordedRequest) -> None:
        answer: Answer | None = None
        try:
            answer, fault = await self._host.answer(request)
            await self._send(answer, fault, bodiless=request.method == "HEAD")
        except _Cut:
            return
        finally:
            self._task = None
            if answer is not None and answer.release is not None:
                answer.release()
        if self._http.our_state is h11.MUST_CLOSE or self._http.their_state is h11.MUST_CLOSE:
            self.close()
        elif self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._advance()

    async def _send(self, answer: Answer, fault: Fault | None, *, bodiless: bool) -> None:
        framed = answer.is_chunked and self._peer_speaks_chunks()
        head = self._http.send(_head(answer, framed=framed))
        if head is None:
            raise _Cut
        if fault is None:
            write = self._plain_writer()
        else:
            write = self._faulty_writer(fault, len(head))
            await write(head)
            head = b""
        if not bodiless:
            head = await self._send_body(answer.body, head, framed=framed, write=write)
        with contextlib.suppress(h11.LocalProtocolError):
            end = head + self._end(framed=framed, bodiless=bodiless, answer=answer)
            if end:
                await write(end)

    def _end(self, *, framed: bool, bodiless: bool, answer: Answer) -> bytes:
        if isinstance(answer.body, bytes) and not framed and not bodiless:
            # h11 counts what it framed itself; the body went around it, so it is told of it here.
            self._http.send_with_data_passthrough(h11.Data(data=answer.body))
        return self._http.send(h11.EndOfMessage()) or b""

    async def _send_body(
        self,
        body: bytes | AsyncIterator[bytes],
        head: bytes,
        *,
        framed: bool,
        write: Callable[[bytes], Awaitable[None]],
    ) -> bytes:
        """Send the body, the head with its first byte as Go's server does; returns a head not yet sent."""
        if isinstance(body, bytes):
            if not body:
                return head
            await write(head + (b"%x\r\n%b\r\n" % (len(body), body) if framed else body))
            return b""
        async with contextlib.aclosing(body) as chunks:  # type: ignore[type-var]  # it is a generator
            async for chunk in chunks:
                await write(b"%b%x\r\n%b\r\n" % (head, len(chunk), chunk) if framed else head + chunk)
                head = b""
        return head

    def _peer_speaks_chunks(self) -> bool:
        return self._http.their_http_version != b"1.0"

    def _write(self, data: bytes | None) -> None:
        if data and self._transport is not None:
            self._transport.write(data)

    def _plain_writer(self) -> Callable[[bytes], Awaitable[None]]:
        writable = self._writable

        async def write(data: bytes) -> None:
            if self._transport is None:
                raise _Cut
            self._transport.write(data)
            if writable is not None and not writable.is_set():
                await writable.wait()

        return write

    def _faulty_writer(self, fault: Fault, head_length: int) -> Callable[[bytes], Awaitable[None]]:
        plain = self._plain_writer()
        limit = fault.after + (head_length if fault.part == "body" else 0)
        sent, chunks_left, struck, dripping = 0, fault.chunks, False, False

        async def write(data: bytes) -> None:
            nonlocal sent, chunks_left, struck, dripping
            if dripping:
                await self._drip(data, fault, plain)
                return
            before, after = data, b""
            if not struck and fault.chunks is None and sent + len(data) > limit:
                before, after = data[: limit - sent], data[limit - sent :]
            elif not struck and chunks_left == 0 and sent >= head_length:
                before, after = b"", data
            if before:
                await plain(before)
                if chunks_left is not None and sent >= head_length:
                    chunks_left -= 1
                sent += len(before)
            if after:
                struck = True
                dripping = fault.kind == "drip"
                await self._strike(fault, plain)
                await write(after)

        return write

    async def _drip(self, data: bytes, fault: Fault, plain: Callable[[bytes], Awaitable[None]]) -> None:
        for start in range(0, len(data), fault.size):
            await plain(data[start : start + fault.size])
            await asyncio.sleep(0.0 if fault.seconds is None else fault.seconds)

    async def _strike(self, fault: Fault, plain: Callable[[bytes], Awaitable[None]]) -> None:
        if fault.kind == "garbage":
            await plain(fault.data)
        elif fault.kind == "stall":
            await asyncio.sleep(_FOREVER_S if fault.seconds is None else fault.seconds)
        elif fault.kind == "end":
            await plain(self._http.send(h11.EndOfMessage()) or b"")
            self.close()
            raise _Cut
        elif fault.kind == "cut":
            self.close()
            raise _Cut
        elif fault.kind == "reset":
            self._reset()
            raise _Cut

    def _reset(self) -> None:
        self._aborted = True
        if self._transport is None:
            return
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


def _head(answer: Answer, *, framed: bool) -> h11.Response:
    headers = list(answer.headers)
    if answer.content_type is not None:
        headers.append(("Content-Type", answer.content_type))
    headers.append(("Date", wire.http_date()))
    if framed:
        headers.append(("Transfer-Encoding", "chunked"))
    elif isinstance(answer.body, bytes):
        headers.append(("Content-Length", str(len(answer.body))))
    reason = HTTPStatus(answer.status).phrase if answer.status in HTTPStatus._value2member_map_ else ""
    return h11.Response(status_code=answer.status, headers=headers, reason=reason)
