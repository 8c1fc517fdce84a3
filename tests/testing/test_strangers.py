"""A client that knows nothing of this project: the `ollama` package."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ollama_dify.testing import SimulatedOllama

ollama = pytest.importorskip("ollama")

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather for a city",
        "parameters": {
            "type": "object",
            "required": ["city"],
            "properties": {"city": {"type": "string", "description": "City name"}},
        },
    },
}
CONVERSATION = [
    {"role": "user", "content": "My name is Bob."},
    {"role": "assistant", "content": "Nice to meet you!"},
    {"role": "user", "content": "What is my name?"},
]


@pytest.fixture
def client(simulated_ollama: SimulatedOllama) -> Iterator[ollama.Client]:
    client = ollama.Client(host=simulated_ollama.base_url)
    yield client
    client._client.close()


def test_holds_a_conversation_whole_and_token_by_token(client: ollama.Client) -> None:
    answer = client.chat("llama3.2", messages=CONVERSATION)
    assert (answer.message.content, answer.done_reason) == ("My name is Bob.", "stop")
    assert answer.prompt_eval_count > 20
    chunks = list(client.chat("llama3.2", messages=CONVERSATION, stream=True))
    assert "".join(chunk.message.content for chunk in chunks) == "My name is Bob."
    assert len(chunks) == chunks[-1].eval_count
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_calls_a_tool_and_reads_its_result(client: ollama.Client) -> None:
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    asked = client.chat("llama3.2", messages=messages, tools=[WEATHER])
    (call,) = asked.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Paris"})
    result = {"role": "tool", "content": "22 degrees and sunny", "tool_name": "get_weather"}
    answer = client.chat("llama3.2", messages=[*messages, asked.message, result], tools=[WEATHER])
    assert answer.message.content == "The tool answered: 22 degrees and sunny"
    assert not answer.message.tool_calls


def test_thinks(client: ollama.Client) -> None:
    question = [{"role": "user", "content": "What is the capital of France?"}]
    thought = client.chat("qwen3", messages=question, think=True)
    assert "capital of France" in thought.message.thinking
    assert thought.message.content
    assert client.chat("qwen3", messages=question, think=False).message.thinking is None


def test_embeds(client: ollama.Client) -> None:
    texts = ["a cat on a mat", "the cat on the mats", "stock prices"]
    cat, cats, stocks = client.embed("nomic-embed-text", input=texts).embeddings
    assert len(cat) == 768
    assert dot(cat, cats) > 0.5 > dot(cat, stocks)
    assert dot(cat, cat) == pytest.approx(1.0, abs=1e-5)


def test_manages_models(client: ollama.Client) -> None:
    assert "llama3.2:latest" in [model.model for model in client.list().models]
    assert client.show("llama3.2").capabilities == ["completion", "tools"]
    with pytest.raises(ollama.ResponseError, match="'mine:latest' not found"):
        client.show("mine")
    assert [step.status for step in client.pull("qwen3", stream=True)][-1] == "success"


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))
