"""/api/chat and /api/generate: checks in the server's order, then an answer token by token."""

from __future__ import annotations

import asyncio
import random
import string
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from . import answers, checks, fitting, models, vocabulary, wire
from .faults import RecordedRequest, Reply
from .generation import Output, Piece
from .generation import generate as spend
from .models import SimulatedModel
from .prompts import Conversation
from .responses import BARE_JSON, JSON, NDJSON, Answer, ok, refuse

if TYPE_CHECKING:
    from .server import SimulatedOllama

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
    ids: list[str] = field(default_factory=list)
    _paused: int = 0

    def calls(self) -> list[dict[str, Any]]:
        """The tool calls as messages carry them, ids included."""
        found = self.output.calls
        while len(self.ids) < len(found):
            self.ids.append(_call_id(native=self.model.is_native))
        return [
            {
                "id": self.ids[number],
                "function": {
                    "index": number,
                    "name": call.get("name"),
                    "arguments": call.get("arguments") or {},
                },
            }
            for number, call in enumerate(found)
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
            "prompt_eval_duration": work // 2,
            "eval_count": self.output.tokens,
            "eval_duration": 0 if self.output.tokens == 1 and not self.modern else work - work // 2,
        }
        return {name: value for name, value in counters.items() if value}


def _call_id(*, native: bool) -> str:
    if native:
        return "".join(_IDS.choices(string.ascii_letters + string.digits, k=32))
    return "call_" + "".join(_IDS.choices(string.ascii_lowercase + string.digits, k=8))


async def scripted_answer(reply: Reply) -> Answer:
    """An answer that is given instead of generated."""
    if reply.delay_s:
        await asyncio.sleep(reply.delay_s)
    headers = tuple(reply.headers.items())
    if reply.raw is None:
        body = wire.dumps({"error": reply.error}) if reply.error is not None else reply.text.encode()
        return Answer(reply.status if reply.status != 200 else 500, reply.content_type or JSON, body, headers)
    if isinstance(reply.raw, bytes):
        return Answer(reply.status, reply.content_type or JSON, reply.raw, headers, chunked=False)
    raw: Sequence[bytes] = reply.raw

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in raw:
            yield chunk
            await asyncio.sleep(0)

    return Answer(reply.status, reply.content_type or NDJSON, chunks(), headers)


async def chat(server: SimulatedOllama, request: RecordedRequest, reply: Reply | None) -> Answer:
    """POST /api/chat."""
    body = checks.parse_body(request.raw, "ChatRequest")
    checks.check_messages(body.get("messages") or [])
    _check_common(body)
    if not body.get("messages"):
        return await _load_only(server, body, {"message": {"role": "assistant", "content": ""}})
    if body.get("_debug_render_only"):
        return _rendered(server, body)
    return await _answer(await prepare_chat(server, body, reply), stream=body.get("stream") is not False)


def _rendered(server: SimulatedOllama, body: checks.Body) -> Answer:
    model = _model(server, body)
    think = _thinks(model, body, chat=True)
    prompt = fitting.render_chat(model, Conversation(body["messages"], body.get("tools") or (), think))
    shown = {"model": body["model"], "created_at": wire.timestamp(), "message": {"role": "", "content": ""}}
    return ok({**shown, "done": False, "_debug_info": {"rendered_template": prompt.text}})


def _check_common(body: checks.Body) -> None:
    checks.think(body)
    checks.keep_alive(body, 0.0)
    if not 0 <= (body.get("top_logprobs") or 0) <= 20:
        raise refuse(400, "top_logprobs must be between 0 and 20")


def _model(server: SimulatedOllama, body: checks.Body) -> SimulatedModel:
    name = body.get("model") or ""
    if not name or not models.is_valid_name(name):
        raise refuse(400, "model is required")
    model = server.find(name)
    if model is None:
        raise refuse(404, f"model '{name}' not found")
    return model


def _thinks(model: SimulatedModel, body: checks.Body, *, chat: bool) -> bool | None:
    """The think switch after the capability checks; None on a model without it."""
    asked = checks.think(body)
    if not model.can("completion"):
        raise refuse(400, f'"{body["model"]}" does not support {"chat" if chat else "generate"}')
    if body.get("tools") and not model.can("tools"):
        raise refuse(400, f"{models.registry_name(body['model'])} does not support tools")
    if asked and not model.can("thinking"):
        raise refuse(400, f'"{body["model"]}" does not support thinking')
    if not model.can("thinking"):
        return None
    return True if asked is None else asked


def _options(model: SimulatedModel, body: checks.Body) -> dict[str, Any]:
    return {**checks.options(model.parameters), **checks.options(body.get("options"))}


async def _load_only(server: SimulatedOllama, body: checks.Body, empty: Mapping[str, Any]) -> Answer:
    model = _model(server, body)
    keep_alive_s = checks.keep_alive(body, server.keep_alive_s)
    reason = "unload" if keep_alive_s == 0 else "load"
    if keep_alive_s == 0:
        server.runners.unload(model)
    else:
        await server.runners.load(model, _options(model, body), keep_alive_s)
    stamp = {"model": body["model"], "created_at": wire.timestamp()}
    return ok({**stamp, **empty, "done": True, "done_reason": reason})


