"""What can be asked of a server: each method checks its arguments and gives the flow that does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from ..settings.model import ChatSettings, ConnectionSettings, EmbeddingSettings
from ..transport.network import Flow
from ..wire.messages import Message, Tool
from ..wire.requests import (
    Prompt,
    WireRequest,
    check_call,
    load_request,
    show_request,
)
from ..wire.responses import (
    ChatResult,
    EmbedResult,
    LocalModel,
    ModelInfo,
    RunningModel,
    read_local_models,
    read_model_info,
    read_running_models,
    read_version,
)
from . import session as flows
from .chat import ask, known_counter
from .request import Request
from .retry import quota_for
from .session import Context, Lookups, Stream

if TYPE_CHECKING:
    from ..tokens.tokenizer import TokenCount
    from .count import Counter
    from .embed import Kind, Progress

__all__ = ["Calls"]


class Calls:
    """The flows of one settings object, and what was looked up for it."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.settings = settings
        self._lookups = Lookups()
        self._url = settings.address.url

    def context(self, settings: ConnectionSettings | None = None) -> Context:
        url = self.settings.address.url
        if url != self._url:
            # Another server now: what the old one said no longer counts.
            self._lookups, self._url = Lookups(), url
        settings = self.settings if settings is None else settings
        return Context(settings.max_retries, quota_for(url), self._lookups)

    def ask(self, request: Request) -> Flow[ChatResult]:
        return ask(self.context(request.settings), request, flows.complete)

    def ask_stream(self, request: Request) -> Flow[Stream]:
        return ask(self.context(request.settings), request, flows.begin)

    def chat(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        tool_choice: str | None,
        call: Mapping[str, Any],
    ) -> Flow[ChatResult]:
        request = Request.chat(self._chat_settings(), messages, tools, tool_choice, call, streamed=False)
        return self.ask(request)

    def chat_stream(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        tool_choice: str | None,
        call: Mapping[str, Any],
    ) -> Flow[Stream]:
        request = Request.chat(self._chat_settings(), messages, tools, tool_choice, call, streamed=True)
        return self.ask_stream(request)

    def generate(self, prompt: str | Prompt, call: Mapping[str, Any]) -> Flow[ChatResult]:
        request = Request.generate(self._chat_settings(), prompt, call, streamed=False)
        return self.ask(request)

    def generate_stream(self, prompt: str | Prompt, call: Mapping[str, Any]) -> Flow[Stream]:
        request = Request.generate(self._chat_settings(), prompt, call, streamed=True)
        return self.ask_stream(request)

    def count_tokens(
        self, counted: str | Sequence[Message], tools: Sequence[Tool], call: Mapping[str, Any]
    ) -> Flow[TokenCount]:
        """Tokens of a text, or of a conversation's whole prompt."""
        if isinstance(counted, str):
            return self._count_text(counted)
        # Chats neither count nor embed: what does is imported by the calls that need it.
        from .count import count_conversation

        settings = check_call(self._chat_settings(), call)
        return count_conversation(self.context(settings), settings, counted, tools)

    def _count_text(self, text: str) -> Flow[TokenCount]:
        counter = yield from self.counter()
        return counter.embedding(text) if isinstance(self.settings, EmbeddingSettings) else counter.text(text)

    def counter(self) -> Flow[Counter]:
        from .count import load_counter

        counter = yield from load_counter(self.context(), self._model(None))
        self._warn()
        return counter

    def known_model(self) -> ModelInfo | None:
        """What the server said of the model, if it was asked already."""
        return flows.known_model(self.context(), self._model(None))

    def known_counter(self) -> Counter | None:
        return known_counter(self.context(), self._model(None))

    def warmup(self) -> Flow[ModelInfo]:
        """Look up the model, get its vocabulary, and have the server load it with these settings.

        The model may have been pulled anew under its name, so its digest is asked for again.
        """
        self.context().lookups.digests.clear()
        info = yield from self.model_info(None)
        yield from self.counter()
        if isinstance(self.settings, EmbeddingSettings):
            from .embed import embed

            yield from embed(self.context(), self.settings, ["warm up"], kind="document")
        else:
            yield from flows.fetch(self.context(), load_request(self._chat_settings()))
        return info

    def embed(self, texts: Sequence[str], kind: Kind | None, progress: Progress | None) -> Flow[EmbedResult]:
        from .embed import embed

        return embed(self.context(), self._embedding_settings(), texts, kind=kind, progress=progress)

    def embedding_fingerprint(self) -> Flow[str]:
        from .embed import embedding_fingerprint

        return embedding_fingerprint(self.context(), self._embedding_settings())

    def model_info(self, model: str | None) -> Flow[ModelInfo]:
        info = yield from flows.model_info(self.context(), self._model(model))
        self._warn()
        return info

    def _warn(self) -> None:
        """Say once where the settings and the model disagree, as far as that is known."""
        if isinstance(self.settings, ChatSettings):
            flows.warn_of_disagreement(self.context(), self.settings)

    def show(self, model: str | None, *, verbose: bool) -> Flow[dict[str, Any]]:
        request = show_request(self._model(model), verbose=verbose)
        shown: dict[str, Any] = yield from flows.fetch(self.context(), request)
        read_model_info(shown, self._model(model))  # raises for what is no description
        return shown

    def tags(self) -> Flow[list[LocalModel]]:
        return read_local_models((yield from flows.fetch(self.context(), WireRequest("GET", "/api/tags"))))

    def ps(self) -> Flow[list[RunningModel]]:
        return read_running_models((yield from flows.fetch(self.context(), WireRequest("GET", "/api/ps"))))

    def version(self) -> Flow[str]:
        return read_version((yield from flows.fetch(self.context(), WireRequest("GET", "/api/version"))))

    def _chat_settings(self) -> ChatSettings:
        if not isinstance(self.settings, ChatSettings):
            raise ConfigurationError(
                f"chat() and generate() need ChatSettings, not {type(self.settings).__name__}."
            )
        return self.settings

    def _embedding_settings(self) -> EmbeddingSettings:
        if not isinstance(self.settings, EmbeddingSettings):
            raise ConfigurationError(
                "embed() needs EmbeddingSettings; make the client from settings.for_embedding(model)."
            )
        return self.settings

    def _model(self, model: str | None) -> str:
        name = getattr(self.settings, "model", None) if model is None else model
        if not isinstance(name, str):
            raise ConfigurationError("Which model? Pass its name.")
        return name
