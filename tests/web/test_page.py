"""The form as a page: its security as requests see it, and its use as people do, in Chromium."""

from __future__ import annotations

import base64
import json
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ollama_dify.cli import main
from ollama_dify.testing import Reply, SimulatedModel, SimulatedOllama
from tests.browser import ENTER, RIGHT, TAB, Browser, needs_chromium, started_browser
from tests.doctor.worlds import answering, response
from tests.media.test_audio import wav

IMAGES = Path(__file__).parents[1] / "data" / "images"
DEAD = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatedOllama]:
    models = [
        SimulatedModel("llava", ("completion", "vision", "tools", "audio"), context_length=8192),
        SimulatedModel("nomic-embed-text", ("embedding",), dimensions=768, context_length=2048),
    ]
    with SimulatedOllama(models) as running:
        yield running


@pytest.fixture(scope="module")
def address(server: SimulatedOllama) -> Iterator[str]:
    """The address that the command prints, its token behind the #."""
    command = [sys.executable, "-m", "ollama_dify", "form", "--web", "--no-open", "--base-url"]
    with subprocess.Popen([*command, server.base_url], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        yield running.stdout.readline().split()[-1]
        running.terminate()


def test_the_address_is_told_when_it_can_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    reached = []

    def visit(url: str) -> None:
        with socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0), 5):
            reached.append(url)

    monkeypatch.setattr("webbrowser.open", visit)
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    assert main(["form", "--web", "--base-url", DEAD]) == 0
    assert len(reached) == 1


@pytest.fixture(autouse=True)
def _nothing_recorded(server: SimulatedOllama) -> None:
    server.requests.clear()


# ---- the rules, each with a request that breaks it ------------------------------------------------------


def headers(address: str) -> dict[str, str]:
    origin = address.partition("/#")[0]
    token = re.search(r"token=([\w-]+)", address)
    assert token is not None
    return {
        "host": origin.removeprefix("http://"),
        "origin": origin,
        "x-ollama-dify-token": token[1],
        "content-type": "application/json",
    }


def post(address: str, call: str, body: Any, **changed: str | None) -> httpx.Response:
    sent = {**headers(address), **{name.replace("_", "-"): value for name, value in changed.items()}}
    given = {name: value for name, value in sent.items() if value is not None}
    with httpx.Client(trust_env=False) as client:
        # httpx fills in Host; an own one replaces it.
        return client.post(address.partition("#")[0] + call, content=json.dumps(body), headers=given)


FORM = {"model": "llava", "model_type": "llm", "lang": "en"}


CHANGED: dict[str, dict[str, str | None]] = {
    "another Host": {"host": "localhost:80"},
    "a name bound to this machine": {"host": "evil.example"},
    "another Origin": {"origin": "http://evil.example"},
    "Origin null": {"origin": "null"},
    "no Origin": {"origin": None},
    "another token": {"x_ollama_dify_token": "guessed"},
    "no token": {"x_ollama_dify_token": None},
    "what a foreign form can send": {"content_type": "text/plain"},
}


@pytest.mark.parametrize("changed", CHANGED.values(), ids=list(CHANGED))
@pytest.mark.parametrize("call", ["models", "model", "save", "chat", "embed"])
def test_a_foreign_request_is_refused(
    address: str, server: SimulatedOllama, call: str, changed: dict[str, str | None]
) -> None:
    answer = post(address, call, {**FORM, "base_url": server.base_url}, **changed)
    assert answer.status_code == 403
    assert server.requests == []


@pytest.mark.parametrize(
    ("path", "status"),
    [("", 200), ("form.js", 200), ("form.css", 200), ("form.json", 200), ("nothing", 404), ("save", 405)],
)
def test_every_response_has_the_headers(address: str, path: str, status: int) -> None:
    origin = address.partition("#")[0]
    with httpx.Client(trust_env=False) as client:
        for host, expected in ((headers(address)["host"], status), ("evil.example", 403)):
            answer = client.get(origin + path, headers={"host": host})
            assert answer.status_code == expected
            assert answer.headers["referrer-policy"] == "no-referrer"
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
            assert "unsafe" not in policy
            assert "access-control-allow-origin" not in answer.headers
            assert headers(address)["x-ollama-dify-token"] not in answer.text
        assert client.options(origin + path).status_code == 403


@pytest.mark.parametrize(
    ("call", "body", "said"),
    [
        pytest.param("models", {"base_url": ""}, "Base URL is empty.", id="no address: no default is asked"),
        pytest.param("save", {"base_url": "{url}", "model": ""}, "Model Name is empty.", id="no model"),
        pytest.param("save", {"base_url": "{url}", "context_size": "x"}, "'x'", id="a value that cannot be"),
        pytest.param("chat", {"base_url": "{url}", "media": [DEAD + "/a"]}, "not fetched", id="a link"),
        pytest.param("save", {"base_url": DEAD, "model_type": "x"}, DEAD, id="an unknown type"),
        pytest.param("chat", {"base_url": "{url}", "media": ["/etc/passwd"]}, "file 1", id="a path"),
        pytest.param("chat", {"base_url": "{url}", "model": "lava"}, "no such model", id="a missing model"),
    ],
)  # fmt: skip
def test_only_the_submitted_address_is_contacted(
    address: str, server: SimulatedOllama, call: str, body: dict[str, Any], said: str
) -> None:
    sent = {**FORM, **body, "base_url": body["base_url"].replace("{url}", server.base_url)}
    assert said in post(address, call, sent).text
    assert bool(server.requests) == (sent["model"] == "lava")


