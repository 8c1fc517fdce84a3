"""The checks of a model: does it exist, do settings and memory fit; and its values for the form."""

from __future__ import annotations

import time
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from ..address import is_loopback
from ..advice import DOCKER_HOST, capability_advice, model_missing_advice
from ..client.session import full_name
from ..errors import OllamaError
from ..language import _
from ..settings import ChatSettings, EmbeddingSettings, ModelSettings
from ..wire.models import ModelInfo, RunningModel, read_local_models, read_model_info, read_running_models
from ..wire.server_errors import error_from_response
from .report import Check
from .server import Scene

_TYPES = {"llm": "llm", "embedding": "text-embedding", "rerank": "rerank"}
_LARGE = 8192
_LOOK_UP_S = 10.0
_LOAD_S = 300.0


def check_model(scene: Scene, settings: ModelSettings | None, *, load: bool) -> list[Check]:
    """Whether the server has the model, which settings contradict it, and whether it is in GPU memory.

    load: have the server load it and answer a ping, unless something is wrong already.
    """
    checks = _compare(scene, settings)
    if settings is None:
        return checks
    is_there, is_ready = checks[0].state == "ok", all(check.state != "fail" for check in checks)
    if load:
        skipped = Check("load", "skip", _("not checked"), model=settings.model)
        checks.append(_check_load(scene, settings) if is_ready else skipped)
    if is_there:
        checks += _check_memory(scene, settings.model)
    return checks


def _compare(scene: Scene, settings: ModelSettings | None) -> list[Check]:
    """Compare the settings with the server's description of the model."""
    name = "" if settings is None else settings.model
    failed = partial(Check, "model", "fail", model=name or None)
    tags = scene.ask("/api/tags", timeout_s=_LOOK_UP_S)
    try:
        models = read_local_models(tags.json())
    except OllamaError:
        fact = _("the server's list of models cannot be read ({status})").format(status=tags.status)
        return [failed(fact, cause="no-list")]
    if settings is None:
        fact = _("{number} models on the server; none was named").format(number=len(models))
        if models:
            return [Check("model", "ok", fact)]
        return [Check("model", "warn", fact, _("Get one: ollama pull llava"), "no-models")]
    found = next((model for model in models if model.name.lower() == full_name(name).lower()), None)
    if found is None:
        remedy = model_missing_advice(name, [model.name for model in models])
        return [failed(_("{model} is not on the server").format(model=name), remedy, "model-missing")]
    try:
        shown = scene.ask("/api/show", {"model": name}, timeout_s=_LOOK_UP_S)
        info = read_model_info(shown.json(), name, found.digest)
    except OllamaError as error:
        return [failed(f"{name}: {error.message}", error.hint, "no-description")]
    capabilities = sorted(info.capabilities or ())
    data = {"digest": found.digest, "size": found.size, "capabilities": capabilities}
    data |= {"context_length": info.context_length, "embedding_length": info.embedding_length}
    can = ", ".join(capabilities) or _("the server tells no capabilities")
    first = Check("model", "ok", f"{found.name}: {can}", data=data, model=name)
    return [first, _check_context(scene, settings, info), _check_capabilities(settings, info)]


def _check_context(scene: Scene, settings: ModelSettings, info: ModelInfo) -> Check:
    size, most = settings.context_size, info.context_length
    check = partial(Check, "context", model=settings.model)
    if most is None:
        fact = _("context_size={size}; the server does not tell the model's maximum").format(size=size)
        return check("ok", fact)
    fact = _("context_size={size}, the model takes up to {most}").format(size=size, most=most)
    # The default is more than some embedding models take.
    if size is not None and size > most and "context_size" in settings.model_fields_set:
        remedy = _("Set context_size={most} or less.").format(most=most)
        return check("fail", fact, remedy, "context-too-large")
    for loaded in (model.context_length for model in _loaded(scene, settings.model)):
        if size is not None and loaded is not None and loaded != size:
            fact += _("; loaded now with {loaded}").format(loaded=loaded)
            remedy = _(
                "The first call loads the model again. If several programs share it, give them the same "
                "context_size."
            )
            return check("warn", fact, remedy, "reload")
    return check("ok", fact)


def _loaded(scene: Scene, name: str) -> list[RunningModel]:
    try:
        running = read_running_models(scene.ask("/api/ps", timeout_s=_LOOK_UP_S).json())
    except OllamaError:
        return []
    return [model for model in running if model.name.lower() == full_name(name).lower()]


