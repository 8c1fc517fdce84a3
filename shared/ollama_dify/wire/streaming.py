"""A streamed answer: bytes in, chunks out, and the whole at the end. Pure.

Lines end at `\\n` alone: U+0085 and U+2028 are legal inside JSON text.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..errors import OllamaError, ProtocolError
from .messages import ToolCall
from .responses import (
    ChatChunk,
    ChatResult,
    Finish,
    check_answered,
    check_call_count,
    incomplete,
    load_json,
    read_chunk,
)
from .server_errors import error_in_stream, server_message

__all__ = ["ChatDecoder", "ChunkFilter", "LineSplitter"]

MAX_LINE = 16 * 1024 * 1024


class ChunkFilter(Protocol):
    """Changes each chunk of one answer; dropped once it is `done`. held: text that it keeps back."""

    done: bool

    @property
    def held(self) -> str: ...

    def feed(self, chunk: ChatChunk) -> ChatChunk: ...


class LineSplitter:
    """Cuts bytes at newlines; a line over `limit` bytes is a ProtocolError before it is held.

    Lines before it are given first; the error then waits in `error`, and the next call raises it.
    """

    __slots__ = ("_limit", "_rest", "_size", "error")

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._rest: list[bytes] = []
        self._size = 0
        self._limit = limit
        self.error: ProtocolError | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Complete lines, without their newline; blank ones left out."""
        if self.error is not None:
            raise self.error
        may_exceed = self._size + len(data) > self._limit
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._rest:
            self._rest.append(lines[0])
            lines[0] = b"".join(self._rest)
            self._rest = []
            self._size = 0
        if rest:
            self._rest.append(rest)
            self._size += len(rest)
        if may_exceed and (self._size > self._limit or any(len(line) > self._limit for line in lines)):
            lines = self._refuse(lines)
        return [line for line in lines if line and not line.isspace()]

    def _refuse(self, lines: list[bytes]) -> list[bytes]:
        """The lines before the one that is too long."""
        self._rest = []
        self.error = ProtocolError(
            f"The server sent a line of over {self._limit} bytes.",
            hint="An answer's line is far shorter; is this an Ollama server?",
        )
        before = list(itertools.takewhile(lambda line: len(line) <= self._limit, lines))
        if not any(line and not line.isspace() for line in before):
            raise self.error
        return before

    def flush(self) -> list[bytes]:
        """What follows the last newline."""
        if self.error is not None:
            raise self.error
        rest, self._rest, self._size = b"".join(self._rest), [], 0
        return [rest] if rest.strip() else []


class ChatDecoder:
    """Turns the bytes of one answer into chunks and keeps what arrived.

    `feed` what was read, `close` at the end of the body: it raises IncompleteResponseError unless the
    answer said `done:true`. An answer in one piece goes to `whole`. Every error carries the answer so far
    in `partial`.
    """

    def __init__(
        self,
        *,
        generated: bool = False,
        model: str | None = None,
        filters: Sequence[ChunkFilter] = (),
        last: Callable[[ChatChunk], ChatChunk] | None = None,
        check: Callable[[ChatResult], None] | None = None,
    ) -> None:
        """filters: change every chunk, in this order. last: changes the last chunk, after them.
        check: sees the whole answer, and may raise."""
        self._generated = generated
        self._last = last
        self._check = check
        self._model = model
        self._filters = list(filters)
        self._lines = LineSplitter()
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[ToolCall] = []
        self._logprobs: list[Any] = []
        self._finish: Finish | None = None
        self.error: OllamaError | None = None

    def feed(self, data: bytes) -> list[ChatChunk]:
        """The chunks these bytes complete.

        Chunks before a faulty line are given first; its error then waits in `error`, and the next call
        raises it.
        """
        if self.error is not None:
            raise self.error
        return self._read(lambda: self._lines.feed(data))

    def close(self) -> list[ChatChunk]:
        """The end of the body: chunks of a last line without newline.

        Raises IncompleteResponseError, or EmptyResponseError when the model was only loaded.
        """
        if self.error is not None:
            raise self.error
        chunks = self._read(self._lines.flush)
        if self._finish is None and self.error is None:
            raise incomplete(self.result())
        return chunks

    def whole(self, body: bytes) -> ChatResult:
        """An answer that was not streamed.

        Raises IncompleteResponseError when the server gave up half-way (`done:false`).
        """
        try:
            self._keep(self._chunk(body))
        except OllamaError as error:
            error.partial = error.partial or self.result()
            raise
        if self._finish is None:
            raise incomplete(self.result())
        return self.result()

    def result(self) -> ChatResult:
        """What has arrived so far; whole once the last chunk did."""
        held = "" if self._finish else "".join(step.held for step in self._filters)
        return ChatResult(
            "".join(self._texts) + held,
            "".join(self._thoughts),
            tuple(self._calls),
            tuple(self._logprobs),
            self._finish,
        )

    @property
    def finished(self) -> bool:
        return self._finish is not None

    def _read(self, read_lines: Callable[[], list[bytes]]) -> list[ChatChunk]:
        chunks: list[ChatChunk] = []
        try:
            for line in read_lines():
                chunk = self._chunk(line)
                self._keep(chunk)
                chunks.append(chunk)
        except OllamaError as error:
            error.partial = error.partial or self.result()
            self.error = error
            if not chunks:
                raise
        return chunks

    def _chunk(self, line: bytes) -> ChatChunk:
        data = load_json(line)
        if isinstance(data, dict) and "error" in data:
            raise error_in_stream(server_message(line), model=self._model)
        if self._finish is not None:
            raise ProtocolError("The server went on after it had said it was done.")
        chunk = read_chunk(data, generated=self._generated)
        for step in self._filters:
            chunk = step.feed(chunk)
            if step.done:
                self._filters = [other for other in self._filters if other is not step]
        if chunk.finish is not None and self._last is not None:
            return self._last(chunk)
        return chunk

    def _keep(self, chunk: ChatChunk) -> None:
        text, thinking, calls, logprobs, finish = chunk
        if text:
            self._texts.append(text)
        if thinking:
            self._thoughts.append(thinking)
        if calls:
            check_call_count(len(self._calls) + len(calls))
            self._calls.extend(calls)
        if logprobs:
            self._logprobs.extend(logprobs)
        if finish is not None:
            self._finish = finish
            result = self.result()
            check_answered(result)
            if self._check is not None:
                self._check(result)
