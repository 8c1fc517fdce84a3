"""One secret, looked for wherever an object or a failure shows itself."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import pickle
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ollama_dify as od
from ollama_dify import ChatSettings, EmbeddingSettings, OllamaError, user

from .calling import BOTH, Calling, chat
from .rows import always, equal, shown_by_frames
from .server import End, FaultServer, answer, in_turn, last_line, whole
from .targets import PROMPT, Target, targets

SECRET = "sk-canary-5eCr3t"
# As it may also show itself: percent-encoded, or in a Basic header.
BASIC = "bWU6c2stY2FuYXJ5LTVlQ3IzdA"


def shown(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def assert_silent(what: str, text: Any) -> None:
    for secret in (SECRET, BASIC):
        assert secret not in shown(text), f"{what} shows the secret: {shown(text)[:300]}"


WAYS: dict[str, dict[str, Any]] = {
    "api_key": {"api_key": SECRET},
    "headers": {"headers": {"X-Token": SECRET, "Authorization": f"Bearer {SECRET}"}},
    "userinfo": {"userinfo": f"me:{SECRET}@"},
    "proxy": {"proxy": f"http://me:{SECRET}@127.0.0.1:9"},
}


def with_secret(way: str, url: str) -> dict[str, Any]:
    values = dict(WAYS[way])
    userinfo = values.pop("userinfo", "")
    return {"base_url": url.replace("http://", f"http://{userinfo}"), **values}


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def forms(made: Any) -> Iterator[tuple[str, Any]]:
    """All the ways in which an object puts itself into text."""
    yield "repr", repr(made)
    yield "str", str(made)
    yield "format", f"{made!s:>5}"
    for name in [
        "model_dump",
        "model_dump_json",
        "dict",
        "json",
        "to_dict",
        "to_json",
        "lc_attributes",
        "asdict",
    ]:
        method = getattr(made, name, None)
        if method is None:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                found = method() if callable(method) else method
            yield name, found
        except (TypeError, NotImplementedError, ValueError) as error:
            yield f"{name}'s error", str(error)
    for name in ("_identifying_params", "_llm_type", "metadata", "lc_secrets", "_get_ls_params"):
        value = getattr(made, name, None)
        yield name, value() if callable(value) else value
    try:
        from langchain_core.load import dumps
    except ImportError:
        return
    if hasattr(made, "lc_id"):
        yield "dumps", dumps(made)


@pytest.mark.parametrize("make", targets(), ids=lambda make: make.__name__)
@pytest.mark.parametrize("way", WAYS)
def test_objects(way: str, make: Callable[[], Target], server: FaultServer) -> None:
    target = make()
    try:
        for made in (
            target.chat_model(server.url, **with_secret(way, server.url)),
            target.embedder(server.url, **with_secret(way, server.url)),
        ):
            for what, text in forms(made):
                assert_silent(what, text)
            settings = getattr(made, "settings", made)
            assert_silent("repr of the settings", repr(settings))
            assert_silent("a copy", repr(copy.deepcopy(made)))
            # A pickle moves the object to another process, so it does hold the key.
            again = pickle.loads(pickle.dumps(made))
            assert_silent("an unpickled object", repr(again))
    finally:
        target.close()


@pytest.mark.parametrize("make", targets(), ids=lambda make: make.__name__)
@pytest.mark.parametrize("way", ["api_key", "headers", "userinfo", "proxy"])
def test_logs_and_failures(
    way: str, make: Callable[[], Target], server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    target = make()
    scripts = [
        in_turn(),
        always([whole(b'{"error":"no"}', 401)]),
        always([whole(b"<html>", 502)]),
        always([whole(b"", 307, Location="/x")]),
        in_turn(then=lambda request: [b"HTTP/1.1 garbage\r\n\r\n", End.FIN]),
        in_turn(then=lambda request: [End.RST]),
    ]
    reached = []
    try:
        for script in scripts:
            server.script(script)
            model = target.chat_model(server.url, max_retries=0, **with_secret(way, server.url))
            for call in (target.chat, target.stream):
                try:
                    call(model)
                except OllamaError as error:
                    assert_silent("the error", f"{error!s} {error!r} {vars(error)!r}")
                    assert_silent("the traceback", "".join(traceback.format_exception(error)))
                    for secret in (SECRET, BASIC):
                        equal(shown_by_frames(error, secret, PROMPT), [], "local variables")
                    assert_silent("a pickled error", vars(pickle.loads(pickle.dumps(error))))
                else:
                    reached.append(call)
    finally:
        target.close()
    for record in caplog.records:
        assert_silent(f"the log of {record.name}", record.getMessage() + str(record.args))
    if way != "proxy":
        assert reached, "nothing was sent"
        sent = [SECRET in str(it.headers) or BASIC in str(it.headers) for it in server.generations]
        assert all(sent), "a request went out without its key"


@pytest.mark.parametrize(
    "values",
    [
        {"api_key": f"{SECRET}\n"},
        {"api_key": f"{SECRET} é"},
        {"headers": {"X-A": f"{SECRET}\r\nB: c"}},
        {"base_url": f"http://me:{SECRET}@box:99999"},
        {"base_url": f"http://me:{SECRET}@[::1"},
        {"proxy": f"ftp://me:{SECRET}@x"},
        {"api_kye": SECRET},
        {"timeout": SECRET},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [ChatSettings, EmbeddingSettings])
def test_refused_settings(kind: type[od.ModelSettings], values: dict[str, Any]) -> None:
    try:
        od.OllamaClient(kind(model="m", **values)).version()
    except od.OllamaError as error:
        assert_silent("the error", str(error) + repr(error))
        assert_silent("the traceback", "".join(traceback.format_exception(error)))
    else:
        pytest.fail("was accepted")


def test_langchain_callbacks_and_traces(server: FaultServer) -> None:
    pytest.importorskip("langchain_core")
    from langchain_core.callbacks import BaseCallbackHandler

    from langchain_ollama_dify import ChatOllamaDify

    seen: list[str] = []

    class Watch(BaseCallbackHandler):
        def on_chat_model_start(self, serialized: Any, messages: Any, **more: Any) -> None:
            seen.append(json.dumps([serialized, more], default=repr))

        def on_llm_end(self, response: Any, **more: Any) -> None:
            seen.append(repr(response) + repr(more))

        def on_llm_error(self, error: BaseException, **more: Any) -> None:
            seen.append(str(error) + repr(error) + repr(more))

    server.script(in_turn(answer, [whole(b'{"error":"no"}', 401)]))
    with ChatOllamaDify(model="m", api_key=SECRET, base_url=server.url, headers={"X-T": SECRET}) as model:
        for _ in range(2):
            with contextlib.suppress(OllamaError):
                model.invoke("hi", config={"callbacks": [Watch()]})
    assert len(seen) == 4
    assert_silent("a callback", "".join(seen))


def test_a_key_over_plain_http_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    for url, warns in (
        ("http://gpu.example", True),
        ("http://127.0.0.1:9", False),
        ("https://x.example", False),
    ):
        caplog.clear()
        for _ in range(3):
            settings = ChatSettings(model="m", base_url=url, api_key=SECRET, trust_env=False)
            od.OllamaClient(settings)._transport().close()
        found = [it.getMessage() for it in caplog.records if it.levelno == logging.WARNING]
        assert len(found) == warns, found
        assert_silent("the warning", "".join(found))


def test_no_verification_is_loud(caplog: pytest.LogCaptureFixture) -> None:
    settings = ChatSettings(model="m", base_url="https://gpu.example", verify=False, trust_env=False)
    for _ in range(2):
        od.OllamaClient(settings)._transport().close()
    assert ["verify=False" in it.getMessage() for it in caplog.records] == [True]


def test_a_new_address_does_not_get_the_old_ones_password(server: FaultServer) -> None:
    settings = ChatSettings(model="m", base_url=server.url.replace("http://", f"http://me:{SECRET}@"))
    with FaultServer() as other, od.OllamaClient(settings) as client:
        client.chat([user("hi")])
        settings.base_url = other.url
        client.chat([user("hi")])
        assert "authorization" in server.requests[-1].headers
        assert [it.headers.get("authorization") for it in other.requests] == [None]


def test_caller_dicts_are_not_written_to(server: FaultServer) -> None:
    headers, options = {"X-A": "b"}, {"x_y": 1}
    with od.OllamaClient(
        ChatSettings(model="m", base_url=server.url, api_key=SECRET, headers=headers, options=options)
    ) as client:
        client.chat([user("hi")], options={"y_z": 2})
    assert (headers, options) == ({"X-A": "b"}, {"x_y": 1})


@BOTH
def test_no_cookie_is_kept(server: FaultServer, mode: str) -> None:
    said = last_line(message={"role": "assistant", "content": "a"})
    server.script(always([whole(said, Set_Cookie="session=1; Path=/")]))
    with Calling(mode, chat(server.url)) as calling:
        assert [calling.chat(), calling.chat()] == ["a", "a"]
    assert ["cookie" in request.headers for request in server.requests] == [False, False]
