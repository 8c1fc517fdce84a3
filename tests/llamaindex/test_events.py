"""LlamaIndex's callbacks, events and rate limit: once per call, whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, TokenCountingHandler
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatInProgressEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionInProgressEvent,
    LLMCompletionStartEvent,
)

from llamaindex_ollama_dify import OllamaDify
from ollama_dify import OllamaError
from ollama_dify.testing import Reply, SimulatedOllama
from tests.llamaindex.asking import METHODS, as_asked, ask, text_of
from tests.llamaindex.watching import CountingLimiter, Recorder, Watcher

MakeLLM = Callable[..., OllamaDify]
every_method = pytest.mark.parametrize("method", METHODS)
CHAT_EVENTS = (LLMChatStartEvent, LLMChatInProgressEvent, LLMChatEndEvent)
COMPLETION_EVENTS = (LLMCompletionStartEvent, LLMCompletionInProgressEvent, LLMCompletionEndEvent)


@every_method
@pytest.mark.parametrize("mode", ["chat", "completion"])
async def test_events_callbacks_and_rate_limit_once(
    make_llm: MakeLLM, watcher: Watcher, method: str, mode: str
) -> None:
    recorder, limiter = Recorder(), CountingLimiter()
    llm = make_llm(mode=mode, callback_manager=CallbackManager([recorder]), rate_limiter=limiter)
    responses = await ask(llm, method, as_asked(method, "Hello"))

    assert limiter.taken == 1
    assert [kind for kind, _ in recorder.started] == [CBEventType.LLM]
    ((kind, payload),) = recorder.ended
    assert kind == CBEventType.LLM
    key = EventPayload.RESPONSE if "chat" in method else EventPayload.COMPLETION
    assert text_of(payload[key]) == text_of(responses[-1])

    start, in_progress, end = CHAT_EVENTS if "chat" in method else COMPLETION_EVENTS
    others = COMPLETION_EVENTS if "chat" in method else CHAT_EVENTS
    assert (watcher.count(start), watcher.count(end)) == (1, 1)
    assert watcher.count(in_progress) == (len(responses) if "stream" in method else 0)
    assert sum(watcher.count(other) for other in others) == 0
    assert watcher.of(start)[0].model_dict["model_name"] == "llama3.2"


@every_method
async def test_failure_is_reported_once(server: SimulatedOllama, make_llm: MakeLLM, method: str) -> None:
    server.reply(Reply("Half", error_at_end="it broke"), times=None)
    recorder = Recorder()
    llm = make_llm(callback_manager=CallbackManager([recorder]), max_retries=0)
    with pytest.raises(OllamaError) as caught:
        await ask(llm, method, as_asked(method, "Hello"))
    ((_, payload),) = recorder.ended
    assert payload[EventPayload.EXCEPTION] is caught.value


@every_method
async def test_token_counting_handler_sees_the_servers_counts(make_llm: MakeLLM, method: str) -> None:
    counter = TokenCountingHandler(tokenizer=lambda text: ["never"] * 10_000)
    llm = make_llm(callback_manager=CallbackManager([counter]))
    responses = await ask(llm, method, as_asked(method, "Hello"))
    usage = responses[-1].raw["usage"]
    assert counter.prompt_llm_token_count == usage["prompt_tokens"]
    assert counter.completion_llm_token_count == usage["completion_tokens"]
