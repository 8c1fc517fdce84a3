"""A prompt that does not fit, in every way either framework has to ask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import trim_messages
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.memory import ChatMemoryBuffer, Memory
from llama_index.core.prompts import PromptTemplate

from langchain_ollama_dify import ChatOllamaDify, OllamaDifyLLM
from llamaindex_ollama_dify import OllamaDify
from ollama_dify import (
    ConfigurationError,
    ContextOverflowError,
    Message,
    ToolCall,
    assistant,
    system,
    user,
)
from ollama_dify.testing import SimulatedOllama

from .cases import WEATHER
from .ways import CHAT, TEXT, Way, in_its_words, langchain_messages, llamaindex_messages

VERSIONS = ("0.24.0", "0.32.15", "0.33.0-rc2")
# 160,000 tokens and more of the simulated server's vocabulary.
OVERLONG = " ".join(f"word{number % 97}" for number in range(34_000))
RESULT = Message("tool", user("dog " * 60).content, tool_name="look", tool_call_id="c1")
TALK = [
    system("You are a pirate."),
    user("first " + "cat " * 300),
    assistant(tool_calls=[ToolCall("look", {}, "c1")]),
    RESULT,
    assistant("second " + "dog " * 300),
    *(turn for n in range(5) for turn in (user(f"q{n} " + "cat " * 150), assistant(f"a{n} " + "dog " * 150))),
    user("last question"),
]


@pytest.fixture(scope="module", params=VERSIONS)
def server(request: pytest.FixtureRequest) -> Iterator[SimulatedOllama]:
    with SimulatedOllama(version=request.param) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(server: SimulatedOllama) -> None:
    server.reset()


async def ask(
    server: SimulatedOllama, kind: type[Any], way: Way, asked: Any, **values: Any
) -> dict[str, Any]:
    values = {"model": "llama3.2", "base_url": server.base_url, "max_retries": 0, **values}
    model = kind(**values)
    try:
        return await way(model, asked)
    finally:
        model.close()
        await model.aclose()


def sent(server: SimulatedOllama) -> list[dict[str, Any]]:
    return [
        request.body
        for request in server.requests
        if request.path in ("/api/chat", "/api/generate") and not request.body.get("_debug_render_only")
    ]


@pytest.mark.parametrize("way", [*CHAT, *TEXT])
@pytest.mark.parametrize("mode", ["chat", "completion"])
async def test_an_overlong_prompt_is_an_error_by_default(
    server: SimulatedOllama, mode: str, way: str
) -> None:
    kind, how = {**CHAT, **TEXT}[way]
    asked = in_its_words(kind, [user(OVERLONG)]) if way in CHAT else OVERLONG
    values = {} if kind is OllamaDifyLLM else {"mode": mode}
    with pytest.raises(ContextOverflowError) as caught:
        await ask(server, kind, how, asked, **values)
    assert caught.value.limit == 4095
    tokens = caught.value.prompt_tokens
    assert tokens
    assert tokens >= 160_000
    assert len(sent(server)) == 1


@pytest.mark.parametrize("way", CHAT)
async def test_trim_answers_and_says_what_it_dropped(server: SimulatedOllama, way: str) -> None:
    kind, how = CHAT[way]
    told = await ask(
        server,
        kind,
        how,
        in_its_words(kind, TALK),
        context_size=1024,
        max_tokens=128,
        context_overflow="trim",
    )
    assert told["dropped_messages"] == list(range(1, told["dropped_messages"][-1] + 1))
    assert told["dropped_messages"][-1] in (6, 8, 10, 12, 14)
    assert told["prompt_eval_count"] <= 1023 - 128
    (body,) = sent(server)
    roles = [turn["role"] for turn in body["messages"]]
    assert (roles[0], roles[1], body["messages"][-1]["content"]) == ("system", "user", "last question")
    assert "tool" not in roles
    assert "truncated" not in told


@pytest.mark.parametrize("way", [*CHAT, *TEXT])
async def test_truncate_answers_and_says_that_the_server_cut(server: SimulatedOllama, way: str) -> None:
    kind, how = {**CHAT, **TEXT}[way]
    text = OVERLONG[:30_000]
    asked = in_its_words(kind, [user(text)]) if way in CHAT else text
    told = await ask(server, kind, how, asked, context_overflow="truncate")
    assert told["truncated"] is True
    assert told["prompt_eval_count"] <= 4096


@pytest.mark.parametrize("mode", ["error", "trim", "truncate"])
@pytest.mark.parametrize("kind", [ChatOllamaDify, OllamaDify], ids=["langchain", "llamaindex"])
async def test_no_request_of_one_object_changes_the_context(
    server: SimulatedOllama, kind: type[Any], mode: str
) -> None:
    model = kind(model="llama3.2", base_url=server.base_url, context_size=2048, context_overflow=mode)
    await model.awarmup()
    model.warmup()
    asked = in_its_words(kind, TALK[-3:])
    for name, (owner, how) in CHAT.items():
        if owner is kind:
            await how(model, asked)
            assert server.requests, name
    model.client.count_tokens(TALK[-3:])
    if mode != "error":
        await (model.ainvoke if kind is ChatOllamaDify else model.achat)(in_its_words(kind, TALK * 3))
    with_options = [request.body for request in server.requests if "options" in (request.body or {})]
    assert len(with_options) >= 6
    assert {body["options"]["num_ctx"] for body in with_options} == {2048}
    assert (server.loads, server.reloads) == (1, 0)
    model.close()
    await model.aclose()


# Counts, in either framework's words.


def langchain(server: SimulatedOllama, **values: Any) -> ChatOllamaDify:
    return ChatOllamaDify(**{"model": "llama3.2", "base_url": server.base_url, **values})


def llamaindex(server: SimulatedOllama, **values: Any) -> OllamaDify:
    return OllamaDify(**{"model": "llama3.2", "base_url": server.base_url, **values})


TEXTS = ["", "Hello", "你好, world 🙂", "a " * 500, "def f(x):\n    return x\n"]


def test_both_frameworks_count_as_the_model_does(server: SimulatedOllama) -> None:
    with langchain(server) as one, llamaindex(server) as other:
        for text in TEXTS:
            counted = other.client.count_tokens(text)
            assert counted.exact
            assert one.get_num_tokens(text) == counted.tokens
            if text:
                assert len(one.get_token_ids(text)) == len(other.tokenizer(text)) == counted.tokens


def test_messages_count_what_the_server_reports(server: SimulatedOllama) -> None:
    with langchain(server, context_size=8192) as model:
        for messages in ([user("Hello")], TALK, TALK[:1] + TALK[-1:]):
            told = model.invoke(langchain_messages(messages)).response_metadata
            counted = model.get_num_tokens_from_messages(langchain_messages(messages))
            assert counted == told["prompt_eval_count"]
        given = [{"type": "function", "function": WEATHER}]
        told = model.invoke("Hello", tools=given).response_metadata
        asked = langchain_messages([user("Hello")])
        assert model.get_num_tokens_from_messages(asked, tools=given) == told["prompt_eval_count"]


def test_langchains_trim_messages(server: SimulatedOllama) -> None:
    with langchain(server, context_size=8192) as model:
        messages = langchain_messages(TALK)
        kept = trim_messages(
            messages,
            max_tokens=1000,
            token_counter=model,
            strategy="last",
            include_system=True,
            start_on="human",
        )
        assert kept[0] == messages[0]
        assert kept[-1] == messages[-1]
        assert 2 < len(kept) < len(messages)
        assert model.invoke(kept).response_metadata["prompt_eval_count"] <= 1000


async def test_llamaindex_memories(server: SimulatedOllama) -> None:
    llm = llamaindex(server, context_size=1024)
    await llm.awarmup()
    history = llamaindex_messages([turn for turn in TALK if not turn.tool_calls and turn.role != "tool"])
    buffer = ChatMemoryBuffer.from_defaults(history, token_limit=700, tokenizer_fn=llm.tokenizer)
    memory = Memory.from_defaults(session_id="s", token_limit=700, tokenizer_fn=llm.tokenizer)
    await memory.aput_messages(history)
    remembered = await memory.aget()
    engine = memory.sql_store._async_engine
    assert engine is not None
    await engine.dispose()
    for kept in (buffer.get(), remembered):
        assert 0 < len(kept) < len(history)
        assert sum(len(llm.tokenizer(message.content or "")) for message in kept) <= 700
    llm.close()
    await llm.aclose()


def test_llamaindexs_prompt_helper_fills_the_context_and_no_more(server: SimulatedOllama) -> None:
    with llamaindex(server, context_size=1024) as llm:
        helper = PromptHelper.from_llm_metadata(llm.metadata, tokenizer=llm.tokenizer)
        template = PromptTemplate("Use this: {context_str}\nAnswer: {query_str}")
        chunks = ["cat " * 400, "dog " * 400]
        packed = helper.repack(template.partial_format(query_str="q"), chunks, llm=llm)
        assert len(packed) >= 2
        for text in packed:
            prompt = template.format(context_str=text, query_str="q")
            answer = llm.complete(prompt)
            # The helper knows nothing of the model's chat template, which the reserve pays for.
            assert answer.additional_kwargs["prompt_tokens"] <= 1024 - llm.metadata.num_output + 16
            assert answer.text


def test_the_metadata_of_both_tell_the_same(server: SimulatedOllama) -> None:
    for values in ({}, {"max_tokens": 100}, {"context_size": 8192, "max_tokens": 4096}):
        with langchain(server, **values) as one, llamaindex(server, **values) as other:
            window, reserve = other.metadata.context_window, other.metadata.num_output
            assert window == one.context_size
            assert one.profile is not None
            assert one.profile["max_input_tokens"] == window - reserve
            assert reserve == one.answer_reserve
            assert server.requests == []
            one.warmup()
            other.warmup()
            asked = len(server.requests)
            assert one.profile["tool_calling"] is other.metadata.is_function_calling_model is True
            assert one.profile["image_inputs"] is False
            assert len(server.requests) == asked
            server.reset()


@pytest.mark.parametrize("kind", [ChatOllamaDify, OllamaDifyLLM, OllamaDify])
async def test_counting_never_blocks_an_event_loop(server: SimulatedOllama, kind: type[Any]) -> None:
    model = kind(model="llama3.2", base_url=server.base_url)

    def count() -> int:
        return len(model.tokenizer("Hello")) if kind is OllamaDify else model.get_num_tokens("Hello")

    estimate = count()
    assert 5 <= estimate <= 16  # bytes, since nothing is known yet
    if kind is not OllamaDify:
        with pytest.raises(ConfigurationError, match=r"await model\.awarmup\(\)"):
            model.get_token_ids("Hello")
    if kind is ChatOllamaDify:
        assert model.get_num_tokens_from_messages(langchain_messages(TALK)) > 1000
    assert server.requests == []
    await model.awarmup()
    asked = len(server.requests)
    assert count() < estimate
    if kind is ChatOllamaDify:
        bound = model.get_num_tokens_from_messages(langchain_messages(TALK))
        exact = (await model.async_client.count_tokens(TALK)).tokens
        assert exact <= bound <= max(exact + 16, exact * 1.05)
        asked += 1
    assert len(server.requests) == asked
    await model.aclose()
    model.close()


# What the form claims and what the server says.


@pytest.mark.parametrize("kind", [ChatOllamaDify, OllamaDify], ids=["langchain", "llamaindex"])
def test_a_claim_costs_no_request(server: SimulatedOllama, kind: type[Any]) -> None:
    with kind(model="llama3.2", base_url=server.base_url, vision_support=True) as model:
        ask_once = model.invoke if kind is ChatOllamaDify else model.complete
        ask_once("Hello")
        ask_once("Hello")
        assert [request.path for request in server.requests] == ["/api/chat", "/api/chat"]
