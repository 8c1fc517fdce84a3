"""What LangChain asks of each of our classes: how it is serialised, cached, traced, described, counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.load.serializable import Serializable
from pydantic import BaseModel

from ollama_dify import ChatSettings, ConnectionSettings, ModelInfo
from ollama_dify.adapter import ClientOwner

from .errors import langchain_errors

if TYPE_CHECKING:
    from langchain_core.language_models import LangSmithParams
    from langchain_core.language_models.model_profile import ModelProfile

__all__ = [
    "LangChainSerializable",
    "count_text",
    "model_profile",
    "on_event_loop",
    "settings_in_use",
    "settings_of_call",
    "token_ids",
    "tracing_params",
]

Encoder = Callable[[str], list[int]]


class LangChainSerializable(Serializable):
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
        return {name: plain(value) for name, value in values.items() if plain(value) is not value}


def plain(value: Any) -> Any:
    """A setting's value as JSON can hold it."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if value is None or isinstance(value, (str, int, float, list, dict)):
        return value
    return str(value)


def settings_in_use(model: ConnectionSettings, kind: type[ConnectionSettings]) -> dict[str, Any]:
    """Every setting of `kind` that has a value, without secrets: tells one model's answers from another's."""
    values = {
        name: plain(getattr(model, name))
        for name, field in kind.model_fields.items()
        if not field.exclude and getattr(model, name) is not None
    }
    return {**values, "base_url": model.address.url}


def tracing_params(
    model: ChatSettings, kind: Literal["chat", "llm"], stop: list[str] | None, call: Mapping[str, Any]
) -> LangSmithParams:
    """LangSmith's standard parameters of one call."""
    params: LangSmithParams = {
        "ls_provider": "ollama",
        "ls_model_type": kind,
        "ls_model_name": str(call.get("model") or model.model),
    }
    temperature = call.get("temperature", model.temperature)
    if isinstance(temperature, (int, float)):
        params["ls_temperature"] = float(temperature)
    limit = call.get("num_predict", call.get("max_tokens"))
    limit = limit if isinstance(limit, int) and limit > 0 else model.answer_limit
    if limit is not None:
        params["ls_max_tokens"] = limit
    words = stop or model.stop
    if words:
        params["ls_stop"] = list(words)
    return params


def model_profile(model: ChatSettings, known: ModelInfo | None = None) -> ModelProfile:
    """What is known of the model; what is not known is left out, and no request is sent.

    known: what the server told, if it was asked before.
    """
    vision = _known(model.vision_support, known, "vision")
    tools = False if model.mode == "completion" else _known(model.function_call_support, known, "tools")
    profile: ModelProfile = {
        "structured_output": True,
        "image_url_inputs": model.allow_image_urls and vision is True,
        "pdf_inputs": False,
        "audio_inputs": known is not None and known.can("audio") is True,
        "video_inputs": False,
        "image_outputs": False,
        "audio_outputs": False,
        "video_outputs": False,
    }
    if model.context_size is not None and model.answer_reserve is not None:
        profile["max_input_tokens"] = model.context_size - model.answer_reserve
    if model.answer_limit is not None:
        profile["max_output_tokens"] = model.answer_limit
    if vision is not None:
        profile["image_inputs"] = vision
    if tools is not None:
        profile["tool_calling"] = tools
        profile["tool_choice"] = tools
    if known is not None and known.can("thinking") is not None:
        profile["reasoning_output"] = known.can("thinking") is True
    return profile


def _known(setting: bool | None, known: ModelInfo | None, capability: str) -> bool | None:
    if setting is not None or known is None:
        return setting
    return known.can(capability)


def settings_of_call(stop: list[str] | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of one call in the settings' words."""
    call = {name: value for name, value in kwargs.items() if name != "stream"}
    if stop is not None:
        call["stop"] = stop
    if isinstance(call.get("format"), type):
        from .structured import schema_of  # rarely needed, and its parsers take long to import

        call["format"] = schema_of(call["format"])
    return call


def token_ids(model: ClientOwner, text: str, custom: Encoder | None) -> list[int]:
    """The ids of a text's tokens; `custom` is LangChain's `custom_get_token_ids`.

    Raises ConfigurationError for a model whose vocabulary the server does not show.
    """
    if custom is not None:
        return custom(text)
    with langchain_errors():
        return model.counter().token_ids(text)


def count_text(model: ClientOwner, text: str, custom: Encoder | None) -> int:
    """How many tokens a text has; an upper bound where the server shows no vocabulary."""
    if custom is not None:
        return len(custom(text))
    with langchain_errors():
        return model.counter().text(text).tokens


def on_event_loop() -> bool:
    """Whether waiting here would stop an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
