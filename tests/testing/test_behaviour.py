"""What users script, break and read off the simulated server, on the wire."""

from __future__ import annotations

import asyncio
import base64
import gzip
import http.client
import json
import math
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ollama_dify.testing import Fault, Reply, SimulatedModel, SimulatedOllama
from ollama_dify.testing.images import verdict
from ollama_dify.testing.prompts import Conversation, render
from ollama_dify.testing.vocabulary import count

DATA = Path(__file__).parent.parent / "data"
HELLO = {"model": "llama3.2", "messages": [{"role": "user", "content": "Hello"}]}
pytest_plugins = ["ollama_dify.testing.plugin"]


def packed(name: str) -> Any:
    return json.loads(gzip.decompress((DATA / "captures" / name).read_bytes()))


def connect(server: SimulatedOllama) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(server.base_url.removeprefix("http://"), timeout=10)


def post(server: SimulatedOllama, path: str, body: Any) -> tuple[int, Any]:
    connection = connect(server)
    try:
        connection.request("POST", path, json.dumps(body))
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    lines = [json.loads(line) for line in text.split("\n") if line]
    return answer.status, lines[0] if len(lines) == 1 else lines


def chat(server: SimulatedOllama, **more: Any) -> Any:
    return post(server, "/api/chat", {**HELLO, "stream": False, **more})[1]


def raw_request(body: Any = HELLO, path: str = "/api/chat") -> bytes:
    data = json.dumps(body).encode()
    return b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (
        path.encode(),
        len(data),
        data,
    )


def raw_socket(server: SimulatedOllama) -> socket.socket:
    host, _, port = server.base_url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def read_all(sock: socket.socket) -> bytes:
    received = b""
    try:
        while part := sock.recv(65536):
            received += part
    except ConnectionResetError:
        received += b"<RST>"
    return received


def read_until(sock: socket.socket, wanted: bytes) -> bytes:
    received = b""
    while wanted not in received:
        part = sock.recv(65536)
        assert part, f"closed before {wanted!r}: {received!r}"
        received += part
    return received


def eventually(check: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.005)
    return check()


