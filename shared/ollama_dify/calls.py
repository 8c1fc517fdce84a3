"""What can be asked of a server: each method checks its arguments and gives the flow that does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import embedding, flows
from .errors import ConfigurationError
from .flows import Context, Flow, Lookups, Stream
from .messages import Message, Tool
from .requests import (
    Prompt,
    WireRequest,
    chat_request,
    check_call,
    generate_request,
    show_request,
)
from .responses import (
    ChatResult,
    EmbedResult,
    LocalModel,
    ModelInfo,
    RunningModel,
    read_local_models,
    read_running_models,
    read_version,
)
from .retry import RetryQuota
from .settings import ChatSettings, ConnectionSettings, EmbeddingSettings

__all__ = ["Calls"]


class Calls:
    """The flows of one settings object, and what was looked up for it."""

    def __init__(self, settings: ConnectionSettings, quota: RetryQuota) -> None:
        self.settings = settings
        self._quota = quota
        self._lookups = Lookups()

    def context(self, settings: ConnectionSettings | None = None) -> Context:
        return Context((settings or self.settings).max_retries, self._quota, self._lookups)

    def chat(
        self, messages: Sequence[Message], tools: Sequence[Tool], call: Mapping[str, Any]
    ) -> Flow[ChatResult]:
        settings = check_call(self._chat_settings(), call)
        request = chat_request(settings, messages, tools=tools)
        return self._complete(settings, request, any(message.images for message in messages), bool(tools))

    def chat_stream(
        self, messages: Sequence[Message], tools: Sequence[Tool], call: Mapping[str, Any]
    ) -> Flow[Stream]:
        settings = check_call(self._chat_settings(), call)
        request = chat_request(settings, messages, tools=tools, streamed=True)
        return self._begin(settings, request, any(message.images for message in messages), bool(tools))

    def generate(self, prompt: str | Prompt, call: Mapping[str, Any]) -> Flow[ChatResult]:
        settings = check_call(self._chat_settings(), call)
        prompt = Prompt(prompt) if isinstance(prompt, str) else prompt
        request = generate_request(settings, prompt)
        return self._complete(settings, request, bool(prompt.images), False)

    def generate_stream(self, prompt: str | Prompt, call: Mapping[str, Any]) -> Flow[Stream]:
        settings = check_call(self._chat_settings(), call)
        prompt = Prompt(prompt) if isinstance(prompt, str) else prompt
        request = generate_request(settings, prompt, streamed=True)
        return self._begin(settings, request, bool(prompt.images), False)

    def embed(self, texts: Sequence[str]) -> Flow[EmbedResult]:
        if not isinstance(self.settings, EmbeddingSettings):
            raise ConfigurationError(
                "embed() needs EmbeddingSettings; make the client from settings.for_embedding(model)."
            )
        return embedding.embed(self.context(), self.settings, texts)

    def model_info(self, model: str | None) -> Flow[ModelInfo]:
        return flows.model_info(self.context(), self._model(model))

    def show(self, model: str | None, *, verbose: bool) -> Flow[dict[str, Any]]:
        return flows.fetch(self.context(), show_request(self._model(model), verbose=verbose))

    def tags(self) -> Flow[list[LocalModel]]:
        return read_local_models((yield from flows.fetch(self.context(), WireRequest("GET", "/api/tags"))))

    def ps(self) -> Flow[list[RunningModel]]:
        return read_running_models((yield from flows.fetch(self.context(), WireRequest("GET", "/api/ps"))))

    def version(self) -> Flow[str]:
        return read_version((yield from flows.fetch(self.context(), WireRequest("GET", "/api/version"))))

    def _complete(
        self, settings: ChatSettings, request: WireRequest, images: bool, tools: bool
    ) -> Flow[ChatResult]:
        yield from self._check_capabilities(settings, images, tools)
        return (yield from flows.complete(self.context(settings), request))

    def _begin(self, settings: ChatSettings, request: WireRequest, images: bool, tools: bool) -> Flow[Stream]:
        yield from self._check_capabilities(settings, images, tools)
        return (yield from flows.begin(self.context(settings), request))

    def _check_capabilities(self, settings: ChatSettings, images: bool, tools: bool) -> Flow[None]:
        """Ask the server about what the settings leave open, when it comes up."""
        context = self.context(settings)
        if images and settings.vision_support is None:
            yield from flows.check_capability(context, settings.model, "vision", "vision_support")
        if tools and settings.function_call_support is None:
            yield from flows.check_capability(context, settings.model, "tools", "function_call_support")

    def _chat_settings(self) -> ChatSettings:
        if not isinstance(self.settings, ChatSettings):
            raise ConfigurationError(
                f"chat() and generate() need ChatSettings, not {type(self.settings).__name__}."
            )
        return self.settings

    def _model(self, model: str | None) -> str:
        name = getattr(self.settings, "model", None) if model is None else model
        if not isinstance(name, str):
            raise ConfigurationError("Which model? Pass its name.")
        return name
