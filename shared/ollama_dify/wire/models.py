"""What the server says of its models: /api/show, /api/tags, /api/ps, /api/version. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .json_reading import objects, wrong

__all__ = [
    "LocalModel",
    "ModelInfo",
    "RunningModel",
    "read_local_models",
    "read_model_info",
    "read_running_models",
    "read_version",
]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What /api/show says of a model. `capabilities` is None on servers that do not tell."""

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
    """What /api/show says; a server that tells no capabilities leaves them None."""
    if not isinstance(data, dict):
        raise wrong("a model description", data)
    facts = data.get("model_info")
    facts = facts if isinstance(facts, dict) else {}
    details = data.get("details")
    details = details if isinstance(details, dict) else {}
    architecture = str(facts.get("general.architecture", ""))
    capabilities = data.get("capabilities")

    def number(key: str) -> int | None:
        value = facts.get(f"{architecture}.{key}")
        return value if type(value) is int and value > 0 else None

    return ModelInfo(
        name=name,
        capabilities=frozenset(map(str, capabilities)) if isinstance(capabilities, list) else None,
        context_length=number("context_length"),
        embedding_length=number("embedding_length"),
        family=str(details.get("family") or architecture),
        template=str(data.get("template") or ""),
        digest=digest,
        raw=data,
    )


def _rows(data: Any) -> Sequence[Mapping[str, Any]]:
    if not isinstance(data, dict):
        raise wrong("a list of models", data)
    return objects(data.get("models"), "`models`")


def _number(row: Mapping[str, Any], key: str) -> int:
    value = row.get(key)
    return value if type(value) is int else 0


def _family(details: Any) -> str:
    return str(details.get("family") or "") if isinstance(details, dict) else ""


def read_local_models(data: Any) -> list[LocalModel]:
    """The rows of /api/tags."""
    return [
        LocalModel(
            str(row.get("name", "")),
            str(row.get("digest", "")),
            _number(row, "size"),
            _family(row.get("details")),
        )
        for row in _rows(data)
    ]


def read_running_models(data: Any) -> list[RunningModel]:
    """The rows of /api/ps."""
    return [
        RunningModel(
            str(row.get("name", "")),
            str(row.get("digest", "")),
            _number(row, "size"),
            _number(row, "size_vram"),
            _number(row, "context_length") or None,
            str(row.get("expires_at", "")),
        )
        for row in _rows(data)
    ]


def read_version(data: Any) -> str:
    """The version text of /api/version."""
    version = data.get("version") if isinstance(data, dict) else None
    if not isinstance(version, str):
        raise wrong("`version`", version)
    return version
