"""Structured output: the model, asked for a schema, and what reads its answer as the schema's object."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from operator import itemgetter
from typing import Any, Literal

import pydantic
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import BaseTransformOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.json import parse_json_markdown

from ollama_dify import ConfigurationError

from .formats import answer_format, is_model
from .repair import RepairedOutput
from .tools import openai_tools

__all__ = ["StructuredParser", "structured_output"]

Method = Literal["json_schema", "json_mode", "function_calling"]


def structured_output(
    chat: BaseChatModel,
    schema: Any,
    *,
    method: Method,
    include_raw: bool,
    strict: bool | None,
    repair: bool,
    call: Mapping[str, Any],
) -> Runnable[LanguageModelInput, Any]:
    """What `with_structured_output` of a chat model gives; `call`: further arguments of each call."""
    if schema is None and method != "json_mode":
        raise ConfigurationError(f"with_structured_output(method={method!r}) needs a schema.")
    tracing = {"ls_structured_output_format": {"kwargs": {"method": method}, "schema": schema}}
    model: Runnable[LanguageModelInput, AIMessage]
    parser: Runnable[Any, Any] = StructuredParser(model=schema if is_model(schema) else None)
    if method == "function_calling" and schema is not None:
        model = chat.bind_tools([schema], tool_choice="any", strict=strict, **tracing, **call)
        parser = _call_parser(schema)
    elif method == "json_schema":
        model = chat.bind(format=answer_format(schema, strict=strict), **tracing, **call)
    elif method == "json_mode":
        model = chat.bind(format="json", **(tracing if schema is not None else {}), **call)
    else:
        raise ConfigurationError(f"method={method!r} is none of json_schema, json_mode and function_calling.")
    if repair:
        return RepairedOutput(model=model, parser=parser, include_raw=include_raw)
    return _with_raw(model, parser) if include_raw else model | parser


def _call_parser(schema: Any) -> Runnable[Any, Any]:
    """Reads the arguments of the first call."""
    if is_model(schema):
        return PydanticToolsParser(tools=[schema], first_tool_only=True)
    name = openai_tools([schema])[0]["function"]["name"]
    return JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)


def _with_raw(model: Runnable[Any, Any], parser: Runnable[Any, Any]) -> Runnable[Any, Any]:
    raw: Callable[[Any], Any] = itemgetter("raw")
    parsed = RunnablePassthrough.assign(parsed=raw | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")


class StructuredParser(BaseTransformOutputParser[Any]):
    """Reads an answer as JSON, and as an object of `model` where that is given.

    model: a pydantic class of either version. While streaming, what can be read so far is given; at the end
    the answer must be whole and valid, else OutputParserException: a cut answer is never completed by
    guessing.
    """

    model: Any = None

    def parse(self, text: str) -> Any:
        """The object of a whole text."""
        return self.parse_result([Generation(text=text)])

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """The object of a whole answer; with `partial`, of what has arrived, or None."""
        text = result[0].text
        if partial:
            return self._so_far(text)
        try:
            value = parse_json_markdown(text.strip(), parser=_strict)
        except ValueError as error:
            raise OutputParserException(
                f"The answer is not JSON ({error}){_why(result[0])}.", llm_output=text
            ) from error
        return self._object(value, text)

    def _so_far(self, text: str) -> Any:
        try:
            value = parse_json_markdown(text.strip())
            return None if value is None else self._object(value, text)
        except ValueError:
            return None

    def _object(self, value: Any, text: str) -> Any:
        if self.model is None:
            return value
        try:
            is_v2 = issubclass(self.model, pydantic.BaseModel)
            return self.model.model_validate(value) if is_v2 else self.model.parse_obj(value)
        except ValueError as error:
            raise OutputParserException(
                f"The answer does not satisfy {self.model.__name__}: {error}", llm_output=text
            ) from error

    def _transform(self, input: Iterator[str | BaseMessage]) -> Iterator[Any]:
        growing = _Growing(self)
        for chunk in input:
            yield from growing.add(chunk)
        yield from growing.end()

    async def _atransform(self, input: AsyncIterator[str | BaseMessage]) -> AsyncIterator[Any]:
        growing = _Growing(self)
        async for chunk in input:
            for value in growing.add(chunk):
                yield value
        for value in growing.end():
            yield value

    @property
    def _type(self) -> str:
        return "ollama_dify_structured"


class _Growing:
    """A streamed answer: gives each new object once, and the whole one at the end."""

    def __init__(self, parser: StructuredParser) -> None:
        self._parser = parser
        self._text = ""
        self._message: BaseMessage | None = None
        self._given: Any = None

    def add(self, chunk: str | BaseMessage) -> list[Any]:
        if isinstance(chunk, BaseMessage):
            self._message = chunk
            chunk = chunk.text
        if not chunk:
            return []
        self._text += chunk
        return self._new(self._parser.parse_result([Generation(text=self._text)], partial=True))

    def end(self) -> list[Any]:
        return self._new(self._parser.parse_result([self._whole()]))

    def _whole(self) -> Generation:
        if self._message is None:
            return Generation(text=self._text)
        facts = self._message.response_metadata
        return ChatGeneration(message=AIMessage(self._text, response_metadata=facts))

    def _new(self, value: Any) -> list[Any]:
        if value is None or value == self._given:
            return []
        self._given = value
        return [value]


def _strict(text: str) -> Any:
    return json.loads(text, strict=False)


def _why(generation: Generation) -> str:
    facts = generation.message.response_metadata if isinstance(generation, ChatGeneration) else {}
    if facts.get("done_reason") == "length":
        return "; it was cut because it reached the token limit: raise max_tokens or num_predict"
    if not generation.text.strip():
        return "; it is empty"
    return ""
