"""Each error is the core's class and LangChain's, however it was asked."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from langchain_core import exceptions
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

import ollama_dify
from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings, OllamaDifyLLM
from langchain_ollama_dify.errors import as_langchain
from ollama_dify.testing import Fault, Reply, SimulatedOllama
from tests.langchain.asking import ask, chunks, streams, ways

CLASSES: dict[str, str] = {
    "OllamaError": "ModelError",
    "UnsupportedContentError": "ModelInvalidRequestError",
    "ConnectionFailedError": "ModelConnectionError",
    "RequestTimeoutError": "ModelTimeoutError",
    "AuthenticationError": "ModelAuthenticationError",
    "PermissionDeniedError": "ModelPermissionDeniedError",
    "InvalidRequestError": "ModelInvalidRequestError",
    "ContextOverflowError": "ContextOverflowError",
    "CapabilityError": "ModelInvalidRequestError",
    "ModelNotFoundError": "ModelNotFoundError",
    "RateLimitError": "ModelRateLimitError",
    "ServerBusyError": "ModelAPIError",
    "ServerError": "ModelAPIError",
    "ProtocolError": "ModelAPIError",
    "IncompleteResponseError": "ModelAPIError",
    "EmptyResponseError": "ModelAPIError",
    "EmbeddingError": "ModelError",
}


def test_every_class_of_the_core_has_its_place() -> None:
    core = {
        name
        for name, value in vars(ollama_dify.errors).items()
        if isinstance(value, type) and issubclass(value, ollama_dify.OllamaError)
    }
    # LangChain has no class for a setting that cannot work: it is a ValueError, and nothing was asked yet.
    assert core - set(CLASSES) == {"ConfigurationError", "DifyAppError"}


@pytest.mark.parametrize(("ours", "theirs"), CLASSES.items())
@pytest.mark.parametrize("retryable", [True, False])
def test_a_raised_class(ours: str, theirs: str, retryable: bool) -> None:
    kind = getattr(ollama_dify, ours)
    error = kind("what happened", hint="what to do", status=500, retryable=retryable, partial="part")

    raised = as_langchain(error)

    assert isinstance(raised, kind)
    assert isinstance(raised, getattr(exceptions, theirs))
    assert raised.is_retryable is retryable  # type: ignore[attr-defined]
    assert (str(raised), vars(raised)) == (str(error), vars(error))
    again = pickle.loads(pickle.dumps(raised))
    assert (type(again), str(again), again.partial) == (type(raised), str(raised), "part")


FAILURES: dict[str, tuple[Any, type[Exception], type[Exception]]] = {
    "404": (
        Reply(status=404, error="model 'x' not found"),
        ollama_dify.ModelNotFoundError,
        exceptions.ModelNotFoundError,
    ),
    "401": (
        Reply(status=401, error="unauthorized"),
        ollama_dify.AuthenticationError,
        exceptions.ModelAuthenticationError,
    ),
    "429": (
        Reply(status=429, error="too many"),
        ollama_dify.RateLimitError,
        exceptions.ModelRateLimitError,
    ),
    "500": (Reply(status=500, error="boom"), ollama_dify.ServerError, exceptions.ModelAPIError),
    "done never said": (
        Reply("Hello", done=False),
        ollama_dify.IncompleteResponseError,
        exceptions.ModelAPIError,
    ),
}


@ways
@pytest.mark.parametrize(("reply", "ours", "theirs"), FAILURES.values(), ids=FAILURES)
async def test_a_failure_of_the_server(
    server: SimulatedOllama, way: str, reply: Reply, ours: type[Exception], theirs: type[Exception]
) -> None:
    server.reply(reply, times=None)
    model = ChatOllamaDify(model="all-round", max_retries=0)

    with pytest.raises(ours) as caught:
        await ask(model, way, "Hello")

    assert isinstance(caught.value, theirs)


@streams
async def test_a_broken_stream_keeps_what_arrived(server: SimulatedOllama, way: str) -> None:
    server.reply(Reply(pieces=["one", " two", " three"]))
    server.fault(Fault("cut", chunks=2))
    seen: list[str] = []

    with pytest.raises(ollama_dify.OllamaError) as caught:
        if way == "stream":
            for chunk in ChatOllamaDify(model="all-round").stream("Hello"):
                seen.append(chunk.text)
        else:
            async for chunk in ChatOllamaDify(model="all-round").astream("Hello"):
                seen.append(chunk.text)

    assert isinstance(caught.value, exceptions.ModelError)
    assert caught.value.partial.text == "".join(seen) == "one two"


async def test_fallbacks_act_on_langchains_class(server: SimulatedOllama) -> None:
    server.reply(Reply(status=429, error="too many"), times=None)
    other = RunnableLambda(lambda _: AIMessage("from elsewhere"))
    model = ChatOllamaDify(model="all-round", max_retries=0).with_fallbacks(
        [other], exceptions_to_handle=(exceptions.ModelRateLimitError,)
    )

    assert model.invoke("Hello").text == "from elsewhere"
    assert (await model.ainvoke("Hello")).text == "from elsewhere"


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
async def test_the_completion_models_errors(server: SimulatedOllama, way: str) -> None:
    model = OllamaDifyLLM(model="missing", max_retries=0)

    with pytest.raises(ollama_dify.ModelNotFoundError) as caught:
        if way in ("stream", "astream"):
            await chunks(model, way, "Hello")
        else:
            await ask(model, way, "Hello")

    assert isinstance(caught.value, exceptions.ModelNotFoundError)


@pytest.mark.parametrize("method", ["embed_query", "embed_documents", "aembed_query", "aembed_documents"])
async def test_the_embeddings_errors(server: SimulatedOllama, method: str) -> None:
    model = OllamaDifyEmbeddings(model="missing", max_retries=0)

    with pytest.raises(ollama_dify.ModelNotFoundError) as caught:
        answered = getattr(model, method)("Hello" if method.endswith("query") else ["Hello"])
        if method.startswith("a"):
            await answered

    assert isinstance(caught.value, exceptions.ModelNotFoundError)