class TestScripts:
    def test_replies_are_used_in_order_then_the_rules_answer(self, simulated_ollama: SimulatedOllama) -> None:
        simulated_ollama.script(["one", Reply("two", done_reason="length")])
        answers = [chat(simulated_ollama) for _ in range(3)]
        assert [answer["message"]["content"] for answer in answers] == [
            "one",
            "two",
            "Hello! How can I help you today?",
        ]
        assert [answer["done_reason"] for answer in answers] == ["stop", "length", "stop"]

    @pytest.mark.parametrize(
        ("reply", "status", "body"),
        [
            pytest.param(
                Reply(status=429, error="slow down"), 429, {"error": "slow down"}, id="status-and-error"
            ),
            pytest.param(Reply(error="broken"), 500, {"error": "broken"}, id="error-alone-is-500"),
            pytest.param(Reply(raw=b'{"odd":1}'), 200, {"odd": 1}, id="raw-body"),
            pytest.param(Reply(raw=[b'{"a":1}\n', b'{"b":2}\n']), 200, [{"a": 1}, {"b": 2}], id="raw-chunks"),
        ],
    )
    def test_given_bodies(
        self, simulated_ollama: SimulatedOllama, reply: Reply, status: int, body: Any
    ) -> None:
        simulated_ollama.reply(reply)
        assert post(simulated_ollama, "/api/chat", HELLO) == (status, body)

    def test_path_and_condition_choose_the_request(self, simulated_ollama: SimulatedOllama) -> None:
        simulated_ollama.reply(Reply(error="x"), path="/api/embed", when=lambda r: r.body["input"] == "bad")
        assert post(simulated_ollama, "/api/embed", {"model": "all-minilm", "input": "good"})[0] == 200
        assert post(simulated_ollama, "/api/embed", {"model": "all-minilm", "input": "bad"}) == (
            500,
            {"error": "x"},
        )

    def test_own_answerer_sees_the_request(self) -> None:
        with SimulatedOllama(
            answer=lambda request: request.body["messages"][-1]["content"].upper()
        ) as server:
            assert chat(server)["message"]["content"] == "HELLO"

    def test_requests_are_recorded(self, simulated_ollama: SimulatedOllama) -> None:
        chat(simulated_ollama, options={"num_ctx": 64})
        (request,) = simulated_ollama.requests
        assert (request.method, request.path, request.connection) == ("POST", "/api/chat", 1)
        assert request.body["options"] == {"num_ctx": 64}
        assert json.loads(request.raw) == request.body
        assert request.header("Accept-Encoding") == "identity"


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "expected"),
        [
            pytest.param(Fault("cut", chunks=2), (2, b""), id="cut-after-two-chunks"),
            pytest.param(Fault("reset", chunks=1), (1, b"<RST>"), id="reset-after-one-chunk"),
            pytest.param(Fault("end", chunks=3), (3, b"0\r\n\r\n"), id="ends-properly-but-incomplete"),
            pytest.param(Fault("cut", part="response"), (0, b""), id="cut-before-the-first-byte"),
        ],
    )
    def test_where_the_answer_breaks(
        self, simulated_ollama: SimulatedOllama, fault: Fault, expected: tuple[int, bytes]
    ) -> None:
        simulated_ollama.fault(fault)
        with raw_socket(simulated_ollama) as sock:
            sock.sendall(raw_request())
            received = read_all(sock)
        assert received.count(b'"done":false') == expected[0]
        assert received.endswith(expected[1])
        assert b'"done":true' not in received

    @pytest.mark.parametrize("after", [0, 1, 17, 60, 200])
    def test_cut_at_any_byte(self, simulated_ollama: SimulatedOllama, after: int) -> None:
        simulated_ollama.fault(Fault("cut", after=after))
        simulated_ollama.fault(Fault("cut", after=after, part="response"))
        for part in ("body", "response"):
            with raw_socket(simulated_ollama) as sock:
                sock.sendall(raw_request())
                received = read_all(sock)
            counted = received.partition(b"\r\n\r\n")[2] if part == "body" else received
            assert len(counted) == after

    def test_garbage_stands_in_the_body(self, simulated_ollama: SimulatedOllama) -> None:
        simulated_ollama.fault(Fault("garbage", after=5, data=b"??"))
        with raw_socket(simulated_ollama) as sock:
            sock.sendall(raw_request({**HELLO, "stream": False}))
            head, _, body = read_until(sock, b"??").partition(b"\r\n\r\n")
        assert body[5:7] == b"??"
        assert b"200 OK" in head

    @pytest.mark.parametrize(
        "fault",
        [
            pytest.param(Fault("drip", size=7, seconds=0.0), id="drip"),
            pytest.param(Fault("stall", chunks=2, seconds=0.05), id="stall"),
        ],
    )
    def test_slow_answers_are_complete(self, simulated_ollama: SimulatedOllama, fault: Fault) -> None:
        simulated_ollama.fault(fault)
        assert post(simulated_ollama, "/api/chat", HELLO)[1][-1]["done"] is True

    def test_endless_stall_lasts_until_the_client_leaves(self, simulated_ollama: SimulatedOllama) -> None:
        simulated_ollama.fault(Fault("stall", chunks=1))
        with raw_socket(simulated_ollama) as sock:
            sock.sendall(raw_request())
            read_until(sock, b'"done":false')
        assert eventually(lambda: simulated_ollama.disconnects == 1)

    def test_share_of_the_requests(self, simulated_ollama: SimulatedOllama) -> None:
        simulated_ollama.fault(Fault("status", data=b"{}"), times=None, share=0.5, seed=3)
        statuses = [
            post(simulated_ollama, "/api/embed", {"model": "all-minilm", "input": "x"})[0] for _ in range(40)
        ]
        assert 8 <= statuses.count(503) <= 32


