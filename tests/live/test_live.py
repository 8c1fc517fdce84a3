"""The same promises against a real Ollama: set OLLAMA_LIVE_URL, and the models by name if yours differ.

OLLAMA_LIVE_URL=http://localhost:11434 OLLAMA_LIVE_CHAT=llama3.2 pytest tests/live
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import pytest
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.schema import NodeWithScore, TextNode

import langchain_ollama_dify
import llamaindex_ollama_dify
from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings
from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding
from ollama_dify import (
    AsyncOllamaClient,
    ChatSettings,
    ContextOverflowError,
    EmbeddingSettings,
    Image,
    ModelNotFoundError,
    OllamaClient,
    Tool,
    assistant,
    system,
    user,
)

URL = os.environ.get("OLLAMA_LIVE_URL")
CHAT = os.environ.get("OLLAMA_LIVE_CHAT", "llama3.2")
EMBED = os.environ.get("OLLAMA_LIVE_EMBED", "nomic-embed-text")
VISION = os.environ.get("OLLAMA_LIVE_VISION", "llava")
RERANK = os.environ.get("OLLAMA_LIVE_RERANK", CHAT)
TOOLS = os.environ.get("OLLAMA_LIVE_TOOLS", CHAT)
IMAGE = Path(__file__).parents[1] / "data" / "images" / "png_rgb.png"

pytestmark = [pytest.mark.live, pytest.mark.skipif(URL is None, reason="OLLAMA_LIVE_URL is not set")]

WEATHER = Tool(
    "get_weather",
    "Get the current weather for a city",
    # An enum: a tiny model goes on for ever in a free string.
    {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "London"]}},
        "required": ["city"],
    },
)


def settings(**changes: Any) -> ChatSettings:
    return ChatSettings(
        **{"model": CHAT, "base_url": URL, "temperature": 0, "seed": 1, "max_tokens": 64, **changes}
    )


def test_answer_whole_and_streamed() -> None:
    with OllamaClient(settings()) as client:
        whole = client.chat([user("Say hello.")])
        assert whole.text or whole.thinking
        assert whole.usage.input_tokens > 0
        with client.chat_stream([user("Say hello.")]) as stream:
            assert "".join(chunk.text for chunk in stream) == stream.result.text
        assert stream.result.finish is not None


async def test_answer_async() -> None:
    async with AsyncOllamaClient(settings()) as client:
        assert (await client.chat([user("Say hello.")])).usage.output_tokens > 0
        stream = client.chat_stream([user("Say hello.")])
        assert [chunk async for chunk in stream][-1].finish is not None


def test_overlong_prompt_is_an_error_and_trim_answers() -> None:
    long = user("word " * 4000)
    with OllamaClient(settings(context_size=1024)) as client, pytest.raises(ContextOverflowError):
        client.chat([long])
    talk = [system("Be brief."), *[turn for _ in range(40) for turn in (user("word " * 60), assistant("ok"))]]
    with OllamaClient(settings(context_size=1024, context_overflow="trim")) as client:
        answer = client.chat([*talk, user("Say hello.")])
        assert answer.finish is not None
        assert answer.finish.dropped


def test_counts_are_the_servers() -> None:
    conversation = [system("Be brief."), user("What is the capital of France?")]
    with OllamaClient(settings(think=None)) as client:
        counted = client.count_tokens(conversation)
        reported = client.chat(conversation).usage.input_tokens
        if counted.exact:
            assert counted.tokens == reported
        assert client.counter().bound(conversation).tokens >= reported


def test_forced_tool_call() -> None:
    with OllamaClient(settings(model=TOOLS)) as client:
        answer = client.chat([user("Weather in Paris?")], tools=[WEATHER], tool_choice="get_weather")
        assert [call.name for call in answer.tool_calls] == ["get_weather"]
        assert "city" in answer.tool_calls[0].arguments


def test_image_in_both_frameworks() -> None:
    values = {"model": VISION, "base_url": URL, "max_tokens": 32, "temperature": 0, "seed": 1}
    data = Image.from_path(IMAGE).base64()
    block = {"type": "image", "base64": data, "mime_type": "image/png"}
    with ChatOllamaDify(**values) as model, OllamaDify(**values) as llm:
        one = model.invoke([HumanMessage([{"type": "text", "text": "What is this?"}, block])])
        two = llm.chat(
            [ChatMessage(role="user", blocks=[TextBlock(text="What is this?"), ImageBlock(path=IMAGE)])]
        )
        assert one.usage_metadata is not None
        assert one.usage_metadata["input_tokens"] == two.additional_kwargs["prompt_tokens"]


def test_vectors_are_the_same_in_both_frameworks() -> None:
    embedding = EmbeddingSettings(model=EMBED, base_url=URL)
    texts = ["A cat sits on the mat.", "The stock market fell."]
    with (
        OllamaDifyEmbeddings.from_settings(embedding) as one,
        OllamaDifyEmbedding.from_settings(embedding) as two,
    ):
        assert one.embed_documents(texts) == two.get_text_embedding_batch(texts)


@pytest.mark.parametrize("overflow", ["truncate", "split"])
def test_the_document_that_answers_comes_first(overflow: Literal["truncate", "split"]) -> None:
    """A reranker by OLLAMA_LIVE_RERANK, such as a Qwen3-Reranker; else the chat model by a plain question."""
    rerank = settings().for_rerank(RERANK, context_size=512, overflow=overflow)
    texts = ["Bread is baked from flour.", "Paris is the capital of France.", "Cats sleep. " * 400]
    query = "What is the capital of France?"
    with OllamaClient(rerank) as client:
        result = client.rerank(query, texts)
    assert (result.order[0], result.failed) == (1, ())
    assert result.scores[1] > 0.5 > result.scores[0]
    with (
        langchain_ollama_dify.OllamaDifyRerank.from_settings(rerank) as one,
        llamaindex_ollama_dify.OllamaDifyRerank.from_settings(rerank) as two,
    ):
        documents = one.compress_documents([Document(text) for text in texts], query)
        nodes = [NodeWithScore(node=TextNode(text=text)) for text in texts]
        hits = two.postprocess_nodes(nodes, query_str=query)
    order = [texts[at] for at in result.order]
    assert [document.page_content for document in documents] == [hit.text for hit in hits] == order


def test_missing_model_names_what_there_is() -> None:
    with (
        OllamaClient(settings(model="no-such-model-here")) as client,
        pytest.raises(ModelNotFoundError, match="ollama pull"),
    ):
        client.chat([user("Hello")])
