"""Every recorded exchange against the simulated server of its version, byte for byte after normalising."""

from __future__ import annotations

import functools
import http.client
import json
import re

import pytest

from ollama_dify.testing import SimulatedOllama

from .recordings import VERSIONS, Recording, models, neutral, recordings, script

# What a recording holds that the simulator does not claim, and why.
NOT_REPLAYED = {
    "runner-killed-mid-stream": "a process of the server was killed; tests script error_at_end instead",
    "runner-killed-nostream": "the same without streaming",
    "ps-with-embed": "the older embedding route, which loaded a model before, is not simulated",
    "show-tiny-sys": "the model was made by /api/create, which is not simulated",
    "ps-before-kill": "which of four equal models was unloaded hangs on the names of files",
    "client-disconnect": "the recording ends where the client left; test_behaviour has the disconnects",
    "queue-busy-first": "needs requests at the same time; test_behaviour has the queue",
    **{f"queue-second-{number}": "part of the same scene" for number in range(5)},
}
TOP = r'"top_logprobs":\[(?:\{[^{}]*\},?)*\]'
# Whole fields that the simulator invents.
INVENTED: dict[str, tuple[str, str]] = {
    "native-format-schema": (r'"eval_count":\d+', "a grammar forced tokens that no tokenizer would choose"),
    "native-format-schema-think": (r'"eval_count":\d+', "the same"),
    "stream-ends-without-done": (r'"eval_count":\d+', "the same model; 0.24 goes on to the end"),
    "nostream-done-false": (r'"eval_count":\d+', "random weights choose tokens that no tokenizer would"),
    "logprobs-top3-nostream": (TOP, "other tokens than the chosen one are invented"),
    "logprobs-top3-stream": (TOP, "the same"),
    "native-logprobs-stream": (TOP, "the same"),
}
# Memory is not simulated; the verbose flag's vocabulary is compared with the tokenizer's data elsewhere.
SIZES = re.compile(r'"size":\d+')
TENSORS = re.compile(r'"tensors":\[(?:\{[^{}]*\},?)*\],')


class Replay:
    def __init__(self, version: str) -> None:
        self.expected = {one.name: one for one in recordings(version) if one.name not in NOT_REPLAYED}
        self.actual: dict[str, tuple[int, list[tuple[str, str]], str]] = {}
        known = models(list(self.expected.values()))
        with SimulatedOllama(known, version=version, registry="unreachable", keep_alive_s=1800.0) as server:
            for one in self.expected.values():
                reply = script(one)
                server.reset_scripts()
                if reply is not None:
                    server.reply(reply)
                self.actual[one.name] = exchange(server, one)


def exchange(server: SimulatedOllama, one: Recording) -> tuple[int, list[tuple[str, str]], str]:
    host, _, port = server.base_url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    try:
        headers = {"Content-Type": "application/json", **one.headers}
        connection.request(one.method, one.path, None if one.body is None else one.body.encode(), headers)
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read().decode()
    finally:
        connection.close()


@functools.lru_cache(maxsize=3)
def replay(version: str) -> Replay:
    return Replay(version)


CASES = [
    pytest.param(version, one.name, id=f"{version}-{one.name}")
    for version in VERSIONS
    for one in recordings(version)
    if one.name not in NOT_REPLAYED
]


@pytest.mark.parametrize(("version", "name"), CASES)
def test_answer_is_the_recorded_one(version: str, name: str) -> None:
    done = replay(version)
    expected, (status, headers, body) = done.expected[name], done.actual[name]
    assert status == expected.status
    assert comparable_headers(headers, name) == comparable_headers(
        [(key, value) for key, value in expected.response_headers], name
    )
    assert comparable(body, expected) == comparable(expected.response, expected)


def comparable_headers(headers: list[tuple[str, str]], name: str) -> list[tuple[str, str]]:
    # Other numbers in vectors and no tensors are shorter: what is framed as one piece follows from that.
    shorter = "embed" in name or "show" in name
    unstable = {"Content-Length", "Date", *({"Transfer-Encoding"} if shorter else ())}
    return [("*" if key in unstable else key, "" if key in unstable else value) for key, value in headers]


def comparable(body: str, one: Recording) -> str:
    text = neutral(body)
    if one.name in INVENTED:
        text = re.sub(INVENTED[one.name][0], "", text)
    if one.status != 200:
        return text
    if one.path in ("/api/ps", "/api/tags"):
        text = SIZES.sub('"size":0', text)
    if one.path == "/api/tags":
        return unordered_models(text)
    if one.path == "/api/show":
        return shown(text)
    if "embed" in one.path:
        return vectors_as_lengths(text)
    return text


def unordered_models(text: str) -> str:
    """Equal times leave the order of /api/tags open."""
    return ",".join(sorted(re.findall(r'\{"name":.*?(?=,\{"name"|\]\}\n?$)', text)))


def shown(text: str) -> str:
    """Parameters come in the random order of a Go map; modelfile and tensors are not simulated."""
    answer = json.loads(TENSORS.sub('"tensors":[],', text))
    answer["details"]["parent_model"] = answer["details"]["parent_model"].replace("sha256", "")
    del answer["modelfile"]
    if "parameters" in answer:
        answer["parameters"] = sorted(answer["parameters"].split("\n"))
    return json.dumps(answer)


def vectors_as_lengths(text: str) -> str:
    def length(found: re.Match[str]) -> str:
        inner = found[0][1:-1]
        return f"[{inner if inner.isdigit() else inner.count(',') + 1}]"

    text = re.sub(r"\[-?\d[^\[\]]*\]", length, text)
    return re.sub(
        r'"embedding":"([^"]+)"', lambda f: f'"embedding":"{f[1] if f[1].isdigit() else len(f[1])}"', text
    )


def test_few_recordings_are_left_out() -> None:
    names = {one.name for version in VERSIONS for one in recordings(version)}
    assert set(NOT_REPLAYED) <= names
    assert set(INVENTED) <= names
    assert len(CASES) >= 574
