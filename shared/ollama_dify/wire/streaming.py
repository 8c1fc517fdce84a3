"""Decode a streamed answer: bytes in, chunks out, the whole answer at the end. Pure.

Only `\\n` ends a line: U+0085 and U+2028 are legal inside JSON text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import EmptyResponseError, IncompleteResponseError, OllamaError, ProtocolError
from .messages import ToolCall
from .responses import ChatChunk, ChatResult, Finish, check_call_count, load_json, read_chunk
from .server_errors import error_in_stream
from .think_tags import ThinkTags
from .tool_choice import SpelledCalls

MAX_LINE = 16 * 1024 * 1024


class LineSplitter:
    """Cuts bytes at newlines; text over MAX_LINE is returned at once, as a line that the decoder refuses."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Complete lines, without their newline; blank lines are left out."""
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._rest:
            lines[0] = b"".join([*self._rest, lines[0]])
            self._rest, self._size = [], 0
        if rest:
            self._rest.append(rest)
            self._size += len(rest)
            if self._size > MAX_LINE:
                lines.append(b"".join(self._rest))
                self._rest, self._size = [], 0
        return [line for line in lines if line and (not line.isspace() or len(line) > MAX_LINE)]

    def flush(self) -> list[bytes]:
        """The rest after the last newline."""
        return self.feed(b"\n")


class ChatDecoder:
    """Turns the bytes of one answer into chunks and keeps what arrived.

    Call `feed` with the bytes read, and `close` at the end of the body: it raises IncompleteResponseError
    unless the answer said `done:true`. For an answer that is not streamed call `whole`. Every error has the
    answer so far in `partial`.
    """

    def __init__(
        self,
        *,
        generated: bool = False,
        model: str | None = None,
        step: ThinkTags | SpelledCalls | None = None,
        last: Callable[[ChatChunk], ChatChunk] | None = None,
        check: Callable[[ChatResult], None] | None = None,
    ) -> None:
        """step: a filter for each chunk, used until its `done`. last: a filter for the last chunk, after it.
        check: called with the whole answer; may raise."""
        self._generated = generated
        self._last = last
        self._check = check
        self._model = model
        self._step = step
        self._lines = LineSplitter()
        self._chunks: list[ChatChunk] = []
        self._calls = 0
        self._finish: Finish | None = None
        self.error: OllamaError | None = None

    def feed(self, data: bytes) -> list[ChatChunk]:
        """The chunks that these bytes complete.

        Chunks before a bad line are returned first; the line's error is kept in `error`, and the next call
        raises it.
        """
        return self._read(self._lines.feed(data))

    def close(self) -> list[ChatChunk]:
        """End of the body; returns the chunks of a last line without newline."""
        chunks = self._read(self._lines.flush())
        if self._finish is None and self.error is None:
            raise self._incomplete()
        return chunks

    def whole(self, body: bytes) -> ChatResult:
        """An answer that was not streamed. Raises IncompleteResponseError if it says `done:false`."""
        self._read([body])
        if self._finish is None:
            raise self._incomplete()
        return self.result()

    def result(self) -> ChatResult:
        """The answer received so far; complete after the last chunk."""
        held = "" if self._finish or self._step is None else self._step.held
        texts, thoughts = [], []
        calls: list[ToolCall] = []
        logprobs: list[Any] = []
        for chunk in self._chunks:
            texts.append(chunk.text)
            thoughts.append(chunk.thinking)
            calls += chunk.tool_calls
            logprobs += chunk.logprobs
        text = "".join(texts) + held
        return ChatResult(text, "".join(thoughts), tuple(calls), tuple(logprobs), self._finish)

    @property
    def finished(self) -> bool:
        return self._finish is not None

    def _read(self, lines: Sequence[bytes]) -> list[ChatChunk]:
        if self.error is not None:
            raise self.error
        chunks: list[ChatChunk] = []
        try:
            for line in lines:
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
        if len(line) > MAX_LINE:
            raise ProtocolError(
                f"The server sent a line of over {MAX_LINE} bytes.",
                hint="An answer's line is far shorter; is this an Ollama server?",
            )
        data = load_json(line)
        if isinstance(data, dict) and "error" in data:
            raise error_in_stream(line, model=self._model)
        if self._finish is not None:
            raise ProtocolError("The server went on after it had said it was done.")
        chunk = read_chunk(data, generated=self._generated)
        if self._step is not None:
            chunk = self._step.feed(chunk)
            if self._step.done:
                self._step = None
        if chunk.finish is not None and self._last is not None:
            return self._last(chunk)
        return chunk

    def _keep(self, chunk: ChatChunk) -> None:
        if chunk.tool_calls:
            self._calls += len(chunk.tool_calls)
            check_call_count(self._calls)
        self._chunks.append(chunk)
        if chunk.finish is None:
            return
        self._finish = chunk.finish
        result, reason = self.result(), chunk.finish.reason
        if reason in ("load", "unload") and not (result.text or result.thinking or result.tool_calls):
            raise EmptyResponseError(
                f"The server {reason}ed the model {chunk.finish.model!r} and answered nothing.",
                retryable=reason == "load",
                retry_once=True,
                hint="The conversation may lack a user message, or the server restarted the model; try "
                "again.",
            )
        if self._check is not None:
            self._check(result)

    def _incomplete(self) -> IncompleteResponseError:
        """The error for an answer without `done:true`."""
        partial = self.result()
        arrived = f"{len(partial.text)} characters had arrived"
        return IncompleteResponseError(
            f"The answer ended before the server said it was done; {arrived}.",
            partial=partial,
            hint="The model may repeat itself, run out of memory or have been stopped: see the server's log. "
            "What had arrived is in the error's `partial`.",
        )