def _check_capabilities(settings: ModelSettings, info: ModelInfo) -> Check:
    """Capabilities that the settings claim and the server denies; for embeddings also the dimensions."""
    name, is_embedding = settings.model, isinstance(settings, EmbeddingSettings)
    check = partial(Check, "capabilities", model=name)
    claims = {"embedding": ""} if is_embedding else {}
    if isinstance(settings, ChatSettings):
        claims = {"vision": "vision_support=True"} if settings.vision_support else {}
        claims |= {"tools": "function_call_support=True"} if settings.function_call_support else {}
        claims |= {"thinking": "think"} if settings.think not in (None, False) else {}
        claims["completion"] = ""
    for capability, setting in claims.items():
        if info.can(capability) is False:
            fact = (
                _("{setting} is set, but {model} lacks {capability}")
                if setting
                else _("{model} lacks {capability}")
            )
            fact = fact.format(setting=setting, model=name, capability=capability)
            return check("fail", fact, capability_advice(name, capability), f"no-{capability}")
    if not isinstance(settings, EmbeddingSettings):
        return check("ok", _("the settings claim nothing that the model lacks"))
    length, wanted = info.embedding_length, settings.dimensions
    fact = _("vectors of {length} numbers").format(length="?" if length is None else length)
    if wanted is not None and length is not None and wanted > length:
        remedy = _("Set dimensions={length} or less, or leave it unset.").format(length=length)
        return check("fail", fact, remedy, "dimensions")
    return check("ok", fact)


def _check_memory(scene: Scene, name: str) -> list[Check]:
    """Whether a loaded model is in the GPU's memory; no check for a model that is not loaded."""
    checks = []
    for model in _loaded(scene, name):
        share = round(100 * model.size_vram / model.size) if model.size else 0
        fact = _("loaded, {share} % of it in GPU memory").format(share=share)
        check = Check("memory", "ok", fact, model=name)
        if 0 < model.size_vram < model.size:
            remedy = _("It is slow like this: lower context_size, or choose a smaller model.")
            check = Check("memory", "warn", fact, remedy, "spill", model=name)
        checks.append(check)
    return checks


def _check_load(scene: Scene, settings: ModelSettings) -> Check:
    """What Dify does on "Save": one `ping`, which loads the model."""
    check = partial(Check, "load", model=settings.model)
    options: dict[str, Any] = {} if settings.context_size is None else {"num_ctx": settings.context_size}
    body: dict[str, Any] = {"model": settings.model, "options": options}
    if isinstance(settings, EmbeddingSettings):
        path, body["input"] = "/api/embed", "ping"
    else:
        options["num_predict"], body["stream"] = 5, False
        if isinstance(settings, ChatSettings) and settings.mode == "completion":
            path, body["prompt"] = "/api/generate", "ping"
        else:
            path, body["messages"] = "/api/chat", [{"role": "user", "content": "ping"}]
    answer = scene.ask(path, body, timeout_s=_LOAD_S)
    seconds = round(answer.ms / 1000, 1)
    if answer.problem is not None:
        fact = _("no answer to a ping in {seconds} s").format(seconds=seconds)
        return check("fail", fact, _("See the server's log."), "load")
    if answer.status == 200:
        return check("ok", _("answered a ping in {seconds} s").format(seconds=seconds))
    error = error_from_response(
        answer.status, answer.headers, answer.body, url=scene.url, model=settings.model, now_s=time.time()
    )
    return check("fail", error.message, error.hint, "load")


def fill_form(info: ModelInfo, base_url: str, kind: str | None) -> tuple[dict[str, str], dict[str, str]]:
    """Values as Dify stores them, and notes about some of them, both by the form's variables.

    kind: llm, embedding or rerank; None: as the model's capabilities say.
    """
    if kind is None:
        kind = "embedding" if info.can("embedding") and not info.can("completion") else "llm"
    most, notes = info.context_length, {}
    size = str(4096 if most is None else most)
    values = {"model": info.name, "model_type": _TYPES[kind], "base_url": base_url, "api_key": ""}
    values["context_size"] = size
    if kind == "llm":
        values["mode"] = "chat" if info.can("completion") is not False else "completion"
        values["max_tokens"] = size
        values["vision_support"] = str(bool(info.can("vision"))).lower()
        values["function_call_support"] = str(bool(info.can("tools"))).lower()
    if is_loopback(base_url):
        parts = urlsplit(base_url)
        port = "" if parts.port is None else f":{parts.port}"
        there = parts._replace(netloc=DOCKER_HOST + port).geturl()
        notes["base_url"] = _("if Dify runs in Docker: {url}").format(url=there)
    if most is None:
        notes["context_size"] = _("the server does not tell the model's maximum")
    elif most > _LARGE:
        notes["context_size"] = _("the model's maximum; less, such as 8192, needs less memory")
    return values, notes
