"""Reranking: what is asked, how yes and no are read, order, documents that are too long; sync and async."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ollama_dify import (
    AsyncOllamaClient,
    CapabilityError,
    ChatSettings,
    ConfigurationError,
    ContextOverflowError,
    OllamaClient,
    ProtocolError,
    RerankResult,
    RerankSettings,
    UnsupportedContentError,
)
from ollama_dify.client.rerank import yes_share
from ollama_dify.testing import Reply, SimulatedModel, SimulatedOllama
from tests.testing.recordings import VERSIONS, recordings

QUERY = "How many of three piers has the harbour?"
RELEVANT, UNSURE, OTHER = "Piers of the harbour: three.", "Three cats.", "Tea is served."
Rerank = Callable[..., Awaitable[RerankResult]]


async def _sync(settings: Any, *asked: Any) -> RerankResult:
    with OllamaClient(settings) as client:
        return client.rerank(*asked)


async def _async(settings: Any, *asked: Any) -> RerankResult:
    async with AsyncOllamaClient(settings) as client:
        return await client.rerank(*asked)


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def rerank(request: pytest.FixtureRequest, simulated_ollama: SimulatedOllama) -> Rerank:
    async def ask(query: Any, documents: Any, **values: Any) -> RerankResult:
        settings = RerankSettings(
            **{"model": "qwen3-reranker", "base_url": simulated_ollama.base_url, **values}
        )
        found: RerankResult = await request.param(settings, query, documents)
        return found

    return ask


def judged(server: SimulatedOllama) -> list[dict[str, Any]]:
    return [request.body for request in server.requests if request.path == "/api/generate"]


CHATML = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
QWEN_SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
WEB = "Given a web search query, retrieve relevant passages that answer the query"


def qwen(instruction: str) -> dict[str, Any]:
    text = f"<Instruct>: {instruction}\n<Query>: a {{b}}?\n<Document>: c {{d}}"
    return {"prompt": CHATML.format(QWEN_SYSTEM, text) + "<think>\n\n</think>\n\n", "raw": True}


def mxbai(instruction: str) -> dict[str, Any]:
    task = (
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your "
        "binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
    )
    told = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    return {
        "prompt": CHATML.format(told, f"{instruction}query: a {{b}}?\ndocument: c {{d}}\n{task}"),
        "raw": True,
    }


BGE = (
    "A: a {b}?\nB: c {d}\nGiven a query A and a passage B, determine whether the passage contains an answer "
    "to the query by providing a prediction of either 'Yes' or 'No'."
)
PLAIN = {
    "system": "You judge whether a document is relevant to a query. You answer with one word: yes or no.",
    "prompt": "{}Query: a {{b}}?\n\nDocument: c {{d}}\n\nAnswer yes or no: is the document relevant to the "
    "query?",
}
# Model, instruction, what of the body is about the prompt.
PROMPTS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "qwen3-reranker": ("qwen3-reranker", None, qwen(WEB)),
    "another's upload": ("dengcao/Qwen3-Reranker-8B:Q5_K_M", "Find laws", qwen("Find laws")),
    "mxbai v2": ("hf.co/me/mxbai_rerank-large-v2-GGUF:Q4_0", None, mxbai("")),
    "mxbai v2, instruction": ("mxbai-rerank-base-v2", "Find laws", mxbai("instruction: Find laws\n")),
    "bge gemma": ("bge-reranker-v2-gemma", None, {"prompt": BGE, "raw": True}),
    "any chat model": ("llama3.2", None, {**PLAIN, "prompt": PLAIN["prompt"].format("")}),
    "any chat model, instruction": (
        "llama3.2",
        "Find laws",
        {**PLAIN, "prompt": PLAIN["prompt"].format("Instruction: Find laws\n\n")},
    ),
}


@pytest.mark.parametrize(("model", "instruction", "asked"), PROMPTS.values(), ids=PROMPTS)
def test_a_model_is_asked_by_its_published_prompt(
    model: str, instruction: str | None, asked: dict[str, Any]
) -> None:
    with SimulatedOllama([SimulatedModel(model, ("completion",))]) as server:
        values: dict[str, Any] = {"num_gpu": 1, "keep_alive": "5m", "options": {"penalty_last_n": 1}}
        settings = RerankSettings(model=model, base_url=server.base_url, instruction=instruction, **values)
        with OllamaClient(settings) as client:
            client.rerank("a {b}?", ["c {d}"])
        (body,) = judged(server)
    assert body == {
        "model": model,
        "stream": False,
        **asked,
        "options": {"num_gpu": 1, "num_ctx": 4096, "penalty_last_n": 1, "temperature": 0, "num_predict": 1},
        "keep_alive": "5m",
        "think": False,
        "logprobs": True,
        "top_logprobs": 20,
        "truncate": False,
        "shift": False,
    }


def tokens(**likely: float) -> list[dict[str, Any]]:
    """The first token's alternatives; `_` stands for a space."""
    top = [{"token": text.replace("_", " "), "logprob": math.log(part)} for text, part in likely.items()]
    return [{"token": "x", "logprob": 0.0, "top_logprobs": top}]


