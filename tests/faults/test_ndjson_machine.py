"""However an answer's bytes are cut, the chunks are the same; errors come when they are due, once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ollama_dify import IncompleteResponseError, OllamaError
from ollama_dify.wire.streaming import ChatDecoder

from .server import last_line, line

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
BAD_LINES = st.sampled_from(
    [b"null", b"[]", b"{", b'{"error":"no"}', b"\xff", b'{"done":1,"message":{"content":"x"}}', b"x" * 50]
)


class Chunking(RuleBasedStateMachine):
    """A server that appends lines, a network that cuts them anywhere, and what the decoder makes of it."""

    @initialize(ascii_only=st.booleans())
    def begin(self, ascii_only: bool) -> None:
        self.ascii_only = ascii_only
        self.decoder = ChatDecoder(model="m")
        self.wire = b""
        self.said: list[str] = []
        self.got: list[str] = []
        self.spoilt = False
        self.finished = False
        self.raised: OllamaError | None = None
        self.over = False

    def write(self, data: bytes) -> None:
        if not self.ascii_only:
            data = json.dumps(json.loads(data), ensure_ascii=False).encode() + b"\n"
        self.wire += data

    @precondition(lambda self: not (self.finished or self.spoilt or self.over))
    @rule(text=TEXT)
    def says(self, text: str) -> None:
        self.said.append(text)
        self.write(line(text))

    @precondition(lambda self: not (self.finished or self.spoilt or self.over))
    @rule()
    def is_done(self) -> None:
        self.finished = True
        self.said.append("")
        # Said something before, so that it is not an answer that only loaded the model.
        self.write(last_line())

    @rule(blank=st.sampled_from([b"\n", b"\r\n", b" \n", b"\t\r\n"]))
    def blank(self, blank: bytes) -> None:
        if not self.over and not self.spoilt:
            self.wire += blank

    @precondition(lambda self: not (self.finished or self.spoilt or self.over))
    @rule(bad=BAD_LINES)
    def spoils(self, bad: bytes) -> None:
        self.spoilt = True
        self.wire += bad + b"\n"

    def take(self, call: Any) -> None:
        if self.raised is not None or self.over:
            return
        try:
            self.got += [chunk.text for chunk in call()]
        except OllamaError as error:
            self.raised = error

    @rule(size=st.integers(0, 40))
    def arrives(self, size: int) -> None:
        piece, self.wire = self.wire[:size], self.wire[size:]
        self.take(lambda: self.decoder.feed(piece))

    @rule()
    def all_arrives(self) -> None:
        piece, self.wire = self.wire, b""
        self.take(lambda: self.decoder.feed(piece))

    @precondition(lambda self: not self.over)
    @rule()
    def ends(self) -> None:
        self.all_arrives()
        self.take(self.decoder.close)
        if not self.over and self.raised is None and not self.finished:
            pytest.fail("an answer without done:true was taken for whole")
        if self.finished:
            assert self.raised is None, repr(self.raised)
            assert self.got == self.said
            assert self.decoder.result().text == "".join(self.said)
        elif not self.spoilt:
            assert isinstance(self.raised, IncompleteResponseError)
        self.over = True

    @invariant()
    def nothing_is_lost_or_invented(self) -> None:
        if not hasattr(self, "got"):
            return
        assert self.got == self.said[: len(self.got)]
        if self.raised is not None:
            # What had arrived is on the error.
            assert self.raised.partial.text == "".join(self.got)


TestChunking = Chunking.TestCase
TestChunking.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
