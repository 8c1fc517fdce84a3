"""LangChain's interface that our classes share: serialisation, caching, tracing, profile, token counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from langchain_core.load.serializable import Serializable
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from ollama_dify import ChatSettings, ModelInfo
from ollama_dify.adapter import ClientOwner

from .errors import langchain_errors

if TYPE_CHECKING:
    from langchain_core.language_models import BaseLanguageModel, LangSmithParams
    from langchain_core.language_models.model_profile import ModelProfile

    class _Model(BaseLanguageModel[Any], ClientOwner, ChatSettings): ...


__all__ = ["LangChainModel", "LangChainSerializable", "model_profile", "settings_of_call"]

_IDENTIFYING = [name for name, field in ChatSettings.model_fields.items() if not field.exclude]


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
        return {
            name: to_jsonable_python(value)
            for name, value in values.items()
            if isinstance(value, (BaseModel, Path))
        }


class LangChainModel(LangChainSerializable):
    """Methods that chat and completion models share. Mixed in before LangChain's own class."""

    _traced_as: ClassVar[Literal["chat", "llm"]] = "chat"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Every setting that has a value, without secrets: identifies the model in caches and traces."""
        values = {
            name: to_jsonable_python(value, fallback=str)
            for name in _IDENTIFYING
            if (value := getattr(self, name)) is not None
        }
        return {**values, "base_url": cast("_Model", self).address.url}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        """LangSmith's standard parameters of one call."""
        model = cast("_Model", self)
        params: LangSmithParams = {
            "ls_provider": "ollama",
            "ls_model_type": self._traced_as,
            "ls_model_name": str(kwargs.get("model") or model.model),
        }
        temperature = kwargs.get("temperature", model.temperature)
        if isinstance(temperature, (int, float)):
            params["ls_temperature"] = float(temperature)
        limit = kwargs.get("num_predict", kwargs.get("max_tokens"))
        limit = limit if isinstance(limit, int) and limit > 0 else model.answer_limit
        if limit is not None:
            params["ls_max_tokens"] = limit
        words = stop or model.stop
        if words:
            params["ls_stop"] = list(words)
        return params

    def get_token_ids(self, text: str) -> list[int]:
        """The model's own tokens of a text, or those of `custom_get_token_ids`.

        Raises ConfigurationError for a model whose vocabulary the server does not show.
        """
        model = cast("_Model", self)
        if model.custom_get_token_ids is not None:
            return model.custom_get_token_ids(text)
        with langchain_errors():
            return model.counter().token_ids(text)

    def get_num_tokens(self, text: str) -> int:
        """How many tokens a text has; an upper bound where the server shows no vocabulary."""
        model = cast("_Model", self)
        if model.custom_get_token_ids is not None:
            return len(model.custom_get_token_ids(text))
        with langchain_errors():
            return model.counter().text(text).tokens


def model_profile(model: ChatSettings, known: ModelInfo | None = None) -> ModelProfile:
    """The known facts about the model; unknown ones are left out, and no request is sent.

    known: the server's information, if it was asked before.
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
    """The arguments of one call by the names of the settings."""
    call = {name: value for name, value in kwargs.items() if name != "stream"}
    if stop is not None:
        call["stop"] = stop
    if isinstance(call.get("format"), type):
        from .structured import schema_of  # rarely needed, and its parsers take long to import

        call["format"] = schema_of(call["format"])
    return call