class TestConnections:
    def test_reuse_and_pipelining(self, simulated_ollama: SimulatedOllama) -> None:
        version = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with raw_socket(simulated_ollama) as sock:
            sock.sendall(raw_request() + version + raw_request({**HELLO, "stream": False}) + version)
            received = b""
            while received.count(b"HTTP/1.1 200 OK") < 4 or not received.endswith(b'{"version":"0.33.0"}'):
                received += sock.recv(65536)
        assert received.index(b'"done":true') < received.index(b'"version"')
        assert [request.connection for request in simulated_ollama.requests] == [1, 1, 1, 1]
        assert simulated_ollama.connections.total == 1
        assert eventually(lambda: simulated_ollama.connections.open == 0)
        assert simulated_ollama.disconnects == 0

    def test_disconnect_stops_the_generation(self) -> None:
        with SimulatedOllama(num_parallel=1, chunk_delay_s=0.01) as server:
            server.reply(Reply("word " * 5000))
            with raw_socket(server) as sock:
                sock.sendall(raw_request())
                sock.recv(1)
            assert eventually(lambda: server.disconnects == 1)
            assert chat(server)["message"]["content"].startswith("Hello")

    def test_http_1_0_gets_no_chunked_framing(self, simulated_ollama: SimulatedOllama) -> None:
        with raw_socket(simulated_ollama) as sock:
            sock.sendall(raw_request().replace(b"HTTP/1.1", b"HTTP/1.0"))
            received = read_all(sock)
        assert b"chunked" not in received
        assert json.loads(received.strip().split(b"\n")[-1])["done"] is True

    def test_what_is_no_http_is_refused(self, simulated_ollama: SimulatedOllama) -> None:
        with raw_socket(simulated_ollama) as sock:
            sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
            assert read_all(sock).startswith(b"HTTP/1.1 400 Bad Request")

    def test_many_streams_at_once_are_each_complete(self) -> None:
        words = [f" w{number}" for number in range(200)]
        with SimulatedOllama(chunk_delay_s=0.001) as server:
            server.reply(Reply(pieces=words), times=None)
            bodies = asyncio.run(gather_streams(server, 100))
            assert server.connections.total == 100
        for body in bodies:
            lines = [json.loads(line) for line in body.split(b"\n") if line.startswith(b"{")]
            assert [line["message"]["content"] for line in lines[:-1]] == words

    async def test_serves_in_the_callers_loop(self) -> None:
        server = SimulatedOllama()
        await server.start()
        serving = asyncio.create_task(server.serve_forever())
        (body,) = await gather_streams(server, 1)
        assert b'"done":true' in body
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        with pytest.raises(ConnectionRefusedError):
            await gather_streams(server, 1)

    def test_taken_port_is_an_error_at_the_start(self, simulated_ollama: SimulatedOllama) -> None:
        port = int(simulated_ollama.base_url.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"), SimulatedOllama(port=port):
            pass


async def gather_streams(server: SimulatedOllama, number: int) -> list[bytes]:
    host, _, port = server.base_url.removeprefix("http://").partition(":")

    async def stream() -> bytes:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(raw_request())
        body = await reader.readuntil(b"0\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return body

    return await asyncio.gather(*(stream() for _ in range(number)))


class TestRunners:
    def test_queue(self) -> None:
        with SimulatedOllama(num_parallel=1, max_queue=1) as server:
            server.reply(Reply(delay_s=30.0))
            holder = raw_socket(server)
            holder.sendall(raw_request())
            assert eventually(lambda: len(server.requests) == 1 and bool(server.runners.loaded))
            waiting: list[Any] = []
            second = threading.Thread(target=lambda: waiting.append(chat(server)))
            second.start()
            assert eventually(lambda: server.runners.waiting == 1)
            assert post(server, "/api/chat", HELLO) == (
                503,
                {"error": "server busy, please try again.  maximum pending requests exceeded"},
            )
            holder.close()
            second.join(10)
            assert waiting[0]["done"] is True

    def test_load_time_options_reload(self, simulated_ollama: SimulatedOllama) -> None:
        for options in (
            {},
            {"temperature": 0.1},
            {"num_ctx": 2048},
            {"num_ctx": 2048},
            {"num_gpu": 1, "num_ctx": 2048},
        ):
            chat(simulated_ollama, options=options)
        assert (simulated_ollama.loads, simulated_ollama.reloads) == (3, 2)

    def test_least_lasting_model_makes_room(self) -> None:
        with SimulatedOllama(max_loaded_models=1) as server:
            chat(server)
            chat(server, model="qwen3")
            connection = connect(server)
            connection.request("GET", "/api/ps")
            listed = json.loads(connection.getresponse().read())["models"]
            connection.close()
        assert [model["name"] for model in listed] == ["qwen3:latest"]


@pytest.mark.parametrize(
    "case", packed("trim.json.gz"), ids=lambda case: f"{case['model']}-{case['num_ctx']}"
)
def test_long_conversations_cost_what_the_real_server_counts(case: dict[str, Any]) -> None:
    capabilities = ("completion", "tools", "thinking")
    models = [
        SimulatedModel("tiny-chat", capabilities),
        SimulatedModel("tiny-native", capabilities, template="native"),
        SimulatedModel("tiny-plain", template="plain"),
        SimulatedModel("tiny-sys", capabilities, system="You are a pirate."),
    ]
    asked = {
        key: case[key]
        for key in ("model", "messages", "truncate", "shift", "tools")
        if case.get(key) is not None
    }
    if case["model"] != "tiny-plain" and case.get("think") is not None:
        asked["think"] = case["think"]
    with SimulatedOllama(models) as server:
        options = {"num_ctx": case["num_ctx"], "num_predict": 2}
        status, body = post(server, "/api/chat", {**asked, "stream": False, "options": options})
    assert status == case["status"]
    assert body.get("prompt_eval_count") == case.get("prompt_eval_count")
    assert body.get("error") == case.get("error")


STYLES = {"tiny-chat": "chatml", "tiny-native": "native", "tiny-plain": "plain"}


@pytest.mark.parametrize(
    "case", packed("prompts.json.gz"), ids=lambda case: f"{case['model']}-{case['tokens']}"
)
def test_prompts_are_rendered_and_counted_as_recorded(case: dict[str, Any]) -> None:
    think = None if case["model"] == "tiny-plain" else case["think"] is not False
    style: Any = STYLES[case["model"]]
    text = render(style, Conversation(case["messages"], case["tools"], think))
    assert text == case["rendered"]
    assert count(text) == case["tokens"]


@pytest.mark.parametrize("version", ["0.24.0", "0.32.15", "0.33.0-rc2"])
def test_images_are_taken_or_refused_as_recorded(version: str) -> None:
    images = DATA / "images"
    recorded = {
        name: verdicts for name, verdicts in packed("images.json.gz").items() if (images / name).exists()
    }
    assert len(recorded) > 60
    made = {
        name: list(verdict((images / name).read_bytes(), modern=version != "0.24.0") or (200, None))
        for name in recorded
    }
    assert made == {name: verdicts[version] for name, verdicts in recorded.items()}


@pytest.fixture
def embedder(simulated_ollama: SimulatedOllama) -> Callable[..., Any]:
    def embed(**body: Any) -> Any:
        return post(simulated_ollama, "/api/embed", {"model": "all-minilm", **body})

    return embed


def test_embeddings_are_cut_normalised_and_counted(embedder: Callable[..., Any]) -> None:
    whole = embedder(input="A cat sits on the mat.")[1]
    short = embedder(input="A cat sits on the mat.", dimensions=64)[1]["embeddings"][0]
    assert len(short) == 64
    assert sum(value * value for value in short) == pytest.approx(1.0, abs=1e-5)
    assert whole["prompt_eval_count"] == count("A cat sits on the mat.") + 2
    assert embedder(input=["a", "b c"])[1]["prompt_eval_count"] == 7
    assert embedder(input=["a", "b"])[1]["embeddings"][1] == embedder(input="b")[1]["embeddings"][0]


WAV = base64.b64encode((DATA / "images" / "wav.wav").read_bytes()).decode()
RED = base64.b64encode((DATA / "images" / "png_rgb.png").read_bytes()).decode()
UNSUPPORTED = "input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
NO_MEDIA = "Multimodal data provided, but model does not support multimodal requests."


UNREADABLE = "Failed to load image or audio"
MEDIA: dict[str, tuple[Any, Any, str, str | None]] = {
    "heard": (("completion", "audio"), "chatml", WAV, None),
    "only sees": (("completion", "vision"), "chatml", WAV, UNREADABLE),
    "only hears": (("completion", "audio"), "chatml", RED, UNREADABLE),
    "neither": (("completion",), "chatml", WAV, NO_MEDIA),
    "native, only sees": (("completion", "vision"), "native", WAV, f"audio {UNSUPPORTED}"),
    "native, tools and vision": (("completion", "tools", "vision"), "native", RED, None),
}


@pytest.mark.parametrize(("capabilities", "template", "media", "says"), MEDIA.values(), ids=MEDIA)
def test_audio_and_images(capabilities: Any, template: Any, media: str, says: str | None) -> None:
    with SimulatedOllama([SimulatedModel("m", capabilities, template=template)]) as server:
        messages = [{"role": "user", "content": "?", "images": [media]}]
        status, body = post(server, "/api/chat", {"model": "m", "stream": False, "messages": messages})
    assert (status == 200) is (says is None)
    assert says is None or says in body["error"]


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/embed", "/api/show"])
def test_a_bad_name_is_said_to_be_one(simulated_ollama: SimulatedOllama, path: str) -> None:
    asked = {**HELLO, "model": "bad name!!", "prompt": "?", "input": "?"}
    assert post(simulated_ollama, path, asked) == (400, {"error": "invalid model name"})


@pytest.mark.parametrize(
    ("version", "status", "says"),
    [("0.24.0", 500, "failed to load model vocabulary"), ("0.33.0", 400, "failed to parse grammar")],
)
@pytest.mark.parametrize(("count", "fits"), [(1990, True), (3000, False)])
def test_a_grammar_too_large(version: str, status: int, says: str, count: int, fits: bool) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {}, "minItems": count}}}
    with SimulatedOllama(version=version) as server:
        got, body = post(server, "/api/chat", {**HELLO, "stream": False, "format": schema})
    assert (got, says in body.get("error", "")) == ((200, False) if fits else (status, True))


