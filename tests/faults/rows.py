# ruff: noqa: PT017  the error is the subject
"""What the rows of the fault table are made of."""

from __future__ import annotations

import bisect
import contextlib
import json
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import ollama_dify as od

from .server import (
    LAST,
    End,
    FaultServer,
    Request,
    Script,
    Step,
    answer,
    chunk,
    head,
    in_turn,
    whole,
)
from .targets import KEY, PROMPT, Target

E = TypeVar("E", bound=BaseException)
Check = Callable[[Target, FaultServer], None]

PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"
    b"\x00\x00\x00\rIDATx\x9cc\xf8\xcf\xc0\xf0\x1f\x00\x05\x00\x01\xff\x89\x99=\x1d\x00\x00\x00\x00IEND\xaeB`\x82"
)


@dataclass(frozen=True)
class Row:
    number: int
    fault: str
    must: str
    check: Check


ROWS: list[Row] = []


def row(number: int, fault: str, must: str) -> Callable[[Check], Check]:
    def add(check: Check) -> Check:
        # In the order of the table, whichever file is read first.
        bisect.insort(ROWS, Row(number, fault, must, check), key=lambda one: one.number)
        return check

    return add


def fails(kind: type[E], call: Callable[[], Any], **expected: Any) -> E:
    """The error that a call raises: of this class, and with these attributes."""
    try:
        got = call()
    except BaseException as error:
        assert isinstance(error, kind), f"{type(error).__name__} instead of {kind.__name__}: {error}"
        for name, value in expected.items():
            assert getattr(error, name) == value, f"{name} is {getattr(error, name)!r}, not {value!r}"
        equal(shown_by_frames(error, KEY, PROMPT), [], "a reporter of local variables sees")
        return error
    raise AssertionError(f"{got!r} instead of {kind.__name__}")


def shown_by_frames(error: BaseException, key: str, prompt: str) -> list[str]:
    """Our frames whose local variables show the key, and those of the transport that show the prompt."""
    found: list[str] = []
    reports = [traceback.TracebackException.from_exception(error, capture_locals=True)]
    while reports:
        report = reports.pop()
        reports += [it for it in (report.__cause__, report.__context__) if it is not None]
        for frame in report.stack:
            text = " ".join((frame.locals or {}).values())
            transport = "ollama_dify/transport/" in frame.filename.replace("\\", "/")
            ours = "ollama_dify" in frame.filename
            if (ours and key in text) or (transport and prompt in text):
                found.append(f"{frame.filename}, {frame.name}: {text[:2000]}")
    return found


def equal(got: Any, wanted: Any, what: str = "got") -> None:
    assert got == wanted, f"{what}: {got!r} instead of {wanted!r}"


def error_reply(status: int, text: str, **headers: str) -> list[Step]:
    return [whole(json.dumps({"error": text}).encode(), status, **headers)]


def streamed(*lines: bytes, end: End | None = None) -> Script:
    """A stream of these lines; properly ended unless `end` says otherwise."""

    def script(request: Request) -> Iterable[Step]:
        yield head(Content_Type="application/x-ndjson")
        for data in lines:
            yield chunk(data)
        if end is not None:
            # Let the pieces be read before the end is seen.
            yield 0.05
            yield end
        else:
            yield LAST

    return script


def always(steps: Iterable[Step]) -> Script:
    steps = list(steps)
    return in_turn(then=lambda request: steps if request.method == "POST" else answer(request))


def tries(server: FaultServer, script: Script, call: Callable[[], Any]) -> int:
    """How many generations a call costs, whether or not it succeeds."""
    server.script(script)
    before = len(server.generations)
    with contextlib.suppress(od.OllamaError):
        call()
    return len(server.generations) - before
