"""What to do about an error, per platform and language: data and pure functions, no network.

Every function gives short text for an error's `hint`, in English ("en"), Japanese ("ja") or Chinese ("zh").
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from .address import is_loopback, is_ollama_cloud
from .advice_texts import STEPS, TEXTS

__all__ = [
    "Step",
    "auth_advice",
    "capability_advice",
    "connection_advice",
    "context_advice",
    "in_container",
    "model_missing_advice",
    "platform_commands",
    "platform_name",
]

Language = Literal["en", "ja", "zh"]
Reason = Literal["refused", "dns", "tls", "timeout", "unreachable"]

_DOCKER_HOST = "host.docker.internal"
_SHOWN_MODELS = 5
_REASON_MARKS: dict[Reason, tuple[str, ...]] = {
    "dns": ("dns", "resolve", "name or service", "nodename", "getaddrinfo"),
    "tls": ("tls", "ssl", "certificate"),
    "refused": ("refused",),
    "timeout": ("timeout", "timed out"),
}
_CGROUP_MARKS = ("docker", "kubepods", "containerd", "libpod", "/lxc/")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do; `command` is what to type or paste, None where there is nothing to type."""

    text: str
    command: str | None = None


def connection_advice(
    url: str,
    *,
    source: str,
    in_container: bool,
    platform: str,
    reason: str,
    language: Language = "en",
) -> str:
    """Two to four lines about a connection to `url` that failed for `reason`.

    url: without credentials, as in `Address.url`; source: `Address.source`.
    in_container, platform: about the machine this runs on; platform as `sys.platform` or its plain name.
    reason: a `Reason`, or the words of the failure, which are looked through for one.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port if parts.port is not None else {"http": 80, "https": 443}.get(parts.scheme, 11434)
    shown = f"[{host}]" if ":" in host else host
    kind = _reason(reason)

    def text(key: str) -> str:
        return TEXTS[key][language].format(
            url=url,
            source=TEXTS[f"source.{source}"][language] if f"source.{source}" in TEXTS else source,
            host=host,
            port=port,
            docker_url=f"{parts.scheme}://{_DOCKER_HOST}:{port}{parts.path}",
            http_url=f"http://{shown}:{11434 if port == 443 else port}{parts.path}",
        )

    systems = "  " + "; ".join(text(f"short.{name}") for name in _own_first(platform))
    keys = ["tried", *_remedies(host, kind, in_container)]
    if parts.scheme == "http" and parts.port is None and kind in ("refused", "timeout") and len(keys) < 4:
        keys.append("port")
    return "\n".join(systems if key == "systems" else text(key) for key in keys)


def _remedies(host: str, reason: Reason, in_container: bool) -> list[str]:
    """Keys of the texts for a failure; "systems" stands for the commands per system."""
    if reason == "tls":
        return ["tls", "tls_proxy"]
    if is_ollama_cloud(host):
        return ["cloud"]
    if reason == "dns":
        if host == _DOCKER_HOST:
            return ["dns", "add_host" if in_container else "dns_docker"]
        return ["dns", "dns_service"] if "." not in host else ["dns"]
    if is_loopback(host):
        return ["container", "add_host", "listen_host"] if in_container else ["start"]
    if reason == "refused":
        return ["listen", "systems"]
    return ["unreachable", "add_host"] if host == _DOCKER_HOST and in_container else ["unreachable"]


def _reason(words: str) -> Reason:
    lowered = words.lower()
    for reason, marks in _REASON_MARKS.items():
        if any(mark in lowered for mark in marks):
            return reason
    return "unreachable"


def _own_first(platform: str) -> list[str]:
    """The three systems, this machine's first: the server's own is unknown."""
    own = platform_name(platform)
    return [own, *(name for name in ("macos", "linux", "windows") if name != own)]


def platform_name(platform: str) -> Literal["macos", "linux", "windows"]:
    """The plain name of what `sys.platform` or `platform.system()` says; Linux for other Unixes."""
    lowered = platform.lower()
    if lowered.startswith(("darwin", "mac")):
        return "macos"
    return "windows" if lowered.startswith(("win", "cygwin", "msys")) else "linux"


def platform_commands(platform: str, language: Language = "en") -> list[Step]:
    """All steps that make Ollama reachable from containers and other machines.

    platform: "docker" and "compose" for the client's container, else the server's system.
    """
    name = platform if platform in STEPS else platform_name(platform)
    return [Step(texts[language], command) for texts, command in STEPS[name]]


def model_missing_advice(model: str, available: Sequence[str], language: Language = "en") -> str:
    """The closest names the server has, and the command that pulls the model."""
    close = _closest(model, available)
    if not available:
        found = TEXTS["have_none"][language]
    elif close:
        found = TEXTS["closest"][language].format(names=", ".join(close))
    else:
        names = [*available[:_SHOWN_MODELS], *(["…"] if len(available) > _SHOWN_MODELS else [])]
        found = TEXTS["have"][language].format(names=", ".join(names))
    return f"{found}\n{TEXTS['pull'][language].format(model=shlex.quote(model))}"


def _closest(model: str, available: Sequence[str]) -> list[str]:
    """Other tags of the same model first, then names that look like it."""
    family = model.lower().partition(":")[0]
    tags = [name for name in available if name.lower().partition(":")[0] == family]
    by_lower = {name.lower(): name for name in available}
    similar = difflib.get_close_matches(model.lower(), by_lower, n=3, cutoff=0.5)
    families = {name.lower().partition(":")[0]: name for name in available}
    similar_families = difflib.get_close_matches(family, families, n=3, cutoff=0.6)
    found = [*tags, *(by_lower[name] for name in similar), *(families[name] for name in similar_families)]
    return list(dict.fromkeys(found))[:_SHOWN_MODELS]


def context_advice(
    *, context_size: int | None, model_maximum: int | None = None, language: Language = "en"
) -> str:
    """What to do about a prompt that does not fit.

    context_size: the setting, None where the server decides; model_maximum: tokens, None when unknown.
    """
    size = "unset" if context_size is None else str(context_size)
    lines = [TEXTS["context"][language].format(context_size=size)]
    if model_maximum is not None:
        lines.append(TEXTS["context_maximum"][language].format(maximum=model_maximum))
    return "\n".join(lines)


def capability_advice(model: str, capability: str, language: Language = "en") -> str:
    """What to do about a model without `capability` (vision, tools, thinking … as `/api/show` names them)."""
    line = TEXTS["capability"][language].format(model=model, capability=capability)
    examples = TEXTS.get(f"capability.{capability}")
    return line if examples is None else f"{line}\n{examples[language]}"


def auth_advice(url: str, *, signin_url: str | None = None, language: Language = "en") -> str:
    """What to do about a 401: at ollama.com, a proxy, or a cloud model behind a local server."""
    if signin_url is not None:
        return TEXTS["auth.signin"][language].format(signin_url=signin_url)
    if is_ollama_cloud(url):
        return TEXTS["auth.cloud"][language]
    return TEXTS["auth.own"][language].format(host=urlsplit(url).hostname or url)


def _read_text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")


def _exists(path: str) -> bool:
    return Path(path).exists()


def in_container(
    read_text: Callable[[str], str] = _read_text, exists: Callable[[str], bool] = _exists
) -> bool:
    """Whether this process runs in a container: Docker's or Podman's mark, or the cgroup of process 1."""
    if exists("/.dockerenv") or exists("/run/.containerenv"):
        return True
    try:
        cgroup = read_text("/proc/1/cgroup")
    except OSError:
        return False
    return any(mark in cgroup for mark in _CGROUP_MARKS)
