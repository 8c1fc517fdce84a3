# ruff: noqa: PT017  a crash is found by an assertion
"""A bounded, coverage-guided fuzz: stream decoder, form, Dify apps, model descriptions and HTTP.

`python -m benchmarks.fuzz --seconds 600`, or with `--only app`. Inputs that reach new lines or branches join
the corpus in memory; `--keep` writes a small set that covers the same to tests/faults/corpus. A crash is
anything but one of our errors, over a second of processor time, or an answer that depends on how the bytes
were cut; it is written to tests/faults/corpus too, where the tests replay it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.faults.server import last_line, line

import ollama_dify
from ollama_dify import ChatSettings, EmbeddingSettings, OllamaError, RerankSettings
from ollama_dify.wire.models import read_local_models, read_model_info
from ollama_dify.wire.responses import load_json
from ollama_dify.wire.server_errors import error_from_response
from ollama_dify.wire.streaming import ChatDecoder
from ollama_dify.wire.think_tags import ThinkTags
from ollama_dify.wire.vectors import read_vectors

from .fuzz_apps import APPS, fuzz_app, mutate_app
from .fuzz_server import HTTP, SHOWS, fuzz_http, fuzz_show, mutate_http, mutate_show

CORPUS = Path(__file__).parents[1] / "tests" / "faults" / "corpus"
OURS = str(Path(ollama_dify.__file__).parent)
SLOW_S = 1.0
LONGEST = 4_000
Edge = tuple[str, int, int]


def _decode(pieces: list[bytes], *, generated: bool) -> tuple[str, str]:
    """What a decoder makes of pieces: the text so far, and how it ended."""
    decoder = ChatDecoder(generated=generated, model="m", step=ThinkTags())
    texts: list[str] = []
    try:
        for piece in pieces:
            texts += [chunk.text for chunk in decoder.feed(piece)]
        texts += [chunk.text for chunk in decoder.close()]
    except OllamaError as error:
        str(error)
        assert error.partial is not None
        return "".join(texts), type(error).__name__
    return "".join(texts), "done"


def fuzz_stream(data: bytes) -> None:
    """The first byte chooses the kind and the cut; the same bytes must mean the same however they are cut."""
    choice, body = data[0] if data else 0, data[1:]
    generated = bool(choice & 1)
    size = 1 + (choice >> 1)
    cut = [body[start : start + size] for start in range(0, len(body), size)]
    whole = _decode([body], generated=generated)
    assert _decode(cut, generated=generated) == whole, "depends on how it is cut"
    for read in (read_local_models, lambda value: read_model_info(value, "m")):
        with contextlib.suppress(OllamaError):
            read(load_json(body))
    with contextlib.suppress(OllamaError):
        read_vectors(body, 1)
    with contextlib.suppress(OllamaError):
        ChatDecoder(generated=generated).whole(body)
    status = 300 + (choice * 3) % 300
    error = error_from_response(
        status, {"retry-after": body[:20].decode("latin-1")}, body, url="http://x", model="m", now_s=0.0
    )
    assert len(str(error)) < 3000


def fuzz_form(data: bytes) -> None:
    """The input is the form as JSON; what is accepted survives a round trip."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(values, dict):
        return
    model = str(values.pop("model", "m"))
    for kind in (ChatSettings, EmbeddingSettings, RerankSettings):
        try:
            settings = kind.from_dify(model, values)
        except OllamaError as error:
            str(error)
            continue
        again = kind.from_dify(model, settings.to_dify())
        assert again.to_dify() == settings.to_dify(), "the round trip changes it"


FUZZED: dict[str, Callable[[bytes], None]] = {
    "stream": fuzz_stream,
    "form": fuzz_form,
    "app": fuzz_app,
    "show": fuzz_show,
    "http": fuzz_http,
}

