"""What to do about an error, by platform and container: pure functions; text in the current language.

Sources: Dify's Ollama guide and Ollama's FAQ. An error has one of these texts as its `hint`; the doctor
uses the same texts.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from urllib.parse import urlsplit

from .address import is_loopback, is_ollama_cloud
from .container import Container
from .language import N_, _

DOCKER_HOST = "host.docker.internal"
FAQ = "https://github.com/ollama/ollama/blob/main/docs/faq.md"
_SHOWN_MODELS = 5
_PROBLEM_MARKS = {
    "dns": ("dns", "resolve", "name or service", "nodename", "getaddrinfo"),
    "tls": ("tls", "ssl", "certificate"),
    "refused": ("refused",),
    "timeout": ("timeout", "timed out"),
}
_SOURCES = {
    "base_url": N_("from the setting base_url"),
    "OLLAMA_HOST": N_("from the environment variable OLLAMA_HOST"),
    "default": N_("the default: neither base_url nor OLLAMA_HOST is set"),
}
_LISTEN = {
    "macos": N_('macOS: launchctl setenv OLLAMA_HOST "0.0.0.0", then restart the Ollama application'),
    "linux": N_(
        "Linux: sudo systemctl edit ollama.service, add under [Service] the line "
        'Environment="OLLAMA_HOST=0.0.0.0", then '
        "sudo systemctl daemon-reload && sudo systemctl restart ollama"
    ),
    "windows": N_(
        "Windows: quit Ollama from the task bar, run setx OLLAMA_HOST 0.0.0.0, then start it from a new "
        "terminal"
    ),
}
_EXAMPLES = {
    "vision": N_("Models with images: qwen3-vl and mistral-small3.2 (with tools too), gemma3, llava."),
    "tools": N_("Models with tools: qwen3-vl and mistral-small3.2 (with images too), qwen3, llama3.2."),
    "thinking": N_("Models with thinking: qwen3, deepseek-r1, gpt-oss. Or leave `think` unset."),
    "embedding": N_("Models for embeddings: nomic-embed-text, bge-m3, embeddinggemma."),
}
_TEXTS = {
    # What the server or a proxy refuses.
    "cloud-key": N_("Make a key at https://ollama.com/settings/keys and set api_key or OLLAMA_API_KEY."),
    "context": N_(
        'Raise context_size, shorten the prompt, or set context_overflow="trim" (drops the oldest turns) or '
        '"truncate" (the server cuts).'
    ),
    "memory": N_(
        "Choose a smaller model or quantization, lower context_size, or unload others: `ollama ps` lists "
        "them, `ollama stop {model}` unloads one."
    ),
    "no-right": N_(
        "The key may lack the right, or the server has cloud models switched off (OLLAMA_NO_CLOUD)."
    ),
    "no-route": N_(
        "Is base_url the address of an Ollama server, without a path of another service? An old server may "
        "lack this route: `ollama --version`."
    ),
    "proxy": N_(
        "This is the proxy {proxy}, not Ollama. Start it, or go past it: add {host} to NO_PROXY, or set "
        "trust_env=False."
    ),
    "proxy-key": N_(
        "Ollama itself asks for no key; the proxy in front of {host} does: set api_key or headers."
    ),
    "sign-in": N_("This model runs in Ollama's cloud: sign in at {signin_url} , or with `ollama signin`."),
    "trimmed": N_(
        "Nothing older is left to drop: raise context_size, or shorten the system message and the last "
        "message."
    ),
    "unknown-host": N_(
        "Set OLLAMA_HOST=0.0.0.0 on the server (and OLLAMA_ORIGINS), or use the address it expects."
    ),
    # Limits of time, by the phases of `Timeouts`.
    "look-up": N_("A look-up is given at most {seconds} s: see the server's log for what keeps it busy."),
    "pool": N_(
        "All max_connections={number} are in use: raise it or Timeouts(pool=…), or close streams that are "
        "not read to their end."
    ),
    "first_byte": N_("Loading a model takes its time: raise Timeouts(first_byte=…), or call warmup() first."),
    "idle": N_(
        "The server or the network stalled in mid-answer: see the server's log, or raise Timeouts(idle=…)."
    ),
    "answer": N_(
        "Loading a model and a long answer take their time: raise Timeouts(answer=…), stream the answer, or "
        "call warmup() first."
    ),
    "total": N_(
        "It bounds the whole call, with its queue, retries and batches: raise timeout= or Timeouts(total=…)."
    ),
    # Causes of a connection that failed.
    "broken": N_("See the server's log; a proxy or another program may answer at {host}:{port}."),
    "certificate": N_(
        "Name the CA of this certificate in `verify`, or have the server send its whole chain."
    ),
    "cloud": N_("Check this machine's internet connection and its proxy variables (HTTPS_PROXY)."),
    "container-loopback": N_(
        "This runs in a container, where localhost is the container itself. If Ollama runs outside it, use "
        "base_url {docker_url}\n"
        "or the host's own address: in the LAN (such as http://192.168.1.100:{port}), with Docker on Linux "
        "http://172.17.0.1:{port}\n"
        "On a Linux host, start the container with --add-host=host.docker.internal:host-gateway and let "
        "Ollama listen beyond 127.0.0.1 (OLLAMA_HOST=0.0.0.0)."
    ),
    "docker-host-unknown": N_(
        "On a Linux host, start the container with --add-host=host.docker.internal:host-gateway (Compose: "
        'extra_hosts: ["host.docker.internal:host-gateway"]) and let Ollama listen beyond 127.0.0.1 '
        "(OLLAMA_HOST=0.0.0.0)."
    ),
    "firewall": N_(
        "{host} did not answer: check the address, that the machine is on, and that its firewall lets port "
        "{port} through (Linux: sudo ufw allow {port}/tcp)."
    ),
    "https-on-plain-port": N_(
        "The TLS handshake failed. Ollama itself speaks plain HTTP: try {http_url}\n"
        "If a TLS proxy stands in front, check its certificate, or name its CA in `verify`."
    ),
    "listens-on-loopback": N_(
        "By default Ollama listens on 127.0.0.1 only. Let it listen beyond on {host}; it then answers "
        "everybody who reaches its port, without a password ({page}):"
    ),
    "name-unknown": N_(
        "The name {host} could not be resolved: check its spelling, or use the machine's IP address."
    ),
    "no-container": N_(
        "host.docker.internal exists only inside containers: on the host itself use localhost."
    ),
    "no-port": N_(
        "An http:// address without a port means port 80; Ollama's own port is 11434: try {http_url}"
    ),
    "not-running": N_(
        "Nothing answers on this machine: start Ollama with `ollama serve` (or its app), then check "
        "`curl {url}/api/version`."
    ),
    "pod-loopback": N_(
        "This runs in a Kubernetes pod, where localhost is the pod itself. If Ollama runs outside it, use "
        "the name of its Service, such as {service_url}"
    ),
    "service-unknown": N_(
        "The name {host} could not be resolved: check its spelling, or use the machine's IP address.\n"
        "The name of a Compose service resolves only for containers on the same network."
    ),
}


def advice(name: str, **values: object) -> str:
    """A text of the table in the current language, with these values filled in."""
    return _(_TEXTS[name]).format(**values)


def connection_advice(
    url: str, *, source: str, container: Container | None, platform: str, reason: str
) -> str:
    """Two to five lines about a connection to `url` that failed for `reason`.

    url: without credentials, as in `Address.url`; source: `Address.source`.
    container, platform: about the machine this runs on; platform as `sys.platform`.
    reason: a problem as in `connection_cause`, or a text that describes one.
    """
    lowered = reason.lower()
    marks = _PROBLEM_MARKS.items()
    problem = next((name for name, words in marks if any(word in lowered for word in words)), "unreachable")
    cause = connection_cause(url, problem, container)
    lines = [_("Tried {url} ({source}).").format(url=url, source=source_text(source))]
    lines.append(connection_remedy(cause, url, platform))
    if cause != "listens-on-loopback":
        look = _("To look closer: python -m ollama_dify doctor --base-url {url} (or docs/networking.md)")
        lines.append(look.format(url=url))
    return "\n".join(lines)


def connection_cause(url: str, problem: str, container: Container | None, *, is_wsl: bool = False) -> str:
    """Why a connection failed: a name that `connection_remedy` knows.

    problem: dns, tls, certificate, refused, timeout, unreachable or broken.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    is_local = is_loopback(host)
    if problem in ("tls", "certificate"):
        return "certificate" if problem == "certificate" else "https-on-plain-port"
    if is_ollama_cloud(host):
        return "cloud"
    if problem == "dns" and host == DOCKER_HOST:
        return "no-container" if container is None else "docker-host-unknown"
    if problem == "dns":
        return "name-unknown" if "." in host else "service-unknown"
    if is_local and container is not None:
        return "pod-loopback" if container == "kubernetes" else "container-loopback"
    if parts.scheme == "http" and parts.port is None:
        return "no-port"
    if is_local and not is_wsl:
        return "not-running"
    if is_local or problem == "refused":
        return "listens-on-loopback"
    return "broken" if problem == "broken" else "firewall"


