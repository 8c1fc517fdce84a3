"""What type checkers are promised: read by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk
from llama_index.core import PromptTemplate
from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from llama_index.core.schema import NodeWithScore
from pydantic import BaseModel
from typing_extensions import assert_type

from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings, OllamaDifyLLM, OllamaDifyRerank
from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding
from llamaindex_ollama_dify import OllamaDifyRerank as NodeRerank
from ollama_dify import (
    AsyncOllamaClient,
    ChatResult,
    ChatSettings,
    EmbeddingSettings,
    EmbedResult,
    OllamaClient,
    RerankResult,
    RerankSettings,
    Timeouts,
    user,
)


class Weather(BaseModel):
    city: str
    degrees: int


# Constructors: one argument is enough, and options are named.
settings = ChatSettings(model="llava")
ChatSettings(
    model="llava", base_url="http://gpu:11434", context_size=4096, max_tokens=512, vision_support=True
)
EmbeddingSettings(model="nomic-embed-text", batch_size=8)
ChatSettings(model="llava", timeout=Timeouts(connect=1, total=60), options={"mirostat": 1})
model = ChatOllamaDify(model="llava", context_size=4096, temperature=0)
llm = OllamaDify(model="llava", context_size=4096, temperature=0)
OllamaDifyLLM(model="llava")
OllamaDifyEmbeddings(model="nomic-embed-text")
OllamaDifyEmbedding(model="nomic-embed-text")

# One object for both.
assert_type(ChatOllamaDify.from_settings(settings), ChatOllamaDify)
assert_type(OllamaDifyLLM.from_settings(settings), OllamaDifyLLM)
assert_type(OllamaDify.from_settings(settings), OllamaDify)
embedding = settings.for_embedding("nomic-embed-text")
assert_type(embedding, EmbeddingSettings)
assert_type(OllamaDifyEmbeddings.from_settings(embedding), OllamaDifyEmbeddings)
assert_type(OllamaDifyEmbedding.from_settings(embedding), OllamaDifyEmbedding)
assert_type(settings.for_rerank("qwen3-reranker"), RerankSettings)
assert_type(OllamaDifyRerank(model="m", top_n=3).compress_documents([], "Hi"), list[Document])
assert_type(NodeRerank(model="m").postprocess_nodes([], query_str="Hi"), list[NodeWithScore])
assert_type(ChatSettings.from_dify("llava", {"base_url": "http://gpu:11434"}), ChatSettings)

# Answers.
assert_type(model.invoke("Hi"), AIMessage)
assert_type(model.stream("Hi"), Iterator[AIMessageChunk])
assert_type(llm.complete("Hi"), CompletionResponse)
assert_type(llm.chat([]), ChatResponse)
assert_type(OllamaDifyEmbeddings(model="m").embed_query("Hi"), list[float])
with OllamaClient(settings) as client:
    assert_type(client.chat([user("Hi")]), ChatResult)
    assert_type(client.rerank("Hi", ["Hello"]), RerankResult)


async def awaited() -> None:
    async with AsyncOllamaClient(settings) as client:
        assert_type(await client.chat([user("Hi")], tools=(), tool_choice="none", temperature=0), ChatResult)
        assert_type(await client.embed(["Hi"], kind="query"), EmbedResult)
        await client.chat("Hi", tools=3)  # type: ignore[arg-type]  # both arguments are checked


# Tools and structured output.
def weather(city: str) -> str:
    """The weather in a city."""
    return f"Rain in {city}."


assert_type(model.bind_tools([weather]).invoke("Oslo?"), AIMessage)
structured = model.with_structured_output(Weather)
assert_type(structured.invoke("Oslo: 4 degrees"), Any)
assert_type(llm.structured_predict(Weather, PromptTemplate("{city}"), city="Oslo"), Weather)
