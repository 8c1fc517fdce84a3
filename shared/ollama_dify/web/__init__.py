"""The form as a web page with the equivalent code; served on 127.0.0.1 for `ollama-dify form --web`.

    GET  /                     the page, its style, its script and its texts: the same bytes for everybody
    POST /models /model        fill the form from the server
    POST /save                 one ping, as Dify's "Save", and the doctor's remedy
    POST /chat /embed          the try-out; /chat answers JSON lines while the model writes

A POST must come from the page itself (exact Host, own Origin) and carry the token of this run in a header.
Only the Base URL inside it is contacted. A typed key is used for that POST and stored nowhere.
"""

from __future__ import annotations

import json
import secrets
import socket
import time
import webbrowser
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..client.asynchronous import AsyncOllamaClient
from ..doctor import adiagnose
from ..doctor.model import fill_form
from ..errors import ConfigurationError, OllamaError
from ..language import LANGUAGES, N_, _, current_language
from ..language import language as in_language
from ..media.image import Audio
from ..media.load import load_image
from ..settings import ChatSettings, ConnectionSettings, EmbeddingSettings, RerankSettings
from ..settings.dify_form import FORM_FIELDS
from ..terminal import Terminal
from ..wire.messages import Content, user

__all__ = ["FILES", "TOKEN_HEADER", "form", "read_file"]

TOKEN_HEADER = "x-ollama-dify-token"
PAGE = Path(__file__).parent / "page"
FILES: Mapping[str, str] = {
    "index.html": "text/html",
    "form.css": "text/css",
    "form.js": "text/javascript",
    "form.json": "application/json",
}
TEXTS: Mapping[str, str] = {
    "title": N_("Dify's form for Ollama"),
    "lead": N_("Fill in the form; beside it stand the same settings as code."),
    "language": N_("Language"),
    "form": N_("The form"),
    "code": N_("The same settings as code"),
    "shell": N_("Shell"),
    "credentials": N_("Dify credentials"),
    "copy": N_("Copy"),
    "copied": N_("Copied"),
    "read": N_("Read from the server"),
    "save": N_("Save"),
    "saved": N_("Saved means here: the model answered one ping, as in Dify. Nothing is stored."),
    "busy": N_("The server is being asked …"),
    "whole": N_("A whole number is needed."),
    "key": N_("The code reads the key from the environment variable OLLAMA_API_KEY."),
    "try": N_("Try it"),
    "prompt": N_("Message"),
    "text": N_("Text to embed"),
    "files": N_("Images or sounds: drop them here, or choose files"),
    "send": N_("Send"),
    "stop": N_("Stop"),
    "clear": N_("Remove the files"),
    "tokens": N_(
        "{input} tokens read, {output} written; load {load} s, reading {read} s, writing {write} s "
        "({rate} tokens/s)"
    ),
    "vector": N_("A vector of {dimensions} numbers; {input} tokens, {seconds} s"),
    "ended": N_("(ended)"),
    "gone": N_("The page's own program does not answer. Is `ollama-dify form --web` still running?"),
    "static": N_(
        "This page writes code only. To save and to try the model, run on your machine: "
        '`pip install "ollama-dify[web]"`, then `ollama-dify form --web`, and open the address it prints.'
    ),
}
_MOST_BYTES = 64_000_000
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
Body = Mapping[str, Any]
Call = Callable[[Body], Awaitable[Response | dict[str, Any]]]


def read_file(name: str) -> bytes:
    """A file of the page; form.json is made of the form's labels and the texts in all languages."""
    if name != "form.json":
        return (PAGE / name).read_bytes()
    texts = {}
    for language in LANGUAGES:
        with in_language(language):
            texts[language] = {key: _(text) for key, text in TEXTS.items()}
    fields = [asdict(field) for field in FORM_FIELDS]
    return json.dumps({"fields": fields, "texts": texts}, ensure_ascii=False).encode()


