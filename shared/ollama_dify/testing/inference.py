"""/api/chat and /api/generate: checks in the server's order, then an answer token by token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from . import checks, fitting, models, vocabulary, wire
from .faults import RecordedRequest, Reply
from .frames import Job, answered
from .generation import Output, Piece
from .generation import generate as spend
from .models import SimulatedModel
from .prompts import Conversation
from .responses import JSON, NDJSON, Answer, ok, refuse
from .rules import answers, reranking
from .runners import Runner
from .state import ServerState


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


async def chat(server: ServerState, request: RecordedRequest, reply: Reply | None) -> Answer:
    """POST /api/chat."""
    body = checks.parse_body(request.raw, "ChatRequest")
    checks.check_messages(body.get("messages") or [])
    _check_common(body)
    if not body.get("messages"):
        return _load_only(server, body, {"message": {"role": "assistant", "content": ""}})
    model = _model(server, body)
    think = _thinks(model, body, chat=True)
    messages = [dict(message) for message in body["messages"]]
    if model.system is not None and not any(message.get("role") == "system" for message in messages):
        messages.insert(0, {"role": "system", "content": model.system})
    conversation = Conversation(messages, body.get("tools") or (), think)
    if body.get("_debug_render_only"):
        stamp = {
            "model": body["model"],
            "created_at": wire.timestamp(),
            "message": {"role": "", "content": ""},
        }
        shown = {"rendered_template": fitting.render_chat(model, conversation).text}
        return ok({**stamp, "done": False, "_debug_info": shown})
    job = await _prepare(server, body, model, conversation, reply, fitting.render_chat)
    return await answered(job, stream=body.get("stream") is not False)


def _check_common(body: checks.Body) -> None:
    checks.think(body)
    checks.keep_alive(body, 0.0)
    if not 0 <= (body.get("top_logprobs") or 0) <= 20:
        raise refuse(400, "top_logprobs must be between 0 and 20")


def _model(server: ServerState, body: checks.Body) -> SimulatedModel:
    name = body.get("model") or ""
    if not models.is_valid_name(name):
        raise refuse(400, "invalid model name" if name else "model is required")
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


def _load_only(server: ServerState, body: checks.Body, empty: Mapping[str, Any]) -> Answer:
    model = _model(server, body)
    keep_alive_s = checks.keep_alive(body, server.keep_alive_s)
    reason = "unload" if keep_alive_s == 0 else "load"
    if keep_alive_s == 0:
        server.runners.loaded.pop(model.weights_key, None)
    else:
        server.runners.load(model, _options(model, body), keep_alive_s)
    stamp = {"model": body["model"], **model.remote, "created_at": wire.timestamp()}
    return ok({**stamp, **empty, "done": True, "done_reason": reason})


async def generate(server: ServerState, request: RecordedRequest, reply: Reply | None) -> Answer:
    """POST /api/generate."""
    body = checks.parse_body(request.raw, "GenerateRequest")
    checks.check_images(body.get("images"), "GenerateRequest.images")
    _check_common(body)
    model = _model(server, body)
    think = _thinks(model, body, chat=False)
    if body.get("suffix") and not model.can("insert"):
        raise refuse(400, f"{models.registry_name(body['model'])} does not support insert")
    if not body.get("prompt"):
        return _load_only(server, body, {"response": ""})
    system = body.get("system") or model.system
    turn: dict[str, Any] = {"role": "user", "content": body["prompt"]}
    if body.get("images"):
        turn["images"] = body["images"]
    messages = [*([{"role": "system", "content": system}] if system else []), turn]
    conversation, render = Conversation(messages, (), think), fitting.prompt_renderer(body)
    job = await _prepare(server, body, model, conversation, reply, render)
    job.is_chat = False
    if not body.get("raw"):
        prompt = render(model, conversation).text
        job.context = vocabulary.encode(prompt + job.output.raw_text)
    return await answered(job, stream=body.get("stream") is not False)


async def _prepare(
    server: ServerState,
    body: checks.Body,
    model: SimulatedModel,
    conversation: Conversation,
    reply: Reply | None,
    render: fitting.Renderer,
) -> Job:
    started = time.perf_counter_ns()
    options = _options(model, body)
    keep_alive_s = checks.keep_alive(body, server.keep_alive_s)
    runner = server.runners.load(model, options, keep_alive_s)
    release = await server.runners.acquire(runner)
    load_ns = max(1, time.perf_counter_ns() - started)
    try:
        made, output, prompt_tokens = _make(
            body, runner, options, conversation, reply, render, modern=server.is_modern
        )
        if made.delay_s:
            await asyncio.sleep(made.delay_s)
    except BaseException:
        release()
        raise

    def finish() -> None:
        release()
        if keep_alive_s == 0:
            server.runners.loaded.pop(model.weights_key, None)
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


def _make(
    body: checks.Body,
    runner: Runner,
    options: Mapping[str, Any],
    conversation: Conversation,
    reply: Reply | None,
    render: fitting.Renderer,
    *,
    modern: bool,
) -> tuple[Reply, Output, int]:
    model, late = runner.model, body.get("stream") is not False
    wanted = checks.format_of(body, modern=modern, late_stream=late)
    fitted, prompt_tokens = fitting.fit(
        model, conversation, body, context=runner.context, modern=modern, late=late, render=render
    )
    images = [image for turn in fitted.messages for image in turn.get("images") or ()]
    if modern and images:
        runner.images.admit(render(model, fitted).text, images, late=late)
    asked = answers.Question(fitted.messages, fitted.tools, wanted, conversation.think is True)
    made = reply or reranking.judged(body) or answers.compose(asked)
    if conversation.think is not True:
        made = replace(made, thinking=None)
    stop, before = options.get("stop") or (), _echoed(model, conversation)
    spoken = made
    if wanted is not None and made.thinking is not None and not model.is_native:
        # With a Go template the model thinks without the grammar; the second pass alone is counted.
        turn = {"role": "assistant", "content": "", "thinking": made.thinking}
        again = replace(fitted, messages=[*fitted.messages, turn])
        prompt_tokens = render(model, again).tokens(model)
        before = spend(Reply(thinking=made.thinking), limit=None, stop=()).pieces
        spoken = replace(made, thinking=None)
    limit = fitting.token_limit(
        options, body, context=runner.context, prompt_tokens=prompt_tokens, modern=modern
    )
    output = spend(spoken, limit=limit, stop=stop)
    return made, replace(output, pieces=(*before, *output.pieces)), prompt_tokens


def _echoed(model: SimulatedModel, conversation: Conversation) -> tuple[Piece, ...]:
    """A native template repeats the beginning of an answer that the request gave."""
    last = conversation.messages[-1] if conversation.messages else {}
    if not model.is_native or last.get("role") != "assistant" or not last.get("content"):
        return ()
    return (Piece("content", str(last["content"]), 0),)
