"""What the eight methods send and give back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from llama_index.core.base.llms.types import TextBlock, ThinkingBlock

from llamaindex_ollama_dify import OllamaDify
from ollama_dify import IncompleteResponseError
from ollama_dify.testing import Reply, SimulatedOllama
from tests.llamaindex.asking import CHAT_METHODS, METHODS, as_asked, ask, sent, text_of

MakeLLM = Callable[..., OllamaDify]
every_method = pytest.mark.parametrize("method", METHODS)
streams = pytest.mark.parametrize("method", [name for name in METHODS if "stream" in name])


@every_method
@pytest.mark.parametrize(
    ("mode", "path"), [("chat", "/api/chat"), ("completion", "/api/generate")], ids=["chat", "completion"]
)
async def test_text_and_request(
    server: SimulatedOllama, make_llm: MakeLLM, method: str, mode: str, path: str
) -> None:
    server.script([Reply(pieces=["Hel", "lo ", "you"])])
    llm = make_llm(mode=mode, context_size=2048, max_tokens=512, temperature=0)
    responses = await ask(llm, method, as_asked(method, "Say hello"), seed=7)

    assert text_of(responses[-1]) == "Hello you"
    if "stream" in method:
        assert [response.delta for response in responses] == ["Hel", "lo ", "you", ""]
        assert [text_of(response) for response in responses] == ["Hel", "Hello ", "Hello you", "Hello you"]
    (request,) = [request for request in server.requests if request.path == path]
    body = request.body
    asked = (
        {"prompt": "Say hello"}
        if mode == "completion"
        else {"messages": [{"role": "user", "content": "Say hello"}]}
    )
    assert body == {
        "model": "llama3.2",
        **asked,
        "stream": "stream" in method,
        "options": {"temperature": 0.0, "seed": 7, "num_ctx": 2048, "num_predict": 512},
        "truncate": False,
        "shift": False,
    }


@every_method
@pytest.mark.parametrize("mode", ["chat", "completion"])
async def test_usage_and_metadata(make_llm: MakeLLM, method: str, mode: str) -> None:
    llm = make_llm(mode=mode)
    *before, last = await ask(llm, method, as_asked(method, "Hello"))

    extra = last.additional_kwargs
    assert extra["prompt_tokens"] > 0
    assert extra["completion_tokens"] > 0
    assert extra["total_tokens"] == extra["prompt_tokens"] + extra["completion_tokens"]
    assert (extra["done_reason"], extra["model_name"], extra["model_provider"]) == (
        "stop",
        "llama3.2",
        "ollama",
    )
    assert extra["eval_count"] == extra["completion_tokens"]
    assert {"total_duration", "load_duration", "prompt_eval_duration", "eval_duration"} <= set(extra)
    assert last.raw["usage"] == {
        key: extra[key] for key in ("prompt_tokens", "completion_tokens", "total_tokens")
    }
    assert last.raw["done_reason"] == "stop"
    assert all(response.raw is None for response in before)


@every_method
async def test_thinking_is_apart(server: SimulatedOllama, make_llm: MakeLLM, method: str) -> None:
    server.script([Reply("Four.", thinking="Two and two.")])
    responses = await ask(make_llm("qwen3"), method, as_asked(method, "2+2?"), think=True)

    assert text_of(responses[-1]) == "Four."
    assert sent(server)[-1]["think"] is True
    if "stream" in method:
        deltas = [response.additional_kwargs.get("thinking_delta", "") for response in responses]
        assert "".join(deltas) == "Two and two."
        assert "".join(response.delta for response in responses) == "Four."
    if method in CHAT_METHODS:
        thinking, text = responses[-1].message.blocks
        assert (thinking, text) == (ThinkingBlock(content="Two and two."), TextBlock(text="Four."))
    else:
        assert responses[-1].additional_kwargs["thinking"] == "Two and two."


@every_method
async def test_log_probabilities(llm: OllamaDify, method: str) -> None:
    responses = await ask(llm, method, as_asked(method, "Hello"), logprobs=True, top_logprobs=2)
    rows = [row for response in responses for row in response.logprobs or []]
    assert "".join(row[0].token for row in rows) == text_of(responses[-1])
    for row in rows:
        assert len({candidate.token for candidate in row}) == len(row) >= 2
        assert all(candidate.logprob <= 0 for candidate in row)
        assert bytes(row[0].bytes).decode() == row[0].token


@every_method
async def test_answer_without_end_is_an_error(server: SimulatedOllama, llm: OllamaDify, method: str) -> None:
    server.script([Reply("Half of it", done=False)])
    with pytest.raises(IncompleteResponseError) as caught:
        await ask(llm, method, as_asked(method, "Hello"), max_retries=0)
    assert caught.value.partial.text == "Half of it"


@every_method
async def test_additional_kwargs_give_way_to_named_ones(
    server: SimulatedOllama, llm: OllamaDify, method: str
) -> None:
    further = {"temperature": 1, "top_k": 5}
    await ask(llm, method, as_asked(method, "Hello"), additional_kwargs=further, temperature=0)
    options = sent(server)[-1]["options"]
    assert (options["temperature"], options["top_k"]) == (0.0, 5)
    assert further == {"temperature": 1, "top_k": 5}