async def prepare_chat(server: SimulatedOllama, body: checks.Body, reply: Reply | None) -> Job:
    """Check, load, render, fit, and make the answer of a chat request."""
    model = _model(server, body)
    think = _thinks(model, body, chat=True)
    messages = [dict(message) for message in body["messages"]]
    if model.system is not None and not any(message.get("role") == "system" for message in messages):
        messages.insert(0, {"role": "system", "content": model.system})
    conversation = Conversation(messages, body.get("tools") or (), think)
    return await _prepare(server, body, model, conversation, reply, fitting.render_chat)


async def generate(server: SimulatedOllama, request: RecordedRequest, reply: Reply | None) -> Answer:
    """POST /api/generate."""
    body = checks.parse_body(request.raw, "GenerateRequest")
    checks.check_images(body.get("images"), "GenerateRequest.images")
    _check_common(body)
    model = _model(server, body)
    think = _thinks(model, body, chat=False)
    if body.get("suffix") and not model.can("insert"):
        raise refuse(400, f"{models.registry_name(body['model'])} does not support insert")
    if not body.get("prompt"):
        return await _load_only(server, body, {"response": ""})
    system = body.get("system") or model.system
    turn: dict[str, Any] = {"role": "user", "content": body["prompt"]}
    if body.get("images"):
        turn["images"] = body["images"]
    messages = [*([{"role": "system", "content": system}] if system else []), turn]
    job = await _prepare(
        server, body, model, Conversation(messages, (), think), reply, fitting.prompt_renderer(body)
    )
    job.is_chat = False
    if not body.get("raw"):
        prompt = fitting.prompt_renderer(body)(model, Conversation(messages, (), think)).text
        job.context = vocabulary.encode(prompt + job.output.raw_text)
    return await _answer(job, stream=body.get("stream") is not False)


async def _prepare(
    server: SimulatedOllama,
    body: checks.Body,
    model: SimulatedModel,
    conversation: Conversation,
    reply: Reply | None,
    render: fitting.Renderer,
) -> Job:
    started = time.perf_counter_ns()
    late = body.get("stream") is not False
    options = _options(model, body)
    keep_alive_s = checks.keep_alive(body, server.keep_alive_s)
    runner = await server.runners.load(model, options, keep_alive_s)
    release = await server.runners.acquire(runner)
    try:
        load_ns = max(1, time.perf_counter_ns() - started)
        wanted = checks.format_of(body, modern=server.is_modern, late_stream=late)
        fitted = fitting.fit(
            model,
            conversation,
            body,
            context=runner.context,
            modern=server.is_modern,
            late=late,
            render=render,
        )
        made = (
            reply
            if reply is not None
            else answers.compose(_question(model, fitted.conversation, wanted, body))
        )
        if conversation.think is not True and reply is None:
            made = replace(made, thinking=None)
        prompt_tokens = fitted.tokens
        twice = wanted is not None and made.thinking is not None and not model.is_native
        if twice:
            turn = {"role": "assistant", "content": "", "thinking": made.thinking}
            again = replace(fitted.conversation, messages=[*fitted.conversation.messages, turn])
            prompt_tokens = render(model, again).tokens(model)
        limit = fitting.token_limit(
            options, body, context=runner.context, prompt_tokens=prompt_tokens, modern=server.is_modern
        )
        stop = options.get("stop") or ()
        if twice:
            # A model with a Go template thinks without the grammar and answers in a second pass, counted alone.
            thought = spend(Reply(thinking=made.thinking), limit=None, stop=())
            output = spend(replace(made, thinking=None), limit=limit, stop=stop)
            output = replace(output, pieces=(*thought.pieces, *output.pieces))
        else:
            output = spend(made, limit=limit, stop=stop)
        output = replace(output, pieces=(*_echoed(model, conversation), *output.pieces))
        if made.delay_s:
            await asyncio.sleep(made.delay_s)
    except BaseException:
        release()
        raise

    def finish() -> None:
        release()
        if keep_alive_s == 0:
            server.runners.unload(model)
        elif server.runners.loaded.get(model.weights_key) is runner:
            server.runners.touch(runner, keep_alive_s)

    return Job(
        name=body["model"],
        model=model,
        output=output,
        prompt_tokens=prompt_tokens,
        reply=made,
        chunk_delay=lambda: server.latency.chunk_s,
        release=finish,
        load_ns=load_ns,
        started_ns=started,
        modern=server.is_modern,
        logprobs=(body.get("top_logprobs") or 0) if body.get("logprobs") else None,
    )


def _echoed(model: SimulatedModel, conversation: Conversation) -> tuple[Piece, ...]:
    """A native template repeats the beginning of an answer that the request gave."""
    last = conversation.messages[-1] if conversation.messages else {}
    if not model.is_native or last.get("role") != "assistant" or not last.get("content"):
        return ()
    return (Piece("content", str(last["content"]), 0),)


