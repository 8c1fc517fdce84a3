"""Pydantic objects from the model, by Ollama's `format`: it can only write what the schema allows."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator, Iterator
from typing import Any, cast

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]  # re-exported
from llama_index.core.instrumentation.events.llm import (
    LLMStructuredPredictEndEvent,
    LLMStructuredPredictInProgressEvent,
    LLMStructuredPredictStartEvent,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.program.utils import FlexibleModel, create_flexible_model
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.types import Model, PydanticProgramMode
from pydantic import VERSION, BaseModel, ValidationError
from pydantic_core import from_json

from ollama_dify import ConfigurationError
from ollama_dify.adapter import ClientOwner, read_json

__all__ = ["OutputError", "PartialReader", "StructuredPrediction", "read_output"]

dispatcher = get_dispatcher(__name__)

# Older pydantic leaves a string out until it has ended.
_PARTIAL: Any = "trailing-strings" if tuple(map(int, VERSION.split(".")[:2])) >= (2, 10) else True


class OutputError(ValueError):
    """An answer that is not an object of the class; `response` is the answer."""

    def __init__(self, message: str, response: ChatResponse | None = None) -> None:
        super().__init__(message)
        self.response = response


class StructuredPrediction(FunctionCallingLLM, ClientOwner):
    """LlamaIndex's structured_predict family in its default mode; the other modes are LlamaIndex's own."""

    def as_structured_llm(self, output_cls: type[BaseModel], **kwargs: Any) -> StructuredLLM:
        """This model, with objects of `output_cls` as answers."""
        _check_class(output_cls)
        return super().as_structured_llm(output_cls, **kwargs)

    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """An object of `output_cls`. Raises OutputError, a ValueError with the answer, if it is invalid.

        llm_kwargs: arguments of the call; `{"repair": True}` asks once more after an invalid answer, with
        that answer and what is wrong with it, and with the schema if the server ignored it.
        """
        if not self._by_format(output_cls, llm_kwargs):
            return cast(Model, super().structured_predict(output_cls, prompt, llm_kwargs, **prompt_args))
        messages, call = self._structured_question(output_cls, prompt, llm_kwargs, prompt_args)
        response = self.chat(messages, **call)
        try:
            output = read_output(output_cls, response)
        except ValueError as error:
            again = self._corrected(messages, response, error, call, llm_kwargs)
            output = read_output(output_cls, self.chat(again, **call))
        dispatcher.event(LLMStructuredPredictEndEvent(output=output))
        return output

    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """The async twin of `structured_predict`."""
        if not self._by_format(output_cls, llm_kwargs):
            made = await super().astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            return cast(Model, made)
        messages, call = self._structured_question(output_cls, prompt, llm_kwargs, prompt_args)
        response = await self.achat(messages, **call)
        try:
            output = read_output(output_cls, response)
        except ValueError as error:
            again = self._corrected(messages, response, error, call, llm_kwargs)
            output = read_output(output_cls, await self.achat(again, **call))
        dispatcher.event(LLMStructuredPredictEndEvent(output=output))
        return output

    def stream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Model | FlexibleModel, None, None]:
        """The object as it grows, then whole. Raises ValueError if the whole answer is invalid.

        With `{"repair": True}` it comes once, at the end, because an answer may still be replaced.
        """
        if not self._by_format(output_cls, llm_kwargs):
            yield from super().stream_structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            return
        if _repairs(llm_kwargs):
            yield self.structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            return
        messages, call = self._structured_question(output_cls, prompt, llm_kwargs, prompt_args)
        reader = PartialReader(output_cls)
        for response in self.stream_chat(messages, **call):
            yield from reader.read(response)
        yield reader.end()

    async def astream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Model | FlexibleModel, None]:
        """The async twin of `stream_structured_predict`."""
        if not self._by_format(output_cls, llm_kwargs):
            return await super().astream_structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)

        async def grow() -> AsyncGenerator[Model | FlexibleModel, None]:
            if _repairs(llm_kwargs):
                yield await self.astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
                return
            messages, call = self._structured_question(output_cls, prompt, llm_kwargs, prompt_args)
            reader = PartialReader(output_cls)
            async for response in await self.astream_chat(messages, **call):
                for grown in reader.read(response):
                    yield grown
            yield reader.end()

        return grow()

    def _by_format(self, output_cls: Any, llm_kwargs: dict[str, Any] | None) -> bool:
        """Whether objects are made by `format`. Raises ConfigurationError for a repair in another mode, and
        for a class that is not pydantic's."""
        _check_class(output_cls)
        repairs = _repairs(llm_kwargs)
        if self.pydantic_program_mode is PydanticProgramMode.DEFAULT:
            return True
        if repairs:
            raise ConfigurationError(
                f"repair=True needs pydantic_program_mode=DEFAULT, not {self.pydantic_program_mode.value!r}."
            )
        return False

    def _structured_question(
        self,
        output_cls: type[BaseModel],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None,
        prompt_args: dict[str, Any],
    ) -> tuple[list[ChatMessage], dict[str, Any]]:
        """The messages and the arguments of the call."""
        dispatcher.event(
            LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=prompt_args)
        )
        messages = self._extend_messages(prompt.format_messages(llm=self, **prompt_args))
        call = {name: value for name, value in (llm_kwargs or {}).items() if name != "repair"}
        schema = output_cls.model_json_schema()
        words = self.format_in_words(schema) if _repairs(llm_kwargs) else None
        if words is not None:
            messages = [*messages, ChatMessage(content=words)]
        return messages, {**call, "format": schema}

    def _corrected(
        self,
        messages: list[ChatMessage],
        response: ChatResponse,
        error: ValueError,
        call: dict[str, Any],
        llm_kwargs: dict[str, Any] | None,
    ) -> list[ChatMessage]:
        """The conversation, the invalid answer, and what is wrong with it.

        Raises `error` without `repair`, and for an answer cut by the token limit, which would cut the next
        one too.
        """
        if not _repairs(llm_kwargs) or response.additional_kwargs.get("done_reason") == "length":
            raise error
        cause = error if error.__cause__ is None else error.__cause__
        text = response.message.content or ""
        told = ChatMessage(content=self.correction(cause, text, call["format"]))
        # An empty answer is left out of the conversation.
        return [*messages, response.message, told] if text else [*messages, told]