FIRST_TOKENS: dict[str, tuple[list[dict[str, Any]], float | None]] = {
    "yes and no": (tokens(yes=0.6, no=0.2), 0.75),
    "all spellings": (tokens(yes=0.2, Yes=0.1, _YES=0.1, No=0.05, _no=0.05, noon=0.4), 0.8),
    "sentencepiece's space": (tokens(**{"▁yes": 0.3, "▁No": 0.1}), 0.75),
    "no no": (tokens(yes=0.001, maybe=0.9), 1.0),
    "no yes": (tokens(No=0.001), 0.0),
    "neither": (tokens(maybe=0.9, yesterday=0.1), None),
    "no tokens": ([], None),
    "only the token itself": ([{"token": "Yes", "logprob": -0.1}], 1.0),
    "no more than a float's least": (
        [{"top_logprobs": [{"token": "yes", "logprob": -2000}, {"token": "no", "logprob": -2000.0}]}],
        0.5,
    ),
}


@pytest.mark.parametrize(("logprobs", "share"), FIRST_TOKENS.values(), ids=FIRST_TOKENS)
def test_yes_against_no(logprobs: list[dict[str, Any]], share: float | None) -> None:
    assert yes_share(logprobs) == (None if share is None else pytest.approx(share))


@pytest.mark.parametrize(
    "top", ["x", [1], [{"token": 1, "logprob": 0}], [{"token": "a"}], [{"token": "a", "logprob": True}]]
)
def test_what_is_no_log_probability(top: Any) -> None:
    with pytest.raises(ProtocolError):
        yes_share([{"token": "yes", "logprob": 0.0, "top_logprobs": top}])


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_log_probabilities(version: str) -> None:
    """They hold no yes or no, so this proves only that what servers send is decoded."""
    decoded = 0
    for one in recordings(version):
        if not one.name.startswith("logprobs-") or one.status != 200 or one.response.count("\n") > 1:
            continue
        (first, *_) = logprobs = json.loads(one.response)["logprobs"]
        assert yes_share(logprobs) is None
        chosen = first["token"].lower()
        assert yes_share(logprobs, chosen, "no") == 1.0
        if len(first.get("top_logprobs", ())) == 3:
            likely = [math.exp(entry["logprob"]) for entry in first["top_logprobs"]]
            assert yes_share(logprobs, chosen, "你好") == pytest.approx(likely[0] / (likely[0] + likely[1]))
            decoded += 1
    assert decoded == 1


