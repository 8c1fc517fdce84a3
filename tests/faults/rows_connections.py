"""Rows 15 to 25 of the fault table: what becomes of connections, clients and settings."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import os
import pickle
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import ollama_dify as od

from .rows import PNG, always, equal, error_reply, fails, row, streamed
from .server import (
    End,
    FaultServer,
    Request,
    Script,
    Step,
    answer,
    chunk,
    head,
    in_turn,
    last_line,
    line,
    whole,
)
from .targets import PROMPT, AsyncTarget, Target


@row(15, "silence in each phase; drips", "the phase's timeout, never retried")
def silence_in_each_phase(target: Target, server: FaultServer) -> None:
    def timeouts(**limits: float) -> dict[str, Any]:
        return {"timeout": od.Timeouts(**limits), "max_retries": 2}

    stream = streamed(line("Hel"), end=End.STALL)
    drip: list[Step] = [head(length=9999)]
    for _ in range(100):
        drip += [b"{", 0.05]
    slow_head: list[Step] = [b"HTTP/1.1 200 OK\r\nA: "]
    for _ in range(100):
        slow_head += [b"a", 0.05]
    cases: list[tuple[str, dict[str, Any], Script, bool]] = [
        ("first_byte", timeouts(first_byte=0.3), always(slow_head), True),
        ("first_byte", timeouts(first_byte=0.15), always([End.STALL]), True),
        ("idle", timeouts(idle=0.15), in_turn(then=stream), True),
        ("idle", timeouts(idle=0.15), always([head(length=99), b"{", End.STALL]), False),
        ("total", timeouts(total=0.3), always([End.STALL]), False),
        ("total", timeouts(total=0.3), always(drip), False),
        ("total", timeouts(total=0.3), always(slow_head), False),
        ("total", timeouts(total=0.3), in_turn(then=stream), True),
    ]
    for phase, settings, script, streaming in cases:
        model = target.chat_model(server.url, **settings)
        server.script(script)
        before = len(server.generations)
        call = target.stream if streaming else target.chat
        fails(od.RequestTimeoutError, partial(call, model), phase=phase)
        equal(len(server.generations) - before, 1, f"requests ({phase})")


@row(16, "a reused idle connection turns out closed", "one free replay")
def an_idle_connection_that_was_closed(target: Target, server: FaultServer) -> None:
    model = target.chat_model(server.url, max_retries=0)
    served = list(answer(Request("POST", "/api/chat", {}, b'{"stream":false}', 0, 0)))
    server.script(in_turn([*served, End.FIN_LATER]))
    equal(target.chat(model), "Hello")
    equal(target.chat(model), "Hello")
    equal(server.counts.connections, 2, "connections")
    # A fresh connection that is closed, and a reused one that had begun to answer, are no such case.
    with FaultServer(in_turn([End.FIN])) as fresh:
        other = target.chat_model(fresh.url, max_retries=0)
        fails(od.ConnectionFailedError, lambda: target.chat(other), attempts=1)
        equal(target.chat(other), "Hello")
        fresh.script(in_turn([b"HTTP/1.1 2", End.FIN]))
        fails(od.ConnectionFailedError, lambda: target.chat(other))


@row(17, "context overflow, plain and nested; done reasons", "ContextOverflowError; reasons mapped")
def a_context_overflow_and_every_done_reason(target: Target, server: FaultServer) -> None:
    model = target.chat_model(server.url)
    told = "request (9000 tokens) exceeds the available context size (4096 tokens), try increasing it"
    kind = {"type": "exceed_context_size_error", "n_prompt_tokens": 9000, "n_ctx": 4096}
    nested = json.dumps({"error": {"code": 400, "message": told, **kind}})
    server.script(always(error_reply(400, nested)))
    fails(od.ContextOverflowError, lambda: target.chat(model), prompt_tokens=9000, limit=4095)
    server.script(always(error_reply(400, "the input length exceeds the context length")))
    fails(od.ContextOverflowError, lambda: target.chat(model))
    sent = server.generations[-1].json
    equal((sent["truncate"], sent["shift"]), (False, False), "truncate, shift")
    for reason in ("stop", "length", ""):
        server.script(in_turn(then=streamed(line("Hel"), last_line(done_reason=reason))))
        equal(target.stream(model), ["Hel"], reason)
    missing = json.loads(last_line())
    del missing["done_reason"]
    server.script(in_turn(then=streamed(line("Hel"), json.dumps(missing).encode() + b"\n")))
    equal(target.stream(model), ["Hel"], "no reason")
    for reason in ("load", "unload"):
        server.script(in_turn(then=streamed(last_line(done_reason=reason))))
        fails(od.EmptyResponseError, lambda: target.stream(model))


@row(18, "one object, several event loops", "connections per loop")
def one_object_in_several_event_loops(target: Target, server: FaultServer) -> None:
    model = target.chat_model(server.url)
    with ThreadPoolExecutor(4) as threads:
        said = threads.map(lambda _: [_elsewhere(target, model) for _ in range(3)], range(4), timeout=30)
        equal(list(said), [["Hello"] * 3] * 4)
    equal(target.chat(model), "Hello")
    equal(target.chat(model), "Hello")
    assert server.wait(lambda counts: counts.open <= 4), f"{server.counts.open} connections left open"


def _elsewhere(target: Target, model: Any) -> str:
    """A call in this thread; of an async target, in an event loop of its own."""
    if not isinstance(target, AsyncTarget):
        return target.chat(model)
    other = type(target)()
    try:
        return other.chat(model)
    finally:
        other.close()


@row(19, "fork", "inherited sockets are left alone")
def a_fork(target: Target, server: FaultServer) -> None:
    if not hasattr(os, "fork"):
        return
    server.script(lambda request: answer(request, *_asked(request)))
    model = target.chat_model(server.url)
    equal(target.chat(model, "parent"), "parent")
    children = []
    for _number in range(4):
        with warnings.catch_warnings():
            # Python warns of forks beside threads, which is the point.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            status = 1
            try:
                gc.disable()
                status = 0 if all(_elsewhere(target, model) == PROMPT for _ in range(5)) else 2
                if not isinstance(target, AsyncTarget):
                    model.close()
            except BaseException:
                pass
            finally:
                os._exit(status)
        children.append(pid)
    for _ in range(5):
        equal(target.chat(model, "parent"), "parent")
    equal([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children], [0] * 4, "children")
    equal(target.chat(model, "parent"), "parent")
    equal(server.requests[0].path, server.requests[-1].path)


def _asked(request: Request) -> tuple[str, ...]:
    messages = request.json.get("messages") if request.body else None
    return (messages[-1]["content"],) if messages else ()


def endless(request: Request) -> Iterator[Step]:
    """A stream that goes on until the client leaves."""
    if request.path not in ("/api/chat", "/api/generate"):
        yield from answer(request)
        return
    yield head(Content_Type="application/x-ndjson")
    for _ in range(2000):
        yield chunk(line("x"))
        yield 0.01


@row(20, "streams that are not read to their end", "the server sees it; a named error when none is left")
def streams_not_read_to_their_end(target: Target, server: FaultServer) -> None:
    model = target.chat_model(server.url, max_connections=2)
    server.script(endless)
    for _ in range(5):
        equal(target.stream(model, most=3), ["x"] * 3)
        if isinstance(target, AsyncTarget):
            target.run(asyncio.sleep(0.05))
        assert server.wait(lambda counts: counts.open == 0, 1.0), "the server saw no disconnect within 1 s"
    crowded = target.chat_model(server.url, max_connections=1, timeout=od.Timeouts(pool=0.2))
    server.script(in_turn(lambda request: [1.0, *answer(request)]))
    if isinstance(target, AsyncTarget):

        async def both() -> Any:
            return await asyncio.gather(*[_ask(crowded) for _ in range(2)], return_exceptions=True)

        _, error = target.run(both())
        assert isinstance(error, od.RequestTimeoutError), repr(error)
    else:
        with ThreadPoolExecutor(1) as threads:
            threads.submit(target.chat, crowded)
            assert server.wait(lambda counts: counts.open == 1), "no connection"
            error = fails(od.RequestTimeoutError, lambda: target.chat(crowded))
    equal(error.phase, "pool")
    assert "max_connections" in str(error), str(error)


async def _ask(model: Any) -> Any:
    """A chat of any async object."""
    if hasattr(model, "ainvoke"):
        return await model.ainvoke("hi")
    if hasattr(model, "acomplete"):
        return await model.acomplete("hi")
    return await model.chat([od.user("hi")])


@row(21, "lifecycle", "close, reuse, pickle, deepcopy; no ResourceWarning")
def closing_copying_and_dropping(target: Target, server: FaultServer) -> None:
    model = target.chat_model(server.url)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        equal(target.chat(model), "Hello")
        _close(target, model)
        assert server.wait(lambda counts: counts.open == 0, 1.0), "close() left a connection"
        equal(target.chat(model), "Hello")
        for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):
            equal(target.chat(other), "Hello")
            _close(target, other)
        _close(target, model)
        # Dropped without a close, once idle and once with a stream under way.
        equal(target.chat(target._chat_model({"model": "m", "base_url": server.url})), "Hello")
        server.script(endless)
        target.stream(target._chat_model({"model": "m", "base_url": server.url}), most=1)
        if isinstance(target, AsyncTarget):
            target.run(asyncio.sleep(0.05))
        gc.collect()
        if isinstance(target, AsyncTarget):
            target.run(asyncio.sleep(0.05))
        assert server.wait(lambda counts: counts.open == 0, 2.0), (
            f"{server.counts.open} connections outlive their objects"
        )
    left = [str(it.message) for it in caught if issubclass(it.category, ResourceWarning)]
    equal(left, [], "ResourceWarnings")


def _close(target: Target, model: Any) -> None:
    target.run(model.aclose()) if isinstance(target, AsyncTarget) else model.close()


@row(22, "a slow server and an event loop", "the loop goes on while the server thinks")
def a_slow_server_and_an_event_loop(target: Target, server: FaultServer) -> None:
    if not isinstance(target, AsyncTarget):
        return

    def slow(request: Request) -> Iterable[Step]:
        # Answers only when the loop has gone on; for one that stands still, never within the limit.
        before = beats
        for _ in range(1000):
            if beats - before >= 3:
                break
            yield 0.01
        else:
            yield 30.0
        yield from answer(request, *["x" * 50] * 200)

    server.script(slow)
    model = target.chat_model(server.url.replace("127.0.0.1", "localhost"))
    secure = target.chat_model(
        server.url.replace("http:", "https:"), max_retries=0, timeout=od.Timeouts(connect=0.2)
    )
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.002)
            beats += 1

    async def work() -> None:
        heart = asyncio.ensure_future(beat())
        await asyncio.sleep(0.01)
        *answers, handshake = await asyncio.gather(
            *(_ask(model) for _ in range(4)), _ask(secure), return_exceptions=True
        )
        heart.cancel()
        assert not [it for it in answers if isinstance(it, BaseException)], answers
        assert isinstance(handshake, od.OllamaError), handshake

    target.run(work())


@row(23, "bad base_url", "ConfigurationError at construction; a bare host is completed")
def a_bad_base_url(target: Target, server: FaultServer) -> None:
    for url in ("gpu-box:70000", "ftp://x", "http://", "http://[::1", "http://a b", "http://x:y"):
        fails(od.ConfigurationError, partial(target._chat_model, {"model": "m", "base_url": url}))
    made = target._chat_model({"model": "m", "base_url": "gpu-box"})
    settings = made.settings if hasattr(made, "settings") else made
    equal(settings.address.url, "http://gpu-box:11434")


@row(24, "tool arguments that look like JSON, 3,000 brackets", "passed through untouched")
def tool_arguments_that_look_like_json(target: Target, server: FaultServer) -> None:
    for odd in ('{"a": [1, 2]}', "[" * 3000, '"quoted"', "null", "01", "{'at': 1}"):
        body = json.loads(last_line())
        body["message"]["tool_calls"] = [{"function": {"name": "look", "arguments": {"at": odd}}}]

        def script(request: Request, data: bytes = json.dumps(body).encode()) -> Iterable[Step]:
            if "chat" not in request.path:
                return answer(request)
            return streamed(data + b"\n")(request) if request.json.get("stream") else [whole(data)]

        server.script(script)
        model = target.chat_model(server.url, function_call_support=True)
        equal(target.calls(model), [{"at": odd}], odd[:20])


@row(25, "does not support …; bad image; unknown option", "capability, image and setting errors")
def capability_image_and_setting_errors(target: Target, server: FaultServer) -> None:
    model = target.chat_model(server.url)
    for what in ("thinking", "tools", "chat"):
        server.script(always(error_reply(400, f'"m" does not support {what}')))
        fails(od.CapabilityError, lambda: target.chat(model))
    server.script(always(error_reply(400, "illegal base64 data at input byte 4")))
    fails(
        od.UnsupportedContentError,
        lambda: target.see(target.chat_model(server.url, vision_support=True), PNG),
    )
    fails(od.ConfigurationError, lambda: target._chat_model({"model": "m", "options": {"num_kepe": 1}}))
    before = [request.path for request in server.requests]
    assert "/api/version" not in before, "the version was read without need"
