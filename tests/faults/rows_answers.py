"""Rows 1 to 14 of the fault table: what an answer says."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import ollama_dify as od

from .rows import always, equal, error_reply, fails, row, streamed, tries
from .server import (
    End,
    FaultServer,
    Request,
    Script,
    Step,
    answer,
    embedded,
    head,
    in_turn,
    last_line,
    line,
    whole,
)
from .targets import Target


@row(1, "load queue full: 503", "retried")
def a_full_load_queue(target: Target, server: FaultServer) -> None:
    busy = error_reply(503, "server busy, please try again.  maximum pending requests exceeded")
    model = target.chat_model(server.url)
    server.script(in_turn(busy, busy))
    equal(target.chat(model), "Hello")
    equal(len(server.generations), 3, "requests")
    server.script(always(busy))
    fails(od.ServerBusyError, lambda: target.chat(model), status=503, attempts=3, retryable=True)


@row(2, "429, 502, 504 of the cloud; 403", "retried with Retry-After, not 403")
def a_cloud_that_is_busy_or_refuses(target: Target, server: FaultServer) -> None:
    model = target.chat_model(server.url)
    limited = whole(b'{"StatusCode":429,"Status":"429","error":"slow down"}', 429, Retry_After="1")
    server.script(in_turn([limited]))
    start = time.monotonic()
    equal(target.chat(model), "Hello")
    waited = time.monotonic() - start
    assert waited >= 1.0, f"waited {waited:.2f} s, asked for 1"  # a busy machine waits longer, never shorter
    soon = email.utils.formatdate(time.time() + 2, usegmt=True)
    server.script(in_turn([whole(b"{}", 429, Retry_After=soon)], error_reply(502, 'Post "https://x": EOF')))
    equal(target.chat(model), "Hello")
    server.script(in_turn(error_reply(504, "upstream"), error_reply(502, "Post: EOF")))
    equal(target.chat(model), "Hello")
    equal(
        tries(server, always(error_reply(403, "cloud disabled")), lambda: target.chat(model)),
        1,
        "requests on 403",
    )
    fails(od.PermissionDeniedError, lambda: target.chat(model), status=403, retryable=False)


@row(3, "permanent 500s and 499; passing ones", "no retry; retry by their text")
def permanent_and_passing_500s(target: Target, server: FaultServer) -> None:
    model = target.chat_model(server.url)
    for text in (
        'option "num_ctx" must be of type integer',
        'invalid format: "x"',
        "timed out waiting for llama-server to start",
        "llama-server process has terminated: signal: killed",
        "model requires more system memory (9.1 GiB) than is available (1.2 GiB)",
    ):
        equal(tries(server, always(error_reply(500, text)), lambda: target.chat(model)), 1, text)
    equal(
        tries(server, always(error_reply(499, "client closed request")), lambda: target.chat(model)), 1, "499"
    )
    for text, most in (
        ("unexpected server status: llm server loading model", 3),
        ("no slots available after 10 retries", 3),
        ("model runner has unexpectedly stopped, this may be due to resource limitations", 2),
    ):
        equal(tries(server, always(error_reply(500, text)), lambda: target.chat(model)), most, text)


@row(4, "transient 400 on /api/embed", "retried")
def a_transient_400_on_embed(target: Target, server: FaultServer) -> None:
    embedder = target.embedder(server.url)
    server.script(
        in_turn(
            error_reply(400, 'do embedding request: Post "http://127.0.0.1:1/embedding": EOF'),
            error_reply(400, "unexpected server status: llm server loading model"),
        )
    )
    equal(target.embed(embedder, ["a 1", "b 2"]), [[1.0, 1.0], [1.0, 2.0]])


@row(5, "a text the model cannot embed (400)", "found, named, the rest kept")
def a_text_that_cannot_be_embedded(target: Target, server: FaultServer) -> None:
    def refuse(request: Request) -> Iterable[Step]:
        if request.path != "/api/embed":
            return answer(request)
        if any("poison" in text for text in request.json["input"]):
            return error_reply(400, "embedding contains NaN or Inf values")
        return answer(request)

    server.script(refuse)
    texts = [f"text {number}" for number in range(20)]
    texts[13] = "poison 13"
    embedder = target.embedder(server.url)
    error = fails(od.EmbeddingError, lambda: target.embed(embedder, texts), indexes=(13,))
    kept = [vector for vector in error.partial if vector is not None]
    equal((len(error.partial), len(kept), error.partial[13]), (20, 19, None))
    lenient = target.call(embedder, "embed", texts, skip_failed=True)
    equal((lenient.vectors[13], lenient.failed), (None, (13,)))


@row(6, "200 with a short, ragged, zero or NaN list", "retried, then an error")
def a_list_of_vectors_that_is_wrong(target: Target, server: FaultServer) -> None:
    embedder = target.embedder(server.url)
    texts = ["a 1", "b 2"]

    def spoiled(spoil: Callable[[list[Any]], Any]) -> Script:
        def script(request: Request) -> Iterable[Step]:
            if request.path != "/api/embed":
                return answer(request)
            found = embedded(request.json["input"])
            return [whole(json.dumps({**found, "embeddings": spoil(found["embeddings"])}).encode())]

        return script

    for name, spoil in (
        ("short", lambda vectors: vectors[:-1]),
        ("long", lambda vectors: [*vectors, [1.0, 1.0]]),
        ("zero", lambda vectors: [[0.0, 0.0]] * len(vectors)),
        ("null", lambda vectors: [[None, 1.0]] * len(vectors)),
        ("empty", lambda vectors: [[]] * len(vectors)),
    ):
        server.script(in_turn(spoiled(spoil)))
        equal(target.embed(embedder, texts), [[1.0, 1.0], [1.0, 2.0]], name)
        server.script(spoiled(spoil))
        fails(od.OllamaError, lambda: target.embed(embedder, texts))
    server.script(in_turn(then=spoiled(lambda vectors: None)))
    fails(od.ProtocolError, lambda: target.embed(embedder, texts), attempts=1)
    server.script(in_turn(spoiled(lambda vectors: [vectors[0], [1.0]])))
    equal(target.embed(embedder, texts), [[1.0, 1.0], [1.0, 2.0]], "ragged")


@row(7, "an error line inside a 200 stream", "error with the partial answer")
def an_error_line_inside_a_stream(target: Target, server: FaultServer) -> None:
    model = target.chat_model(server.url)
    broken = streamed(line("Hel"), line("lo"), b'{"error":"an error was encountered while running"}\n')
    server.script(in_turn(then=broken))
    error = fails(od.ServerError, lambda: target.stream(model), retryable=False)
    equal(error.partial.text, "Hello", "partial")
    equal(len(server.generations), 1, "requests")


@row(8, "a clean end without done:true; done:false in one piece", "IncompleteResponseError, no retry")
def an_end_without_done(target: Target, server: FaultServer) -> None:
    model = target.chat_model(server.url)
    server.script(in_turn(then=streamed(line("Hel"), line("lo"))))
    error = fails(od.IncompleteResponseError, lambda: target.stream(model))
    equal((error.partial.text, len(server.generations)), ("Hello", 1))
    server.script(always([whole(line("Hal").strip())]))
    error = fails(od.IncompleteResponseError, lambda: target.chat(model))
    equal(error.partial.text, "Hal", "partial")
    equal(len(server.generations), 2, "requests")


@row(9, "abrupt cut: FIN and RST in mid-answer", "our error, its cause and the partial kept")
def an_answer_cut_off(target: Target, server: FaultServer) -> None:
    model = target.chat_model(server.url)
    for end in (End.FIN, End.RST):
        server.script(in_turn(then=streamed(line("Hel"), line("lo"), end=end)))
        before = len(server.generations)
        error = fails(od.OllamaError, lambda: target.stream(model), retryable=False)
        assert error.__cause__ is not None, "no __cause__"
        equal((error.partial.text, len(server.generations) - before), ("Hello", 1))
        # Before the first chunk, and for an answer in one piece, nothing reached the caller.
        server.script(in_turn([head(), end], [head(length=99), b'{"mod', end]))
        equal(target.stream(model), ["Hel", "lo"])
        server.script(in_turn([head(length=99), b'{"mod', end], [end]))
        equal(target.chat(model), "Hello")


@row(10, "empty 200; done_reason load", "EmptyResponseError; replayed once")
def an_empty_answer(target: Target, server: FaultServer) -> None:
    model = target.chat_model(server.url)
    server.script(always([whole(b"")]))
    fails(od.EmptyResponseError, lambda: target.chat(model))
    fails(od.EmptyResponseError, lambda: target.stream(model))
    loaded = [whole(last_line(done_reason="load"))]
    server.script(in_turn(loaded))
    equal(target.chat(model), "Hello")
    server.script(in_turn(loaded))
    equal(target.stream(model), ["Hel", "lo"])
    equal(tries(server, always(loaded), lambda: target.chat(model)), 2, "requests for load")


@row(11, "HTML, 404 text, 405, no such model, empty 403", "each named, with what to do")
def an_answer_that_is_not_ollamas(target: Target, server: FaultServer) -> None:
    model = target.chat_model(server.url)
    html = b"<html><body><h1>Bad Gateway</h1></body></html>"
    for reply, kind in (
        (whole(html, 200, Content_Type="text/html"), od.ProtocolError),
        (whole(html, 502, Content_Type="text/html"), od.ServerError),
        (whole(b"404 page not found", 404, Content_Type="text/plain"), od.ProtocolError),
        (whole(b"405 method not allowed", 405, Content_Type="text/plain"), od.ProtocolError),
        (whole(b'{"error":"model \'m\' not found"}', 404), od.ModelNotFoundError),
        (whole(b"", 403), od.PermissionDeniedError),
    ):
        server.script(always([reply]))
        error: od.OllamaError = fails(kind, lambda: target.chat(model))
        assert error.hint, f"{kind.__name__} says nothing of what to do"


@row(12, '401 {"error","signin_url"}', "AuthenticationError with signin_url")
def a_sign_in_that_is_missing(target: Target, server: FaultServer) -> None:
    url = "https://ollama.com/connect?name=x"
    server.script(always([whole(json.dumps({"error": "unauthorized", "signin_url": url}).encode(), 401)]))
    model = target.chat_model(server.url)
    fails(od.AuthenticationError, lambda: target.chat(model), signin_url=url, retryable=False)


@row(13, "redirects", "off; opt-in for the same origin, 307 and 308")
def redirects(target: Target, server: FaultServer) -> None:
    def script(status: int, location: str) -> Script:
        moved = whole(b"", status, Location=location)
        return lambda request: [moved] if request.path == "/api/chat" else moved_answer(request)

    def moved_answer(request: Request) -> Iterable[Step]:
        return answer(Request("POST", "/api/chat", {}, request.body, 0, 0))

    key = "sk-canary"
    model = target.chat_model(server.url, api_key=key)
    server.script(script(307, f"{server.url}//api/chat"))
    fails(od.ProtocolError, lambda: target.chat(model))
    willing = target.chat_model(server.url, api_key=key, follow_redirects=True)
    for status in (307, 308):
        server.script(script(status, "/moved/chat"))
        equal(target.chat(willing), "Hello")
    with FaultServer() as other:
        for status, place in (
            (307, f"{other.url}/api/chat"),
            (307, server.url.replace("http:", "https:") + "/moved/chat"),
            (307, "http://[::1"),
            (307, ""),
            (307, "/api/chat"),  # for ever
            (301, "/moved/chat"),
        ):
            server.script(script(status, place))
            before = len(server.generations)
            error = fails(od.ProtocolError, lambda: target.chat(willing))
            assert f"redirects to {place!r}" in str(error), str(error)
            equal(len(server.generations) - before, 4 if place == "/api/chat" else 1, f"requests, {place!r}")
        equal(other.counts.connections, 0, "connections elsewhere")


@row(14, "raw U+0085 and U+2028 in JSON text", "lines split at \\n only")
def line_separators_in_text(target: Target, server: FaultServer) -> None:
    odd = "a\u0085b\u2028c\u2029d"
    raw = line("X").replace(b'"X"', json.dumps(odd, ensure_ascii=False).encode())
    server.script(in_turn(then=streamed(raw, last_line())))
    equal("".join(target.stream(target.chat_model(server.url))), odd)