def form(args: Namespace, terminal: Terminal) -> int:
    """`form --web`: print the page's address and serve it until Ctrl-C, to this machine only."""
    address = ConnectionSettings(base_url=args.base_url).address
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", args.port))
        listener.listen()  # before the address is told: a browser may be quicker than the page's server
    except (OSError, OverflowError) as error:
        listener.close()
        terminal.complain_of_port("127.0.0.1", args.port, error)
        return 1
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    token = secrets.token_urlsafe(32)
    # After the #, which browsers do not send, so the token is not in requests or logs.
    start = {"token": token, "lang": current_language(), "base_url": address.url, "model": args.model or ""}
    url = f"{origin}/#{urlencode(start)}"
    terminal.say(_("The form is at {url}").format(url=url))
    terminal.say(terminal.paint(_("Ctrl-C ends it."), "dim"))
    if not args.no_open:
        webbrowser.open(url)
    pages = [Route("/" if name == "index.html" else f"/{name}", partial(_file, name)) for name in FILES]
    calls = [Route(f"/{call.__name__}", partial(_answer, call), methods=["POST"]) for call in CALLS]
    app = Starlette(routes=[*pages, *calls])
    app.router.redirect_slashes = False
    config = uvicorn.Config(
        _guarded(app, origin, token), loop="asyncio", http="h11", ws="none", lifespan="off",
        access_log=False, log_level="error", proxy_headers=False, server_header=False,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        terminal.say(_("Ended."))
    finally:
        listener.close()
    return 0


def _guarded(app: ASGIApp, origin: str, token: str) -> ASGIApp:
    """`app` behind the checks of a request, with the headers of every response."""
    expected = {"origin": origin, TOKEN_HEADER: token, "content-type": "application/json"}

    def is_own(scope: Scope) -> bool:
        headers = Headers(scope=scope)
        if headers.getlist("host") != [origin.partition("//")[2]] or scope["method"] not in ("GET", "POST"):
            return False
        return scope["method"] == "GET" or all(
            len(found) == 1 and secrets.compare_digest(found[0].encode(), expected[name].encode())
            for name, found in ((name, headers.getlist(name)) for name in expected)
        )

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refused = PlainTextResponse("This page answers only itself.", 403)
        await (app if is_own(scope) else refused)(scope, receive, send_with_headers)

    return guarded


async def _file(name: str, request: Request) -> Response:
    return Response(read_file(name), media_type=FILES[name])


async def _answer(call: Call, request: Request) -> Response:
    """An endpoint: the JSON body in, the call's values out; an error is returned with its remedy."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > _MOST_BYTES:
            return PlainTextResponse("Too large.", 413)
    try:
        body = json.loads(data)
        lang = body["lang"] if body["lang"] in LANGUAGES else "en"
    except (ValueError, TypeError, KeyError):
        return PlainTextResponse("Not what the page sends.", 400)
    with in_language(lang):
        try:
            done = await call(body)
        except OllamaError as error:
            done = _problem(error)
    return done if isinstance(done, Response) else JSONResponse(done)


def _problem(error: OllamaError) -> dict[str, Any]:
    return {"problem": error.message, "remedy": error.hint}


def _form(body: Body, *needed: str) -> dict[str, str]:
    """The form's fields from a body, and nothing else."""
    form = {}
    for field in FORM_FIELDS:
        form[field.variable] = str(body.get(field.variable) or "").strip()
        if field.variable in needed and not form[field.variable]:
            raise ConfigurationError(_("{field} is empty.").format(field=field.labels[current_language()]))
    return form


def _settings(body: Body) -> ChatSettings | EmbeddingSettings | RerankSettings:
    form = _form(body, "base_url", "model")
    name, kind = form.pop("model"), form.pop("model_type")
    kind = kind if kind in ("text-embedding", "rerank") else "llm"
    own = {field.variable for field in FORM_FIELDS if kind in field.applies_to}
    credentials = {key: form[key] for key in form if key in own}
    if kind == "text-embedding":
        return EmbeddingSettings.from_dify(name, credentials)
    return (RerankSettings if kind == "rerank" else ChatSettings).from_dify(name, credentials)


async def models(body: Body) -> dict[str, Any]:
    """Names of the server's models."""
    form = _form(body, "base_url")
    settings = ConnectionSettings(base_url=form["base_url"], api_key=form["api_key"] or None)
    async with AsyncOllamaClient(settings) as client:
        return {"models": [model.name for model in await client.tags()]}


async def model(body: Body) -> dict[str, Any]:
    """The form of a model as `ollama-dify form` fills it, and what to know about the values."""
    settings = _settings({**body, "context_size": "", "max_tokens": ""})
    async with AsyncOllamaClient(settings) as client:
        info = await client.model_info()
    values, notes = fill_form(info, settings.address.url, None)
    if info.capabilities is not None:
        notes["model"] = ", ".join(sorted(info.capabilities))
    kept = ("model", "base_url", "api_key")  # as typed
    return {"values": {name: values[name] for name in values if name not in kept}, "notes": notes}


async def save(body: Body) -> dict[str, Any]:
    """Dify's "Save": one ping; the report, and the first remedy where something fails."""
    report = await adiagnose(_settings(body), probe=False, load=True)
    failed = next((check for check in report.checks if check.state == "fail"), None)
    if failed is not None:
        return {"problem": failed.fact, "remedy": failed.remedy, "report": str(report)}
    saved = next(check.fact for check in report.checks if check.name == "load")
    return {"saved": saved, "report": str(report)}


async def embed(body: Body) -> dict[str, Any]:
    """The length of a text's vector."""
    started = time.perf_counter()
    async with AsyncOllamaClient(_settings({**body, "model_type": "text-embedding"})) as client:
        result = await client.embed([str(body.get("prompt"))])
    vector = result.vectors[0] or []
    seconds = time.perf_counter() - started
    return {"dimensions": len(vector), "input_tokens": result.input_tokens, "seconds": seconds}


async def chat(body: Body) -> Response:
    """An answer as JSON lines: text and thinking, then tokens and durations; or the problem."""
    settings = _settings({**body, "model_type": "llm"})
    assert isinstance(settings, ChatSettings)
    prompt, media = str(body.get("prompt")), list[Content]()
    for number, source in enumerate(map(str, body.get("media") or ()), 1):
        is_audio, where = source.startswith("data:audio/"), f"file {number}"
        made = Audio.parse(source, where=where) if is_audio else load_image(source, settings, where=where)
        media.append(made)

    async def lines() -> AsyncIterator[str]:
        async with AsyncOllamaClient(settings) as client:
            try:
                is_completion = settings.mode == "completion"
                messages = [user(prompt, *media)]
                stream = client.generate_stream(prompt) if is_completion else client.chat_stream(messages)
                async with stream:
                    async for chunk in stream:
                        if chunk.text or chunk.thinking:
                            yield json.dumps({"text": chunk.text, "thinking": chunk.thinking}) + "\n"
                    finish = stream.result.finish
                    yield json.dumps({"finish": finish.metadata() if finish else {}}) + "\n"
            except OllamaError as error:
                yield json.dumps(_problem(error)) + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


CALLS: tuple[Call, ...] = (models, model, save, chat, embed)
