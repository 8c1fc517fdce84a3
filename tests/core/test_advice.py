"""Advice: the right remedy for each failure, short, in three languages."""

from __future__ import annotations

import re
from string import Formatter
from typing import Any

import pytest

from ollama_dify.advice import (
    auth_advice,
    capability_advice,
    connection_advice,
    context_advice,
    in_container,
    model_missing_advice,
    platform_commands,
    platform_name,
)
from ollama_dify.advice_texts import STEPS, TEXTS

LANGUAGES = ["en", "ja", "zh"]
LOCAL = "http://localhost:11434"
LAN = "http://192.168.1.100:11434"
DOCKER = "http://host.docker.internal:11434"

# (url, in a container, platform, reason): what must be there, what must not
CONNECTIONS: dict[str, tuple[tuple[str, bool, str, str], list[str], list[str]]] = {
    "localhost in a container": (
        (LOCAL, True, "linux", "refused"),
        [DOCKER, "--add-host=host.docker.internal:host-gateway", "OLLAMA_HOST=0.0.0.0"],
        ["ollama serve"],
    ),
    "127.0.0.1 in a container, timeout": (("http://127.0.0.1:11434", True, "linux", "timeout"), [DOCKER], []),
    "localhost with prefix in a container": (
        ("http://[::1]:8080/x", True, "linux", "refused"),
        ["http://host.docker.internal:8080/x"],
        [],
    ),
    "localhost": (
        (LOCAL, False, "linux", "refused"),
        ["ollama serve", f"curl {LOCAL}/api/version"],
        ["docker"],
    ),
    "LAN, from Linux": (
        (LAN, False, "linux", "refused"),
        [
            "192.168.1.100",
            "127.0.0.1",
            "OLLAMA_HOST=0.0.0.0",
            "systemctl edit ollama.service",
            "launchctl setenv",
            "Windows",
        ],
        ["ollama serve"],
    ),
    "host.docker.internal refused": (
        (DOCKER, True, "linux", "refused"),
        ["127.0.0.1", "OLLAMA_HOST", "launchctl setenv"],
        ["add-host"],
    ),
    "host.docker.internal unknown, in a container": (
        (DOCKER, True, "linux", "dns"),
        ["--add-host=host.docker.internal:host-gateway"],
        [],
    ),
    "host.docker.internal unknown, outside": ((DOCKER, False, "darwin", "dns"), ["localhost"], ["add-host"]),
    "Compose service unknown": (("http://ollama:11434", True, "linux", "dns"), ["Compose", "ollama"], []),
    "name unknown": (("http://gpu.example:11434", False, "linux", "dns"), ["gpu.example", "IP"], ["Compose"]),
    "https to a plain port": (
        ("https://gpu-box:11434/x", False, "linux", "tls"),
        ["http://gpu-box:11434/x", "`verify`"],
        [],
    ),
    "https without a port": (("https://gpu-box", False, "linux", "tls"), ["http://gpu-box:11434"], []),
    "timeout": ((LAN, False, "linux", "timeout"), ["192.168.1.100", "11434"], ["launchctl"]),
    "unreachable": ((LAN, False, "linux", "unreachable"), ["192.168.1.100", "11434"], ["launchctl"]),
    "http without a port": (("http://gpu-box", False, "linux", "refused"), ["80", "11434"], []),
    "cloud": (("https://ollama.com", False, "linux", "dns"), ["HTTPS_PROXY"], ["0.0.0.0"]),
    "words for refused": ((LOCAL, False, "linux", "[Errno 111] Connection refused"), ["ollama serve"], []),
    "words for DNS": (("http://x.y:1", False, "linux", "the name cannot be resolved"), ["IP"], []),
    "words for TLS": (("https://x:1", False, "linux", "[SSL: WRONG_VERSION_NUMBER]"), ["http://x:1"], []),
    "unknown words": ((LAN, False, "linux", "connection reset"), ["192.168.1.100"], ["launchctl"]),
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("case", "present", "absent"), CONNECTIONS.values(), ids=list(CONNECTIONS))
def test_connection(
    case: tuple[str, bool, str, str], present: list[str], absent: list[str], language: Any
) -> None:
    url, inside, platform, reason = case
    advice = connection_advice(
        url, source="OLLAMA_HOST", in_container=inside, platform=platform, reason=reason, language=language
    )
    lines = advice.split("\n")
    assert 2 <= len(lines) <= 4
    assert url in lines[0]
    assert "OLLAMA_HOST" in lines[0]
    rest = "\n".join(lines[1:])
    assert [word for word in present if word not in rest] == []
    assert [word for word in absent if word in rest] == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("base_url", "the setting base_url"),
        ("OLLAMA_HOST", "the environment variable OLLAMA_HOST"),
        ("default", "neither base_url nor OLLAMA_HOST"),
        ("a Dify form", "a Dify form"),
    ],
)
def test_where_the_address_came_from(source: str, words: str) -> None:
    advice = connection_advice(LOCAL, source=source, in_container=False, platform="linux", reason="refused")
    assert words in advice.split("\n")[0]


