"""The routes: who answers what, and everything that is not inference."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from . import checks, embedding, inference, models, wire
from .faults import Fault, RecordedRequest, Reply
from .models import SimulatedModel
from .responses import NDJSON, TEXT, Answer, Refused, ok, refuse
from .state import ServerState

logger = logging.getLogger("ollama_dify")
Handler = Callable[[ServerState, RecordedRequest], Awaitable[Answer]]
_LOCAL_NAMES = ("localhost", "127.0.0.1", "0.0.0.0", "::1")
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
_UNREACHABLE = (
    'Get "https://registry.ollama.ai/v2/library/{name}/manifests/{tag}": dial tcp: lookup registry.ollama.ai '
    "on 127.0.0.53:53: no such host"
)


async def answer_or_fault(server: ServerState, request: RecordedRequest) -> tuple[Answer, Fault | None]:
    """Work on a request: its fault, its scripted reply, else the route."""
    fault = server.fault_for(request)
    if server.latency.first_byte_s:
        await asyncio.sleep(server.latency.first_byte_s)
    if fault is not None and fault.kind == "status":
        headers = {"Content-Type": "application/json; charset=utf-8", **fault.headers}
        kind = headers.pop("Content-Type")
        return Answer(fault.status, kind, fault.data, tuple(headers.items()), chunked=False), None
    try:
        answer = await _respond(server, request)
    except Refused as refused:
        answer = refused.answer
    except Exception:
        logger.exception("simulated server: %s %s", request.method, request.path)
        answer = Answer(500, body=b'{"error":"the simulated server failed, see its log"}')
    return answer, fault


async def _respond(server: ServerState, request: RecordedRequest) -> Answer:
    if not _host_allowed(server, request.header("host")) or not _origin_allowed(request.header("origin")):
        return Answer(403, None)
    path = request.path.partition("?")[0]
    if "//" in path:
        moved = re.sub("/+", "/", path)
        status = 307 if server.is_modern or request.method != "GET" else 301
        return Answer(status, None, headers=(("Location", moved),))
    methods = _ROUTES.get(path)
    if methods is None:
        return Answer(404, TEXT, b"404 page not found")
    handler = methods.get(request.method)
    if handler is None:
        allowed = ", ".join(methods)
        return Answer(405, TEXT, b"405 method not allowed", headers=(("Allow", allowed),))
    return await handler(server, request)


def _host_allowed(server: ServerState, host: str | None) -> bool:
    name = urlsplit(f"//{host or ''}").hostname or ""
    # A server that listens beyond this machine does not check the Host header.
    if name in server.allowed_hosts or server.address[0] not in ("127.0.0.1", "localhost", "::1"):
        return True
    is_address = re.fullmatch(r"[\d.]+|[\da-f:]+", name) is not None
    return not name or is_address or name in _LOCAL_NAMES or name.endswith(_LOCAL_SUFFIXES)


def _origin_allowed(origin: str | None) -> bool:
    if origin is None or not origin.startswith(("http://", "https://")):
        return True
    return (urlsplit(origin).hostname or "") in _LOCAL_NAMES


async def _root(server: ServerState, request: RecordedRequest) -> Answer:
    return Answer(200, "text/plain; charset=utf-8", b"Ollama is running")


async def _version(server: ServerState, request: RecordedRequest) -> Answer:
    return ok({"version": server.version})


async def _tags(server: ServerState, request: RecordedRequest) -> Answer:
    newest = sorted(server.models.values(), key=lambda model: model.modified_at, reverse=True)
    return ok({"models": [models.tag_entry(model, listed=server.is_modern) for model in newest]})


async def _ps(server: ServerState, request: RecordedRequest) -> Answer:
    return ok({"models": server.runners.listing()})


async def _show(server: ServerState, request: RecordedRequest) -> Answer:
    body = checks.parse_body(request.raw, "ShowRequest")
    name = _named(body, "model")
    model = server.find(name)
    if model is None:
        shown = models.with_tag(name) if server.is_modern else name
        raise refuse(404, f"model '{shown}' not found")
    return ok(models.show(model, verbose=body.get("verbose") is True))


def _named(body: Mapping[str, Any], field: str) -> str:
    """A model's name out of a management request; `name` is the older spelling of `model`."""
    name = body.get(field) or body.get("name") or ""
    if not name:
        raise refuse(400, f"{field} is required")
    if not models.is_valid_name(name):
        raise refuse(400, "invalid model name")
    return str(name)