SEEDS: dict[str, list[bytes]] = {
    "stream": [
        b"\x00" + line("a <think>b</think> c") + last_line(),
        b"\x01" + line("a", generated=True) + last_line(generated=True),
        b"\x06"
        + b'{"error":{"message":"{\\"error\\":\\"request (9 tokens) exceeds the available context size '
        b'(4 tokens)\\",\\"type\\":\\"exceed_context_size_error\\",\\"n_ctx\\":4}"}}',
        b"\x02"
        + last_line(
            message={
                "role": "assistant",
                "content": "",
                "thinking": "t",
                "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": [1]}}}],
            },
            logprobs=[{"token": "a"}],
        ),
        b'\x04{"models":[{"name":"m","details":{"family":"f"},"size":1}]}',
        b'\x04{"model":"m","embeddings":[[1,2],[0,null]],"capabilities":["x"],"model_info":{"general.architecture":"a","a.context_length":5}}',
        b"\x55<html>no</html>",
    ],
    "form": [
        json.dumps(
            {
                "model": "llava",
                "base_url": "http://h:11434",
                "mode": "chat",
                "context_size": "4096",
                "max_tokens": "4096",
                "vision_support": "true",
                "function_call_support": "false",
            }
        ).encode(),
        b'{"base_url":"https://me:pw@x/api/","context_size":4096.0,"api_key":"k","temperature":"0.5"}',
        b'{"base_url":"[::1]","format":"json","stop":"a","keep_alive":"5m","num_ctx":"","max_tokens":"-1"}',
    ],
    "app": APPS,
    "show": SHOWS,
    "http": HTTP,
}

_WORDS: list[bytes] = [
    b"null", b"true", b"false", b"[]", b"{}", b'""', b"-1", b"0", b"1e999", b"NaN", b"\\ud800", b"\\u0000",
    b"\xff", b"\xe2\x80\xa8", b"\xc2\x85", b"\r\n", b"\n", b'"done":true', b'"done":"true"', b'"error":',
    b'"message":', b'"content":', b'"thinking":', b'"tool_calls":', b'"done_reason":"load"', b"<think>",
    b"</think>", b"{" * 300, b"[" * 1100, b"9" * 400, b'"embeddings":', b'"models":', b"model 'm' not found",
    b"does not support tools", b"http://", b"https://[::1]:70000", b"@", b"%00", b'"4096"', b'"Enabled"',
]  # fmt: skip


def mutate(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """A changed copy: bits, slices, words, pieces of another input."""
    changed = bytearray(data)
    for _ in range(1 + int(chance.expovariate(0.6))):
        place = chance.randrange(len(changed) + 1)
        what = chance.randrange(7)
        if what == 0 and changed:
            changed[place % len(changed)] ^= 1 << chance.randrange(8)
        elif what == 1:
            changed[place:place] = chance.choice(_WORDS)
        elif what == 2:
            del changed[place : place + chance.randrange(1, 20)]
        elif what == 3:
            end = place + chance.randrange(1, 30)
            changed[place:place] = changed[place:end]
        elif what == 4:
            changed[place:place] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 4)))
        elif what == 5:
            end = place + chance.randrange(1, 12)
            changed[place:end] = chance.choice(_WORDS)
        else:
            other = chance.choice(others)
            start = chance.randrange(len(other) + 1)
            changed[place:place] = other[start : start + chance.randrange(1, 80)]
    return bytes(changed[:LONGEST])


_FORM_KEYS = ("model", "base_url", "mode", "context_size", "max_tokens", "vision_support", "api_key",
              "format", "function_call_support", "temperature", "stop", "keep_alive", "num_predict", "think",
              "seed", "top_k", "mirostat", "num_gpu", "dimensions", "batch_size", "x")  # fmt: skip
_FORM_VALUES: list[Any] = [
    "", "4096", "-1", "0", "1e3", "4096.0", " 4096 ", "true", "True", "false", "on", "1", "none", "null",
    "chat", "completion", "Chat", "http://h", "https://me:pw@h:1/api", "[::1]:80", "h:70000", "ftp://x",
    "\ud800", "\0", "٤٠٩٦", "9" * 400, "json", '{"type":"object"}', "5m", "high", None,
    True, 5, 1.5, 10**30, [], {}, ["a"],
]  # fmt: skip


