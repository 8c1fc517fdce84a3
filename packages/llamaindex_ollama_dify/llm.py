"""`OllamaDify`: the settings as a LlamaIndex LLM."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast

from llama_index.core.base.llms.generic_utils import messages_to_prompt as own_prompt_format
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools.types import BaseTool

from ollama_dify import AsyncChatStream, ChatChunk, ChatSettings, ChatStream, Message, Prompt, user
from ollama_dify.adapter import ClientOwner, Request, as_prompt, read_tool_choice

from .answers import GrowingAnswer, chat_response, completion_response, tool_selections
from .convert import ROLES, to_messages, to_tool, tool_dict
from .pickling import PickleMixin
from .structured import StructuredPrediction

__all__ = ["OllamaDify"]

_R = TypeVar("_R")
_Read = Callable[[ChatSettings], Sequence[Message] | Prompt]
_F = TypeVar("_F", bound=Callable[..., Any])


def _events(callback: Callable[[], Any]) -> Callable[[_F], _F]:
    """LlamaIndex's callbacks, events and rate limit around a method."""
    return cast(Callable[[_F], _F], callback())


class OllamaDify(PickleMixin, StructuredPrediction, ClientOwner, ChatSettings):
    """An Ollama model with the fields of Dify's form, for LlamaIndex.

        llm = OllamaDify(model="llava", base_url="http://192.168.1.100:11434", context_size=4096)
        Settings.llm = llm

    `mode="completion"` sends both chat and complete to /api/generate. Every setting can be given per call,
    except those that make the server load the model again: `llm.chat(messages, temperature=0)`.
    """

    @classmethod
    def class_name(cls) -> str:
        """The name LlamaIndex serialises under."""
        return "OllamaDify"

    @property
    def metadata(self) -> LLMMetadata:
        """The limits and capabilities for LlamaIndex; sends no request.

        num_output is the part of the context kept free for an answer, not the answer's limit: LlamaIndex
        subtracts it from the context. Without `context_size`, LlamaIndex's default is used.
        """
        window = DEFAULT_CONTEXT_WINDOW if self.context_size is None else self.context_size
        reserve = self.answer_reserve
        if reserve is None:
            reserve = min(window if self.max_tokens is None else self.max_tokens, window // 4)
        return LLMMetadata(
            context_window=window,
            num_output=reserve,
            is_chat_model=self.mode == "chat",
            is_function_calling_model=self._may_call_functions(),
            model_name=self.model,
            system_role=MessageRole.SYSTEM,
        )

    @property
    def tokenizer(self) -> Callable[[str], list[int]]:
        """The model's own tokenizer, for `Settings.tokenizer = llm.tokenizer`: text → token ids.

        The first use asks the server for the vocabulary; on an event loop call `await llm.awarmup()` before.
        """
        return partial(_token_ids, self)

    @_events(llm_chat_callback)
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation in one piece."""
        request = self._request(self._conversation(messages), kwargs)
        return chat_response(self.client.ask(request), single_call=_single_call(kwargs))

    @_events(llm_chat_callback)
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The async twin of `chat`."""
        request = await self._arequest(self._conversation(messages), kwargs)
        return chat_response(await self.async_client.ask(request), single_call=_single_call(kwargs))

    @_events(llm_chat_callback)
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation piece by piece; closing the generator stops the server."""
        request = self._request(self._conversation(messages), kwargs, streamed=True)
        growing = GrowingAnswer(single_call=_single_call(kwargs))
        return _grow(self.client.ask_stream(request), growing.chat)

    @_events(llm_chat_callback)
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """The async twin of `stream_chat`."""
        request = await self._arequest(self._conversation(messages), kwargs, streamed=True)
        growing = GrowingAnswer(single_call=_single_call(kwargs))
        return _agrow(self.async_client.ask_stream(request), growing.chat)

    @_events(llm_completion_callback)
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt in one piece.

        formatted: whether `completion_to_prompt` was applied already (completion mode only). In completion
        mode `system`, `suffix`, `template` and `raw` are taken too.
        """
        request = self._request(self._prompt(prompt, formatted), kwargs)
        return completion_response(self.client.ask(request), single_call=_single_call(kwargs))

    @_events(llm_completion_callback)
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The async twin of `complete`."""
        request = self._request(self._prompt(prompt, formatted), kwargs)
        return completion_response(await self.async_client.ask(request), single_call=_single_call(kwargs))

    @_events(llm_completion_callback)
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer a prompt piece by piece; closing the generator stops the server."""
        request = self._request(self._prompt(prompt, formatted), kwargs, streamed=True)
        growing = GrowingAnswer(single_call=_single_call(kwargs))
        return _grow(self.client.ask_stream(request), growing.completion)

    @_events(llm_completion_callback)
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """The async twin of `stream_complete`."""
        request = self._request(self._prompt(prompt, formatted), kwargs, streamed=True)
        growing = GrowingAnswer(single_call=_single_call(kwargs))
        return _agrow(self.async_client.ask_stream(request), growing.completion)

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The calls of a response. Raises ValueError if there are none and error_on_no_tool_call is set."""
        calls = tool_selections(response)
        if not calls and error_on_no_tool_call:
            raise ValueError(
                f"Expected at least one tool call, but the model answered {response.message.content!r}.\n"
                "Pass tool_required=True to force one, or error_on_no_tool_call=False."
            )
        return calls

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The arguments of the chat call. A `tool_choice` given wins over `tool_required`."""
        messages = [] if chat_history is None else list(chat_history)
        if user_msg is not None:
            asked = user_msg if isinstance(user_msg, ChatMessage) else ChatMessage(content=user_msg)
            messages.append(asked)
        choice = kwargs.pop("tool_choice", None)
        if choice is None and tool_required:
            choice = "required"
        return {
            "messages": messages,
            "tools": [tool_dict(tool) for tool in tools],
            "tool_choice": choice,
            "allow_parallel_tool_calls": allow_parallel_tool_calls,
            **kwargs,
        }

    def _may_call_functions(self) -> bool:
        """Whether tools can be offered: yes unless the settings or the server say no."""
        if self.mode != "chat" or self.function_call_support is not None:
            return self.mode == "chat" and self.function_call_support is True
        known = self.known_model()
        return known is None or known.can("tools") is not False

    def _conversation(self, messages: Sequence[ChatMessage]) -> _Read:
        """A reader of the messages by a call's settings; a custom prompt format makes one prompt."""
        write = self.messages_to_prompt
        if self.mode == "chat" or write is None or write is own_prompt_format:
            return partial(to_messages, messages)
        turns = [message for message in messages if ROLES[message.role] != "system"]
        return lambda settings: as_prompt(to_messages(messages, settings), partial(write, turns))

    def _prompt(self, prompt: str, formatted: bool) -> _Read:
        if self.mode == "chat":
            return lambda settings: [user(prompt)]
        wrap = self.completion_to_prompt
        return lambda settings: Prompt(prompt if formatted or wrap is None else wrap(prompt))

    def _request(self, read: _Read, kwargs: Mapping[str, Any], *, streamed: bool = False) -> Request:
        call = _merged(kwargs)
        tools = [to_tool(tool) for tool in call.pop("tools", None) or ()]
        choice = read_tool_choice(call.pop("tool_choice", None), [tool.name for tool in tools])
        call.pop("allow_parallel_tool_calls", None)
        return Request.of_call(self, read, call, tools=tools, tool_choice=choice, streamed=streamed)

    async def _arequest(self, read: _Read, kwargs: Mapping[str, Any], *, streamed: bool = False) -> Request:
        return await self._off_loop(partial(self._request, read, kwargs, streamed=streamed), kwargs)


def _merged(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call; includes LlamaIndex's `additional_kwargs`, but named arguments win."""
    further = kwargs.get("additional_kwargs") or {}
    return {**further, **{name: value for name, value in kwargs.items() if name != "additional_kwargs"}}


def _single_call(kwargs: Mapping[str, Any]) -> bool:
    """Whether calls after the first are left out."""
    return _merged(kwargs).get("allow_parallel_tool_calls", True) is False


def _grow(stream: ChatStream, response: Callable[[ChatChunk], _R]) -> Generator[_R, None, None]:
    with stream:
        for chunk in stream:
            yield response(chunk)


async def _agrow(stream: AsyncChatStream, response: Callable[[ChatChunk], _R]) -> AsyncGenerator[_R, None]:
    async with stream:
        async for chunk in stream:
            yield response(chunk)


def _token_ids(llm: OllamaDify, text: str) -> list[int]:
    counter = llm.counter()
    count = counter.text(text)
    # Without a vocabulary there is a count but no ids; LlamaIndex only uses the length.
    return counter.token_ids(text) if count.exact else list(range(count.tokens))
