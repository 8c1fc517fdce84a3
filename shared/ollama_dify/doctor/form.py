"""`form`: what to type into Dify's form for a model, read from the server."""

from __future__ import annotations

from ..address import is_loopback
from ..advice import DOCKER_HOST
from ..language import _
from ..wire.models import ModelInfo

__all__ = ["fill_form"]

TYPES = {"llm": "llm", "embedding": "text-embedding", "rerank": "rerank"}
_LARGE = 8192


def fill_form(info: ModelInfo, base_url: str, kind: str | None) -> tuple[dict[str, str], dict[str, str]]:
    """Values as Dify stores them, and what to know about some, both by the form's variables.

    kind: llm, embedding or rerank; None: as the model's capabilities say.
    """
    if kind is None:
        kind = "embedding" if info.can("embedding") and not info.can("completion") else "llm"
    most, notes = info.context_length, {}
    size = str(4096 if most is None else most)
    values = {"model": info.name, "model_type": TYPES[kind], "base_url": base_url, "api_key": ""}
    values["context_size"] = size
    if kind == "llm":
        values["mode"] = "chat" if info.can("completion") is not False else "completion"
        values["max_tokens"] = size
        values["vision_support"] = str(bool(info.can("vision"))).lower()
        values["function_call_support"] = str(bool(info.can("tools"))).lower()
    if is_loopback(base_url):
        there = f"http://{DOCKER_HOST}:{base_url.rpartition(':')[2]}"
        notes["base_url"] = _("if Dify runs in Docker: {url}").format(url=there)
    if most is None:
        notes["context_size"] = _("the server does not tell the model's maximum")
    elif most > _LARGE:
        notes["context_size"] = _("the model's maximum; less, such as 8192, needs less memory")
    return values, notes
