"""The checks of a model: is it there, do the settings fit it, does it fit into the memory."""

from __future__ import annotations

import time
from typing import Any

from ..advice import capability_advice, model_missing_advice
from ..errors import OllamaError
from ..language import _
from ..settings.model import ChatSettings, EmbeddingSettings, ModelSettings
from ..wire.models import ModelInfo, RunningModel, read_local_models, read_model_info, read_running_models
from ..wire.server_errors import error_from_response
from .report import Check
from .server import Scene

__all__ = ["check_load", "check_memory", "check_model"]

_LOAD_S = 300.0


def check_model(scene: Scene, settings: ModelSettings | None) -> list[Check]:
    """Whether the server has the model, and what of the settings it contradicts."""
    tags = scene.ask("/api/tags")
    try:
        models = read_local_models(tags.json())
    except OllamaError:
        fact = _("the server's list of models cannot be read ({status})").format(status=tags.status)
        return [Check("model", "fail", fact, None, "no-list")]
    if settings is None:
        fact = _("{number} models on the server; none was named").format(number=len(models))
        if models:
            return [Check("model", "ok", fact)]
        return [Check("model", "warn", fact, _("Get one: ollama pull llava"), "no-models")]
    name = settings.model
    full = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
    found = next((model for model in models if model.name.lower() == full.lower()), None)
    if found is None:
        remedy = model_missing_advice(name, [model.name for model in models])
        fact = _("{model} is not on the server").format(model=name)
        return [Check("model", "fail", fact, remedy, "model-missing", about=name)]
    try:
        info = read_model_info(scene.ask("/api/show", {"model": name}).json(), name, found.digest)
    except OllamaError as error:
        return [Check("model", "fail", f"{name}: {error.message}", error.hint, "no-description", about=name)]
    data = {"digest": found.digest, "size": found.size, "capabilities": sorted(info.capabilities or ())}
    data |= {"context_length": info.context_length, "embedding_length": info.embedding_length}
    can = ", ".join(sorted(info.capabilities or ())) or _("the server tells no capabilities")
    first = Check("model", "ok", f"{found.name}: {can}", data=data, about=name)
    return [
        first,
        _check_context(scene, settings, info),
        _check_capabilities(settings, info),
    ]


def _check_context(scene: Scene, settings: ModelSettings, info: ModelInfo) -> Check:
    size, most, name = settings.context_size, info.context_length, settings.model
    if most is None:
        fact = _("context_size={size}; the server does not tell the model's maximum").format(size=size)
        return Check("context", "ok", fact, about=name)
    fact = _("context_size={size}, the model takes up to {most}").format(size=size, most=most)
    is_chosen = (
        "context_size" in settings.model_fields_set
    )  # the default is more than some embedding models take
    if size is not None and size > most and is_chosen:
        remedy = _("Set context_size={most} or less.").format(most=most)
        return Check("context", "fail", fact, remedy, "context-too-large", about=name)
    for model in _loaded(scene, info.name):
        loaded = model.context_length
        if size is not None and loaded is not None and loaded != size:
            fact += _("; loaded now with {loaded}").format(loaded=loaded)
            remedy = _(
                "The first call loads the model again. If several programs share it, give them the same "
                "context_size."
            )
            return Check("context", "warn", fact, remedy, "reload", about=name)
    return Check("context", "ok", fact, about=name)


def _loaded(scene: Scene, name: str) -> list[RunningModel]:
    try:
        running = read_running_models(scene.ask("/api/ps").json())
    except OllamaError:
        return []
    full = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
    return [model for model in running if model.name.lower() == full.lower()]


def _check_capabilities(settings: ModelSettings, info: ModelInfo) -> Check:
    """What the settings claim and the server denies."""
    name = settings.model
    claims: list[tuple[str, str, bool]] = []
    if isinstance(settings, ChatSettings):
        claims = [
            ("vision_support=True", "vision", settings.vision_support is True),
            ("function_call_support=True", "tools", settings.function_call_support is True),
            ("think", "thinking", settings.think not in (None, False)),
            ("mode=chat", "completion", True),
        ]
    elif isinstance(settings, EmbeddingSettings):
        claims = [("", "embedding", True)]
    for setting, capability, is_claimed in claims:
        if is_claimed and info.can(capability) is False:
            remedy = capability_advice(name, capability)
            if setting in ("vision_support=True", "function_call_support=True", "think"):
                fact = _("{setting} is set, but {model} lacks {capability}").format(
                    setting=setting, model=name, capability=capability
                )
            else:
                fact = _("{model} lacks {capability}").format(model=name, capability=capability)
            return Check("capabilities", "fail", fact, remedy, f"no-{capability}", about=name)
    if isinstance(settings, EmbeddingSettings):
        return _check_dimensions(settings, info)
    return Check("capabilities", "ok", _("the settings claim nothing that the model lacks"), about=name)


def _check_dimensions(settings: EmbeddingSettings, info: ModelInfo) -> Check:
    length, wanted = info.embedding_length, settings.dimensions
    fact = _("vectors of {length} numbers").format(length="?" if length is None else length)
    if wanted is not None and length is not None and wanted > length:
        remedy = _("Set dimensions={length} or less, or leave it unset.").format(length=length)
        return Check("capabilities", "fail", fact, remedy, "dimensions", about=settings.model)
    return Check("capabilities", "ok", fact, about=settings.model)


def check_memory(scene: Scene, settings: ModelSettings) -> list[Check]:
    """Whether a loaded model lies in the GPU's memory; nothing is said of one that is not loaded."""
    checks = []
    for model in _loaded(scene, settings.model):
        share = round(100 * model.size_vram / model.size) if model.size else 0
        fact = _("loaded, {share} % of it in GPU memory").format(share=share)
        if 0 < model.size_vram < model.size:
            remedy = _("It is slow like this: lower context_size, or choose a smaller model.")
            checks.append(Check("memory", "warn", fact, remedy, "spill", about=settings.model))
        else:
            checks.append(Check("memory", "ok", fact, about=settings.model))
    return checks


def check_load(scene: Scene, settings: ModelSettings) -> Check:
    """What Dify does on "Save": one `ping`, which loads the model."""
    options: dict[str, Any] = {} if settings.context_size is None else {"num_ctx": settings.context_size}
    body: dict[str, Any] = {"model": settings.model}
    if isinstance(settings, EmbeddingSettings):
        path, body = "/api/embed", {**body, "input": "ping", "options": options}
    else:
        body |= {"stream": False, "options": {**options, "num_predict": 5}}
        if isinstance(settings, ChatSettings) and settings.mode == "completion":
            path, body = "/api/generate", {**body, "prompt": "ping"}
        else:
            path, body = "/api/chat", {**body, "messages": [{"role": "user", "content": "ping"}]}
    answer = scene.ask(path, body, timeout_s=_LOAD_S)
    name = settings.model
    if answer.problem is not None:
        fact = _("no answer to a ping in {seconds} s").format(seconds=round(answer.ms / 1000))
        return Check("load", "fail", fact, _("See the server's log."), "load", about=name)
    if answer.status != 200:
        error = error_from_response(
            answer.status, answer.headers, answer.body, url=scene.url, model=name, now_s=time.time()
        )
        return Check("load", "fail", error.message, error.hint, "load", about=name)
    fact = _("answered a ping in {seconds} s").format(seconds=round(answer.ms / 1000, 1))
    return Check("load", "ok", fact, about=name)
