"""The form as a page beside the code it means; served on 127.0.0.1 for `ollama-dify form --web`.

    GET  /                     the page, its style, its script and its texts: the same bytes for everybody
    POST /models /model        fill the form from the server
    POST /save                 one ping, as Dify's "Save", and the doctor's remedy
    POST /chat /embed          the try-out; /chat answers JSON lines while the model writes

A POST must come from the page itself (exact Host, own Origin) and carry the token of this run in a header.
Only the Base URL inside it is contacted. A typed key is used for that POST and kept nowhere.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..client.asynchronous import AsyncOllamaClient
from ..doctor import adiagnose
from ..doctor.form import fill_form
from ..errors import ConfigurationError, OllamaError
from ..language import LANGUAGES, _, current_language
from ..language import language as in_language
from ..media.image import Audio
from ..media.load import load_image
from ..settings import ChatSettings, ConnectionSettings, EmbeddingSettings, RerankSettings
from ..settings.dify_form import FORM_FIELDS
from ..wire.messages import Content, user
from .texts import page_data

__all__ = ["FILES", "TOKEN_HEADER", "make_app", "read_file"]

TOKEN_HEADER = "x-ollama-dify-token"
PAGE = Path(__file__).parent / "page"
FILES: Mapping[str, str] = {
    "index.html": "text/html",
    "form.css": "text/css",
    "form.js": "text/javascript",
    "form.json": "application/json",
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


def read_file(name: str) -> bytes:
    """A file of the page; form.json is made of the form's labels and the texts in all languages."""
    if name == "form.json":
        return json.dumps(page_data(), ensure_ascii=False).encode()
    return (PAGE / name).read_bytes()


def make_app(origin: str, token: str) -> ASGIApp:
    """The page and its calls. origin: such as http://127.0.0.1:8765, where it will be served."""
    pages = [Route("/" if name == "index.html" else f"/{name}", _file(name)) for name in FILES]
    calls = [Route(f"/{call.__name__}", _post(call), methods=["POST"]) for call in CALLS]
    app = Starlette(routes=[*pages, *calls])
    app.router.redirect_slashes = False
    return _guarded(app, origin, token)


def _guarded(app: ASGIApp, origin: str, token: str) -> ASGIApp:
    """`app` behind the checks of a request, with the headers of every response."""
    host = origin.partition("//")[2].encode()
    expected = {b"origin": origin.encode(), TOKEN_HEADER.encode(): token.encode()}
    expected[b"content-type"] = b"application/json"

    def is_refused(scope: Scope) -> bool:
        found: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            found.setdefault(name, []).append(value)
        if found.get(b"host") != [host] or scope["method"] not in ("GET", "POST"):
            return True
        return scope["method"] == "POST" and not all(
            len(found.get(name, ())) == 1 and secrets.compare_digest(found[name][0], value)
            for name, value in expected.items()
        )

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        refused = PlainTextResponse("This page answers only itself.", 403)
        await (refused if is_refused(scope) else app)(scope, receive, send_with_headers)

    return guarded


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return Response(read_file(name), media_type=FILES[name])

    return answer


def _post(call: Callable[[Body], Awaitable[Response | dict[str, Any]]]) -> Callable[..., Awaitable[Response]]:
    """An endpoint: the JSON body in, the call's values out; what failed is told with its remedy."""

    async def answer(request: Request) -> Response:
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

    return answer


def _problem(error: OllamaError) -> dict[str, Any]:
    return {"problem": error.message, "remedy": error.hint}


def _form(body: Body, *needed: str) -> dict[str, str]:
    """The form's fields out of a body, and nothing else."""
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
    for name in ("model", "base_url", "api_key"):  # as typed
        del values[name]
    return {"values": values, "notes": notes}


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
    media: list[Content] = []
    for number, source in enumerate(body.get("media") or (), 1):
        where = f"file {number}"
        if str(source).startswith("data:audio/"):
            media.append(Audio.parse(str(source), where=where))
        else:
            media.append(load_image(str(source), settings, where=where))
    messages = [user(str(body.get("prompt")), *media)]

    async def lines() -> AsyncIterator[str]:
        async with AsyncOllamaClient(settings) as client:
            try:
                if settings.mode == "completion":
                    stream = client.generate_stream(str(body.get("prompt")))
                else:
                    stream = client.chat_stream(messages)
                async with stream:
                    async for chunk in stream:
                        if chunk.text or chunk.thinking:
                            yield json.dumps({"text": chunk.text, "thinking": chunk.thinking}) + "\n"
                    finish = stream.result.finish
                    yield json.dumps({"finish": finish.metadata() if finish else {}}) + "\n"
            except OllamaError as error:
                yield json.dumps(_problem(error)) + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


CALLS: tuple[Callable[[Body], Awaitable[Response | dict[str, Any]]], ...] = (models, model, save, chat, embed)
