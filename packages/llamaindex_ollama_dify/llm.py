"""`OllamaDify`: the settings as a LlamaIndex LLM."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
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

from ollama_dify import (
    AsyncChatStream,
    CapabilityError,
    ChatChunk,
    ChatResult,
    ChatSettings,
    ChatStream,
    ClientOwner,
    Message,
    Prompt,
    Tool,
    user,
)

from .answers import (
    GrowingAnswer,
    chat_response,
    completion_response,
    first_call_only,
    tool_selections,
)
from .convert import to_messages, to_prompt, to_tool, to_tool_choice, tool_dict
from .portable import Portable
from .structured import StructuredPrediction

__all__ = ["OllamaDify"]

# Arguments of /api/generate that belong to the prompt, not to the settings.
_PROMPT_ARGUMENTS = ("system", "suffix", "template", "raw")

_IMAGE_SETTINGS = ("allow_image_paths", "allow_image_urls", "convert_images", "max_image_edge")


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of the client: a conversation, or a prompt in completion mode."""

    asked: list[Message] | Prompt
    call: dict[str, Any]
    tools: Sequence[Tool] = ()
    tool_choice: str | None = None
    single_call: bool = False


_R = TypeVar("_R")
_F = TypeVar("_F", bound=Callable[..., Any])


def _chat_events(function: _F) -> _F:
    """LlamaIndex's callbacks, events and rate limit around a chat method."""
    return cast(_F, llm_chat_callback()(function))


def _completion_events(function: _F) -> _F:
    """The same around a complete method."""
    return cast(_F, llm_completion_callback()(function))


