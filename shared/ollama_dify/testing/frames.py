"""A finished generation as the bytes of an answer: whole, or chunk by chunk."""

from __future__ import annotations

import asyncio
import random
import string
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import wire
from .faults import Reply
from .generation import Output, Piece
from .models import SimulatedModel
from .responses import JSON, NDJSON, Answer, ok

_IDS = random.Random(11434)
_YIELD_EVERY = 16


@dataclass(slots=True)
class Job:
    """One generation: everything the chunks are made of."""

    name: str
    model: SimulatedModel
    output: Output
    prompt_tokens: int
    reply: Reply
    chunk_delay: Callable[[], float]
    release: Callable[[], None]
    load_ns: int
    started_ns: int
    modern: bool
    logprobs: int | None = None
    context: list[int] | None = None
    is_chat: bool = True
    _paused: int = 0

    def calls(self) -> list[dict[str, Any]]:
        """The tool calls as messages carry them, with new ids."""
        named = [(call.get("name"), call.get("arguments") or {}) for call in self.output.calls]
        return [
            {
                "id": _call_id(native=self.model.is_native),
                "function": {"index": number, "name": name, "arguments": arguments},
            }
            for number, (name, arguments) in enumerate(named)
        ]

    async def pause(self) -> None:
        """Wait between two chunks, or at least let other streams have their turn."""
        delay = self.chunk_delay()
        self._paused += 1
        if delay:
            await asyncio.sleep(delay)
        elif self._paused % _YIELD_EVERY == 0:
            await asyncio.sleep(0)

    def statistics(self) -> dict[str, Any]:
        """The counters of the final chunk; what is zero is left out, as Go does."""
        total = max(4, time.perf_counter_ns() - self.started_ns)
        work = max(2, total - self.load_ns)
        counters = {
            "total_duration": total,
            "load_duration": self.load_ns,
            "prompt_eval_count": self.prompt_tokens,
            "prompt_eval_cached_count": self.reply.cached_tokens,
            "prompt_eval_duration": work // 2,
            "eval_count": self.output.tokens,
            "eval_duration": 0 if self.output.tokens == 1 and not self.modern else work - work // 2,
        }
        return {name: value for name, value in counters.items() if value}


def _call_id(*, native: bool) -> str:
    if native:
        return "".join(_IDS.choices(string.ascii_letters + string.digits, k=32))
    return "call_" + "".join(_IDS.choices(string.ascii_lowercase + string.digits, k=8))


async def answered(job: Job, *, stream: bool) -> Answer:
    """The answer a finished job gives."""
    if stream:
        return Answer(200, NDJSON, _stream(job), release=job.release)
    try:
        if job.chunk_delay():
            await asyncio.sleep(job.chunk_delay() * len(job.output.pieces))
    finally:
        job.release()
    return _whole(job)


def _whole(job: Job) -> Answer:
    output, shown = job.output, dict[str, Any]()
    if job.reply.error_at_end is not None:
        return Answer(500, JSON, wire.dumps({"error": job.reply.error_at_end}))
    if job.logprobs is not None:
        entries = [entry for piece in output.pieces for entry in _logprobs(piece, job.logprobs)]
        shown = {"logprobs": entries}
    said = {"content": output.joined("content"), "thinking": output.joined("thinking")}
    return ok(_final(job, **said, calls=job.calls(), shown=shown))


def _final(
    job: Job,
    content: str = "",
    thinking: str = "",
    calls: Sequence[Mapping[str, Any]] = (),
    shown: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The answer in one piece, or the last chunk of a stream; `shown` are the log probabilities."""
    final: dict[str, Any] = {"model": job.name, **job.model.remote, "created_at": wire.timestamp()}
    said: dict[str, Any] = {"role": "assistant", "content": content} if job.is_chat else {"response": content}
    said |= {"thinking": thinking} if thinking else {}
    said |= {"tool_calls": calls} if calls and job.is_chat else {}
    final |= {"message": said} if job.is_chat else said
    if not job.reply.done:
        return {**final, "done": False}
    final |= {"done": True, "done_reason": job.reply.done_reason or job.output.done_reason}
    if job.is_chat:
        return {**final, **(shown or {}), **job.statistics()}
    final |= {} if job.context is None else {"context": job.context}
    return {**final, **job.statistics(), **(shown or {})}


def _logprobs(piece: Piece, top: int) -> list[dict[str, Any]]:
    """As scripted; else invented, but of the right shape: each token is nearly certain."""
    if piece.channel not in ("content", "thinking") or not piece.text:
        return []
    invented = {piece.text: -0.0007, **{letter: -8.5 - i for i, letter in enumerate(string.ascii_lowercase)}}
    likely = piece.likely or invented
    entries = [
        {"token": token, "logprob": likely[token], "bytes": list(token.encode())}
        for token in sorted(likely, key=lambda token: -likely[token])
    ]
    entry = next((one for one in entries if one["token"] == piece.text), entries[0])
    return [{**entry, "top_logprobs": entries[:top]} if top else entry]


async def _stream(job: Job) -> AsyncIterator[bytes]:
    head = wire.dumps({"model": job.name, **job.model.remote})[:-1]
    native = job.model.is_native
    calls = iter(job.calls() if job.is_chat and not native else ())
    for piece in job.output.pieces:
        if piece.channel == "call":
            if native or not job.is_chat:
                continue
            message = {"role": "assistant", "content": "", "tool_calls": [next(calls)]}
            yield _frame(head, b'"message":%b,"done":false' % wire.dumps(message))
        elif piece.channel != "silent" or not job.is_chat:
            yield _frame(head, _said(piece, job))
        await job.pause()
    if job.reply.error_at_end is not None:
        yield wire.dumps({"error": job.reply.error_at_end}) + b"\n"
        return
    if job.reply.done:
        late = job.calls() if job.is_chat and native else ()
        yield wire.dumps(_final(job, calls=late)) + b"\n"


def _frame(head: bytes, content: bytes) -> bytes:
    return b'%b,"created_at":"%b",%b}\n' % (head, wire.timestamp().encode(), content)


def _said(piece: Piece, job: Job) -> bytes:
    text = b'""' if piece.channel == "silent" else wire.dumps(piece.text)
    if piece.channel == "thinking":
        text = b'"","thinking":' + text
    entries = [] if job.logprobs is None else _logprobs(piece, job.logprobs)
    tail = b',"logprobs":' + wire.dumps(entries) if entries else b""
    if job.is_chat:
        return b'"message":{"role":"assistant","content":%b},"done":false%b' % (text, tail)
    return b'"response":%b,"done":false%b' % (text, tail)
