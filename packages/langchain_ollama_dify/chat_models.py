"""`ChatOllamaDify`: the settings as a LangChain chat model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import Field, field_validator
from typing_extensions import Self

from ollama_dify import (
    AsyncChatStream,
    CapabilityError,
    ChatSettings,
    ChatStream,
    ClientOwner,
    ConfigurationError,
    Message,
    ModelInfo,
    Prompt,
    Tool,
)
from ollama_dify import ChatResult as CoreResult

from .answers import StreamedAnswer, answer
from .citizen import Citizen, model_profile, settings_in_use, tracing_params
from .convert import PROMPT_ARGUMENTS, core_messages, core_prompt
from .counting import count_text, on_event_loop, token_ids
from .errors import langchain_errors
from .formats import answer_format, response_format
from .images import image_settings
from .tools import ToolLike, core_tool, core_tool_choice, openai_tools

if TYPE_CHECKING:
    from langchain_core.language_models import LangSmithParams
    from langchain_core.language_models.model_profile import ModelProfile

__all__ = ["ChatOllamaDify"]


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of the client: a conversation, or a prompt; `call` overrides settings."""

    asked: list[Message] | Prompt
    tools: Mapping[str, Any]
    call: Mapping[str, Any]


class ChatOllamaDify(BaseChatModel, Citizen, ClientOwner, ChatSettings):
    """A model of an Ollama server, by the settings of Dify's form.

    `ChatOllamaDify(model="llava", context_size=4096, temperature=0)`, or `from_settings(settings)`. Each
    setting can also be given per call (`invoke(…, temperature=1)`, `bind(…)`), but for those that make the
    server load the model again. Errors are the core's and LangChain's at once.
    """

    streaming: bool | None = Field(
        default=None,
        description="True streams inside invoke too, False never streams. Unset: as the method says.",
    )

    @field_validator("format", mode="before")
    @classmethod
    def _unwrap_format(cls, value: Any) -> Any:
        return answer_format(value)

    @property
    def _llm_type(self) -> str:
        return "chat-ollama-dify"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return settings_in_use(self, ChatSettings)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return tracing_params(self, "chat", stop, kwargs)

    def _resolve_model_profile(self) -> ModelProfile | None:
        return model_profile(self, self.known_model())

    def _changed(self, update: Mapping[str, Any]) -> Self:
        made = super()._changed(update)
        if "profile" in type(self).model_fields and "profile" not in update:
            known = self.known_model()
            if self.profile == model_profile(self, known):
                made.__dict__["profile"] = model_profile(made, known)
        return made

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with langchain_errors():
            question = self._question(messages, stop, kwargs)
            if isinstance(question.asked, Prompt):
                return _result(self.client.generate(question.asked, **question.call))
            return _result(self.client.chat(question.asked, **question.tools, **question.call))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with langchain_errors():
            question = await self._off_loop(partial(self._question, messages, stop, kwargs), kwargs)
            if isinstance(question.asked, Prompt):
                return _result(await self.async_client.generate(question.asked, **question.call))
            return _result(await self.async_client.chat(question.asked, **question.tools, **question.call))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        answered = StreamedAnswer()
        with langchain_errors():
            question = self._question(messages, stop, kwargs)
            stream: ChatStream
            if isinstance(question.asked, Prompt):
                stream = self.client.generate_stream(question.asked, **question.call)
            else:
                stream = self.client.chat_stream(question.asked, **question.tools, **question.call)
            with stream:
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
            question = await self._off_loop(partial(self._question, messages, stop, kwargs), kwargs)
            stream: AsyncChatStream
            if isinstance(question.asked, Prompt):
                stream = self.async_client.generate_stream(question.asked, **question.call)
            else:
                stream = self.async_client.chat_stream(question.asked, **question.tools, **question.call)
            async with stream:
                async for chunk in stream:
                    yield answered.chunk(chunk)

    def _question(
        self, messages: Sequence[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> _Question:
        call = _settings_of_call(stop, kwargs)
        tools, choice = call.pop("tools", None) or (), call.pop("tool_choice", None)
        settings = image_settings(self, call)
        if self.mode == "completion":
            if tools:
                raise CapabilityError(
                    f'{len(tools)} tool(s) given, but mode="completion" uses /api/generate, which has none.',
                    model=self.model,
                    hint='Use mode="chat" for tools.',
                )
            extra = {name: call.pop(name) for name in PROMPT_ARGUMENTS if name in call}
            return _Question(core_prompt(messages, settings, **extra), {}, call)
        given = _given_tools(tools, choice)
        return _Question(core_messages(messages, settings), given, call)

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
        choice = core_tool_choice(tool_choice, [core_tool(tool).name for tool in bound])
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
        """The model with answers as objects of a schema: a pydantic class, a TypedDict, a dict.

        method: "json_schema" sends the schema as `format`; "json_mode" only asks for JSON, so the prompt has
        to describe it; "function_calling" forces a call of a tool with this schema.
        include_raw: give `{"raw", "parsed", "parsing_error"}` instead of raising.
        repair: after an answer that is not valid, ask once more with that answer and what is wrong with it;
            streamed, the object then comes once, at the end.
        """
        # Its parsers are imported here, since most programs have none.
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
            info = super().warmup()
        return self._described(info)

    async def awarmup(self) -> ModelInfo:
        """The async twin of `warmup`."""
        with langchain_errors():
            info = await super().awarmup()
        return self._described(info)

    def _described(self, info: ModelInfo) -> ModelInfo:
        if "profile" in type(self).model_fields:  # langchain-core 1.1 brought it
            self.profile = {**(self.profile or {}), **model_profile(self, self.known_model())}
        return info

    def get_token_ids(self, text: str) -> list[int]:
        """The model's own tokens of a text, or those of `custom_get_token_ids`."""
        return token_ids(self, text, self.custom_get_token_ids)

    def get_num_tokens(self, text: str) -> int:
        """How many tokens a text has; an upper bound where the server shows no vocabulary."""
        return count_text(self, text, self.custom_get_token_ids)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[ToolLike] | None = None
    ) -> int:
        """Tokens of a conversation, the model's chat template included.

        Exact where the server renders the prompt; an upper bound for images, and on an event loop, where
        asking would block it (there `await model.awarmup()` must have run once).
        """
        with langchain_errors():
            asked = core_messages(messages, self)
            given = [core_tool(tool) for tool in tools or ()]
            if on_event_loop():
                return self.counter().bound(asked, given, self.think).tokens
            return self.client.count_tokens(asked, tools=given).tokens


def _settings_of_call(stop: list[str] | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of one call in the settings' words."""
    call = {name: value for name, value in kwargs.items() if name not in ("stream", "response_format")}
    if stop is not None:
        call["stop"] = stop
    if "format" in call:
        call["format"] = answer_format(call["format"])
    if kwargs.get("response_format") is not None:
        if "format" in call:
            raise ConfigurationError("format= and response_format= say the same thing; leave one out.")
        call["format"] = response_format(kwargs["response_format"])
    return call


def _given_tools(tools: Sequence[Any], choice: Any) -> dict[str, Any]:
    """The client's arguments for tools; a choice of its own is only passed on when there is one."""
    given: list[Tool] = [core_tool(tool) for tool in tools]
    chosen = core_tool_choice(choice, [tool.name for tool in given])
    values: dict[str, Any] = {"tools": given} if given else {}
    return values if chosen is None else {**values, "tool_choice": chosen}


def _result(result: CoreResult) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=answer(result))])