def test_a_key_goes_to_the_server_and_nowhere_else(address: str, server: SimulatedOllama) -> None:
    sent = {**FORM, "base_url": server.base_url, "api_key": "sk-typed"}
    answer = post(address, "save", sent)
    assert answer.json()["saved"].startswith("answered a ping")
    assert "sk-typed" not in answer.text
    keys = [request.header("authorization") for request in server.requests]
    assert set(keys) == {"Bearer sk-typed"}
    server.requests.clear()
    post(address, "save", {**sent, "api_key": ""})
    assert {request.header("authorization") for request in server.requests} == {None}


def test_a_redirect_is_not_followed(address: str, server: SimulatedOllama) -> None:
    moved = response("307 Temporary Redirect", headers=f"Location: {server.base_url}/api/tags\r\n")
    with answering(moved) as port:
        assert "problem" in post(address, "models", {**FORM, "base_url": f"http://127.0.0.1:{port}"}).json()
    assert server.requests == []


# ---- people ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    yield from started_browser(tmp_path_factory.mktemp("profile"))


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Browser]:
    browser.open(address.replace("lang=", "lang=en&was="))
    browser.wait_for("#form", "Model Name")
    browser.wait(lambda: browser.run("return models.options.length"), "the server's models")
    yield browser
    assert browser.console() == []


def choose(page: Browser, model: str) -> None:
    page.type("[name=model]", model + TAB)
    page.wait(lambda: page.text("#hint-model"), "the model's capabilities")


@needs_chromium
def test_fill_and_save(page: Browser, server: SimulatedOllama) -> None:
    page.type("[name=model]", "llava:latest" + TAB)
    page.wait_for("#hint-model", "audio, completion, tools, vision")
    assert [page.value(f"[name={name}]") for name in ("context_size", "max_tokens")] == ["8192", "8192"]
    assert page.value("[name=vision_support]:checked") == "true"
    page.click("#save")
    page.wait_for("#result", "answered a ping", "No problem found.")
    ping = next(request.body for request in server.requests if request.path == "/api/chat")
    assert ping["options"] == {"num_ctx": 8192, "num_predict": 5}


@needs_chromium
@pytest.mark.parametrize("kind", ["chat", "completion", "embedding"])
def test_the_code_says_what_the_form_says(page: Browser, server: SimulatedOllama, kind: str) -> None:
    choose(page, "nomic-embed-text" if kind == "embedding" else "llava")
    page.type("[name=context_size]", "2048", clear=True)
    if kind == "completion":
        page.run("document.querySelector('[name=mode]').value = 'completion'; show()")
    if kind != "embedding":
        page.type("[name=max_tokens]", "64", clear=True)
    sent = []
    for tab in ("langchain", "llamaindex"):
        page.click(f"#tab-{tab}")
        server.requests.clear()
        exec(compile(page.run("return $('code').textContent"), tab, "exec"), {})
        asked = [
            request for request in server.requests if request.method == "POST" and "show" not in request.path
        ]
        sent.append([(request.path, request.body) for request in asked])
    assert sent[0] == sent[1] != []
    page.click("#tab-shell")
    words = shlex.split(page.run("return $('code').textContent"))
    path, body = sent[0][0]
    curl = json.loads(words[words.index("-d") + 1])
    assert words[1] == server.base_url + path
    assert curl["options"].items() <= body["options"].items()
    page.click("#tab-credentials")
    stored = json.loads(page.text("#code"))
    assert stored["credentials"]["context_size"] == "2048"
    assert ("max_tokens" in stored["credentials"]) == (kind != "embedding")


