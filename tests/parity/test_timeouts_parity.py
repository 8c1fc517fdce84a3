"""A server that falls silent: every call of both adapters ends at the limit that binds it, sent once."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import BaseModel

import langchain_ollama_dify
import llamaindex_ollama_dify
from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings, OllamaDifyLLM
from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding
from ollama_dify import (
    AsyncOllamaClient,
    EmbeddingSettings,
    OllamaClient,
    OllamaError,
    RequestTimeoutError,
    Timeouts,
    user,
)
from ollama_dify.testing import Fault, Reply, SimulatedOllama

from .ways import ended

SHORT_S = 0.15


class City(BaseModel):
    name: str


# A class, its call (async: with an `a` before it), and its argument.
WHOLE = [
    (ChatOllamaDify, "invoke", "Hi"),
    (OllamaDifyLLM, "invoke", "Hi"),
    (OllamaDifyEmbeddings, "embed_query", "a"),
    (OllamaDifyEmbeddings, "embed_documents", ["a"]),
    (OllamaDify, "complete", "Hi"),
    (OllamaDifyEmbedding, "get_query_embedding", "a"),
]
STREAMED = [
    (ChatOllamaDify, "stream", "Hi"),
    (OllamaDifyLLM, "stream", "Hi"),
    (OllamaDify, "stream_complete", "Hi"),
]
MUTE, HALFWAY = Fault("stall", part="response"), Fault("stall", chunks=2)
ROWS = [(*call, limit, MUTE) for call in WHOLE for limit in ("answer", "total")] + [
    (*call, limit, fault)
    for call in STREAMED
    for limit, fault in (("first_byte", MUTE), ("total", MUTE), ("idle", HALFWAY), ("total", HALFWAY))
]
MODES = pytest.mark.parametrize("mode", ["sync", "async"])


@MODES
@pytest.mark.parametrize(("kind", "name", "argument", "limit", "fault"), ROWS)
async def test_a_silent_server(
    simulated_ollama: SimulatedOllama,
    kind: Any,
    name: str,
    argument: Any,
    limit: str,
    fault: Fault,
    mode: str,
) -> None:
    simulated_ollama.reply(Reply(pieces=["a", "b", "c", "d"]), times=None)
    simulated_ollama.fault(fault, times=None)
    model = kind(
        model="nomic-embed-text" if "Embedding" in kind.__name__ else "llama3.2",
        base_url=simulated_ollama.base_url,
        timeout=Timeouts(**{limit: SHORT_S}),
    )
    async with model:
        with pytest.raises(RequestTimeoutError, match=f"the limit for {limit} is {SHORT_S} s") as caught:
            await run_to_its_end(model, name, (argument,), awaited=mode == "async")
        model.close()
    error = caught.value
    assert (error.phase, error.retryable, error.attempts) == (limit, False, 1)
    assert f"Timeouts({limit}=…)" in str(error)
    assert len(simulated_ollama.requests) == 1


# Every other public call of a model and of its clients: its class, its name (async: with an `a` before it),
# and its arguments.
HELLO, NODES, PROMPT = [ChatMessage("Hi")], [NodeWithScore(node=TextNode(text="a"))], PromptTemplate("a")
CALLS: list[tuple[Any, str, tuple[Any, ...]]] = [
    (ChatOllamaDify, "batch", (["Hi"],)),
    (ChatOllamaDify, "warmup", ()),
    (ChatOllamaDify, "with_structured_output.invoke", ("Hi",)),
    (ChatOllamaDify, "with_structured_output.stream", ("Hi",)),
    (OllamaDifyLLM, "batch", (["Hi"],)),
    (OllamaDifyLLM, "warmup", ()),
    (OllamaDifyEmbeddings, "embed", (["a"],)),
    (OllamaDifyEmbeddings, "fingerprint", ()),
    (OllamaDifyEmbeddings, "warmup", ()),
    (langchain_ollama_dify.OllamaDifyRerank, "compress_documents", ([Document("a")], "a")),
    (langchain_ollama_dify.OllamaDifyRerank, "warmup", ()),
    (OllamaDify, "chat", (HELLO,)),
    (OllamaDify, "stream_chat", (HELLO,)),
    (OllamaDify, "chat_with_tools", ([], "Hi")),
    (OllamaDify, "structured_predict", (City, PROMPT)),
    (OllamaDify, "stream_structured_predict", (City, PROMPT)),
    (OllamaDify, "warmup", ()),
    (OllamaDifyEmbedding, "get_text_embedding", ("a",)),
    (OllamaDifyEmbedding, "get_text_embedding_batch", (["a"],)),
    (OllamaDifyEmbedding, "embed", (["a"],)),
    (OllamaDifyEmbedding, "fingerprint", ()),
    (OllamaDifyEmbedding, "warmup", ()),
    (llamaindex_ollama_dify.OllamaDifyRerank, "postprocess_nodes", (NODES, None, "a")),
    (llamaindex_ollama_dify.OllamaDifyRerank, "warmup", ()),
    *(
        (OllamaDify, f"client.{name}", arguments)
        for name, arguments in {
            "chat": ([user("a")],),
            "chat_stream": ([user("a")],),
            "generate": ("a",),
            "generate_stream": ("a",),
            "model_info": (),
            "show": (),
            "tags": (),
            "ps": (),
            "version": (),
            "pull": (),
            "counter": (),
            "count_tokens": ([user("a")],),
        }.items()
    ),
    (llamaindex_ollama_dify.OllamaDifyRerank, "client.rerank", ("a", ["a"])),
    (OllamaDifyEmbeddings, "client.embed", (["a"],)),
    (OllamaDifyEmbeddings, "client.embedding_fingerprint", ()),
]


WAYS = {ChatOllamaDify: ("invoke", ("Hi",)), OllamaDify: ("chat", (HELLO,))}


async def run_to_its_end(model: Any, name: str, arguments: tuple[Any, ...], *, awaited: bool) -> None:
    owner, _, method = name.rpartition(".")
    if owner == "client":
        model = model.async_client if awaited else model.client
    elif owner:
        model = model.with_structured_output(City)
    await ended(getattr(model, f"a{method}" if awaited and owner != "client" else method)(*arguments))


@MODES
@pytest.mark.parametrize(
    ("kind", "name", "arguments"), CALLS, ids=[f"{row[0].__module__.split('_')[0]} {row[1]}" for row in CALLS]
)
async def test_every_call_ends_when_the_server_is_mute(
    simulated_ollama: SimulatedOllama, kind: Any, name: str, arguments: tuple[Any, ...], mode: str
) -> None:
    simulated_ollama.fault(Fault("stall", part="response"), times=None)
    short = Timeouts(answer=SHORT_S, first_byte=SHORT_S, idle=SHORT_S)
    async with kind(model="qwen3", base_url=simulated_ollama.base_url, timeout=short) as model:
        with pytest.raises(RequestTimeoutError, match=f"is {SHORT_S} s"):
            await run_to_its_end(model, name, arguments, awaited=mode == "async")
        model.close()
    assert len(simulated_ollama.requests) == 1


def test_each_public_call_of_the_clients_is_a_row() -> None:
    named = {name.partition(".")[2] for _, name, _ in CALLS if name.startswith("client.")}
    for client in (OllamaClient, AsyncOllamaClient):
        public = {name for name, value in vars(client).items() if callable(value) and name[0] != "_"}
        # The models' own rows call these; closing asks for nothing.
        assert public - {"ask", "ask_stream", "warmup", "close", "aclose"} <= named


@MODES
@pytest.mark.parametrize("kind", [ChatOllamaDify, OllamaDify])
async def test_a_mute_download_of_a_missing_model(
    simulated_ollama: SimulatedOllama, kind: Any, mode: str
) -> None:
    simulated_ollama.models.pop("llama3.2:latest")
    pulling = Fault("stall", part="response")
    simulated_ollama.fault(pulling, times=None, when=lambda request: request.path == "/api/pull")
    values = {"model": "llama3.2", "base_url": simulated_ollama.base_url, "timeout": 0.5, "pull": "missing"}
    async with kind(**values) as model:
        with pytest.raises(OllamaError, match=r"the limit for total is 0\.5 s"):
            await run_to_its_end(model, *WAYS[kind], awaited=mode == "async")
        model.close()
    assert simulated_ollama.requests[-1].path in ("/api/pull", "/api/tags")


@pytest.mark.parametrize("kind", sorted({row[0] for row in CALLS}, key=str))
def test_the_limits_are_finite_by_default(kind: Any) -> None:
    limits = kind(model="m").timeouts
    assert (limits.answer, limits.first_byte, limits.idle, limits.total) == (900, 600, 300, None)


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
