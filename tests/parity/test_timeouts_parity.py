"""A server that falls silent: every call of both adapters ends at the limit that binds it, sent once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings, OllamaDifyLLM
from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding
from ollama_dify import AsyncOllamaClient, EmbeddingSettings, OllamaClient, RequestTimeoutError, Timeouts
from ollama_dify.testing import Fault, Reply, SimulatedOllama

SHORT_S = 0.15
Call = Callable[[Any], Any]


async def drained(stream: Any) -> None:
    async for _ in stream:
        pass


async def llamaindex_drained(opening: Any) -> None:
    await drained(await opening)


# kind, its sync and async call
WHOLE: dict[str, tuple[Any, Call, Call]] = {
    "langchain chat": (ChatOllamaDify, lambda m: m.invoke("Hi"), lambda m: m.ainvoke("Hi")),
    "langchain llm": (OllamaDifyLLM, lambda m: m.invoke("Hi"), lambda m: m.ainvoke("Hi")),
    "langchain query": (OllamaDifyEmbeddings, lambda m: m.embed_query("a"), lambda m: m.aembed_query("a")),
    "langchain documents": (
        OllamaDifyEmbeddings,
        lambda m: m.embed_documents(["a"]),
        lambda m: m.aembed_documents(["a"]),
    ),
    "llamaindex complete": (OllamaDify, lambda m: m.complete("Hi"), lambda m: m.acomplete("Hi")),
    "llamaindex query": (
        OllamaDifyEmbedding,
        lambda m: m.get_query_embedding("a"),
        lambda m: m.aget_query_embedding("a"),
    ),
}
STREAMED: dict[str, tuple[Any, Call, Call]] = {
    "langchain chat": (ChatOllamaDify, lambda m: list(m.stream("Hi")), lambda m: drained(m.astream("Hi"))),
    "langchain llm": (OllamaDifyLLM, lambda m: list(m.stream("Hi")), lambda m: drained(m.astream("Hi"))),
    "llamaindex complete": (
        OllamaDify,
        lambda m: list(m.stream_complete("Hi")),
        lambda m: llamaindex_drained(m.astream_complete("Hi")),
    ),
}
ROWS = [
    *(
        pytest.param(calls, limit, Fault("stall", part="response"), id=f"{name}, {limit}")
        for name, calls in WHOLE.items()
        for limit in ("answer", "total")
    ),
    *(
        pytest.param(calls, limit, fault, id=f"{name} streamed, {limit}, {when}")
        for name, calls in STREAMED.items()
        for limit, when, fault in (
            ("first_byte", "mute", Fault("stall", part="response")),
            ("total", "mute", Fault("stall", part="response")),
            ("idle", "in the answer", Fault("stall", chunks=2)),
            ("total", "in the answer", Fault("stall", chunks=2)),
        )
    ),
]


MODES = pytest.mark.parametrize("mode", ["sync", "async"])


@MODES
@pytest.mark.parametrize(("calls", "limit", "fault"), ROWS)
async def test_a_silent_server(
    simulated_ollama: SimulatedOllama, calls: tuple[Any, Call, Call], limit: str, fault: Fault, mode: str
) -> None:
    kind, *ways = calls
    simulated_ollama.reply(Reply(pieces=["a", "b", "c", "d"]), times=None)
    simulated_ollama.fault(fault, times=None)
    model = kind(
        model="nomic-embed-text" if "Embedding" in kind.__name__ else "llama3.2",
        base_url=simulated_ollama.base_url,
        timeout=Timeouts(**{limit: SHORT_S}),
    )
    async with model:
        with pytest.raises(RequestTimeoutError, match=f"the limit for {limit} is {SHORT_S} s") as caught:
            ways[0](model) if mode == "sync" else await ways[1](model)
        model.close()
    error = caught.value
    assert (error.phase, error.retryable, error.attempts) == (limit, False, 1)
    assert f"Timeouts({limit}=…)" in str(error)
    assert len(simulated_ollama.requests) == 1


async def embedded(server: SimulatedOllama, mode: str, **values: Any) -> None:
    settings = EmbeddingSettings(model="nomic-embed-text", base_url=server.base_url, **values)
    texts = [str(number) for number in range(6)]
    if mode == "sync":
        with OllamaClient(settings) as client:
            client.embed(texts)
    else:
        async with AsyncOllamaClient(settings) as awaiting:
            await awaiting.embed(texts)


@MODES
async def test_the_total_ends_a_call_between_its_batches(
    simulated_ollama: SimulatedOllama, mode: str
) -> None:
    simulated_ollama.latency.first_byte_s = 0.2
    with pytest.raises(RequestTimeoutError, match=r"the limit for total is 0\.5 s") as caught:
        await embedded(simulated_ollama, mode, batch_size=1, max_concurrency=1, timeout=0.5)
    assert caught.value.phase == "total"
    assert len(simulated_ollama.requests) < 6
    assert any(caught.value.partial), "what was done is kept"


@MODES
async def test_a_wait_for_the_next_try_that_the_total_forbids(
    simulated_ollama: SimulatedOllama, mode: str
) -> None:
    simulated_ollama.fault(
        Fault("status", status=503, headers={"Retry-After": "30"}, data=b'{"error":"busy"}'), times=None
    )
    with pytest.raises(RequestTimeoutError, match=r"total is 5.0 s.*The last try failed") as caught:
        await embedded(simulated_ollama, mode, timeout=5.0)
    assert (caught.value.phase, caught.value.attempts) == ("total", 1)
    assert len(simulated_ollama.requests) == 1


@MODES
async def test_a_look_up_is_given_a_minute(
    simulated_ollama: SimulatedOllama, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr("ollama_dify.transport.endpoint.LOOK_UP_S", SHORT_S)
    simulated_ollama.fault(Fault("stall", part="response"), times=None)
    model = ChatOllamaDify(
        model="llama3.2", base_url=simulated_ollama.base_url, timeout=Timeouts(answer=None, pool=59)
    )
    with pytest.raises(RequestTimeoutError, match=r"(?s)answer is 0.15 s.*A look-up is given") as caught:
        model.warmup() if mode == "sync" else await model.awarmup()
    assert (caught.value.phase, len(simulated_ollama.requests)) == ("answer", 1)
    model.close()
    await model.aclose()
