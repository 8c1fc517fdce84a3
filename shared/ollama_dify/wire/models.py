"""The server's answers about its models: /api/show, /api/tags, /api/ps, /api/version. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .responses import objects, wrong


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model's description from /api/show. `capabilities` is None if the server does not send them."""

    name: str
    capabilities: frozenset[str] | None
    context_length: int | None
    embedding_length: int | None
    family: str
    template: str
    digest: str | None
    raw: Mapping[str, Any] = field(repr=False)

    def can(self, capability: str) -> bool | None:
        """Whether the model can do this ("vision", "tools" …); None when the server does not say."""
        return None if self.capabilities is None else capability in self.capabilities


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A row of /api/tags. size: bytes."""

    name: str
    digest: str
    size: int
    family: str


@dataclass(frozen=True, slots=True)
class RunningModel:
    """A row of /api/ps. size, size_vram: bytes; context_length: tokens the model was loaded with."""

    name: str
    digest: str
    size: int
    size_vram: int
    context_length: int | None
    expires_at: str


def read_model_info(data: Any, name: str, digest: str | None = None) -> ModelInfo:
    """The answer of /api/show; capabilities that the server does not send are None."""
    if not isinstance(data, dict):
        raise wrong("a model description", data)
    facts = _part(data, "model_info")
    architecture = str(facts.get("general.architecture", ""))
    capabilities = data.get("capabilities")
    return ModelInfo(
        name=name,
        capabilities=frozenset(map(str, capabilities)) if isinstance(capabilities, list) else None,
        context_length=_number(facts, f"{architecture}.context_length"),
        embedding_length=_number(facts, f"{architecture}.embedding_length"),
        family=_text(_part(data, "details"), "family") or architecture,
        template=_text(data, "template"),
        digest=digest,
        raw=data,
    )


def read_local_models(data: Any) -> list[LocalModel]:
    """The rows of /api/tags."""
    return [LocalModel(*_file(row), family=_text(_part(row, "details"), "family")) for row in _rows(data)]


def read_running_models(data: Any) -> list[RunningModel]:
    """The rows of /api/ps."""
    return [
        RunningModel(
            *_file(row),
            size_vram=_number(row, "size_vram") or 0,
            context_length=_number(row, "context_length"),
            expires_at=_text(row, "expires_at"),
        )
        for row in _rows(data)
    ]


def read_version(data: Any) -> str:
    """The version text of /api/version."""
    version = data.get("version") if isinstance(data, dict) else None
    if not isinstance(version, str):
        raise wrong("`version`", version)
    return version


def _rows(data: Any) -> Sequence[Mapping[str, Any]]:
    if not isinstance(data, dict):
        raise wrong("a list of models", data)
    return objects(data.get("models"), "`models`")


def _file(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return _text(row, "name"), _text(row, "digest"), _number(row, "size") or 0


def _part(row: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = row.get(key)
    return value if isinstance(value, dict) else {}


def _text(row: Mapping[str, Any], key: str) -> str:
    return str(row.get(key) or "")


def _number(row: Mapping[str, Any], key: str) -> int | None:
    value = row.get(key)
    return value if type(value) is int and value > 0 else None
