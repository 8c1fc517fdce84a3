"""`form`: what to type into Dify's form for a model, as its labels say, read from the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..address import is_loopback
from ..advice import DOCKER_HOST
from ..language import _, current_language
from ..settings.dify_form import FORM_FIELDS, FormField
from ..wire.models import ModelInfo

__all__ = ["FilledForm", "fill_form"]

TYPES: Mapping[str, str] = {"llm": "llm", "embedding": "text-embedding", "rerank": "rerank"}
_LARGE = 8192


@dataclass(frozen=True, slots=True)
class FilledForm:
    """values: by the form's variables, as stored. notes: what to know about a value."""

    model_type: str
    values: Mapping[str, str]
    notes: Mapping[str, str] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, str, str]]:
        """Label, value as the form shows it, note; in the language in force."""
        fields = [one for one in FORM_FIELDS if one.variable in self.values]
        return [
            (
                one.labels[current_language()],
                _shown(one, self.values[one.variable]),
                self.notes.get(one.variable, ""),
            )
            for one in fields
        ]

    def credentials(self) -> dict[str, str]:
        """The form as Dify stores it."""
        return {name: value for name, value in self.values.items() if name not in ("model", "model_type")}


def _shown(one: FormField, value: str) -> str:
    names = {stored: labels[current_language()] for stored, labels in one.options}
    return names.get(value, value)


def fill_form(info: ModelInfo, base_url: str, kind: str | None) -> FilledForm:
    """The form of a model. kind: llm, embedding or rerank; None: as the model's capabilities say."""
    if kind is None:
        kind = "embedding" if info.can("embedding") and not info.can("completion") else "llm"
    values = {"model": info.name, "model_type": TYPES[kind], "base_url": base_url, "api_key": ""}
    notes = {"base_url": ""}
    if is_loopback(base_url):
        notes["base_url"] = _("if Dify runs in Docker: {url}").format(
            url=f"http://{DOCKER_HOST}:{base_url.rpartition(':')[2]}"
        )
    most = info.context_length
    size = 4096 if most is None else most
    if most is None:
        notes["context_size"] = _("the server does not tell the model's maximum")
    elif most > _LARGE:
        notes["context_size"] = _("the model's maximum; less, such as 8192, needs less memory")
    values["context_size"] = str(size)
    if kind == "llm":
        values["mode"] = "chat" if info.can("completion") is not False else "completion"
        values["max_tokens"] = str(size)
        values["vision_support"] = str(bool(info.can("vision"))).lower()
        values["function_call_support"] = str(bool(info.can("tools"))).lower()
    return FilledForm(TYPES[kind], values, {name: note for name, note in notes.items() if note})