async def test_scores_order_and_usage(rerank: Rerank, simulated_ollama: SimulatedOllama) -> None:
    documents = [OTHER, RELEVANT, UNSURE, "", RELEVANT]
    result = await rerank(QUERY, documents)
    assert result.scores == pytest.approx((0.02, 0.74, 0.26, 0.02, 0.74), abs=0.001)
    assert (result.order, result.failed) == ((1, 4, 2, 0, 3), ())
    assert (result.usage.output_tokens, len(judged(simulated_ollama))) == (5, 5)
    assert result.usage.input_tokens > 5 * 40
    best = await rerank(QUERY, documents, top_n=2, max_concurrency=1)
    assert (best.order, best.scores) == ((1, 4), result.scores)
    assert await rerank(QUERY, []) == RerankResult()
    assert [judged(simulated_ollama)[5 + at]["prompt"].count(RELEVANT) for at in range(5)] == [0, 1, 0, 0, 1]


async def test_neither_yes_nor_no_is_told(
    rerank: Rerank, simulated_ollama: SimulatedOllama, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "ollama_dify")
    unclear = Reply(pieces=["Hm"], logprobs=[{"Hm": -0.1}])
    never = Reply(pieces=["no"], logprobs=[{"no": -0.1}])
    simulated_ollama.reply(unclear, times=None, when=lambda asked: "odd" in asked.body["prompt"])
    simulated_ollama.reply(never, times=None, when=lambda asked: "never" in asked.body["prompt"])
    result = await rerank(QUERY, ["odd 1", "never", RELEVANT, "odd 2"])
    assert (result.order, result.failed) == ((2, 1, 0, 3), (0, 3))
    assert [result.scores[at] for at in (0, 1, 3)] == [0.0, 0.0, 0.0]
    (said,) = caplog.messages
    assert "neither yes nor no of 2 of 4 documents" in said
    caplog.clear()
    await rerank(QUERY, [RELEVANT])
    assert caplog.messages == []  # that one token is the limit is no surprise


async def test_a_server_without_log_probabilities(rerank: Rerank, simulated_ollama: SimulatedOllama) -> None:
    answer = {"model": "m", "response": "yes", "done": True, "done_reason": "length"}
    simulated_ollama.reply(Reply(raw=json.dumps(answer).encode()), path="/api/generate")
    with pytest.raises(CapabilityError, match=r"0\.12\.11"):
        await rerank(QUERY, [RELEVANT])


LONG = "Tea and cats and dogs. " * 120 + RELEVANT
# Overflow, model, which scores are above a half, fewest requests.
OVERFLOW: dict[str, tuple[str, str, list[bool], int]] = {
    "truncate": ("truncate", "qwen3-reranker", [True, False], 3),
    "truncate, server's template": ("truncate", "llama3.2", [True, False], 3),
    "split": ("split", "qwen3-reranker", [True, True], 5),
    "split, server's template": ("split", "llama3.2", [True, True], 5),
}


@pytest.mark.parametrize(("overflow", "model", "high", "count"), OVERFLOW.values(), ids=OVERFLOW)
async def test_a_document_that_does_not_fit(
    rerank: Rerank,
    simulated_ollama: SimulatedOllama,
    overflow: str,
    model: str,
    high: list[bool],
    count: int,
) -> None:
    result = await rerank(QUERY, [RELEVANT, LONG], overflow=overflow, model=model, context_size=512)
    assert [score > 0.5 for score in result.scores] == high
    bodies = judged(simulated_ollama)
    assert len(bodies) >= count
    whole = next(body["prompt"] for body in bodies if LONG in body["prompt"])
    start, end = whole.split(LONG)
    asked = [body["prompt"] for body in bodies if LONG not in body["prompt"] and body["prompt"] != whole]
    # The frame stays whole around each text.
    assert all(prompt.startswith(start) and prompt.endswith(end) for prompt in asked)
    pieces = [prompt[len(start) : len(prompt) - len(end)] for prompt in asked]
    if overflow == "split":
        assert sum(map(len, pieces)) >= len(LONG)
    elif model == "qwen3-reranker":
        # As much as fits: the prompt is one token short of the context, at most a few more.
        (cut,) = [piece for piece in pieces if piece != RELEVANT]
        assert LONG.startswith(cut)
        counted = result.usage.input_tokens - (await rerank(QUERY, [RELEVANT])).usage.input_tokens
        assert 500 <= counted <= 511


