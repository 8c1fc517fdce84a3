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
    platform_name,
)
from ollama_dify.container import Container, container_kind
from ollama_dify.wire.server_errors import error_from_response

LANGUAGES = ["en", "ja", "zh"]
LOCAL = "http://localhost:11434"
LAN = "http://192.168.1.100:11434"
DOCKER = "http://host.docker.internal:11434"

# (url, in a container, platform, reason): what must be there, what must not
CONNECTIONS: dict[str, tuple[tuple[str, Container | None, str, str], list[str], list[str]]] = {
    "localhost in a container": (
        (LOCAL, "docker", "linux", "refused"),
        [
            DOCKER,
            "192.168.1.100",
            "172.17.0.1:11434",
            "--add-host=host.docker.internal:host-gateway",
            "OLLAMA_HOST=0.0.0.0",
            "doctor",
        ],
        ["ollama serve"],
    ),
    "127.0.0.1 in a container": (("http://127.0.0.1:11434", "docker", "linux", "timeout"), [DOCKER], []),
    "localhost with prefix in a container": (
        ("http://[::1]:8080/x", "docker", "linux", "refused"),
        ["http://host.docker.internal:8080/x"],
        [],
    ),
    "127.0.0.1 without a port in a container": (
        ("http://127.0.0.1", "docker", "linux", "refused"),
        [DOCKER],
        ["docker.internal:80"],
    ),
    "localhost in a pod": (
        (LOCAL, "kubernetes", "linux", "refused"),
        ["http://ollama.default.svc:11434"],
        ["--add-host"],
    ),
    "localhost": (
        (LOCAL, None, "linux", "refused"),
        ["ollama serve", f"curl {LOCAL}/api/version"],
        ["docker"],
    ),
    "LAN, from Linux": (
        (LAN, None, "linux", "refused"),
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
        (DOCKER, "docker", "linux", "refused"),
        ["127.0.0.1", "OLLAMA_HOST", "launchctl setenv"],
        ["add-host"],
    ),
    "host.docker.internal unknown, in a container": (
        (DOCKER, "docker", "linux", "dns"),
        ["--add-host=host.docker.internal:host-gateway"],
        [],
    ),
    "host.docker.internal unknown, outside": ((DOCKER, None, "darwin", "dns"), ["localhost"], ["add-host"]),
    "Compose service unknown": (("http://ollama:11434", "docker", "linux", "dns"), ["Compose", "ollama"], []),
    "name unknown": (("http://gpu.example:11434", None, "linux", "dns"), ["gpu.example", "IP"], ["Compose"]),
    "https to a plain port": (
        ("https://gpu-box:11434/x", None, "linux", "tls"),
        ["http://gpu-box:11434/x", "`verify`"],
        [],
    ),
    "https without a port": (("https://gpu-box", None, "linux", "tls"), ["http://gpu-box:11434"], []),
    "timeout": ((LAN, None, "linux", "timeout"), ["192.168.1.100", "11434"], ["launchctl"]),
    "unreachable": ((LAN, None, "linux", "unreachable"), ["192.168.1.100", "11434"], ["launchctl"]),
    "http without a port": (("http://gpu-box", None, "linux", "refused"), ["80", "11434"], []),
    "cloud": (("https://ollama.com", None, "linux", "dns"), ["HTTPS_PROXY"], ["0.0.0.0"]),
    "words for refused": ((LOCAL, None, "linux", "[Errno 111] Connection refused"), ["ollama serve"], []),
    "words for DNS": (("http://x.y:1", None, "linux", "the name cannot be resolved"), ["IP"], []),
    "words for TLS": (("https://x:1", None, "linux", "[SSL: WRONG_VERSION_NUMBER]"), ["http://x:1"], []),
    "unknown words": ((LAN, None, "linux", "connection reset"), ["192.168.1.100"], ["launchctl"]),
}


@pytest.mark.parametrize("name", LANGUAGES)
@pytest.mark.parametrize(("case", "present", "absent"), CONNECTIONS.values(), ids=list(CONNECTIONS))
def test_connection(
    case: tuple[str, Container | None, str, str], present: list[str], absent: list[str], name: str
) -> None:
    url, inside, platform, reason = case
    with language(name):
        advice = connection_advice(
            url, source="OLLAMA_HOST", container=inside, platform=platform, reason=reason
        )
    lines = advice.split("\n")
    assert 2 <= len(lines) <= 5
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
    advice = connection_advice(LOCAL, source=source, container=None, platform="linux", reason="refused")
    assert words in advice.split("\n")[0]


@pytest.mark.parametrize(
    ("platform", "name", "first"),
    [
        ("darwin", "macos", "macOS"),
        ("win32", "windows", "Windows"),
        ("linux", "linux", "Linux"),
        ("freebsd14", "linux", "Linux"),
    ],
)
def test_this_machines_system_comes_first(platform: str, name: str, first: str) -> None:
    assert platform_name(platform) == name
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


@pytest.mark.parametrize(
    ("files", "environ", "expected"),
    [
        pytest.param({"/.dockerenv": ""}, {}, "docker", id="Docker"),
        pytest.param({"/run/.containerenv": ""}, {}, "podman", id="Podman"),
        pytest.param({"/.dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes", id="a pod"),
        pytest.param({"/proc/1/cgroup": "12:cpu:/docker/0123\n"}, {}, "docker", id="cgroup v1"),
        pytest.param({"/proc/1/cgroup": "0::/kubepods.slice/pod1\n"}, {}, "kubernetes", id="cgroup of a pod"),
        pytest.param(
            {
                "/proc/1/cgroup": "0::/\n",
                "/proc/self/mountinfo": HOSTS_MOUNT.format(root="/var/lib/docker/containers"),
            },
            {},
            "docker",
            id="cgroup v2 says nothing, the mounts do",
        ),
        pytest.param(
            {"/proc/self/mountinfo": HOSTS_MOUNT.format(root="/var/lib/kubelet/pods")},
            {},
            "kubernetes",
            id="mounts of a pod",
        ),
        pytest.param(
            {
                "/proc/self/mountinfo": "590 1 0:60 / / rw - overlay overlay "
                "rw,lowerdir=/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/1/fs\n"
            },
            {},
            "containerd",
            id="containerd",
        ),
        pytest.param(
            {
                "/proc/1/cgroup": "0::/init.scope\n",
                "/proc/self/mountinfo": "31 1 0:29 / /var/lib/docker/1/merged rw - overlay overlay rw\n",
            },
            {},
            None,
            id="a host that runs containers",
        ),
        pytest.param({}, {}, None, id="nothing to read"),
    ],
)
def test_container(files: dict[str, str], environ: dict[str, str], expected: str | None) -> None:
    def read_text(path: str) -> str:
        if path not in files:
            raise FileNotFoundError(path)
        return files[path]

    assert container_kind(read_text, environ) == expected