def _check_class(output_cls: Any) -> None:
    if not (isinstance(output_cls, type) and issubclass(output_cls, BaseModel)):
        raise ConfigurationError(
            f"{output_cls!r} is no pydantic class, which LlamaIndex's structured prediction works with.",
            hint="Make it a field of a class: class Answer(BaseModel): value: …",
        )


def _repairs(llm_kwargs: dict[str, Any] | None) -> bool:
    """Whether one more request was asked for. Raises ConfigurationError for a value that is no boolean."""
    asked = (llm_kwargs or {}).get("repair", False)
    if not isinstance(asked, bool):
        raise ConfigurationError(f"repair={asked!r} is neither True nor False.")
    return asked


def read_output(output_cls: type[Model], response: ChatResponse | None) -> Model:
    """The object in a whole answer. Raises OutputError that says why the answer is invalid."""
    text = (response.message.content if response is not None else None) or ""
    try:
        return output_cls.model_validate_json(json.dumps(read_json(text)))
    except ValidationError as error:
        problem = f"{error.error_count()} problem(s), first: {error.errors(include_url=False)[0]['msg']}"
        cause: ValueError = error
    except ValueError as error:
        problem, cause = f"It is not JSON: {error}", error
    reason = response.additional_kwargs.get("done_reason") if response is not None else None
    advice = (
        "The answer was cut off by the token limit: raise max_tokens or num_predict, or lower think."
        if reason == "length"
        else "Ask for it in the prompt too, or choose a model that follows a schema."
    )
    raise OutputError(
        f"The model's answer is no {output_cls.__name__}: {text[:200]!r}. {problem}.\n{advice}", response
    ) from cause


class PartialReader:
    """Reads an object from the growing text of an answer, and sends LlamaIndex's events.

    An unfinished one comes as LlamaIndex's flexible model of the class, whose missing fields are None.
    """

    def __init__(self, output_cls: type[Any]) -> None:
        self._output_cls = output_cls
        self._flexible_cls = create_flexible_model(output_cls)
        self._seen: Any = None
        self._last: ChatResponse | None = None

    def read(self, response: ChatResponse) -> Iterator[Any]:
        """The object so far, if the response adds to it."""
        self._last = response
        try:
            value = from_json(response.message.content or "", allow_partial=_PARTIAL)
        except ValueError:
            return
        if not response.delta or not isinstance(value, dict) or value == self._seen:
            return
        self._seen = value
        try:
            grown = self._output_cls.model_validate(value)
        except ValidationError:
            grown = self._flexible_cls.model_validate(value)
        dispatcher.event(LLMStructuredPredictInProgressEvent(output=grown))
        yield grown

    def end(self) -> Any:
        """The whole object. Raises OutputError."""
        output = read_output(self._output_cls, self._last)
        dispatcher.event(LLMStructuredPredictEndEvent(output=output))
        return output
