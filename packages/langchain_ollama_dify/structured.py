"""Structured output: a model with a schema, the parser of its answer, and a second request if the answer is
invalid."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal, cast

import pydantic
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage, convert_to_messages
from langchain_core.output_parsers import BaseCumulativeTransformOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableLambda,
    RunnableMap,
    RunnablePassthrough,
)
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.json import parse_json_markdown
from typing_extensions import is_typeddict

from ollama_dify import ChatResult, ConfigurationError, IncompleteResponseError, ProtocolError
from ollama_dify.adapter import ClientOwner, answer_format, read_json

from .tools import NOT_OBJECTS, openai_tools

__all__ = ["StructuredParser", "schema_of", "structured_output"]

Method = Literal["json_schema", "json_mode", "function_calling"]
# "raw", "parsed" and "parsing_error": LangChain's answer with `include_raw`.
_Attempt = dict[str, Any]


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
        held = sent if isinstance(sent, dict) else None
        again = _Repair(model, parser, include_raw, cast(ClientOwner, chat), held)
        repaired = RunnableLambda(again.ask, again.aask, name="RepairedOutput")
        # LangChain reads no annotation that is text.
        return repaired.with_types(input_type=model.InputType)
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
    """The type of the object: a pydantic class, an Enum, another type; None: the JSON value itself."""
    no_type = schema is None or isinstance(schema, (str, Mapping)) or is_typeddict(schema)
    is_function = callable(schema) and hasattr(schema, "__code__")
    return None if no_type or is_function or hasattr(schema, "args_schema") else schema


def _check_callable(schema: Any) -> None:
    """Refuse a schema that no tool can have: a tool's arguments are an object."""
    by_type = not isinstance(schema, Mapping) and not is_model(schema) and _validated_by(schema) is not None
    if by_type or (isinstance(schema, Mapping) and schema.get("type") in NOT_OBJECTS):
        raise ConfigurationError(
            f'method="function_calling" cannot take {schema!r}: the arguments of a call are an object.',
            hint='Use method="json_schema", or a pydantic class, a TypedDict, a JSON schema of an object.',
        )


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


class StructuredParser(BaseCumulativeTransformOutputParser[Any]):
    """Reads an answer as JSON, and as an object of `model` where that is given.

    model: a pydantic class of either version, or a type. While streaming, what can be read so far is given;
    the whole answer must be valid, else OutputParserException: a cut answer is never completed by guessing.
    """

    model: Any = None

    def parse(self, text: str) -> Any:
        """The object of a whole text."""
        return self.parse_result([Generation(text=text)])

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """The object of an answer; with `partial`, before its last chunk, what can be read of it, or None."""
        message = result[0].message if isinstance(result[0], ChatGeneration) else AIMessage(result[0].text)
        text, facts = message.text, message.response_metadata
        if partial and not facts.get("done"):
            return self._so_far(text)
        try:
            value = read_json(text)
        except ValueError as error:
            raise OutputParserException(
                f"The answer is not JSON ({error}){_why(text, facts)}.", llm_output=text
            ) from error
        return self._object(value, text)

    async def aparse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """The same: LangChain's own would start a thread for each token."""
        return self.parse_result(result, partial=partial)

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

    @property
    def _type(self) -> str:
        return "ollama_dify_structured"


def _why(text: str, facts: Mapping[str, Any]) -> str:
    if facts.get("done_reason") == "length":
        return "; it was cut because it reached the token limit: raise max_tokens or num_predict"
    return "" if text.strip() else "; it is empty"


