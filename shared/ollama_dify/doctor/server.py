"""The checks of the connection: where this program runs, proxies, the address, and what answers there."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from ..address import is_loopback, without_credentials
from ..advice import (
    DOCKER_HOST,
    advice,
    auth_advice,
    connection_cause,
    connection_remedy,
    platform_name,
    source_text,
)
from ..container import Container, container_kind, text_of
from ..errors import ConfigurationError
from ..language import N_, _
from ..settings import ConnectionSettings
from ..wire.responses import printable
from .report import Check, Trial
from .world import PROBE_S, Answer, World, ask, proxy_for, together

_BRIDGE = "172.17.0.1"
_OLDEST = (0, 9)
_PROBLEMS = {
    "dns": N_("the name is unknown"),
    "refused": N_("refused"),
    "timeout": N_("no answer"),
    "unreachable": N_("unreachable"),
    "tls": N_("TLS failed"),
    "certificate": N_("the certificate is not trusted"),
    "broken": N_("the connection broke"),
    "proxy": N_("the proxy refused"),
}


@dataclass(slots=True)
class Scene:
    """The subject of a diagnosis, and what is known so far. proxy: the proxy's URL, if one is used.

    headers: those of the settings with the key, sent to the settings' address only.
    """

    world: World
    settings: ConnectionSettings
    probe: bool
    proxy: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    container: Container | None = None
    gateway: str | None = None
    is_wsl: bool = False

    @property
    def url(self) -> str:
        return self.settings.address.url

    def ask(self, path: str = "/api/version", body: Any = None, timeout_s: float = 2 * PROBE_S) -> Answer:
        """A request to the settings' server, as the library would send it."""
        about: dict[str, Any] = {"headers": self.headers, "proxy": self.proxy, "verify": self.settings.verify}
        return ask(self.world, self.url, path, body=body, timeout_s=timeout_s, **about)

    def probe_at(self, url: str, *, headers: dict[str, str] | None = None) -> Answer:
        """A direct request without any credentials."""
        return ask(self.world, url, headers=headers, verify=self.settings.verify)


def check_here(scene: Scene) -> Check:
    """Where this program runs: the marks of containers and WSL2, and the gateway of the default route."""
    world = scene.world
    scene.container = container_kind(world.read_text, world.environ)
    scene.is_wsl = "microsoft" in (text_of(world.read_text, "/proc/sys/kernel/osrelease") or "").lower()
    scene.gateway = _gateway(text_of(world.read_text, "/proc/net/route") or "")
    if scene.container is not None:
        names = {"kubernetes": "Kubernetes", "lxc": "LXC"}
        kind = names.get(scene.container, scene.container.capitalize())
        fact = _("{kind} container").format(kind=kind)
    elif scene.is_wsl:
        fact = _("WSL on Windows")
    else:
        system = {"macos": "macOS", "linux": "Linux", "windows": "Windows"}[platform_name(world.platform)]
        fact = _("{system}, no container").format(system=system)
    if scene.gateway is not None and (scene.container is not None or scene.is_wsl):
        fact += _(", gateway {gateway}").format(gateway=scene.gateway)
    data = {"container": scene.container, "gateway": scene.gateway, "wsl": scene.is_wsl}
    return Check("here", "ok", fact, data=data)


def _gateway(routes: str) -> str | None:
    found = re.search(r"^\S+\s+0{8}\s+(?!0{8})([0-9A-Fa-f]{8})\s", routes, re.MULTILINE)
    return None if found is None else str(ipaddress.IPv4Address(bytes.fromhex(found[1])[::-1]))


