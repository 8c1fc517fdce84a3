"""Structured output: any schema LangChain knows → Ollama's `format`, and the answer → the schema's object."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pydantic
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import BaseTransformOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.json import parse_json_markdown

from ollama_dify import ConfigurationError

__all__ = ["StructuredParser", "answer_format", "is_model", "response_format"]


def is_model(schema: Any) -> bool:
    """Whether the schema is a pydantic class, of version 2 or 1."""
    return isinstance(schema, type) and (
        issubclass(schema, pydantic.BaseModel) or (hasattr(schema, "parse_obj") and hasattr(schema, "schema"))
    )


def answer_format(schema: Any, *, strict: bool | None = None) -> Any:
    """The value of Ollama's `format`: "json" or a JSON schema.

    schema: "json", a JSON schema, an OpenAI or Anthropic function dict (unwrapped), a pydantic class of
    either version, or a TypedDict. strict: narrow the schema as OpenAI's strict mode does.
    """
    if schema is None or isinstance(schema, str):
        return schema
    if isinstance(schema, Mapping):
        inner = _unwrapped(schema)
        return convert_to_json_schema(dict(schema), strict=True) if strict else inner
    if strict or not is_model(schema):
        return convert_to_json_schema(schema, strict=strict)
    if issubclass(schema, pydantic.BaseModel):
        return schema.model_json_schema()
    return schema.schema()


def _unwrapped(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema inside a provider's way to name it."""
    for key in ("function", "json_schema"):
        if isinstance(schema.get(key), Mapping) and schema.get("type") in ("function", "json_schema"):
            return _unwrapped(schema[key])
    if isinstance(schema.get("name"), str):
        for key in ("parameters", "schema", "input_schema"):
            if isinstance(schema.get(key), Mapping):
                return dict(schema[key])
    return dict(schema)


def response_format(value: Any) -> Any:
    """OpenAI's `response_format`, which LangChain's agents pass on, as Ollama's `format`."""
    if isinstance(value, Mapping):
        kind = value.get("type")
        if kind == "text":
            return None
        if kind == "json_object":
            return "json"
        schema = value.get("json_schema")
        if (
            kind == "json_schema"
            and isinstance(schema, Mapping)
            and isinstance(schema.get("schema"), Mapping)
        ):
            return answer_format(schema["schema"])
        if kind == "json_schema":
            raise ConfigurationError(
                "response_format of type json_schema holds no schema.",
                hint='Write {"type": "json_schema", "json_schema": {"schema": {…}}}, or use format=.',
            )
    return answer_format(value)


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