def connection_remedy(cause: str, url: str, platform: str) -> str:
    """What to do about a cause, in one line or more; the commands of this machine's system come first."""
    parts = urlsplit(url)
    host, port, path = parts.hostname or "", parts.port or 11434, parts.path
    shown = f"[{host}]" if ":" in host else host
    is_the_host = cause == "listens-on-loopback" and (host == DOCKER_HOST or is_loopback(host))
    remedy = advice(
        cause,
        url=url,
        host=_("the host") if is_the_host else host,
        port=port,
        page=FAQ,
        http_url=f"http://{shown}:{11434 if port == 443 else port}{path}",
        docker_url=f"{parts.scheme}://{DOCKER_HOST}:{port}{path}",
        service_url=f"{parts.scheme}://ollama.default.svc:{port}{path}",
    )
    if cause != "listens-on-loopback":
        return remedy
    own = platform_name(platform)
    names = (own, *(name for name in _LISTEN if name != own))
    return "\n  ".join([remedy, *(_(_LISTEN[name]) for name in names)])


def source_text(source: str) -> str:
    """Where an address came from, in words."""
    return _(_SOURCES[source])


def platform_name(platform: str) -> str:
    """The plain name of a `sys.platform`; Linux for other Unixes."""
    return {"darwin": "macos", "win32": "windows", "cygwin": "windows"}.get(platform, "linux")