@needs_chromium
@pytest.mark.parametrize("kind", ["llm", "text-embedding", "rerank"])
def test_a_key_and_a_password_are_in_no_code(page: Browser, kind: str) -> None:
    page.run("document.querySelector('[name=model_type]').value = arguments[0]; show()", kind)
    page.type("[name=api_key]", "sk-typed")
    page.type("[name=base_url]", "me:secret@127.0.0.1:9", clear=True)
    key = "OLLAMA_API_KEY"
    for tab, words in {"langchain": key, "llamaindex": key, "shell": key, "credentials": "<your API"}.items():
        page.click(f"#tab-{tab}")
        assert words in page.text("#code")
        assert "127.0.0.1:9" in page.text("#code")
        assert "sk-typed" not in page.run("return document.documentElement.outerHTML")
        assert "secret" not in page.text("#code")
    assert page.run("return [localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    assert bool(page.text("#try")) == (kind != "rerank")


@needs_chromium
def test_the_code_is_copied(page: Browser) -> None:
    """Where copying is not allowed, the code is selected."""
    allowed = ["clipboardReadWrite"]
    page.devtools("Browser.grantPermissions", permissions=allowed)
    page.click("#copy")
    page.wait(lambda: page.run("return getSelection().containsNode($('code').firstChild)"), "the selection")
    page.devtools("Browser.grantPermissions", permissions=[*allowed, "clipboardSanitizedWrite"])
    page.click("#copy")
    page.wait_for("#copy", "Copied")
    assert page.run("return navigator.clipboard.readText()") == page.run("return $('code').textContent")


@needs_chromium
@pytest.mark.parametrize(("name", "label"), [("ja", "モデルのコンテキスト長"), ("zh", "模型上下文长度")])
def test_the_language_is_switched(page: Browser, name: str, label: str) -> None:
    """Also what a wrong address is answered with is in that language."""
    page.type("#lang", {"ja": "日", "zh": "中"}[name])
    page.wait_for("#fields", label)
    assert page.run("return document.documentElement.lang") == name
    # What is not translated is a name, or is typed.
    english = re.findall(r"[A-Z][a-z]+ [a-z]+", page.text("body"))
    assert set(english) <= {"Text embedding"}
    page.type("[name=model]", "llava")
    page.type("[name=base_url]", DEAD, clear=True)
    page.click("#save")
    page.wait_for("#result .bad", DEAD)
    assert re.search("[\u3041-\u9fff]", page.text("#result .remedy"))


DROP = """
const data = new DataTransfer(), bytes = Uint8Array.from(atob(arguments[0]), (one) => one.charCodeAt(0));
data.items.add(new File([bytes], "dropped", { type: arguments[1] }));
$("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true }));
"""
PNG = (IMAGES / "png_1024x768.png").read_bytes()


@needs_chromium
@pytest.mark.parametrize("is_dropped", [False, True], ids=["chosen", "dropped"])
@pytest.mark.parametrize(("kind", "data"), [("image/png", PNG), ("audio/wav", wav())], ids=["image", "sound"])
def test_a_file_is_answered(
    page: Browser, server: SimulatedOllama, kind: str, data: bytes, is_dropped: bool, tmp_path: Path
) -> None:
    choose(page, "llava")
    page.type("#prompt", "What is in this file?", clear=True)
    encoded = base64.b64encode(data).decode()
    if is_dropped:
        page.run(DROP, encoded, kind)
    else:
        path = tmp_path / kind.replace("/", ".")
        path.write_bytes(data)
        page.type("#files", str(path))
    page.wait(lambda: page.run("return $('chosen').children.length"), "the file")
    page.click("#send")
    page.wait_for("#figures", "tokens read", "tokens/s")
    assert page.text("#answer")
    message = next(request.body for request in server.requests if request.path == "/api/chat")["messages"][0]
    assert message == {"role": "user", "content": "What is in this file?", "images": [encoded]}


@needs_chromium
def test_an_answer_is_stopped(page: Browser, server: SimulatedOllama) -> None:
    server.reply(Reply("word " * 500))
    server.latency.chunk_s = 0.1
    choose(page, "llava")
    page.click("#send")
    page.wait_for("#answer", "word")
    page.click("#stop")
    page.wait_for("#figures", "(ended)")
    server.latency.chunk_s = 0
    assert page.run("return [$('send').disabled, $('stop').disabled]") == [False, True]


@needs_chromium
def test_an_embedding_is_measured(page: Browser) -> None:
    choose(page, "nomic-embed-text")
    assert page.text("#drop") == ""
    page.click("#send")
    page.wait_for("#figures", "A vector of 768 numbers")


@needs_chromium
def test_the_keyboard_suffices(page: Browser) -> None:
    page.run("document.querySelector('[name=model]').focus()")
    page.press("llava" + TAB)
    page.wait(lambda: page.text("#hint-model"), "the model's capabilities")
    for place, key in (("save", ENTER), ("tab-langchain", RIGHT)):
        for _press in range(12):
            if page.run("return document.activeElement.id") == place:
                break
            page.press(TAB)
        page.press(key)
        page.wait_for("#result", "answered a ping")
    assert page.run("return document.activeElement.id") == "tab-llamaindex"
    assert "llamaindex_ollama_dify" in page.text("#code")


@needs_chromium
def test_a_telephone_shows_all(browser: Browser, address: str) -> None:
    browser.open(address, width=390, height=844)
    browser.wait(lambda: browser.text("#fields"), "the form")
    assert browser.is_readable()
    assert browser.console() == []


@needs_chromium
def test_without_a_token_it_writes_code_only(browser: Browser, address: str) -> None:
    browser.open(address.partition("#")[0] + "?static")
    browser.wait_for("#form", "ollama-dify form --web")
    assert "ChatOllamaDify" in browser.text("#code")
    assert browser.text("#save") == browser.text("#try") == ""
