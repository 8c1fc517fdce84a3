"""The doctor in made-up worlds: each root cause gets its name and the right remedy, in three languages."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from ollama_dify import ChatSettings, ConnectionSettings, EmbeddingSettings, adiagnose, diagnose
from ollama_dify.doctor.model import fill_form
from ollama_dify.testing import Reply, SimulatedModel, SimulatedOllama, default_models
from ollama_dify.wire.models import ModelInfo

from .worlds import DOCKER, WSL, MadeUp, answering, response

HOST = ("172.18.0.1", 11434)
LAN = ("192.168.1.100", 11434)
LAN_AT = "192.168.1.100:11434"
PUBLIC = "gpu.example.com:11434"
OLLAMA = "OLLAMA"
"""Stands for the port of the simulated server."""

REFUSED_HOST = response("403 Forbidden", kind="text/plain")
NAMES = ("ollama", "gpu.example.com")
VERSION = response("200 OK", b'{"version":"0.33.0"}')


TOO_LITTLE = "model requires more system memory (9.2 GiB) than is available (4.1 GiB)"


@dataclass
class Row:
    """A made-up world and what is found there: check, cause, words of the first remedy, none of others."""

    cause: str
    remedy: tuple[str, ...]
    base_url: str | None
    world: Mapping[str, Any]
    settings: Mapping[str, Any]
    check: str = "server"
    state: str = "fail"
    absent: tuple[str, ...] = ()
    load: bool = False
    answer: bytes | None = None
    error: str | None = None


def row(cause: str, *remedy: str, at: str | None = "localhost:11434", **more: Any) -> Row:
    """at: the address, None for the default. What is no field of `Row` is about the world or the settings."""
    world = {name: more.pop(name) for name in ("names", "ports", "files", "environ") if name in more}
    own = {name: more.pop(name) for name in Row.__dataclass_fields__ if name in more}
    if "model" in more:
        world["ports"] = {("127.0.0.1", 11434): OLLAMA}
    return Row(cause, remedy, at if at is None or "://" in at else f"http://{at}", world, more, **own)


ROWS = {
    "1 localhost in a container, Ollama on its host": row(
        "container-loopback", "base_url=http://172.18.0.1:11434",
        files=DOCKER, ports={HOST: OLLAMA}, absent=("systemctl",),
    ),
    "1 without a port": row(
        "container-loopback", "base_url=http://172.18.0.1:11434",
        at="127.0.0.1", files=DOCKER, ports={HOST: OLLAMA},
    ),
    "1 the address comes from OLLAMA_HOST": row(
        "container-loopback", "OLLAMA_HOST=http://host.docker.internal:11434", at=None, files=DOCKER,
        names={"host.docker.internal": ["192.168.65.254"]}, ports={("192.168.65.254", 11434): OLLAMA},
    ),
    "1 a Kubernetes pod": row(
        "pod-loopback", "base_url=http://ollama:11434", environ={"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        names={"ollama": ["10.0.0.7"]}, ports={("10.0.0.7", 11434): OLLAMA},
    ),
    "2 Ollama on the host listens on 127.0.0.1 only": row(
        "listens-on-loopback", 'launchctl setenv OLLAMA_HOST "0.0.0.0"', "systemctl edit ollama.service",
        'Environment="OLLAMA_HOST=0.0.0.0"', "systemctl daemon-reload && sudo systemctl restart ollama",
        "setx OLLAMA_HOST 0.0.0.0", at="host.docker.internal:11434", files=DOCKER,
        names={"host.docker.internal": ["172.18.0.1"]},
    ),
    "2 a machine in the LAN": row(
        "listens-on-loopback", "launchctl setenv", "systemctl", "setx", at=LAN_AT, absent=("docker",)
    ),
    "3 host.docker.internal is unknown": row(
        "docker-host-unknown", "--add-host=host.docker.internal:host-gateway", "extra_hosts",
        at="host.docker.internal:11434", files=DOCKER,
    ),
    "3 host.docker.internal outside a container": row(
        "no-container", "localhost", at="host.docker.internal:11434", absent=("--add-host",)
    ),
    "4 a firewall": row(
        "firewall", "ufw allow 11434/tcp", "192.168.1.100", at=LAN_AT, ports={LAN: TimeoutError("timed out")},
        absent=("systemctl",),
    ),
    "5 the name of a service in another network": row(
        "service-unknown", "Compose", "ollama", at="ollama:11434", files=DOCKER
    ),
    "6 the model is not there": row(
        "model-missing", "ollama pull command-r", check="model", model="command-r"
    ),
    "6 its name is misspelt": row(
        "model-missing", "llava:latest", "https://ollama.com/library", check="model", model="lava",
        absent=("ollama pull lava",),
    ),
    "7 a path of another service": row(
        "wrong-path", "base_url=http://localhost:11434", at="localhost:11434/openai",
        ports={("127.0.0.1", 11434): OLLAMA},
    ),
    "7 another program answers": row(
        "not-ollama", "11434", at="localhost:8080", ports={("127.0.0.1", 8080): "ANSWER"},
        answer=response("404 Not Found", b"nothing here", kind="text/plain"),
    ),
    "8 a proxy refuses connections": row(
        "proxy", "NO_PROXY=gpu.example.com", at=PUBLIC, check="proxy",
        environ={"HTTP_PROXY": "http://proxy.example.com:3128"},
        names={"gpu.example.com": ["203.0.113.5"], "proxy.example.com": ["203.0.113.6"]},
        ports={("203.0.113.5", 11434): OLLAMA},
    ),
    "8 a proxy answers for itself": row(
        "proxy", "proxy.example.com:3128", "NO_PROXY", at=PUBLIC, check="proxy",
        environ={"http_proxy": "http://user:secret@proxy.example.com:3128"},
        names={"proxy.example.com": ["203.0.113.6"]}, ports={("203.0.113.6", 3128): "ANSWER"},
        answer=response("403 Forbidden", b"<html>", headers="Server: squid\r\n", kind="text/html"),
        absent=("secret",),
    ),
    "9 WSL, Ollama on Windows": row(
        "listens-on-loopback", "base_url=http://172.18.0.1:11434", files=WSL, ports={HOST: OLLAMA}
    ),
    "9 Podman": row(
        "container-loopback", "base_url=http://host.containers.internal:11434",
        files={"/run/.containerenv": ""}, names={"host.containers.internal": ["10.0.2.2"]},
        ports={("10.0.2.2", 11434): OLLAMA},
    ),
    "10 Ollama refuses the Host header": row(
        "host-refused", "OLLAMA_HOST=0.0.0.0", "OLLAMA_ORIGINS", at=LAN_AT, ports={LAN: "ANSWER"},
        answer=REFUSED_HOST,
    ),
    "10 a proxy in front wants a key": row(
        "credentials", "api_key", at=LAN_AT, ports={LAN: "ANSWER"}, answer=response("401 Unauthorized")
    ),
    "10 the key's variable is not set": row(
        "credentials", "NO_SUCH_KEY", at=LAN_AT, api_key_env="NO_SUCH_KEY"
    ),
    "11 context over the model's maximum": row(
        "context-too-large", "context_size", "32768", check="context", model="llava", context_size=100_000
    ),
    "11 loaded with another context": row(
        "reload", "context_size", check="context", state="warn", model="qwen3", context_size=8192
    ),
    "11 vision claimed and denied": row(
        "no-vision", "qwen3-vl", "mistral-small3.2", check="capabilities", model="llama3.2",
        vision_support=True,
    ),
    "11 too many dimensions": row(
        "dimensions", "dimensions", "768", check="capabilities", model="nomic-embed-text", dimensions=4096
    ),
    "12 too little memory": row(
        "load", "context_size", "ollama stop", check="load", model="llava", load=True, error=TOO_LITTLE
    ),
    "12 https on a plain port": row(
        "https-on-plain-port", f"base_url=http://{LAN_AT}", at=f"https://{LAN_AT}", ports={LAN: OLLAMA}
    ),
    "12 an old version": row(
        "old-version", "https://ollama.com/download", ports={("127.0.0.1", 11434): "ANSWER"}, state="warn",
        answer=response("200 OK", b'{"version":"0.5.1"}'),
    ),
    "nothing runs": row("not-running", "ollama serve", absent=("docker",)),
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatedOllama]:
    with SimulatedOllama([*default_models(), SimulatedModel("phi")], allowed_hosts=NAMES) as running:
        # One model is loaded, with 4096 tokens.
        assert diagnose(ChatSettings(model="qwen3", base_url=running.base_url), load=True).ok
        yield running


def port_of(server: SimulatedOllama) -> int:
    return int(server.base_url.rpartition(":")[2])


def settings_of(row: Row) -> ConnectionSettings:
    kind: Any = ConnectionSettings
    if "model" in row.settings:
        kind = EmbeddingSettings if "dimensions" in row.settings else ChatSettings
    found: ConnectionSettings = kind(base_url=row.base_url, **row.settings)
    return found


@contextlib.contextmanager
def world_of(row: Row, server: SimulatedOllama) -> Iterator[MadeUp]:
    with contextlib.ExitStack() as stack:
        places: dict[object, int] = {OLLAMA: port_of(server)}
        if row.answer is not None:
            hosts = {b"localhost": VERSION} if row.answer is REFUSED_HOST else None
            places["ANSWER"] = stack.enter_context(answering(row.answer, with_host=hosts))
        values = dict(row.world)
        values["ports"] = {at: places.get(found, found) for at, found in values.get("ports", {}).items()}
        if row.error is not None:
            server.reply(Reply(status=500, error=row.error), path="/api/chat")
        yield MadeUp(**values)


@pytest.mark.parametrize("language", ["en", "ja", "zh"])
@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_root_cause(
    row: Row, language: str, server: SimulatedOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    with world_of(row, server) as made_up:
        report = diagnose(settings_of(row), language=language, load=row.load, world=made_up.world())
    found = next(check for check in report.checks if check.state in ("fail", "warn"))
    assert (found.name, found.cause, found.state) == (row.check, row.cause, row.state)
    assert report.ok is (row.state == "warn")
    remedy = found.remedy or ""
    assert [word for word in row.remedy if word not in remedy] == []
    assert [word for word in row.absent if word in str(report)] == []
    if language != "en":
        assert any(ord(char) > 0x2E80 for char in remedy + found.fact)


def test_the_async_twin_says_the_same_of_a_server_that_is_well(server: SimulatedOllama) -> None:
    settings = ChatSettings(model="llava", base_url=server.base_url, vision_support=True)
    world = MadeUp(ports={("127.0.0.1", port_of(server)): port_of(server)}).world()
    report = diagnose(settings, world=world)
    awaited = asyncio.run(adiagnose(settings, world=world))
    assert report.ok
    names = ["here", "proxy", "server", "model", "context", "capabilities"]
    for one in (report, awaited):
        assert [(check.name, check.state) for check in one.checks] == [(name, "ok") for name in names]
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True


def test_probes_carry_no_credentials_and_can_be_left_out(server: SimulatedOllama) -> None:
    world = MadeUp(files=DOCKER, ports={HOST: port_of(server)})
    settings = ConnectionSettings(base_url="http://user:secret@localhost:11434", headers={"X-Key": "secret"})
    server.requests.clear()
    report = diagnose(settings, world=world.world())
    assert server.requests
    assert all(
        request.header("authorization") is None and request.header("x-key") is None
        for request in server.requests
    )
    assert "secret" not in str(report) + json.dumps(report.to_dict())
    world.tried.clear()
    diagnose(settings, world=world.world(), probe=False)
    assert set(world.tried) == {("127.0.0.1", 11434)}


def test_a_key_goes_to_its_own_server(server: SimulatedOllama) -> None:
    world = MadeUp(ports={LAN: port_of(server)})
    server.requests.clear()
    diagnose(ConnectionSettings(base_url="http://192.168.1.100:11434", api_key="key"), world=world.world())
    assert {request.header("authorization") for request in server.requests} == {"Bearer key"}


@pytest.mark.parametrize(
    ("url", "there"),
    [
        ("http://localhost", "http://host.docker.internal"),
        ("https://[::1]:8443/ollama", "https://host.docker.internal:8443/ollama"),
    ],
)
def test_the_form_names_the_host_of_a_container(url: str, there: str) -> None:
    _, notes = fill_form(ModelInfo("llava", None, 4096, None, "", "", None, {}), url, None)
    assert notes == {"base_url": f"if Dify runs in Docker: {there}"}
