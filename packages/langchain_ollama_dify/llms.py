"""`OllamaDifyLLM`: the settings as a LangChain completion model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLLM, LanguageModelInput
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from langchain_core.prompt_values import ChatPromptValue, PromptValue
from langchain_core.runnables.config import ContextThreadPoolExecutor

from ollama_dify import (
    ChatChunk,
    ChatResult,
    ChatSettings,
    Finish,
    Prompt,
    TextPart,
    UnsupportedContentError,
)
from ollama_dify.adapter import ClientOwner, Request, load_image

from .answers import facts, usage
from .convert import core_messages
from .errors import langchain_errors
from .serialization import LangChainModel, settings_of_call

__all__ = ["OllamaDifyLLM"]


class OllamaDifyLLM(LangChainModel, BaseLLM, ClientOwner, ChatSettings):
    """Text in, text out, always by /api/generate.

    A call also takes `system`, `suffix` (text after the gap to fill), `raw` (no template),
    `template` and `images` (bytes, base64, data: URLs, path or `Image` objects).
    """

    _traced_as = "llm"

    # LangChain's own prints every field.
    __str__ = ChatSettings.__repr__

    @property
    def _llm_type(self) -> str:
        return "ollama-dify"

    def _convert_input(self, model_input: LanguageModelInput) -> PromptValue:
        value = super()._convert_input(model_input)
        if isinstance(value, ChatPromptValue):
            with langchain_errors():
                _refuse_images(value, self)
        return value

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        def complete(text: str) -> Generation:
            with langchain_errors():
                return _generation(self.client.ask(_request(self, text, stop, kwargs)))

        if len(prompts) == 1:
            return LLMResult(generations=[[complete(prompts[0])]])
        with ContextThreadPoolExecutor(max_workers=self.max_connections) as pool:
            return LLMResult(generations=[[one] for one in pool.map(complete, prompts)])

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        async def complete(text: str) -> Generation:
            with langchain_errors():
                request = await self._off_loop(partial(_request, self, text, stop, kwargs), kwargs)
                return _generation(await self.async_client.ask(request))

        return LLMResult(generations=[[one] for one in await asyncio.gather(*map(complete, prompts))])

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        with langchain_errors():
            request = _request(self, prompt, stop, kwargs, streamed=True)
            with self.client.ask_stream(request) as stream:
                for piece in stream:
                    chunk = _chunk(piece)
                    if run_manager is not None:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        with langchain_errors():
            read = partial(_request, self, prompt, stop, kwargs, streamed=True)
            request = await self._off_loop(read, kwargs)
            async with self.async_client.ask_stream(request) as stream:
                async for piece in stream:
                    chunk = _chunk(piece)
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk


def _refuse_images(value: ChatPromptValue, settings: ChatSettings) -> None:
    """A prompt is one text: LangChain's own conversion would drop an image silently."""
    for index, message in enumerate(core_messages(value.messages, settings)):
        if any(not isinstance(part, TextPart) for part in message.content):
            raise UnsupportedContentError(
                f"messages[{index}] holds an image, and a completion model takes one text.",
                hint="Pass images=[…] with the call, or use ChatOllamaDify.",
            )


def _request(
    model: ChatSettings,
    text: str,
    stop: list[str] | None,
    kwargs: Mapping[str, Any],
    *,
    streamed: bool = False,
) -> Request:
    call = settings_of_call(stop, kwargs)
    images = call.pop("images", None) or ()

    def read(settings: ChatSettings) -> Prompt:
        taken = [load_image(one, settings, where=f"images[{n}]") for n, one in enumerate(images)]
        return Prompt(text, images=tuple(taken))

    return Request.of_call(model, read, call, streamed=streamed)


def _generation(result: ChatResult) -> Generation:
    return Generation(
        text=result.text, generation_info=_info(result.thinking, result.finish, result.logprobs)
    )


def _chunk(piece: ChatChunk) -> GenerationChunk:
    text, thinking, _, logprobs, finish = piece
    if not (thinking or logprobs or finish):
        return GenerationChunk(text=text)
    return GenerationChunk(text=text, generation_info=_info(thinking, finish, logprobs))


def _info(thinking: str, finish: Finish | None, logprobs: Any) -> dict[str, Any]:
    """The data of an answer besides its text; LangChain's completions have no message for it."""
    told: dict[str, Any] = {"reasoning_content": thinking} if thinking else {}
    if finish is not None:
        told["usage_metadata"] = usage(finish)
    return {**told, **(facts(finish, logprobs) if finish or logprobs else {})}
