"""The checks of the way to the server: where this runs, proxies, the address, and what answers there."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from ..address import is_loopback, without_credentials
from ..advice import (
    DOCKER_HOST,
    FAQ,
    auth_advice,
    listen_commands,
    permission_advice,
    platform_name,
    proxy_advice,
    source_text,
)
from ..errors import ConfigurationError
from ..language import N_, _
from ..settings.model import ConnectionSettings
from ..wire.json_reading import printable
from .report import Check, Trial
from .world import PROBE_S, Answer, Place, World, ask, look_around, proxy_for, together

__all__ = ["Scene", "check_here", "check_way"]

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
    """What a diagnosis is about, and what it knows so far. proxy: the proxy's URL, if one is used.

    headers: the settings' own ones with their key, for their own address only.
    """

    world: World
    settings: ConnectionSettings
    place: Place
    proxy: str | None = None
    probe: bool = True
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: ConnectionSettings, world: World, *, probe: bool) -> Scene:
        return cls(world, settings, look_around(world), probe=probe)

    @property
    def url(self) -> str:
        return self.settings.address.url

    def ask(self, path: str, body: Any = None, *, timeout_s: float = 10.0) -> Answer:
        """A request to the settings' server, as the library would send it."""
        return ask(
            self.world,
            self.url,
            path,
            headers=self.headers,
            body=body,
            proxy=self.proxy,
            verify=self.settings.verify,
            timeout_s=timeout_s,
        )

    def probe_at(self, url: str, *, headers: dict[str, str] | None = None) -> Answer:
        """A direct request without any credentials."""
        return ask(self.world, url, headers=headers, verify=self.settings.verify)


def check_here(scene: Scene) -> Check:
    """Where this program runs."""
    place = scene.place
    names = {"kubernetes": "Kubernetes", "lxc": "LXC", None: ""}
    if place.container is not None:
        kind = names.get(place.container, place.container.capitalize())
        fact = _("{kind} container").format(kind=kind)
    elif place.is_wsl:
        fact = _("WSL on Windows")
    else:
        system = {"macos": "macOS", "linux": "Linux", "windows": "Windows"}[platform_name(place.platform)]
        fact = _("{system}, no container").format(system=system)
    if place.gateway is not None and (place.container is not None or place.is_wsl):
        fact += _(", gateway {gateway}").format(gateway=place.gateway)
    data = {"container": place.container, "gateway": place.gateway, "wsl": place.is_wsl}
    return Check("here", "ok", fact, data=data)


