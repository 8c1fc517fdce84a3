"""Structured output: any schema LangChain knows → Ollama's `format`, and the answer → the schema's object."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pydantic
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import JsonOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.json import parse_json_markdown

from ollama_dify import ConfigurationError

__all__ = ["StructuredParser", "answer_format", "is_model", "response_format"]


def is_model(schema: Any) -> bool:
    """Whether the schema is a pydantic class, of version 2 or 1."""
    return isinstance(schema, type) and (
        issubclass(schema, pydantic.BaseModel) or hasattr(schema, "parse_obj") and hasattr(schema, "schema")
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
        if kind == "json_schema" and isinstance(schema, Mapping) and isinstance(schema.get("schema"), Mapping):
            return answer_format(schema["schema"])
        if kind == "json_schema":
            raise ConfigurationError(
                "response_format of type json_schema holds no schema.",
                hint='Write {"type": "json_schema", "json_schema": {"name": …, "schema": {…}}}, or use format=.',
            )
    return answer_format(value)


class StructuredParser(JsonOutputParser):
    """Reads an answer as JSON, and as an object of `pydantic_object` where that is given.

    While streaming, what is complete so far is given; at the end the whole answer must be whole and valid,
    else OutputParserException: a cut answer is never completed by guessing.
    """

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """The answer's object; with `partial`, what of it can be read, or None."""
        text = result[0].text
        if partial:
            return self._partial(result)
        try:
            value = parse_json_markdown(text.strip(), parser=_strict)
        except ValueError as error:
            raise OutputParserException(
                f"The answer is not JSON ({error}){_why(result[0])}.", llm_output=text
            ) from error
        return self._object(value, text)

    def _partial(self, result: list[Generation]) -> Any:
        value = super().parse_result(result, partial=True)
        if value is None or self.pydantic_object is None:
            return value
        try:
            return self._object(value, result[0].text)
        except OutputParserException:
            return None

    def _object(self, value: Any, text: str) -> Any:
        model: Any = self.pydantic_object
        if model is None:
            return value
        try:
            is_v2 = issubclass(model, pydantic.BaseModel)
            return model.model_validate(value) if is_v2 else model.parse_obj(value)
        except ValueError as error:
            raise OutputParserException(
                f"The answer does not satisfy {model.__name__}: {error}", llm_output=text
            ) from error

    def _transform(self, input: Iterator[str | BaseMessage]) -> Iterator[Any]:
        seen: list[str | BaseMessage] = []
        last: Any = None

        def kept() -> Iterator[str | BaseMessage]:
            for chunk in input:
                seen.append(chunk)
                yield chunk

        for last in super()._transform(kept()):
            yield last
        whole = self.parse_result([_joined(seen)])
        if self.diff is False and whole != last:
            yield whole

    async def _atransform(self, input: AsyncIterator[str | BaseMessage]) -> AsyncIterator[Any]:
        seen: list[str | BaseMessage] = []
        last: Any = None

        async def kept() -> AsyncIterator[str | BaseMessage]:
            async for chunk in input:
                seen.append(chunk)
                yield chunk

        async for last in super()._atransform(kept()):
            yield last
        whole = self.parse_result([_joined(seen)])
        if self.diff is False and whole != last:
            yield whole


def _strict(text: str) -> Any:
    return json.loads(text, strict=False)


def _joined(chunks: list[str | BaseMessage]) -> Generation:
    """The streamed answer as one generation."""
    if not chunks or isinstance(chunks[0], str):
        return Generation(text="".join(str(chunk) for chunk in chunks))
    message: Any = chunks[0]
    return ChatGeneration(message=message + chunks[1:] if len(chunks) > 1 else message)


def _why(generation: Generation) -> str:
    message = getattr(generation, "message", None)
    facts = getattr(message, "response_metadata", {})
    if facts.get("done_reason") == "length":
        return "; it was cut because it reached the token limit: raise max_tokens or num_predict"
    if not generation.text.strip():
        return "; it is empty"
    return ""
