"""Structured output with one more request when the answer is not valid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from pydantic import ConfigDict

from ollama_dify import ChatResult, IncompleteResponseError, ProtocolError, correction

__all__ = ["RepairedOutput"]


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
        first = self._attempt(asked, config, call)
        if not first.is_repairable:
            return self._output(first)
        return self._output(self._attempt(_with_correction(asked, first), config, call))

    async def _aask(
        self,
        asked: LanguageModelInput,
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
        **call: Any,
    ) -> Any:
        first = await self._aattempt(asked, config, call)
        if not first.is_repairable:
            return self._output(first)
        return self._output(await self._aattempt(_with_correction(asked, first), config, call))

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


def _with_correction(asked: LanguageModelInput, attempt: _Attempt) -> list[BaseMessage]:
    """The conversation, the answer that is not valid, and what is wrong with it."""
    problem = attempt.problem
    assert problem is not None
    # Under a parser's error stands the one that says where; a missing call says all itself.
    cause = None if isinstance(problem, ProtocolError) else problem.__cause__
    told = correction(problem if cause is None else cause)
    raw, calls = attempt.raw, attempt.raw.tool_calls
    if calls:
        results = [ToolMessage(told, tool_call_id=call["id"] or "", name=call["name"]) for call in calls]
        return [*_messages(asked), raw, *results]
    # An answer without a word is no turn.
    return [*_messages(asked), *([raw] if raw.text else []), HumanMessage(told)]


def _messages(asked: LanguageModelInput) -> Sequence[BaseMessage]:
    if isinstance(asked, PromptValue):
        return asked.to_messages()
    return [HumanMessage(asked)] if isinstance(asked, str) else convert_to_messages(asked)