def check_way(scene: Scene) -> list[Check]:
    """The proxy and the server; with a problem only as much as one remedy needs."""
    settings = scene.settings
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
    if used is None or not used[1].startswith("http"):
        known = [name for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") if _is_set(scene.world, name)]
        fact = _("none")
        if used is not None:
            fact = _("{name} names a proxy of a kind that is not looked into").format(name=used[0])
        elif known:
            fact = _("{names} set, not used for this address").format(names=", ".join(known))
        return [Check("proxy", "ok", fact), _check_server(scene)]
    variable, scene.proxy = used
    return _check_proxied(scene, variable)


def _is_set(world: World, name: str) -> bool:
    return bool(world.environ.get(name) or world.environ.get(name.lower()))


def _check_proxied(scene: Scene, variable: str) -> list[Check]:
    """Through the proxy and direct at the same time: the difference tells whose fault it is."""
    proxy, host = without_credentials(scene.proxy or ""), urlsplit(scene.url).hostname or ""
    tasks = [partial(scene.ask, "/api/version", timeout_s=2 * PROBE_S)]
    if scene.probe:
        tasks.append(partial(scene.probe_at, scene.url))
    found = together(tasks, 2 * PROBE_S + 0.5)
    proxied = found[0] or Answer(scene.url, "timeout")
    direct = found[1] if len(found) > 1 else None
    data = {"variable": variable, "proxy": proxy}
    if proxied.version is not None:
        fact = _("{proxy} ({variable})").format(proxy=proxy, variable=variable)
        return [Check("proxy", "ok", fact, data=data), _answered(scene, proxied)]
    at_fault = proxied.problem is not None or proxied.status in (403, 407) or proxied.status >= 500
    if not at_fault and (direct is None or direct.version is None):
        return [Check("proxy", "ok", f"{proxy} ({variable})", data=data), _answered(scene, proxied)]
    told = ", ".join(
        f"{name}: {printable(proxied.headers[name.lower()], 60)}"
        for name in ("Server", "Via")
        if name.lower() in proxied.headers
    )
    fact = _("{proxy} ({variable}): {problem}").format(
        proxy=proxy, variable=variable, problem=_problem(proxied) + (f" ({told})" if told else "")
    )
    remedy = proxy_advice(proxy, host)
    trials: tuple[Trial, ...] = ()
    if direct is not None:
        trials = (_trial(_("direct"), direct),)
        if direct.version is not None:
            remedy = _("Go past the proxy: set NO_PROXY={host}").format(host=host)
    return [
        Check("proxy", "fail", fact, remedy, "proxy", trials, data),
        Check("server", "skip", _("not checked")),
    ]


def _check_server(scene: Scene) -> Check:
    answer = scene.ask("/api/version", timeout_s=2 * PROBE_S)
    if answer.problem is None:
        return _answered(scene, answer)
    return _unanswered(scene, answer)


def _where(scene: Scene) -> str:
    return _("{url} ({source})").format(url=scene.url, source=source_text(scene.settings.address.source))


def _problem(answer: Answer) -> str:
    if answer.problem is not None:
        return _("{problem}, {ms} ms").format(problem=_(_PROBLEMS[answer.problem]), ms=answer.ms)
    return _("answered {status}").format(status=answer.status)


def _trial(address: str, answer: Answer) -> Trial:
    version = answer.version
    if version is not None:
        return Trial(address, f"Ollama {version}", version)
    if answer.problem is None:
        not_ollama = _("answers, but is not Ollama")
        return Trial(address, not_ollama if answer.status == 200 else _problem(answer))
    return Trial(address, _(_PROBLEMS[answer.problem]))


def _answered(scene: Scene, answer: Answer) -> Check:
    """Something answered: Ollama, or what stands in its place."""
    version, where = answer.version, _where(scene)
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
    status = answer.status
    fact = _("{where}: {problem}").format(where=where, problem=_problem(answer))
    if status == 401:
        return Check("server", "fail", fact, auth_advice(scene.url), "credentials")
    if status == 403:
        return _forbidden(scene, answer, fact)
    parts = urlsplit(scene.url)
    root = f"{parts.scheme}://{parts.netloc}"
    if parts.path and scene.probe:
        there = scene.probe_at(root)
        if there.version is not None:
            return Check("server", "fail", fact, _use(scene, root), "wrong-path", (_trial(root, there),))
    if status == 400 and b"HTTPS" in answer.body.upper() and parts.scheme == "http":
        return Check("server", "fail", fact, _use(scene, "https" + scene.url[4:]), "http-on-tls-port")
    if answer.is_json:
        fact += f": {printable(answer.body.decode('utf-8', 'replace'), 80)}"
    remedy = _(
        "This is not Ollama: check host and port of the address (Ollama's own port is 11434, without a path)."
    )
    return Check("server", "fail", fact, remedy, "not-ollama", data={"status": status})


def _forbidden(scene: Scene, answer: Answer, fact: str) -> Check:
    if answer.body.strip() or not scene.probe:
        remedy = permission_advice(has_body=bool(answer.body.strip()))
        return Check("server", "fail", fact, remedy, "forbidden")
    repeated = scene.probe_at(scene.url, headers={"Host": "localhost"})
    remedy = permission_advice(has_body=False)
    if repeated.version is None:
        return Check("server", "fail", fact, remedy, "forbidden")
    trials = (Trial("Host: localhost", f"Ollama {repeated.version}", repeated.version),)
    host = urlsplit(scene.url).netloc
    fact = _("{where}: Ollama refuses the host name {host}").format(where=_where(scene), host=host)
    return Check("server", "fail", fact, remedy, "host-refused", trials)


def _unanswered(scene: Scene, answer: Answer) -> Check:
    """Nothing answered: look where else Ollama may be, and name one remedy."""
    fact = _("{where}: {problem}").format(where=_where(scene), problem=_problem(answer))
    cause = _cause(scene, answer)
    if cause == "certificate":
        remedy = _("Name the CA of this certificate in `verify`, or have the server send its whole chain.")
        return Check("server", "fail", fact, remedy, cause)
    urls = _candidates(scene) if scene.probe else []
    found = together([partial(scene.probe_at, url) for url in urls], PROBE_S + 0.5)
    answers = [answer or Answer(url, "timeout") for url, answer in zip(urls, found, strict=True)]
    trials = tuple(_trial(urlsplit(url).netloc, one) for url, one in zip(urls, answers, strict=True))
    there = next((one.url for one in answers if one.version is not None), None)
    if there is not None:
        remedy = _use(scene, there)
    else:
        if cause == "container-loopback" and any(one.problem == "refused" for one in answers):
            cause = "container-loopback-listen"
        remedy = _remedy(scene, cause)
    return Check("server", "fail", fact, remedy, cause.removesuffix("-listen"), trials)


def _cause(scene: Scene, answer: Answer) -> str:
    host = urlsplit(scene.url).hostname or ""
    if answer.problem == "dns":
        if host == DOCKER_HOST:
            return "docker-host-unknown"
        return "name-unknown" if "." in host else "service-unknown"
    if answer.problem == "certificate":
        return "certificate"
    if answer.problem == "tls":
        return "https-on-plain-port"
    if answer.problem in ("timeout", "unreachable"):
        return "firewall" if not is_loopback(host) else "not-running"
    if is_loopback(host):
        if scene.place.container is not None:
            return "container-loopback"
        return "wsl-loopback" if scene.place.is_wsl else "not-running"
    return "listens-on-loopback" if answer.problem == "refused" else "broken"


def _candidates(scene: Scene) -> list[str]:
    """Addresses where Ollama may be, seen from here; the settings' own is not among them."""
    parts, place = urlsplit(scene.url), scene.place
    hosts = []
    if place.container is not None:
        hosts += [DOCKER_HOST, *([place.gateway] if place.gateway else []), _BRIDGE, "ollama"]
        if place.container == "podman":
            hosts.insert(0, "host.containers.internal")
        if place.container == "kubernetes":
            hosts = ["ollama", "ollama.default.svc"]
    elif place.is_wsl and place.gateway is not None:
        hosts.append(place.gateway)
    own = parts.hostname or ""
    hosts = [own, *hosts, *([] if is_loopback(own) else ["localhost"])]
    ports = dict.fromkeys((parts.port or 11434, 11434))
    urls = [f"http://{f'[{host}]' if ':' in host else host}:{port}" for host in hosts for port in ports]
    return [url for url in dict.fromkeys(urls) if url != scene.url]


def _use(scene: Scene, url: str) -> str:
    """Say where to put an address: where the one that failed came from."""
    if scene.settings.address.source == "base_url":
        return _("Use: base_url={url}").format(url=url)
    return _("Use: {assignment}").format(assignment=f"OLLAMA_HOST={url}")


def _listen(scene: Scene) -> str:
    """Every system's commands: the server's is not known from here, so this machine's comes first."""
    first = _("Let Ollama listen beyond 127.0.0.1 on the machine where it runs:")
    last = _("It then answers everybody who reaches its port, without a password: see {page}").format(
        page=FAQ
    )
    return "\n".join([first, *(f"  {line}" for line in listen_commands(scene.place.platform)), last])


def _remedy(scene: Scene, cause: str) -> str:
    """What to do when no other address answered either."""
    parts = urlsplit(scene.url)
    host, port = parts.hostname or "", parts.port or 11434
    if cause in ("container-loopback-listen", "listens-on-loopback", "wsl-loopback"):
        return _listen(scene)
    if cause == "docker-host-unknown" and scene.place.container is None:
        return _("host.docker.internal exists only inside containers: on the host itself use localhost.")
    if scene.place.container == "kubernetes" and cause == "container-loopback":
        service = f"http://ollama.default.svc:{port}"
        return _("If Ollama runs outside this pod, use the name of its Service, such as {url}").format(
            url=service
        )
    if cause in ("container-loopback", "docker-host-unknown"):
        lines = [
            _("If Ollama runs outside this container, let the container reach its host:"),
            "  docker run --add-host=host.docker.internal:host-gateway …",
            '  Compose: extra_hosts: ["host.docker.internal:host-gateway"]',
            _("and then use {url}").format(url=f"http://{DOCKER_HOST}:{port}"),
            _("If it runs in here, start it: `ollama serve`."),
        ]
        return "\n".join(lines)
    texts = {
        "service-unknown": _(
            "If {host} is a Compose service, put both services into the same network; else use the machine's "
            "IP address."
        ),
        "name-unknown": _("Check the spelling of {host}, or use the machine's IP address."),
        "firewall": _(
            "A firewall may drop port {port}: allow it on {host} (Linux: sudo ufw allow {port}/tcp), and "
            "check that the machine is on."
        ),
        "https-on-plain-port": _("Ollama itself speaks plain HTTP: try {http_url}"),
        "not-running": _("Start Ollama on this machine: `ollama serve`, or its app."),
    }
    text = texts.get(
        cause, _("See the server's log; a proxy or another program may answer at {host}:{port}.")
    )
    http_url = f"http://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return text.format(host=host, port=port, http_url=http_url)