@pytest.mark.parametrize(
    ("platform", "name", "first"),
    [
        ("darwin", "macos", "macOS"),
        ("Darwin", "macos", "macOS"),
        ("macos", "macos", "macOS"),
        ("win32", "windows", "Windows"),
        ("Windows", "windows", "Windows"),
        ("linux", "linux", "Linux"),
        ("freebsd14", "linux", "Linux"),
    ],
)
def test_this_machines_system_comes_first(platform: str, name: str, first: str) -> None:
    assert platform_name(platform) == name
    advice = connection_advice(
        LAN, source="base_url", in_container=False, platform=platform, reason="refused"
    )
    assert advice.split("\n")[2].strip().startswith(first)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("platform", "commands"),
    [
        ("darwin", ['launchctl setenv OLLAMA_HOST "0.0.0.0"']),
        (
            "linux",
            [
                "sudo systemctl edit ollama.service",
                '[Service]\nEnvironment="OLLAMA_HOST=0.0.0.0"',
                "sudo systemctl daemon-reload\nsudo systemctl restart ollama",
            ],
        ),
        ("win32", ["setx OLLAMA_HOST 0.0.0.0", "ollama serve"]),
        (
            "docker",
            [
                "docker run --add-host=host.docker.internal:host-gateway …",
                "http://host.docker.internal:11434",
            ],
        ),
        (
            "compose",
            ['extra_hosts:\n  - "host.docker.internal:host-gateway"', "http://host.docker.internal:11434"],
        ),
    ],
)
def test_platform_commands(platform: str, commands: list[str], language: Any) -> None:
    steps = platform_commands(platform, language)
    assert [step.command for step in steps if step.command is not None] == commands
    assert all(step.text for step in steps)


@pytest.mark.parametrize(
    ("model", "available", "first_line", "command"),
    [
        ("lava", ["llava:latest", "qwen3:4b"], "llava:latest", "ollama pull lava"),
        ("llava", ["llava:7b", "llava:13b", "qwen3:4b"], "llava:7b, llava:13b", "ollama pull llava"),
        ("LLaVA:7B", ["llava:7b"], "llava:7b", "ollama pull LLaVA:7B"),
        ("nomic-embed", ["nomic-embed-text:latest"], "nomic-embed-text:latest", "ollama pull nomic-embed"),
        ("phi", ["a", "b", "c", "d", "e", "f"], "a, b, c, d, e, …", "ollama pull phi"),
        ("phi", [], "no models yet", "ollama pull phi"),
        ("a; rm -rf /", [], "no models yet", "ollama pull 'a; rm -rf /'"),
    ],
)
def test_model_missing(model: str, available: list[str], first_line: str, command: str) -> None:
    first, second = model_missing_advice(model, available).split("\n")
    assert first_line in first
    assert second.endswith(command)
    assert "qwen3" not in first


@pytest.mark.parametrize("language", LANGUAGES)
def test_other_advice(language: Any) -> None:
    context = context_advice(context_size=4096, model_maximum=32768, language=language)
    assert all(word in context for word in ("4096", "32768", 'context_overflow="trim"'))
    assert "None" not in context_advice(context_size=None, language=language)
    vision = capability_advice("phi", "vision", language)
    assert all(word in vision for word in ("phi", "ollama show phi", "llava"))
    assert "{" not in capability_advice("phi", "insert", language)
    assert "ollama.com/settings/keys" in auth_advice("https://ollama.com", language=language)
    assert "gpu-box" in auth_advice("http://gpu-box:11434", language=language)
    assert "https://ollama.com/connect?x" in auth_advice(
        LOCAL, signin_url="https://ollama.com/connect?x", language=language
    )


@pytest.mark.parametrize("key", TEXTS)
def test_every_text_has_all_languages_with_the_same_places(key: str) -> None:
    places = {
        language: {name for _, name, _, _ in Formatter().parse(text) if name}
        for language, text in TEXTS[key].items()
    }
    assert list(places) == LANGUAGES
    assert places["ja"] == places["zh"] == places["en"]
    commands = {language: set(re.findall(r"`[^`]+`", text)) for language, text in TEXTS[key].items()}
    assert commands["ja"] == commands["zh"] == commands["en"]
    assert all(set(texts) == set(LANGUAGES) for steps in STEPS.values() for texts, _ in steps)


@pytest.mark.parametrize(
    ("files", "cgroup", "expected"),
    [
        pytest.param({"/.dockerenv"}, "", True, id="Docker"),
        pytest.param({"/run/.containerenv"}, "", True, id="Podman"),
        pytest.param(set(), "12:cpu:/docker/0123\n", True, id="cgroup v1, Docker"),
        pytest.param(set(), "0::/kubepods.slice/kubepods-pod1\n", True, id="Kubernetes"),
        pytest.param(set(), "0::/init.scope\n", False, id="plain Linux"),
        pytest.param(set(), None, False, id="no cgroups"),
    ],
)
def test_in_container(files: set[str], cgroup: str | None, expected: bool) -> None:
    def read_text(path: str) -> str:
        if cgroup is None:
            raise FileNotFoundError(path)
        return cgroup

    assert in_container(read_text, files.__contains__) is expected