def _question(
    model: SimulatedModel, conversation: Conversation, wanted: Any, body: checks.Body
) -> answers.Question:
    return answers.Question(
        messages=conversation.messages,
        tools=conversation.tools,
        format=wanted,
        thinking=conversation.think is True,
        suffix=body.get("suffix") or "",
    )


async def _answer(job: Job, *, stream: bool) -> Answer:
    if stream:
        return Answer(200, NDJSON, _stream(job), release=job.release)
    try:
        if job.chunk_delay():
            await asyncio.sleep(job.chunk_delay() * len(job.output.pieces))
    finally:
        job.release()
    return _whole(job)


def _whole(job: Job) -> Answer:
    output, reply = job.output, job.reply
    if reply.error_at_end is not None:
        return Answer(500, JSON, wire.dumps({"error": reply.error_at_end}))
    answer: dict[str, Any] = {"model": job.name, "created_at": wire.timestamp()}
    content, thinking = output.joined("content"), output.joined("thinking")
    if job.is_chat:
        message: dict[str, Any] = {"role": "assistant", "content": content}
        answer["message"] = message
    else:
        message = answer
        answer["response"] = content
    if thinking:
        message["thinking"] = thinking
    if output.calls and job.is_chat:
        message["tool_calls"] = job.calls()
    if not reply.done:
        return ok({**answer, "done": False})
    answer |= {"done": True, "done_reason": reply.done_reason or output.done_reason}
    probabilities: dict[str, Any] = {}
    if job.logprobs is not None:
        shown = [entry for piece in output.pieces for entry in _logprobs(piece, job.logprobs)]
        probabilities = {"logprobs": shown}
    if job.is_chat:
        return ok({**answer, **probabilities, **job.statistics()})
    if job.context is not None:
        answer["context"] = job.context
    return ok({**answer, **job.statistics(), **probabilities})


def _logprobs(piece: Piece, top: int) -> list[dict[str, Any]]:
    """Invented, but of the right shape: each token is nearly certain."""
    if piece.channel not in ("content", "thinking") or not piece.text:
        return []
    entry: dict[str, Any] = {"token": piece.text, "logprob": -0.0007, "bytes": list(piece.text.encode())}
    if not top:
        return [entry]
    others = [
        {"token": token, "logprob": -8.5 - rank, "bytes": list(token.encode())}
        for rank, token in enumerate(string.ascii_lowercase[: top - 1])
    ]
    return [{**entry, "top_logprobs": [dict(entry), *others]}]


async def _stream(job: Job) -> AsyncIterator[bytes]:
    frame = _chat_frame if job.is_chat else _generate_frame
    name = wire.dumps(job.name)
    calls = job.calls() if job.is_chat else []
    late_calls = job.model.is_native
    sent_calls = 0
    for piece in job.output.pieces:
        if piece.channel == "call":
            if late_calls or not job.is_chat:
                continue
            message = {"role": "assistant", "content": "", "tool_calls": [calls[sent_calls]]}
            sent_calls += 1
            yield b'{"model":%b,"created_at":"%b","message":%b,"done":false}\n' % (
                name,
                wire.timestamp().encode(),
                wire.dumps(message),
            )
        elif piece.channel == "silent" and job.is_chat:
            continue
        else:
            yield frame(name, piece, job.logprobs)
        await job.pause()
    if job.reply.error_at_end is not None:
        yield wire.dumps({"error": job.reply.error_at_end}) + b"\n"
        return
    if job.reply.done:
        yield wire.dumps(_last(job, calls if late_calls else [])) + b"\n"


def _chat_frame(name: bytes, piece: Piece, top: int | None) -> bytes:
    text = wire.dumps(piece.text)
    if piece.channel == "thinking":
        text = b'"","thinking":' + text
    tail = b"" if top is None else b',"logprobs":' + wire.dumps(_logprobs(piece, top))
    return b'{"model":%b,"created_at":"%b","message":{"role":"assistant","content":%b},"done":false%b}\n' % (
        name,
        wire.timestamp().encode(),
        text,
        tail,
    )


def _generate_frame(name: bytes, piece: Piece, top: int | None) -> bytes:
    text = b'""' if piece.channel == "silent" else wire.dumps(piece.text)
    if piece.channel == "thinking":
        text = b'"","thinking":' + text
    entries = [] if top is None else _logprobs(piece, top)
    tail = b',"logprobs":' + wire.dumps(entries) if entries else b""
    return b'{"model":%b,"created_at":"%b","response":%b,"done":false%b}\n' % (
        name,
        wire.timestamp().encode(),
        text,
        tail,
    )


def _last(job: Job, calls: list[dict[str, Any]]) -> dict[str, Any]:
    last: dict[str, Any] = {"model": job.name, "created_at": wire.timestamp()}
    if job.is_chat:
        last["message"] = {"role": "assistant", "content": "", **({"tool_calls": calls} if calls else {})}
    else:
        last["response"] = ""
    last |= {"done": True, "done_reason": job.reply.done_reason or job.output.done_reason}
    if job.context is not None:
        last["context"] = job.context
    return {**last, **job.statistics()}


__all__ = ["BARE_JSON", "Job", "chat", "generate", "prepare_chat", "scripted_answer"]