@dataclass(frozen=True, slots=True)
class _Repair:
    """A model and a parser of its answer; an invalid answer is sent back at most once.

    Streamed, the object comes at the end, because an answer may still be replaced.
    schema: the one that the server should enforce.
    """

    model: Runnable[LanguageModelInput, AIMessage]
    parser: Runnable[Any, Any]
    include_raw: bool
    owner: ClientOwner
    schema: dict[str, Any] | None

    def ask(self, asked: LanguageModelInput, config: RunnableConfig, **call: Any) -> Any:
        """The object. Raises what the parser raises for the second answer."""
        asked = self._with_schema(asked)
        first = self._attempt(asked, config, call)
        again = self._corrected(asked, first)
        return self._output(first if again is None else self._attempt(again, config, call))

    async def aask(self, asked: LanguageModelInput, config: RunnableConfig, **call: Any) -> Any:
        """The async twin of `ask`."""
        asked = self._with_schema(asked)
        first = await self._aattempt(asked, config, call)
        again = self._corrected(asked, first)
        return self._output(first if again is None else await self._aattempt(again, config, call))

    def _attempt(self, asked: LanguageModelInput, config: RunnableConfig, call: dict[str, Any]) -> _Attempt:
        try:
            return self._read(self.model.invoke(asked, config, **call), config)
        except ProtocolError as error:
            return _refused_call(error)

    async def _aattempt(
        self, asked: LanguageModelInput, config: RunnableConfig, call: dict[str, Any]
    ) -> _Attempt:
        try:
            return await self._aread(await self.model.ainvoke(asked, config, **call), config)
        except ProtocolError as error:
            return _refused_call(error)

    def _read(self, raw: AIMessage, config: RunnableConfig) -> _Attempt:
        try:
            return {"raw": raw, "parsed": self.parser.invoke(raw, config), "parsing_error": None}
        except ValueError as error:  # the parsers' own, and pydantic's
            return {"raw": raw, "parsed": None, "parsing_error": error}

    async def _aread(self, raw: AIMessage, config: RunnableConfig) -> _Attempt:
        try:
            return {"raw": raw, "parsed": await self.parser.ainvoke(raw, config), "parsing_error": None}
        except ValueError as error:
            return {"raw": raw, "parsed": None, "parsing_error": error}

    def _with_schema(self, asked: LanguageModelInput) -> LanguageModelInput:
        """The conversation, with the schema in words where the server is known to ignore it."""
        words = None if self.schema is None else self.owner.format_in_words(self.schema)
        return asked if words is None else [*_messages(asked), HumanMessage(words)]

    def _corrected(self, asked: LanguageModelInput, attempt: _Attempt) -> list[BaseMessage] | None:
        """The conversation, the answer, and what is wrong with it; None if asking again is useless.

        An answer that the token limit cut would be cut again.
        """
        raw, problem = attempt["raw"], attempt["parsing_error"]
        if problem is None or raw.response_metadata.get("done_reason") == "length":
            return None
        # The cause of a parser's error says where the answer is wrong; a missing call needs no cause.
        cause = None if isinstance(problem, ProtocolError) else problem.__cause__
        told = self.owner.correction(problem if cause is None else cause, raw.text, self.schema)
        if raw.tool_calls:
            calls = raw.tool_calls
            results = [ToolMessage(told, tool_call_id=call["id"] or "", name=call["name"]) for call in calls]
            return [*_messages(asked), raw, *results]
        # An empty answer is left out of the conversation.
        return [*_messages(asked), *([raw] if raw.text else []), HumanMessage(told)]

    def _output(self, attempt: _Attempt) -> Any:
        problem = attempt["parsing_error"]
        if self.include_raw and not isinstance(problem, ProtocolError):
            return attempt
        if problem is not None:
            raise problem
        return attempt["parsed"]


def _refused_call(error: ProtocolError) -> _Attempt:
    """The attempt of a model that should call a tool but did not; other errors are raised again."""
    said = error.partial
    if isinstance(error, IncompleteResponseError) or not isinstance(said, ChatResult) or not said.text:
        raise error
    return {"raw": AIMessage(said.text), "parsed": None, "parsing_error": error}


def _messages(asked: LanguageModelInput) -> Sequence[BaseMessage]:
    if isinstance(asked, PromptValue):
        return asked.to_messages()
    return [HumanMessage(asked)] if isinstance(asked, str) else convert_to_messages(asked)
