"""What LangChain asks of each of our classes: how it is serialised, cached, traced, described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.load.serializable import Serializable
from pydantic import BaseModel

from ollama_dify import ChatSettings, ConnectionSettings

__all__ = ["Citizen", "model_profile", "tracing_params"]


class Citizen(Serializable):
    """Serialisable by `dumpd` and `load`, without secrets. Mixed in before the settings."""

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Whether `dumpd` gives more than a name: it does."""
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        """The key is written as the name of its environment variable."""
        return {"api_key": "OLLAMA_API_KEY"}

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """Settings whose values JSON cannot hold as they are."""
        values = {name: getattr(self, name, None) for name in ("timeout", "allow_image_paths")}
        return {
            name: plain(value) for name, value in values.items() if value is not None and plain(value) is not value
        }

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        # LangChain keeps what `dumpd` gave, and makes cache keys of it.
        self.__dict__.pop("_serialized", None)


def plain(value: Any) -> Any:
    """A setting's value as JSON can hold it."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if value is None or isinstance(value, (str, int, float, list, dict)):
        return value
    return str(value)


def settings_in_use(model: ConnectionSettings, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting that has a value, without secrets: tells one model's answers from another's."""
    values = {
        name: plain(getattr(model, name))
        for name, field in fields.items()
        if not field.exclude and getattr(model, name) is not None
    }
    return {**values, "base_url": model.address.url}
