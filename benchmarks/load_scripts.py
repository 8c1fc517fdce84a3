"""What the server does in the load runs; named by `FaultProcess("benchmarks.load_scripts:…")`."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator

from tests.faults.server import (
    End,
    Request,
    Step,
    answer,
    bomb,
    chunk,
    embedded,
    head,
    last_line,
    line,
    whole,
)

_random = random.Random(20)
FAULT_RATE = 0.2
OPENING_FAULT_RATE = 0.1
CHUNKS = 200


def _error(status: int, text: str) -> list[Step]:
    return [whole(json.dumps({"error": text}).encode(), status)]


def _faults(request: Request) -> list[list[Step]]:
    """The eight faults of L1."""
    texts = (request.json or {}).get("input", [])
    good = json.dumps(embedded(texts)).encode()
    return [
        _error(503, "server busy, please try again.  maximum pending requests exceeded"),
        [whole(b"<html><h1>502 Bad Gateway</h1></html>", 502, Content_Type="text/html")],
        [End.RST],
        [End.FIN],
        [head(length=len(good)), good[: len(good) // 2], End.FIN],
        _error(500, "unexpected server status: llm server loading model"),
        _error(400, 'do embedding request: Post "http://127.0.0.1:1/embedding": EOF'),
        [whole(json.dumps(embedded(texts[:-1])).encode())],
    ]


def embedding(request: Request) -> Iterable[Step]:
    """L1: a fifth of all requests meets a fault."""
    if request.path == "/api/embed" and _random.random() < FAULT_RATE:
        return _random.choice(_faults(request))
    return answer(request)


def _prompt(request: Request) -> str:
    return str(request.json["messages"][-1]["content"])


def slow_stream(request: Request) -> Iterator[Step]:
    """L2, L4: as many chunks as the prompt says, each naming the stream and its number, 10 ms apart."""
    if request.path != "/api/chat":
        yield from answer(request)
        return
    name, _, count = _prompt(request).partition(" ")
    yield head(Content_Type="application/x-ndjson")
    for number in range(int(count or CHUNKS)):
        yield chunk(line(f"{name}.{number} "))
        yield 0.01
    yield chunk(last_line()) + b"0\r\n\r\n"


def bad_opening(request: Request) -> Iterable[Step]:
    """L3: a tenth of the streams does not open."""
    if request.path == "/api/chat" and _random.random() < OPENING_FAULT_RATE:
        return _random.choice(
            [_error(503, "server busy, please try again."), [End.RST], [End.FIN], [head(), End.FIN]]
        )
    return slow_stream(request)


def endless(request: Request) -> Iterator[Step]:
    """L5: a stream without end; "hi" is answered at once."""
    if request.path != "/api/chat" or _prompt(request) == "hi":
        yield from answer(request)
        return
    yield head(Content_Type="application/x-ndjson")
    while True:
        yield chunk(line("x"))
        yield 0.02


def failing(request: Request) -> Iterable[Step]:
    """L6."""
    return _error(503, "server busy, please try again.  maximum pending requests exceeded")


def echo(request: Request) -> Iterable[Step]:
    """L7, L8, L10: the prompt itself."""
    return answer(request, _prompt(request)) if request.path == "/api/chat" else answer(request)


def huge(request: Request) -> Iterator[Step]:
    """L9: "line" brings a line of 256 MB, "gzip" 522 kB that unpack to 512 MB."""
    if request.path != "/api/chat" or _prompt(request) == "hi":
        yield from answer(request)
    elif _prompt(request) == "gzip":
        yield whole(bomb(512 * 1024 * 1024), Content_Encoding="gzip")
    else:
        yield head(length=256 * 1024 * 1024, Content_Type="application/x-ndjson")
        for _ in range(256):
            yield b'{"model":"' + b"x" * (1024 * 1024 - 10)