def mutate_form(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Other keys and values; sometimes other bytes."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or chance.random() < 0.2:
        return mutate(data, others, chance)
    for _ in range(1 + int(chance.expovariate(0.6))):
        key = chance.choice([*_FORM_KEYS, *values])
        if chance.random() < 0.2:
            values.pop(key, None)
        elif chance.random() < 0.3:
            text = json.dumps(values.get(key, ""))[1:-1].encode()
            values[key] = mutate(text, others, chance).decode("utf-8", "replace")
        else:
            values[key] = chance.choice(_FORM_VALUES)
    return json.dumps(values).encode()


MUTATED: dict[str, Callable[[bytes, list[bytes], random.Random], bytes]] = {
    "stream": mutate,
    "form": mutate_form,
    "app": partial(mutate_app, mutate=mutate),
    "show": partial(mutate_show, mutate=mutate),
    "http": partial(mutate_http, mutate=mutate),
}


class Coverage:
    """Pairs of lines that followed each other in our own code, as a tracer sees them."""

    def __init__(self) -> None:
        self.edges: set[Edge] = set()
        self._known: dict[CodeType, bool] = {}

    def run(self, call: Callable[[bytes], None], data: bytes) -> None:
        # A coverage measurement of the tests may be at work too: it gets its place back.
        before = sys.gettrace()
        sys.settrace(self._called)
        try:
            call(data)
        finally:
            sys.settrace(before)

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        ours = self._known.get(code)
        if ours is None:
            ours = self._known[code] = code.co_filename.startswith(OURS)
        if not ours:
            return None
        name, before, add = f"{code.co_filename}:{code.co_name}", 0, self.edges.add

        def traced(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal before
            if event == "line":
                add((name, before, frame.f_lineno))
                before = frame.f_lineno
            return traced

        return traced


def stored(name: str) -> Iterator[tuple[str, bytes]]:
    """The committed inputs."""
    for path in sorted((CORPUS / name).glob("*")):
        yield path.name, path.read_bytes()


def check(call: Callable[[bytes], None], data: bytes, coverage: Coverage | None = None) -> str | None:
    """What is wrong with what comes of an input, None if nothing is; slow is what was slow twice."""
    for _ in range(2):
        start = time.thread_time()
        try:
            call(data) if coverage is None else coverage.run(call, data)
        except Exception:
            return traceback.format_exc()
        took = time.thread_time() - start
        if took <= SLOW_S:
            return None
    return f"took {took:.1f} s"


def fuzz(name: str, seconds: float, seed: int) -> tuple[list[bytes], dict[bytes, str], int, int]:
    """Inputs that found something new, crashes, inputs tried, edges seen."""
    call, chance, coverage = FUZZED[name], random.Random(seed), Coverage()
    queue: list[bytes] = []
    crashes: dict[bytes, str] = {}
    tried = 0

    def attempt(data: bytes) -> None:
        nonlocal tried
        tried += 1
        before = len(coverage.edges)
        wrong = check(call, data, coverage)
        if wrong is not None:
            crashes.setdefault(data, wrong)
        elif len(coverage.edges) > before:
            queue.append(data)

    for data in [*SEEDS[name], *(data for _, data in stored(name))]:
        attempt(data)
    until = time.monotonic() + seconds
    while (time.monotonic() < until or tried < 60) and len(crashes) < 10:
        # Newer inputs more often: they stand where nobody has been.
        place = int(len(queue) * max(chance.random(), chance.random()))
        attempt(MUTATED[name](queue[place], queue, chance))
    return queue, crashes, tried, len(coverage.edges)


def distil(name: str, inputs: list[bytes]) -> list[bytes]:
    """A few small inputs that reach all that these reach."""
    kept, seen = [], Coverage()
    for data in sorted(inputs, key=len):
        before = len(seen.edges)
        check(FUZZED[name], data, seen)
        if len(seen.edges) > before:
            kept.append(data)
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", action="store_true", help="replace the corpus by a small one as good")
    parser.add_argument("--only", choices=FUZZED)
    chosen = parser.parse_args()
    bad = 0
    names = [chosen.only] if chosen.only else list(FUZZED)
    for name in names:
        queue, crashes, tried, edges = fuzz(name, chosen.seconds / len(names), chosen.seed)
        print(
            f"{name}: {tried} inputs, {len(queue)} found something new, {edges} edges, {len(crashes)} crashes"
        )
        folder = CORPUS / name
        if chosen.keep:
            for path in folder.glob("input-*"):
                path.unlink()
            for number, data in enumerate(distil(name, queue)):
                (folder / f"input-{number:03}").write_bytes(data)
        for number, (data, wrong) in enumerate(crashes.items()):
            (folder / f"crash-{chosen.seed}-{number}").write_bytes(data)
            print(f"{data[:300]!r}\n{wrong}")
        bad += len(crashes)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