RERANK = "<Instruct>: Answer yes or no\n<Query>: {query}\n<Document>: {document}<|im_end|>\n"


@pytest.mark.parametrize(
    ("document", "word", "likely"),
    [
        ("Piers of the harbour: three.", "yes", 0.74),
        ("Tea is served.", "no", 0.02),
        ("Three cats.", "no", 0.26),
    ],
)
def test_a_reranker_says_yes_or_no(
    simulated_ollama: SimulatedOllama, document: str, word: str, likely: float
) -> None:
    prompt = RERANK.format(query="How many of three piers has the harbour?", document=document)
    asked = {"model": "qwen3-reranker", "prompt": prompt, "raw": True, "stream": False, "logprobs": True}
    status, body = post(
        simulated_ollama, "/api/generate", {**asked, "top_logprobs": 20, "options": {"num_predict": 1}}
    )
    (first,) = body["logprobs"]
    assert (status, body["response"], first["token"], body["done_reason"]) == (200, word, word, "length")
    assert len(first["top_logprobs"]) == 20
    assert first["top_logprobs"][0] == {key: first[key] for key in ("token", "logprob", "bytes")}
    said = [one for one in first["top_logprobs"] if one["token"].strip().lower() == "yes"]
    assert len({one["token"] for one in said}) == 4
    assert sum(math.exp(one["logprob"]) for one in said) == pytest.approx(likely, abs=0.02)


def test_cached_tokens_and_cloud_fields_can_be_scripted() -> None:
    model = SimulatedModel(
        "gpt-oss:120b-cloud", remote_model="gpt-oss:120b", remote_host="https://ollama.com:443"
    )
    with SimulatedOllama([model]) as server:
        server.reply(Reply("Hi", cached_tokens=7, logprobs=[{"Hi": -0.1, "Ho": -2.5}]))
        asked = {**HELLO, "model": model.name, "stream": False, "logprobs": True, "top_logprobs": 2}
        _, body = post(server, "/api/chat", asked)
    assert (body["remote_model"], body["prompt_eval_cached_count"]) == ("gpt-oss:120b", 7)
    assert [one["token"] for one in body["logprobs"][0]["top_logprobs"]] == ["Hi", "Ho"]
