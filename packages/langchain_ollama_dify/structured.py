"""Structured output: the model, asked for a schema, what reads its answer, and a second request where that
is not valid."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal

import pydantic
from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage, convert_to_messages
from langchain_core.output_parsers import BaseTransformOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableMap,
    RunnablePassthrough,
    RunnableSerializable,
)
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.json import parse_json_markdown
from pydantic import ConfigDict
from typing_extensions import is_typeddict

from ollama_dify import ChatResult, ConfigurationError, IncompleteResponseError, ProtocolError
from ollama_dify.adapter import answer_format, correction, read_json, schema_request

from .tools import openai_tools

__all__ = ["RepairedOutput", "StructuredParser", "schema_of", "structured_output"]

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
    parser: Runnable[Any, Any] = StructuredParser(model=_validated_by(schema))
    sent: Any = None
    if method == "function_calling" and schema is not None:
        _check_callable(schema)
        model = chat.bind_tools([schema], tool_choice="any", strict=strict, **tracing, **call)
        parser = _call_parser(schema)
    elif method == "json_schema":
        sent = schema_of(schema, strict=strict)
        model = chat.bind(format=sent, **tracing, **call)
    elif method == "json_mode":
        model = chat.bind(format="json", **(tracing if schema is not None else {}), **call)
    else:
        raise ConfigurationError(f"method={method!r} is none of json_schema, json_mode and function_calling.")
    if repair:
        owner = chat if isinstance(sent, dict) else None
        return RepairedOutput(
            model=model, parser=parser, include_raw=include_raw, owner=owner, json_schema=sent
        )
    return _with_raw(model, parser) if include_raw else model | parser


def is_model(schema: Any) -> bool:
    """Whether the schema is a pydantic class, of version 2 or 1."""
    return isinstance(schema, type) and (
        issubclass(schema, pydantic.BaseModel) or (hasattr(schema, "parse_obj") and hasattr(schema, "schema"))
    )


def schema_of(schema: Any, *, strict: bool | None = None) -> Any:
    """Any schema LangChain knows, and any type pydantic knows, as the value of Ollama's `format`.

    strict: narrow it as OpenAI's strict mode does. Raises ConfigurationError for what is no schema.
    """
    if schema is None or isinstance(schema, str) or (isinstance(schema, Mapping) and not strict):
        return answer_format(schema)
    if is_model(schema) and not strict:
        return answer_format(schema) if issubclass(schema, pydantic.BaseModel) else schema.schema()
    try:
        if _validated_by(schema) is None or is_model(schema):
            return convert_to_json_schema(schema, strict=strict)
        return pydantic.TypeAdapter(schema).json_schema()
    except (pydantic.errors.PydanticUserError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{schema!r} gives no JSON schema: {str(error).partition(chr(10))[0].partition('. Set ')[0]}.",
            hint="Pass a pydantic class, a TypedDict, a JSON schema, an Enum, or a type such as list[int].",
        ) from error


def _validated_by(schema: Any) -> Any:
    """What makes the object: a pydantic class, an Enum, another type; None: JSON's own value."""
    no_type = schema is None or isinstance(schema, (str, Mapping)) or is_typeddict(schema)
    is_function = callable(schema) and hasattr(schema, "__code__")
    return None if no_type or is_function or hasattr(schema, "args_schema") else schema


def _check_callable(schema: Any) -> None:
    """Refuse what no tool can take: its arguments are an object."""
    by_type = not isinstance(schema, Mapping) and not is_model(schema) and _validated_by(schema) is not None
    if by_type or (isinstance(schema, Mapping) and schema.get("type") in _PLAIN_TYPES):
        raise ConfigurationError(
            f'method="function_calling" cannot take {schema!r}: the arguments of a call are an object.',
            hint='Use method="json_schema", or a pydantic class, a TypedDict, a JSON schema of an object.',
        )


