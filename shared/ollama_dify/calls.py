"""What can be asked of a server: each method checks its arguments and gives the flow that does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from .streaming import ChatDecoder, ChunkFilter
from .think_tags import ThinkTags
from .tool_choice import ForcedCalls, ToolPlan, plan_tools

__all__ = ["Calls"]


@dataclass(frozen=True, slots=True)
class _Question:
    """A checked request for an answer, and how to read that."""

    settings: ChatSettings
    request: WireRequest
    images: bool
    plan: ToolPlan = field(default_factory=ToolPlan)

    def decoder(self) -> ChatDecoder:
        filters: list[ChunkFilter] = []
        if self.plan.forced:
            filters.append(ForcedCalls(self.plan))
        elif self.settings.format is None:
            filters.append(ThinkTags())
        return ChatDecoder(
            generated=self.request.path == "/api/generate", model=self.settings.model, filters=filters
        )


class Calls:
    """The flows of one settings object, and what was looked up for it."""

    def __init__(self, settings: ConnectionSettings, quota: RetryQuota) -> None:
        self.settings = settings
        self._quota = quota
        self._lookups = Lookups()

    def context(self, settings: ConnectionSettings | None = None) -> Context:
        return Context((settings or self.settings).max_retries, self._quota, self._lookups)

    def chat(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        tool_choice: str | None,
        call: Mapping[str, Any],
    ) -> Flow[ChatResult]:
        asked = self._chat_question(messages, tools, tool_choice, call, streamed=False)
        return self._complete(asked)

    def chat_stream(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        tool_choice: str | None,
        call: Mapping[str, Any],
    ) -> Flow[Stream]:
        asked = self._chat_question(messages, tools, tool_choice, call, streamed=True)
        return self._begin(asked)

    def generate(self, prompt: str | Prompt, call: Mapping[str, Any]) -> Flow[ChatResult]:
        return self._complete(self._prompt_question(prompt, call, streamed=False))

    def generate_stream(self, prompt: str | Prompt, call: Mapping[str, Any]) -> Flow[Stream]:
        return self._begin(self._prompt_question(prompt, call, streamed=True))

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

    def _chat_question(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        tool_choice: str | None,
        call: Mapping[str, Any],
        *,
        streamed: bool,
    ) -> _Question:
        settings = check_call(self._chat_settings(), call)
        plan = plan_tools(tools, tool_choice)
        if plan.forced:
            if settings.format is not None:
                raise ConfigurationError(
                    f"tool_choice={tool_choice!r} and format= exclude each other: both say what the answer "
                    "is. Leave one out."
                )
            settings = check_call(settings, {"format": plan.format})
        request = chat_request(settings, messages, tools=plan.tools, streamed=streamed)
        images = any(message.images for message in messages)
        return _Question(settings, request, images, plan)

    def _prompt_question(self, prompt: str | Prompt, call: Mapping[str, Any], *, streamed: bool) -> _Question:
        settings = check_call(self._chat_settings(), call)
        prompt = Prompt(prompt) if isinstance(prompt, str) else prompt
        request = generate_request(settings, prompt, streamed=streamed)
        return _Question(settings, request, bool(prompt.images))

    def _complete(self, asked: _Question) -> Flow[ChatResult]:
        context = self.context(asked.settings)
        yield from self._check_capabilities(context, asked)
        return (yield from flows.complete(context, asked.request, asked.decoder))

    def _begin(self, asked: _Question) -> Flow[Stream]:
        context = self.context(asked.settings)
        yield from self._check_capabilities(context, asked)
        return (yield from flows.begin(context, asked.request, asked.decoder))

    def _check_capabilities(self, context: Context, asked: _Question) -> Flow[None]:
        """Ask the server about what the settings leave open, when it comes up."""
        settings = asked.settings
        if asked.images and settings.vision_support is None:
            yield from flows.check_capability(context, settings.model, "vision", "vision_support")
        if asked.plan.tools and settings.function_call_support is None:
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
