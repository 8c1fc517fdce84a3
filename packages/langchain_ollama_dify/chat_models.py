"""`ChatOllamaDify`: the settings as a LangChain chat model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompt_values import ChatPromptValue, PromptValue
from langchain_core.runnables import Runnable
from pydantic import Field
from typing_extensions import Self

from ollama_dify import ChatResult as CoreResult
from ollama_dify import ChatSettings, ModelInfo
from ollama_dify.adapter import ClientOwner, Request, on_event_loop, read_tool_choice

from .answers import StreamedAnswer, answer
from .convert import core_messages, with_media_types
from .errors import langchain_errors
from .serialization import LangChainModel, model_profile, settings_of_call
from .tools import ToolLike, core_tool, openai_tools

if TYPE_CHECKING:
    from langchain_core.language_models.model_profile import ModelProfile

__all__ = ["ChatOllamaDify"]


class ChatOllamaDify(LangChainModel, BaseChatModel, ClientOwner, ChatSettings):
    """A chat model of an Ollama server, with the settings of Dify's form.

    `ChatOllamaDify(model="llava", context_size=4096, temperature=0)`, or `from_settings(settings)`. Each
    setting can also be given per call (`invoke(…, temperature=1)`, `bind(…)`), except those that make the
    server load the model again. Errors are of the core's and of LangChain's class.
    """

    streaming: bool | None = Field(
        default=None,
        description="True streams inside invoke too, False never streams. Unset: as the method says.",
    )

    @property
    def _llm_type(self) -> str:
        return "chat-ollama-dify"

    def _resolve_model_profile(self) -> ModelProfile | None:
        return model_profile(self, self.known_model())

    def _changed(self, update: Mapping[str, Any]) -> Self:
        made = super()._changed(update)
        if "profile" not in update:
            known = self.known_model()
            if self.profile == model_profile(self, known):
                made.__dict__["profile"] = model_profile(made, known)
        return made

    def _convert_input(self, model_input: LanguageModelInput) -> PromptValue:
        messages = super()._convert_input(model_input).to_messages()
        return ChatPromptValue(messages=[*map(with_media_types, messages)])

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with langchain_errors():
            return _result(self.client.ask(self._request(messages, stop, kwargs)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with langchain_errors():
            request = await self._off_loop(partial(self._request, messages, stop, kwargs), kwargs)
            return _result(await self.async_client.ask(request))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        answered = StreamedAnswer()
        with langchain_errors():
            request = self._request(messages, stop, kwargs, streamed=True)
            with self.client.ask_stream(request) as stream:
                for chunk in stream:
                    yield answered.chunk(chunk)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        answered = StreamedAnswer()
        with langchain_errors():
            read = partial(self._request, messages, stop, kwargs, streamed=True)
            request = await self._off_loop(read, kwargs)
            async with self.async_client.ask_stream(request) as stream:
                async for chunk in stream:
                    yield answered.chunk(chunk)

    def _request(
        self,
        messages: Sequence[BaseMessage],
        stop: list[str] | None,
        kwargs: Mapping[str, Any],
        *,
        streamed: bool = False,
    ) -> Request:
        call = settings_of_call(stop, kwargs)
        tools = [core_tool(tool) for tool in call.pop("tools", None) or ()]
        choice = read_tool_choice(call.pop("tool_choice", None), [tool.name for tool in tools])
        read = partial(core_messages, messages)
        return Request.of_call(self, read, call, tools=tools, tool_choice=choice, streamed=streamed)

    def bind_tools(
        self,
        tools: Sequence[ToolLike],
        *,
        tool_choice: Any = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools it may call: functions, pydantic classes, TypedDicts, BaseTools or dicts.

        tool_choice: "auto", "none", "any" ("required", True), a tool's name, or another provider's dict for
        one of these. strict: narrow the schemas as OpenAI's strict mode does. Raises ConfigurationError for
        a choice that names no tool.
        """
        bound = openai_tools(tools, strict=strict)
        choice = read_tool_choice(tool_choice, [core_tool(tool).name for tool in bound])
        if choice is not None:
            kwargs["tool_choice"] = choice
        return self.bind(tools=bound, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: Literal["json_schema", "json_mode", "function_calling"] = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        repair: bool = False,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """The model, answering with objects of a schema: a pydantic class, a TypedDict, a JSON schema, an
        Enum, or a type such as `list[int]`.

        method: "json_schema" sends the schema as `format`; "json_mode" only asks for JSON, so the prompt must
        describe it; "function_calling" forces a call of a tool with this schema.
        include_raw: return `{"raw", "parsed", "parsing_error"}` instead of raising.
        repair: after an invalid answer, ask once more with that answer and what is wrong with it, and with
            the schema if the server ignored it; streamed, the object comes once, at the end.
        """
        # Imported here, because most programs do not need its parsers.
        from .structured import structured_output

        return structured_output(
            self,
            schema,
            method=method,
            include_raw=include_raw,
            strict=strict,
            repair=repair,
            call=kwargs,
        )

    def warmup(self) -> ModelInfo:
        """Look the model up, get its vocabulary and have the server load it; `profile` then knows it."""
        with langchain_errors():
            return self._described(super().warmup())

    async def awarmup(self) -> ModelInfo:
        """The async twin of `warmup`."""
        with langchain_errors():
            return self._described(await super().awarmup())

    def _described(self, info: ModelInfo) -> ModelInfo:
        self.profile = {**(self.profile or {}), **model_profile(self, self.known_model())}
        return info

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[ToolLike] | None = None
    ) -> int:
        """Tokens of a conversation, the model's chat template included.

        Exact if the server renders the prompt; an upper bound for images, and on an event loop, which a
        request would block (there, an estimate from bytes before `await model.awarmup()`).
        """
        with langchain_errors():
            asked = core_messages(messages, self)
            given = [core_tool(tool) for tool in tools or ()]
            if on_event_loop():
                return self.counter().bound(asked, given).tokens
            return self.client.count_tokens(asked, tools=given).tokens


def _result(result: CoreResult) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=answer(result))])