_PLAIN_TYPES = ("array", "string", "integer", "number", "boolean", "null")


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
            value = read_json(text)
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
            if hasattr(self.model, "parse_obj") and not hasattr(self.model, "model_validate"):
                return self.model.parse_obj(value)
            # As JSON, so that strict classes take what JSON has no type for, such as dates.
            return pydantic.TypeAdapter(self.model).validate_json(json.dumps(value))
        except ValueError as error:
            name = getattr(self.model, "__name__", self.model)
            raise OutputParserException(
                f"The answer does not satisfy {name}: {error}", llm_output=text
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


def _why(generation: Generation) -> str:
    facts = generation.message.response_metadata if isinstance(generation, ChatGeneration) else {}
    if facts.get("done_reason") == "length":
        return "; it was cut because it reached the token limit: raise max_tokens or num_predict"
    if not generation.text.strip():
        return "; it is empty"
    return ""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """An answer and its object, or why there is none."""

    raw: AIMessage
    parsed: Any = None
    problem: Exception | None = None

    @property
    def is_repairable(self) -> bool:
        """Whether asking again can help: not where the token limit cut the answer, it would cut the next."""
        return self.problem is not None and self.raw.response_metadata.get("done_reason") != "length"


class RepairedOutput(RunnableSerializable[LanguageModelInput, Any]):
    """A model and a parser of its answer; an answer that is not valid is sent back once, never twice.

    Streamed, the object comes at the end: parts of an answer that may be replaced are not given out.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: Runnable[LanguageModelInput, AIMessage]
    parser: Runnable[Any, Any]
    include_raw: bool = False
    owner: Any = None
    """The chat model, which remembers whether its server ignores `format`."""
    json_schema: Any = None

    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """The object. Raises what the parser raises for the second answer."""
        return self._call_with_config(self._ask, input, config, **kwargs)

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        """The async twin of `invoke`."""
        return await self._acall_with_config(self._aask, input, config, **kwargs)

    # LangChain gives what runs the arguments it has names for.
    def _ask(
        self,
        asked: LanguageModelInput,
        run_manager: CallbackManagerForChainRun,
        config: RunnableConfig,
        **call: Any,
    ) -> Any:
        asked = self._with_schema(asked)
        first = self._attempt(asked, config, call)
        if not first.is_repairable:
            return self._output(first)
        return self._output(self._attempt(self._corrected(asked, first), config, call))

    async def _aask(
        self,
        asked: LanguageModelInput,
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
        **call: Any,
    ) -> Any:
        asked = self._with_schema(asked)
        first = await self._aattempt(asked, config, call)
        if not first.is_repairable:
            return self._output(first)
        return self._output(await self._aattempt(self._corrected(asked, first), config, call))

    def _with_schema(self, asked: LanguageModelInput) -> LanguageModelInput:
        """The conversation, with the schema in words where the server is known to ignore it."""
        if self.owner is None or not self.owner.ignores_format():
            return asked
        return [*_messages(asked), HumanMessage(schema_request(self.json_schema))]

    def _corrected(self, asked: LanguageModelInput, attempt: _Attempt) -> list[BaseMessage]:
        problem = attempt.problem
        assert problem is not None
        # Under a parser's error stands the one that says where; a missing call says all itself.
        cause = None if isinstance(problem, ProtocolError) else problem.__cause__
        schema = None
        # A server that holds an answer to a schema writes JSON.
        if self.owner is not None and attempt.raw.text and isinstance(cause, json.JSONDecodeError):
            schema = None if self.owner.ignores_format() else self.json_schema
            self.owner.ignores_format(noticed=True)
        told = correction(problem if cause is None else cause, schema)
        return _with_correction(asked, attempt.raw, told)

    def _attempt(self, asked: LanguageModelInput, config: RunnableConfig, call: dict[str, Any]) -> _Attempt:
        try:
            raw = self.model.invoke(asked, config, **call)
        except ProtocolError as error:
            return _refused_call(error)
        try:
            return _Attempt(raw, self.parser.invoke(raw, config))
        except ValueError as error:  # the parsers' own, and pydantic's
            return _Attempt(raw, problem=error)

    async def _aattempt(
        self, asked: LanguageModelInput, config: RunnableConfig, call: dict[str, Any]
    ) -> _Attempt:
        try:
            raw = await self.model.ainvoke(asked, config, **call)
        except ProtocolError as error:
            return _refused_call(error)
        try:
            return _Attempt(raw, await self.parser.ainvoke(raw, config))
        except ValueError as error:
            return _Attempt(raw, problem=error)

    def _output(self, attempt: _Attempt) -> Any:
        failed_call = isinstance(attempt.problem, ProtocolError)
        if self.include_raw and not failed_call:
            return {"raw": attempt.raw, "parsed": attempt.parsed, "parsing_error": attempt.problem}
        if attempt.problem is not None:
            raise attempt.problem
        return attempt.parsed


def _refused_call(error: ProtocolError) -> _Attempt:
    """The attempt of a model that was to call a tool and said something else; other errors go on."""
    said = error.partial
    if isinstance(error, IncompleteResponseError) or not isinstance(said, ChatResult) or not said.text:
        raise error
    return _Attempt(AIMessage(said.text), problem=error)


def _with_correction(asked: LanguageModelInput, raw: AIMessage, told: str) -> list[BaseMessage]:
    """The conversation, the answer that is not valid, and what is wrong with it."""
    if raw.tool_calls:
        calls = raw.tool_calls
        results = [ToolMessage(told, tool_call_id=call["id"] or "", name=call["name"]) for call in calls]
        return [*_messages(asked), raw, *results]
    # An empty answer is left out of the conversation.
    return [*_messages(asked), *([raw] if raw.text else []), HumanMessage(told)]


def _messages(asked: LanguageModelInput) -> Sequence[BaseMessage]:
    if isinstance(asked, PromptValue):
        return asked.to_messages()
    return [HumanMessage(asked)] if isinstance(asked, str) else convert_to_messages(asked)
