"""`OllamaDifyLLM`: the settings as a LangChain completion model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLLM, LanguageModelInput
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from langchain_core.prompt_values import ChatPromptValue, PromptValue
from langchain_core.runnables.config import ContextThreadPoolExecutor
from pydantic import field_validator

from ollama_dify import (
    ChatChunk,
    ChatResult,
    ChatSettings,
    ClientOwner,
    Finish,
    Prompt,
    TextPart,
    UnsupportedContentError,
    load_image,
)

from .answers import facts, usage
from .citizen import Citizen, settings_in_use, tracing_params
from .convert import PROMPT_ARGUMENTS, core_messages
from .counting import count_text, token_ids
from .errors import langchain_errors
from .formats import answer_format
from .images import image_settings

if TYPE_CHECKING:
    from langchain_core.language_models import LangSmithParams

__all__ = ["OllamaDifyLLM"]


class OllamaDifyLLM(BaseLLM, Citizen, ClientOwner, ChatSettings):
    """Text in, text out, always by /api/generate.

    A call takes, beside the settings, `system`, `suffix` (text after the gap to fill), `raw` (no template),
    `template` and `images` (bytes, base64, data: URLs, path or `Image` objects).
    """

    @field_validator("format", mode="before")
    @classmethod
    def _unwrap_format(cls, value: Any) -> Any:
        return answer_format(value)

    @property
    def _llm_type(self) -> str:
        return "ollama-dify"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return settings_in_use(self, ChatSettings)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return tracing_params(self, "llm", stop, kwargs)

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
        extra, call = _arguments(self, stop, kwargs)

        def complete(text: str) -> Generation:
            with langchain_errors():
                return _generation(self.client.generate(Prompt(text, **extra), **call))

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
        extra, call = await self._off_loop(partial(_arguments, self, stop, kwargs), kwargs)

        async def complete(text: str) -> Generation:
            with langchain_errors():
                return _generation(await self.async_client.generate(Prompt(text, **extra), **call))

        return LLMResult(generations=[[one] for one in await asyncio.gather(*map(complete, prompts))])

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        with langchain_errors():
            extra, call = _arguments(self, stop, kwargs)
            with self.client.generate_stream(Prompt(prompt, **extra), **call) as stream:
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
            extra, call = await self._off_loop(partial(_arguments, self, stop, kwargs), kwargs)
            async with self.async_client.generate_stream(Prompt(prompt, **extra), **call) as stream:
                async for piece in stream:
                    chunk = _chunk(piece)
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    def get_token_ids(self, text: str) -> list[int]:
        """The model's own tokens of a text, or those of `custom_get_token_ids`."""
        return token_ids(self, text, self.custom_get_token_ids)

    def get_num_tokens(self, text: str) -> int:
        """How many tokens a text has; an upper bound where the server shows no vocabulary."""
        return count_text(self, text, self.custom_get_token_ids)


def _refuse_images(value: ChatPromptValue, settings: ChatSettings) -> None:
    """A prompt is one text: LangChain's own way to it would drop an image without a word."""
    for index, message in enumerate(core_messages(value.messages, settings)):
        if any(not isinstance(part, TextPart) for part in message.content):
            raise UnsupportedContentError(
                f"messages[{index}] holds an image, and a completion model takes one text.",
                hint="Pass images=[…] with the call, or use ChatOllamaDify.",
            )


def _arguments(
    model: ChatSettings, stop: list[str] | None, kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of a call's arguments belongs to the prompt, and what to the settings."""
    call = {name: value for name, value in kwargs.items() if name != "stream"}
    extra = {name: call.pop(name) for name in PROMPT_ARGUMENTS if name in call}
    if "images" in call:
        settings = image_settings(model, call)
        extra["images"] = tuple(
            load_image(image, settings, where=f"images[{index}]")
            for index, image in enumerate(call.pop("images"))
        )
    if stop is not None:
        call["stop"] = stop
    if "format" in call:
        call["format"] = answer_format(call["format"])
    return extra, call


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
    """What stands beside the text: LangChain's completions have no message for it."""
    told: dict[str, Any] = {"reasoning_content": thinking} if thinking else {}
    if finish is not None:
        told["usage_metadata"] = usage(finish)
    return {**told, **(facts(finish, logprobs) if finish or logprobs else {})}