class OllamaDify(Portable, StructuredPrediction, ClientOwner, ChatSettings):
    """An Ollama model with the fields of Dify's form, for LlamaIndex.

        llm = OllamaDify(model="llava", base_url="http://192.168.1.100:11434", context_size=4096)
        Settings.llm = llm

    `mode="completion"` sends both chat and complete to /api/generate. Every setting but those that make the
    server load the model again can be given per call: `llm.chat(messages, temperature=0)`.
    """

    @classmethod
    def class_name(cls) -> str:
        """The name LlamaIndex serialises under."""
        return "OllamaDify"

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex plans with; nothing is asked of the server.

        num_output is what is kept free for an answer, not the most it may have: LlamaIndex subtracts it from
        the context. Without `context_size` LlamaIndex's own assumption stands.
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
    def tokenizer(self) -> Callable[[str], Sequence[int]]:
        """The model's own tokenizer, for `Settings.tokenizer = llm.tokenizer`: text → token ids.

        The first use asks the server for the vocabulary; on an event loop call `await llm.awarmup()` before.
        """
        return partial(_token_ids, self)

    @_chat_events
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation in one piece."""
        question = self._chat_question(messages, kwargs)
        return chat_response(self._answer(question), single_call=question.single_call)

    @_chat_events
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The async twin of `chat`."""
        question = await self._off_loop(partial(self._chat_question, messages, kwargs), kwargs)
        return chat_response(await self._aanswer(question), single_call=question.single_call)

    @_chat_events
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation piece by piece; closing the generator stops the server."""
        question = self._chat_question(messages, kwargs)
        return _grow(self._stream(question), GrowingAnswer(single_call=question.single_call).chat)

    @_chat_events
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """The async twin of `stream_chat`."""
        question = await self._off_loop(partial(self._chat_question, messages, kwargs), kwargs)
        return _agrow(self._astream(question), GrowingAnswer(single_call=question.single_call).chat)

    @_completion_events
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt in one piece.

        formatted: whether `completion_to_prompt` was applied already (completion mode only). In completion
        mode `system`, `suffix`, `template` and `raw` are taken too.
        """
        question = self._prompt_question(prompt, formatted, kwargs)
        return completion_response(self._answer(question), single_call=question.single_call)

    @_completion_events
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The async twin of `complete`."""
        question = self._prompt_question(prompt, formatted, kwargs)
        return completion_response(await self._aanswer(question), single_call=question.single_call)

    @_completion_events
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer a prompt piece by piece; closing the generator stops the server."""
        question = self._prompt_question(prompt, formatted, kwargs)
        return _grow(self._stream(question), GrowingAnswer(single_call=question.single_call).completion)

    @_completion_events
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """The async twin of `stream_complete`."""
        question = self._prompt_question(prompt, formatted, kwargs)
        return _agrow(self._astream(question), GrowingAnswer(single_call=question.single_call).completion)

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The calls of a response. Raises ValueError when there are none, unless told otherwise."""
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

    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """One call at most, unless parallel ones are allowed."""
        return response if allow_parallel_tool_calls else first_call_only(response)

    def _may_call_functions(self) -> bool:
        """Whether tools can be offered: yes until the settings or the server say no."""
        if self.mode != "chat" or self.function_call_support is not None:
            return self.mode == "chat" and self.function_call_support is True
        known = self.known_model()
        return known is None or known.can("tools") is not False

    def _chat_question(self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> _Question:
        call = _merged(kwargs)
        images = self._image_settings(call)
        if self.mode == "chat":
            return _with_tools(to_messages(messages, images), call)
        written = self.messages_to_prompt
        prompt = to_prompt(messages, images, own_prompt_format if written is None else written)
        return self._completion_question(prompt, call)

    def _image_settings(self, call: Mapping[str, Any]) -> ChatSettings:
        """The settings that say what images are taken, of one call."""
        changed = {name: call[name] for name in _IMAGE_SETTINGS if name in call}
        return ChatSettings.from_settings(self, **changed) if changed else self

    def _prompt_question(self, prompt: str, formatted: bool, kwargs: Mapping[str, Any]) -> _Question:
        call = _merged(kwargs)
        if self.mode == "chat":
            return _with_tools([user(prompt)], call)
        wrap = self.completion_to_prompt
        return self._completion_question(Prompt(prompt if formatted or wrap is None else wrap(prompt)), call)

    def _completion_question(self, prompt: Prompt, call: dict[str, Any]) -> _Question:
        """A question to /api/generate. Raises CapabilityError for tools, which only /api/chat takes."""
        tools, choice = call.pop("tools", None), call.pop("tool_choice", None)
        if tools or choice not in (None, "auto", "none"):
            raise CapabilityError(
                f'Tools were given, but mode="completion" of {self.model!r} uses /api/generate, which takes '
                "none.",
                model=self.model,
                hint='Use mode="chat" for tools.',
            )
        call.pop("allow_parallel_tool_calls", None)
        given = {name: call.pop(name) for name in _PROMPT_ARGUMENTS if name in call}
        return _Question(replace(prompt, **given), call)

    def _answer(self, question: _Question) -> ChatResult:
        if isinstance(question.asked, Prompt):
            return self.client.generate(question.asked, **question.call)
        return self.client.chat(
            question.asked, tools=question.tools, tool_choice=question.tool_choice, **question.call
        )

    async def _aanswer(self, question: _Question) -> ChatResult:
        if isinstance(question.asked, Prompt):
            return await self.async_client.generate(question.asked, **question.call)
        return await self.async_client.chat(
            question.asked, tools=question.tools, tool_choice=question.tool_choice, **question.call
        )

    def _stream(self, question: _Question) -> ChatStream:
        if isinstance(question.asked, Prompt):
            return self.client.generate_stream(question.asked, **question.call)
        return self.client.chat_stream(
            question.asked, tools=question.tools, tool_choice=question.tool_choice, **question.call
        )

    def _astream(self, question: _Question) -> AsyncChatStream:
        if isinstance(question.asked, Prompt):
            return self.async_client.generate_stream(question.asked, **question.call)
        return self.async_client.chat_stream(
            question.asked, tools=question.tools, tool_choice=question.tool_choice, **question.call
        )


def _merged(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call; LlamaIndex's `additional_kwargs` are further ones, and named ones win."""
    further = kwargs.get("additional_kwargs") or {}
    return {**further, **{name: value for name, value in kwargs.items() if name != "additional_kwargs"}}


def _with_tools(messages: list[Message], call: dict[str, Any]) -> _Question:
    """A question to /api/chat; takes the arguments about tools out of `call`."""
    tools = [to_tool(tool) for tool in call.pop("tools", None) or ()]
    choice = to_tool_choice(call.pop("tool_choice", None))
    single = call.pop("allow_parallel_tool_calls", True) is False
    return _Question(messages, call, tools, choice, single)


def _grow(stream: ChatStream, response: Callable[[ChatChunk], _R]) -> Generator[_R, None, None]:
    with stream:
        for chunk in stream:
            yield response(chunk)


async def _agrow(stream: AsyncChatStream, response: Callable[[ChatChunk], _R]) -> AsyncGenerator[_R, None]:
    async with stream:
        async for chunk in stream:
            yield response(chunk)


def _token_ids(llm: OllamaDify, text: str) -> Sequence[int]:
    counter = llm.counter()
    count = counter.text(text)
    # Without a vocabulary there is a number but no ids; LlamaIndex only looks at the length.
    return counter.token_ids(text) if count.exact else range(count.tokens)