def check_way(scene: Scene) -> list[Check]:
    """Check the proxy and the server; stop at the first problem, so that there is one remedy."""
    settings, environ = scene.settings, scene.world.environ
    try:
        scene.headers = settings.sent_headers()
    except ConfigurationError as error:
        name, remedy = settings.api_key_env, error.hint
        if name is not None:
            remedy = _("Set the environment variable {name}, or give the key as api_key.").format(name=name)
        return [Check("server", "fail", error.message, remedy, "credentials")]
    proxy = settings.secret("proxy")
    used = None if proxy is None else ("proxy", proxy)
    if used is None and settings.trust_env:
        used = proxy_for(scene.world, scene.url)
    if used is not None and used[1].startswith("http://"):
        scene.proxy = used[1]
        return _check_proxied(scene, used[0])
    known = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    known_here = [name for name in known if environ.get(name) or environ.get(name.lower())]
    fact = _("none")
    if used is not None:
        fact = _("{name} names a proxy of a kind that is not looked into").format(name=used[0])
    elif known_here:
        fact = _("{names} set, not used for this address").format(names=", ".join(known_here))
    answer = scene.ask()
    return [
        Check("proxy", "ok", fact),
        _answered(scene, answer) if answer.problem is None else _unanswered(scene, answer),
    ]


def _check_proxied(scene: Scene, variable: str) -> list[Check]:
    """Try through the proxy and direct at the same time: the difference shows which one fails."""
    proxy, host = without_credentials(scene.proxy or ""), urlsplit(scene.url).hostname or ""
    tasks: list[Callable[[], Answer]] = [scene.ask, partial(scene.probe_at, scene.url)]
    found = together(tasks if scene.probe else tasks[:1], 2 * PROBE_S + 0.5)
    proxied, direct = found[0] or Answer(scene.url, "timeout"), found[1] if scene.probe else None
    data = {"variable": variable, "proxy": proxy}
    at_fault = proxied.problem is not None or proxied.status in (403, 407) or proxied.status >= 500
    is_answered = direct is not None and direct.version is not None
    if proxied.version is not None or not (at_fault or is_answered):
        return [Check("proxy", "ok", _named(proxy, variable), data=data), _answered(scene, proxied)]
    headers = {name: proxied.headers.get(name.lower()) for name in ("Server", "Via")}
    told = ", ".join(f"{name}: {printable(value, 60)}" for name, value in headers.items() if value)
    problem = _problem(proxied) + (f" ({told})" if told else "")
    remedy = advice("proxy", proxy=proxy, host=host)
    if is_answered:
        remedy = _("Go past the proxy: set NO_PROXY={host}").format(host=host)
    trials = () if direct is None else (_trial(_("direct"), direct),)
    return [
        Check("proxy", "fail", _failed(_named(proxy, variable), problem), remedy, "proxy", trials, data),
        Check("server", "skip", _("not checked")),
    ]


def _named(url: str, source: str) -> str:
    return _("{url} ({source})").format(url=url, source=source)


def _where(scene: Scene) -> str:
    return _named(scene.url, source_text(scene.settings.address.source))


def _failed(where: str, problem: str) -> str:
    return _("{where}: {problem}").format(where=where, problem=problem)


def _problem(answer: Answer) -> str:
    if answer.problem is not None:
        return _("{problem}, {ms} ms").format(problem=_(_PROBLEMS[answer.problem]), ms=answer.ms)
    return _("answered {status}").format(status=answer.status)


def _trial(address: str, answer: Answer) -> Trial:
    version = answer.version
    if version is not None:
        return Trial(address, f"Ollama {version}", version)
    if answer.problem is not None:
        return Trial(address, _(_PROBLEMS[answer.problem]))
    return Trial(address, _("answers, but is not Ollama") if answer.status == 200 else _problem(answer))