def model_missing_advice(model: str, available: Sequence[str]) -> str:
    """The closest names on the server, and the command that pulls the model if its name may be correct."""
    pull = _("Get it with: ollama pull {model}").format(model=shlex.quote(model))
    if not available:
        return _("The server has no models yet.") + "\n" + pull
    close, has_family = _closest_models(model, available)
    if not close:
        names = [*available[:_SHOWN_MODELS], *(["…"] if len(available) > _SHOWN_MODELS else [])]
        found = _("The server has {number} models, none with a similar name: {names}.")
        return found.format(number=len(available), names=", ".join(names)) + "\n" + pull
    found = _("Closest of the server's {number} models: {names}.")
    then = _(
        "If the name is misspelt, use one of these; other names are listed at https://ollama.com/library"
    )
    if has_family:
        then = _("Use one of these, or get it with: ollama pull {model}").format(model=shlex.quote(model))
    return found.format(number=len(available), names=", ".join(close)) + "\n" + then


def _closest_models(model: str, available: Sequence[str]) -> tuple[list[str], bool]:
    """Other tags of the same model, then similar names; and whether there are other tags."""
    by_name: dict[str, str] = {name.lower(): name for name in available}
    by_family = {name.partition(":")[0]: full for name, full in by_name.items()}
    family = model.lower().partition(":")[0]
    tags = [full for name, full in by_name.items() if name.partition(":")[0] == family]
    similar = [by_name[name] for name in difflib.get_close_matches(model.lower(), by_name, 3, 0.5)]
    similar += [by_family[name] for name in difflib.get_close_matches(family, by_family, 3, 0.6)]
    return list(dict.fromkeys([*tags, *similar]))[:_SHOWN_MODELS], bool(tags)


def capability_advice(model: str, capability: str, setting: str | None = None) -> str:
    """What to do about a model without `capability` (vision, tools, thinking … as `/api/show` names them).

    setting: the name of the setting that overrides the server.
    """
    line = _("Choose a model with the capability {capability}: `ollama show {model}` lists them.").format(
        capability=capability, model=model
    )
    lines = [line, *([_(_EXAMPLES[capability])] if capability in _EXAMPLES else [])]
    if setting is not None:
        lines.append(_("If you know better, set {setting}=True.").format(setting=setting))
    return "\n".join(lines)


def auth_advice(url: str, *, signin_url: str | None = None) -> str:
    """What to do about a 401: at ollama.com, a proxy, or a cloud model behind a local server."""
    if signin_url is not None:
        return advice("sign-in", signin_url=signin_url)
    if is_ollama_cloud(url):
        return advice("cloud-key")
    return advice("proxy-key", host=urlsplit(url).hostname or url)
