"""Advice in errors: the right remedy for each failure, short, in three languages."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ollama_dify import ModelNotFoundError, RateLimitError, ServerBusyError, ServerError, language
from ollama_dify.advice import (
    auth_advice,
    capability_advice,
    connection_advice,
    model_missing_advice,
)
from ollama_dify.container import Container, container_kind
from ollama_dify.wire.server_errors import error_from_response

LANGUAGES = ["en", "ja", "zh"]
LOCAL = "http://localhost:11434"
LAN = "http://192.168.1.100:11434"
DOCKER = "http://host.docker.internal:11434"

# url, container, reason; words that must be there, words that must not. What else a cause's remedy says is
# asserted with the doctor, which shows the same.
CONNECTIONS: dict[str, tuple[str, Container | None, str, str, str]] = {
    "localhost in a container": (
        LOCAL, "docker", "refused",
        f"{DOCKER} 192.168.1.100 172.17.0.1:11434 --add-host OLLAMA_HOST=0.0.0.0 doctor", "serve",
    ),
    "127.0.0.1 in a container": ("http://127.0.0.1:11434", "docker", "timeout", DOCKER, "serve"),
    "localhost with prefix in a container": (
        "http://[::1]:8080/x", "docker", "refused", "http://host.docker.internal:8080/x", "serve"
    ),
    "no port in a container": ("http://127.0.0.1", "docker", "refused", DOCKER, "docker.internal:80"),
    "localhost in a pod": (LOCAL, "kubernetes", "refused", "http://ollama.default.svc:11434", "--add-host"),
    "localhost": (LOCAL, None, "refused", f"serve {LOCAL}/api/version", "docker."),
    "LAN": (LAN, None, "refused", "192.168.1.100 127.0.0.1 systemctl launchctl Windows", "serve"),
    "host.docker.internal refused": (DOCKER, "docker", "refused", "127.0.0.1 launchctl", "add-host"),
    "name unknown": ("http://gpu.example:11434", None, "dns", "gpu.example IP", "Compose"),
    "https to a plain port": ("https://h:11434/x", None, "tls", "http://h:11434/x `verify`", "launchctl"),
    "https without a port": ("https://gpu-box", None, "tls", "http://gpu-box:11434", "launchctl"),
    "timeout": (LAN, None, "timeout", "192.168.1.100 11434", "launchctl"),
    "http without a port": ("http://gpu-box", None, "refused", "80 11434", "launchctl"),
    "cloud": ("https://ollama.com", None, "dns", "HTTPS_PROXY", "0.0.0.0"),
    "words for refused": (LOCAL, None, "[Errno 111] Connection refused", "serve", "firewall"),
    "words for DNS": ("http://x.y:1", None, "the name cannot be resolved", "IP", "launchctl"),
    "words for TLS": ("https://x:1", None, "[SSL: WRONG_VERSION_NUMBER]", "http://x:1", "launchctl"),
    "unknown words": (LAN, None, "connection reset", "192.168.1.100", "launchctl"),
}  # fmt: skip


@pytest.mark.parametrize("name", LANGUAGES)
@pytest.mark.parametrize("case", CONNECTIONS.values(), ids=list(CONNECTIONS))
def test_connection(case: tuple[str, Container | None, str, str, str], name: str) -> None:
    url, inside, reason, present, absent = case
    with language(name):
        advice = connection_advice(
            url, source="OLLAMA_HOST", container=inside, platform="linux", reason=reason
        )
    first, *rest = advice.split("\n")
    assert 1 <= len(rest) <= 4
    assert url in first
    assert "OLLAMA_HOST" in first
    assert [word for word in present.split() if word not in "\n".join(rest)] == []
    assert absent not in "\n".join(rest)


SOURCES = {
    "base_url": "setting base_url",
    "OLLAMA_HOST": "variable OLLAMA_HOST",
    "default": "neither base_url",
}
SYSTEMS = {"darwin": "macOS", "win32": "Windows", "linux": "Linux", "freebsd14": "Linux"}


@pytest.mark.parametrize(("source", "words"), SOURCES.items())
def test_where_the_address_came_from(source: str, words: str) -> None:
    advice = connection_advice(LOCAL, source=source, container=None, platform="linux", reason="refused")
    assert words in advice.split("\n")[0]


@pytest.mark.parametrize(("platform", "first"), SYSTEMS.items())
def test_this_machines_system_comes_first(platform: str, first: str) -> None:
    advice = connection_advice(LAN, source="base_url", container=None, platform=platform, reason="refused")
    assert advice.split("\n")[2].strip().startswith(first)


@pytest.mark.parametrize(
    ("model", "available", "first_line", "second_line"),
    [
        ("lava", ["llava:latest", "qwen3:4b"], "2 models: llava:latest", "misspelt"),
        ("llava", ["llava:7b", "llava:13b", "qwen3:4b"], "llava:7b, llava:13b", "ollama pull llava"),
        ("LLaVA:7B", ["llava:7b"], "llava:7b", "ollama pull LLaVA:7B"),
        ("nomic-embed", ["nomic-embed-text:latest"], "nomic-embed-text:latest", "misspelt"),
        ("phi", ["a", "b", "c", "d", "e", "f"], "none with a similar name: a, b, c, d, e, …", "pull phi"),
        ("phi", [], "no models yet", "ollama pull phi"),
        ("a; rm -rf /", [], "no models yet", "ollama pull 'a; rm -rf /'"),
    ],
)
def test_model_missing(model: str, available: list[str], first_line: str, second_line: str) -> None:
    first, second = model_missing_advice(model, available).split("\n")
    assert first_line in first
    assert second_line in second
    assert "qwen3" not in first
    assert ("pull" in second) is ("misspelt" not in second), "a misspelt name is not one to pull"


def test_models_that_are_named_for_images_can_use_tools_too() -> None:
    for capability in ("vision", "tools"):
        assert "qwen3-vl and mistral-small3.2" in capability_advice("m", capability)
    assert capability_advice("m", "insert").count("\n") == 0


@pytest.mark.parametrize("name", LANGUAGES)
@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("model requires more system memory (9 GiB) than is available (4 GiB)", ServerError, "ollama stop m"),
        ("llama runner process has terminated: CUDA error: out of memory", ServerError, "context_size"),
        ("model 'm' not found", ModelNotFoundError, "ollama pull m"),
        ("429 slow down", RateLimitError, {"en": "Wait", "ja": "待って", "zh": "稍候"}),
        ("503 too many", ServerBusyError, "OLLAMA_MAX_QUEUE"),
    ],
)
def test_hints_of_the_servers_errors(
    text: str, kind: type[Exception], words: str | Mapping[str, str], name: str
) -> None:
    status = int(text[:3]) if text[:3].isdigit() else 500
    with language(name):
        error = error_from_response(
            status, {}, text.encode(), url="http://h:1/api/chat", model="m", now_s=0.0
        )
    assert type(error) is kind
    assert (words if isinstance(words, str) else words[name]) in (error.hint or "")
    assert text in error.message


def test_credentials() -> None:
    assert "ollama.com/settings/keys" in auth_advice("https://ollama.com")
    assert "gpu-box" in auth_advice("http://gpu-box:11434")
    assert "https://ollama.com/connect?x" in auth_advice(LOCAL, signin_url="https://ollama.com/connect?x")


HOSTS_MOUNT = "612 590 254:1 {root}/abc/hosts /etc/hosts rw,relatime - ext4 /dev/vda1 rw\n"
ROOT_MOUNT = "590 1 0:60 / {place} rw - overlay overlay rw,lowerdir=/var/lib/{runtime}/1/fs\n"
CGROUP, MOUNTS = "/proc/1/cgroup", "/proc/self/mountinfo"
IN_DOCKER, IN_POD = (
    HOSTS_MOUNT.format(root="/var/lib/docker"),
    HOSTS_MOUNT.format(root="/var/lib/kubelet/pods"),
)
CONTAINERS: dict[str, tuple[dict[str, str], Container | None]] = {
    "Docker": ({"/.dockerenv": ""}, "docker"),
    "Podman": ({"/run/.containerenv": ""}, "podman"),
    "a pod": ({"/.dockerenv": "", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
    "cgroup v1": ({CGROUP: "12:cpu:/docker/0123\n"}, "docker"),
    "cgroup of a pod": ({CGROUP: "0::/kubepods.slice/pod1\n"}, "kubernetes"),
    "cgroup v2 says nothing, the mounts do": ({CGROUP: "0::/\n", MOUNTS: IN_DOCKER}, "docker"),
    "mounts of a pod": ({MOUNTS: IN_POD}, "kubernetes"),
    "containerd": ({MOUNTS: ROOT_MOUNT.format(place="/", runtime="containerd")}, "containerd"),
    "a host that runs containers": (
        {CGROUP: "0::/init.scope\n", MOUNTS: ROOT_MOUNT.format(place="/var/lib/docker/1", runtime="docker")},
        None,
    ),
    "nothing to read": ({}, None),
}


@pytest.mark.parametrize(("found", "expected"), CONTAINERS.values(), ids=list(CONTAINERS))
def test_container(found: dict[str, str], expected: Container | None) -> None:
    """found: files, and variables of the environment."""

    def read_text(path: str) -> str:
        if path not in found:
            raise FileNotFoundError(path)
        return found[path]

    assert container_kind(read_text, found) == expected