TOO_LONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "the document": ({}, QUERY, 'overflow="truncate" or "split"'),
    "the query, truncate": ({"overflow": "truncate"}, LONG, "shorten the query"),
    "the query, split": ({"overflow": "split"}, LONG, "shorten the query"),
}


@pytest.mark.parametrize(("values", "query", "advice"), TOO_LONG.values(), ids=TOO_LONG)
async def test_what_is_too_long_is_named(
    rerank: Rerank, values: dict[str, Any], query: str, advice: str
) -> None:
    documents = [RELEVANT, LONG] if query == QUERY else [LONG]
    with pytest.raises(ContextOverflowError, match=f"Document {len(documents) - 1} does not fit") as raised:
        await rerank(query, documents, context_size=512, **values)
    assert advice in str(raised.value)


BAD: dict[str, tuple[Any, Any, dict[str, Any], type[Exception], str]] = {
    "empty query": (" ", ["a"], {}, ConfigurationError, "needs a query"),
    "query of another type": (1, ["a"], {}, ConfigurationError, "needs a query"),
    "one text": ("a", "b", {}, ConfigurationError, r"pass \[text\]"),
    "no list": ("a", 5, {}, ConfigurationError, "list of documents, not int"),
    "a number": ("a", ["a", 1], {}, ConfigurationError, "Document 1 is of type int"),
    "lone surrogate": (
        "a",
        ["a", "\ud800"],
        {},
        UnsupportedContentError,
        "document 1 holds a lone surrogate",
    ),
    "instruction without a place": (
        "a",
        ["b"],
        {"model": "bge-reranker-v2-gemma", "instruction": "x"},
        ConfigurationError,
        "no place for an instruction",
    ),
    "temperature": ("a", ["b"], {"options": {"temperature": 1}}, ConfigurationError, "fixed here"),
    "top_n": ("a", ["b"], {"top_n": 0}, ConfigurationError, "top_n"),
}


@pytest.mark.parametrize(("query", "documents", "values", "kind", "message"), BAD.values(), ids=BAD)
async def test_bad_input_sends_nothing(
    rerank: Rerank,
    simulated_ollama: SimulatedOllama,
    query: Any,
    documents: Any,
    values: dict[str, Any],
    kind: type[Exception],
    message: str,
) -> None:
    with pytest.raises(kind, match=message):
        await rerank(query, documents, **values)
    assert simulated_ollama.requests == []


async def test_settings_of_the_right_type(simulated_ollama: SimulatedOllama) -> None:
    chat = ChatSettings(model="llama3.2", base_url=simulated_ollama.base_url, api_key="k", temperature=1)
    for ask in (_sync, _async):
        with pytest.raises(ConfigurationError, match="for_rerank"):
            await ask(chat, QUERY, [RELEVANT])
    settings = chat.for_rerank("qwen3-reranker", top_n=1)
    with OllamaClient(settings) as client:
        assert client.warmup().name == "qwen3-reranker"
        assert client.rerank(QUERY, [OTHER, RELEVANT]).order == (1,)
        with pytest.raises(ConfigurationError, match="ChatSettings"):
            client.generate("Hi")
    assert "prompt" not in judged(simulated_ollama)[0]  # loads the model
    assert dict(simulated_ollama.requests[-1].headers)["authorization"] == "Bearer k"


FORM = {"base_url": "http://h:11434", "api_key": "k", "context_size": "8192"}


def test_the_form() -> None:
    settings = RerankSettings.from_dify(" m ", {**FORM, "__model_type": "rerank", "mode": "chat"}, top_n=2)
    assert (settings.model, settings.context_size, settings.top_n) == ("m", 8192, 2)
    assert settings.to_dify() == FORM
    assert "api_key" not in settings.to_dify(secrets=False)
    assert RerankSettings.from_dify("m", {}).context_size == 4096
    for wrong in ({"max_tokens": "5"}, {"__model_type": "llm"}, {"vision_support": "true"}):
        with pytest.raises(ConfigurationError, match="rerank"):
            RerankSettings.from_dify("m", wrong)