async def _pull(server: ServerState, request: RecordedRequest) -> Answer:
    body = checks.parse_body(request.raw, "PullRequest")
    reply = server.scripted(request)
    if reply is not None:
        return await inference.scripted_answer(reply)
    name = _named(body, "model")
    problem = _pull_problem(server, name, insecure=body.get("insecure") is True)
    model = server.find(name) or server.pullable(name)
    if problem is None and model is not None:
        server.install(model)
        return _progress(_pull_steps(model), stream=body.get("stream") is not False)
    error = "pull model manifest: " + ("file does not exist" if problem is None else problem)
    if body.get("stream") is False:
        return Answer(500, "application/json", wire.dumps({"error": error}), chunked=False)
    return _progress([{"status": "pulling manifest"}, {"error": error}], stream=True)


def _pull_problem(server: ServerState, name: str, *, insecure: bool) -> str | None:
    split = re.fullmatch(r"http://([^/]+)/(.+?)(?::([\w.-]+))?", name)
    if split is not None and not insecure:
        host, path, tag = split.groups()
        url = f"https://{host}/v2/{path}/manifests/{tag or 'latest'}"
        return f'Get "{url}": tls: first record does not look like a TLS handshake'
    if split is None and server.registry == "unreachable":
        bare, _, tag = models.with_tag(name).rpartition(":")
        return _UNREACHABLE.format(name=bare, tag=tag)
    return None


def _pull_steps(model: SimulatedModel) -> list[dict[str, Any]]:
    digest = models.sha256(f"{model.parent or model.full_name}/model")
    layer = {"status": f"pulling {digest[:12]}", "digest": f"sha256:{digest}", "total": model.size}
    parts = [layer, *({**layer, "completed": model.size * step // 4} for step in range(1, 5))]
    closing = ("verifying sha256 digest", "writing manifest", "success")
    return [{"status": "pulling manifest"}, *parts, *({"status": status} for status in closing)]


def _progress(steps: list[dict[str, Any]], *, stream: bool) -> Answer:
    if not stream:
        return ok(steps[-1])

    async def lines() -> AsyncIterator[bytes]:
        for step in steps:
            yield wire.dumps(step) + b"\n"
            await asyncio.sleep(0)

    return Answer(200, NDJSON, lines())


def _generation(work: Callable[[ServerState, RecordedRequest, Reply | None], Awaitable[Answer]]) -> Handler:
    async def handle(server: ServerState, request: RecordedRequest) -> Answer:
        reply = server.scripted(request)
        if reply is not None and reply.is_raw:
            return await inference.scripted_answer(reply)
        return await work(server, request, reply)

    return handle


async def _embed(server: ServerState, request: RecordedRequest) -> Answer:
    reply = server.scripted(request)
    return await (embedding.embed(server, request) if reply is None else inference.scripted_answer(reply))


_ROUTES: Mapping[str, Mapping[str, Handler]] = {
    "/": {"GET": _root, "HEAD": _root},
    "/api/version": {"GET": _version, "HEAD": _version},
    "/api/tags": {"GET": _tags, "HEAD": _tags},
    "/api/ps": {"GET": _ps},
    "/api/chat": {"POST": _generation(inference.chat)},
    "/api/generate": {"POST": _generation(inference.generate)},
    "/api/embed": {"POST": _embed},
    "/api/show": {"POST": _show},
    "/api/pull": {"POST": _pull},
}