def _answered(scene: Scene, answer: Answer) -> Check:
    """The check for an answer, from Ollama or from another program."""
    version, where, status = answer.version, _where(scene), answer.status
    if version is not None:
        fact = _("Ollama {version} at {where}, {ms} ms").format(version=version, where=where, ms=answer.ms)
        data = {"version": version, "url": scene.url, "ms": answer.ms}
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        if len(numbers) == 2 and (0, 0) < numbers < _OLDEST:
            remedy = _("Update Ollama: older versions lack capabilities and thinking. See {page}").format(
                page="https://ollama.com/download"
            )
            return Check("server", "warn", fact, remedy, "old-version", data=data)
        return Check("server", "ok", fact, data=data)
    fact = _failed(where, _problem(answer))
    failed = partial(Check, "server", "fail")
    if status == 401:
        return failed(fact, auth_advice(scene.url), "credentials")
    if status == 403:
        return _forbidden(scene, answer, fact)
    parts = urlsplit(scene.url)
    root = f"{parts.scheme}://{parts.netloc}"
    if parts.path and scene.probe:
        there = scene.probe_at(root)
        if there.version is not None:
            return failed(fact, _use(scene, root), "wrong-path", (_trial(root, there),))
    if status == 400 and b"HTTPS" in answer.body.upper() and parts.scheme == "http":
        return failed(fact, _use(scene, "https" + scene.url[4:]), "http-on-tls-port")
    if "json" in answer.headers.get("content-type", ""):
        fact += f": {printable(answer.body.decode('utf-8', 'replace'), 80)}"
    remedy = _(
        "This is not Ollama: check host and port of the address (Ollama's own port is 11434, without a path)."
    )
    return failed(fact, remedy, "not-ollama", data={"status": status})


def _forbidden(scene: Scene, answer: Answer, fact: str) -> Check:
    """A 403; an empty one is tried once more with a Host that Ollama always accepts."""
    has_body = bool(answer.body.strip())
    check = partial(Check, "server", "fail", remedy=advice("no-right" if has_body else "unknown-host"))
    if not has_body and scene.probe:
        repeated = scene.probe_at(scene.url, headers={"Host": "localhost"})
        if repeated.version is not None:
            fact = _("{where}: Ollama refuses the host name {host}").format(
                where=_where(scene), host=urlsplit(scene.url).netloc
            )
            return check(fact, cause="host-refused", trials=(_trial("Host: localhost", repeated),))
    return check(fact, cause="forbidden")


def _unanswered(scene: Scene, answer: Answer) -> Check:
    """The check without an answer: try other addresses of Ollama, and name one remedy."""
    cause = connection_cause(scene.url, answer.problem or "", scene.container, is_wsl=scene.is_wsl)
    urls = _candidates(scene) if scene.probe and cause != "certificate" else []
    found = together([partial(scene.probe_at, url) for url in urls], PROBE_S + 0.5)
    answers = [answer or Answer(url, "timeout") for url, answer in zip(urls, found, strict=True)]
    there = next((one.url for one in answers if one.version is not None), None)
    listens = cause == "container-loopback" and any(one.problem == "refused" for one in answers)
    known = "listens-on-loopback" if listens else cause
    remedy = connection_remedy(known, scene.url, scene.world.platform)
    if there is not None:
        remedy = _use(scene, there)
    fact = _failed(_where(scene), _problem(answer))
    trials = tuple(_trial(urlsplit(one.url).netloc, one) for one in answers)
    return Check("server", "fail", fact, remedy, cause, trials)


def _candidates(scene: Scene) -> list[str]:
    """Addresses where Ollama may be, seen from this machine; without the settings' own."""
    parts = urlsplit(scene.url)
    own = parts.hostname or ""
    gateway = [] if scene.gateway is None else [scene.gateway]
    hosts = gateway if scene.is_wsl else []
    if scene.container is not None:
        hosts = [DOCKER_HOST, *gateway, _BRIDGE, "ollama"]
    if scene.container == "podman":
        hosts.insert(0, "host.containers.internal")
    if scene.container == "kubernetes":
        hosts = ["ollama", "ollama.default.svc"]
    hosts = [own, *hosts, *([] if is_loopback(own) else ["localhost"])]
    ports = dict.fromkeys((parts.port or 11434, 11434))
    urls = [f"http://{f'[{host}]' if ':' in host else host}:{port}" for host in hosts for port in ports]
    return [url for url in dict.fromkeys(urls) if url != scene.url]


def _use(scene: Scene, url: str) -> str:
    """Say where to put an address: where the one that failed came from."""
    if scene.settings.address.source == "base_url":
        return _("Use: base_url={url}").format(url=url)
    return _("Use: {assignment}").format(assignment=f"OLLAMA_HOST={url}")
