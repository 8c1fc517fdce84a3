"""The OpenAI-compatible routes, as far as they are cheap: models, embeddings, chat completions."""

from __future__ import annotations

import base64
import itertools
import struct
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from . import checks, embedding, inference, wire
from .faults import RecordedRequest
from .frames import Job
from .generation import Output
from .responses import BARE_JSON, EVENTS, Answer, Refused

if TYPE_CHECKING:
    from .server import SimulatedOllama

_numbers = itertools.count(100)


async def list_models(server: SimulatedOllama, request: RecordedRequest) -> Answer:
    """GET /v1/models."""
    newest = sorted(server.models.values(), key=lambda model: model.modified_at, reverse=True)
    data = [
        {"id": model.full_name, "object": "model", "created": int(time.time()), "owned_by": "library"}
        for model in newest
    ]
    return _json({"object": "list", "data": data})


async def embeddings(server: SimulatedOllama, request: RecordedRequest) -> Answer:
    """POST /v1/embeddings."""
    body = checks.parse_body(request.raw, "EmbedRequest")
    model = _found(server, body)
    given = body.get("input")
    texts = [given] if isinstance(given, str) else list(given or ())
    done = await embedding.compute(server, model, body, texts, server.keep_alive_s)
    packed = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "embedding": _packed(vector) if packed else vector, "index": number}
        for number, vector in enumerate(done.vectors)
    ]
    usage = {"prompt_tokens": done.tokens, "total_tokens": done.tokens}
    return _json({"object": "list", "data": data, "model": body["model"], "usage": usage})


async def chat(server: SimulatedOllama, request: RecordedRequest) -> Answer:
    """POST /v1/chat/completions."""
    body = checks.parse_body(request.raw, "ChatRequest")
    _found(server, body)
    translated = _translate(body)
    reply = server.scripted(request)
    if reply is not None and reply.is_raw:
        return await inference.scripted_answer(reply)
    try:
        job = await inference.prepare_chat(server, translated, reply)
    except Refused as refused:
        raise _as_openai(refused) from None
    if body.get("stream"):
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        return Answer(200, EVENTS, _events(job, include_usage=usage), release=job.release)
    job.release()
    return _json(_completion(job))


def _json(value: Any) -> Answer:
    body = wire.dumps(value) + b"\n"
    return Answer(200, BARE_JSON, body)


def _found(server: SimulatedOllama, body: Mapping[str, Any]) -> Any:
    name = body.get("model") or ""
    model = server.find(name)
    if model is None:
        raise _error(404, f"model '{name}' not found", "not_found_error")
    return model


def _error(status: int, message: str, kind: str) -> Refused:
    error = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return Refused(Answer(status, BARE_JSON, wire.dumps(error) + b"\n"))


def _as_openai(refused: Refused) -> Refused:
    answer = refused.answer
    text = orjson.loads(answer.body)["error"] if isinstance(answer.body, bytes) and answer.body else ""
    kind = {404: "not_found_error", 400: "invalid_request_error"}.get(answer.status, "api_error")
    return _error(answer.status, text, kind)


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _translate(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request in /api/chat's words."""
    messages: list[dict[str, Any]] = []
    for message in body.get("messages") or ():
        turn = {"role": message.get("role"), "content": ""}
        content = message.get("content")
        if isinstance(content, str):
            turn["content"] = content
        for part in content if isinstance(content, list) else ():
            if part.get("type") == "text":
                turn["content"] += part.get("text") or ""
            elif part.get("type") == "image_url":
                url = part["image_url"]["url"] if isinstance(part["image_url"], dict) else part["image_url"]
                turn.setdefault("images", []).append(url.partition(",")[2])
        calls = [
            {"function": {**call["function"], "arguments": orjson.loads(call["function"]["arguments"])}}
            for call in message.get("tool_calls") or ()
        ]
        messages.append({**turn, "tool_calls": calls} if calls else turn)
    names = {"temperature": "temperature", "seed": "seed", "max_tokens": "num_predict", "top_p": "top_p"}
    options = {ours: body[theirs] for theirs, ours in names.items() if body.get(theirs) is not None}
    stop = body.get("stop")
    if stop is not None:
        options["stop"] = [stop] if isinstance(stop, str) else stop
    translated = {"model": body.get("model"), "messages": messages, "options": options}
    if body.get("tools"):
        translated["tools"] = body["tools"]
    effort = body.get("reasoning_effort")
    if effort is not None:
        translated["think"] = effort != "none"
    form = body.get("response_format") or {}
    if form.get("type") == "json_object":
        translated["format"] = "json"
    elif form.get("type") == "json_schema":
        translated["format"] = form["json_schema"]["schema"]
    return translated


def _tool_calls(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "id": call["id"],
            "index": number,
            "type": "function",
            "function": {
                "name": call["function"]["name"],
                "arguments": wire.dumps(call["function"]["arguments"]).decode(),
            },
        }
        for number, call in enumerate(calls)
    ]


def _finish(output: Output) -> str:
    if output.calls:
        return "tool_calls"
    return output.done_reason


def _usage(job: Job) -> dict[str, int]:
    total = job.prompt_tokens + job.output.tokens
    return {"prompt_tokens": job.prompt_tokens, "completion_tokens": job.output.tokens, "total_tokens": total}


def _stem(job: Job, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{next(_numbers) % 900 + 100}",
        "object": kind,
        "created": int(time.time()),
        "model": job.name,
        "system_fingerprint": "fp_ollama",
    }


def _completion(job: Job) -> dict[str, Any]:
    output = job.output
    message: dict[str, Any] = {"role": "assistant", "content": output.joined("content")}
    if output.joined("thinking"):
        message["reasoning"] = output.joined("thinking")
    if output.calls:
        message["tool_calls"] = _tool_calls(job.calls())
    choice = {"index": 0, "message": message, "finish_reason": _finish(output)}
    return {**_stem(job, "chat.completion"), "choices": [choice], "usage": _usage(job)}


async def _events(job: Job, *, include_usage: bool) -> AsyncIterator[bytes]:
    stem = _stem(job, "chat.completion.chunk")

    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        return b"data: " + wire.dumps({**stem, "choices": choices, **more}) + b"\n\n"

    def choice(delta: dict[str, Any], finish: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": delta, "finish_reason": finish}]

    calls = iter(job.calls())
    role = {"role": "assistant"}
    for piece in job.output.pieces:
        if piece.channel == "silent":
            continue
        delta: dict[str, Any] = {**role, "content": piece.text}
        if piece.channel == "thinking":
            delta = {**role, "content": "", "reasoning": piece.text}
        elif piece.channel == "call":
            delta = {**role, "content": "", "tool_calls": _tool_calls([next(calls)])}
        role = {} if job.modern else role
        yield event(choice(delta))
        await job.pause()
    yield event(choice({} if job.modern else {**role, "content": ""}, _finish(job.output)))
    if include_usage:
        yield event([], usage=_usage(job))
    yield b"data: [DONE]\n\n"
