"""What a user reads after a mistake: words the message holds, and words it must not hold."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.messages import HumanMessage
from llama_index.core.prompts import PromptTemplate

from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings, OllamaDifyLLM
from llamaindex_ollama_dify import OllamaDify, OllamaDifyEmbedding
from ollama_dify import ChatSettings, EmbeddingSettings, Image, OllamaClient, OllamaError, user
from ollama_dify.testing import SimulatedOllama

PNG = Path(__file__).parents[1] / "data" / "images" / "png_rgb.png"


class Mood(Enum):
    GOOD = "good"


def add(a: int) -> int:
    """Adds."""
    return a


def chat(url: str, **values: Any) -> ChatOllamaDify:
    return ChatOllamaDify(**{"model": "llama3.2", "base_url": url, **values})


def client(url: str) -> OllamaClient:
    return OllamaClient(ChatSettings(model="llama3.2", base_url=url))


def out_of_memory() -> httpx.Client:
    said = "model requires more system memory (8.0 GiB) than is available (2.0 GiB)"
    return httpx.Client(
        transport=httpx.MockTransport(lambda request: httpx.Response(500, json={"error": said}))
    )


def block(url: str, **values: Any) -> Any:
    return chat(url).invoke([HumanMessage([values])])


def both(**values: Any) -> Callable[[str], Any]:
    """A mistake in the arguments of both frameworks' chat models."""

    def make(url: str) -> None:
        for kind in (OllamaDify, ChatOllamaDify):
            kind(**{"model": "m", "base_url": url, **values})

    return make


# What is done wrong, what the message says, and what it said before.
SENTENCES: dict[str, tuple[Callable[[str], Any], tuple[str, ...], tuple[str, ...]]] = {
    "address": (both(base_url="a b"), ("base_url 'a b' holds a space", "http://192.168.1.100:11434"), ()),
    "timeout": (
        both(timeout="soon"),
        ("timeout: takes a number of seconds greater than 0, a Timeouts, or None, not 'soon'",),
        ("timeout.float", "timeout.Timeouts", "Input should be"),
    ),
    "think": (both(think="much"), ('think: takes True, False, "low"', "not 'much'"), ("literal_error",)),
    "stop": (both(stop=3), ("stop: takes a text or a list of texts, not 3",), ("Input should be",)),
    "format": (both(format=3), ('format: takes "json" or a JSON schema', "not 3"), ()),
    "temperature": (both(temperature="hot"), ("temperature: ", "not 'hot'"), ()),
    "a long value": (both(temperature="sk-0123456789abcdef"), ("a text of 19",), ("sk-0123456789abcdef",)),
    "images=": (
        both(images=["cat.png"]),
        ("'images' is no setting: images go into the messages", "Image.from_path"),
        ("convert_images", "tags"),
    ),
    "images= of a call": (
        lambda url: chat(url).invoke("?", images=["cat.png"]),
        ("images go into the messages",),
        ("convert_images",),
    ),
    "reasoning=": (both(reasoning=True), ("here it is called think",), ()),
    "reasoning= of an embedding": (
        lambda url: OllamaDifyEmbeddings(model="m", reasoning=True),
        ("unknown argument 'reasoning'",),
        ("think",),
    ),
    "skip_failed=": (
        lambda url: OllamaDifyEmbedding(model="m", skip_failed=True),
        ("an argument of embed(texts, skip_failed=True)",),
        (),
    ),
    "from_settings of a dict": (
        lambda url: OllamaDify.from_settings({"model": "m"}),  # type: ignore[arg-type]  # the mistake
        ("takes ChatSettings, not dict", "ChatSettings(**values)"),
        ("AttributeError",),
    ),
    "embedding settings for a chat model": (
        lambda url: ChatOllamaDify.from_settings(EmbeddingSettings(model="m")),
        ("takes ChatSettings, not EmbeddingSettings",),
        (),
    ),
    "chat settings for an embedding": (
        lambda url: OllamaDifyEmbedding.from_settings(ChatSettings(model="m")),
        ('settings.for_embedding("nomic-embed-text")',),
        (),
    ),
    "a model that is not there": (
        lambda url: chat(url, model="lama3").invoke("?"),
        ("Closest of the server's 7 models: llama3.2", "If the name is misspelt"),
        ("The server has: ", "ollama pull lama3"),
    ),
    "an image without vision": (
        lambda url: client(url).chat([user("?", Image.from_path(PNG))]),
        ("lacks the capability 'vision'", "qwen3-vl and mistral-small3.2 (with tools too)"),
        (),
    ),
    "tools without tools": (
        lambda url: chat(url, model="llava").bind_tools([add]).invoke("?"),
        ("lacks the capability 'tools'", "qwen3-vl and mistral-small3.2 (with images too)"),
        (),
    ),
    "trim that does not fit": (
        lambda url: chat(url, context_size=64, context_overflow="trim").invoke("word " * 300),
        ("Nothing older is left to drop: raise context_size",),
        ('context_overflow="trim"',),
    ),
    "out of memory": (
        lambda url: chat(url, model="huge", http_client=out_of_memory()).invoke("?"),
        ("smaller model or quantization, lower context_size", "`ollama stop huge`"),
        (),
    ),
    "Enum by function calling": (
        lambda url: chat(url).with_structured_output(Mood, method="function_calling"),
        ("the arguments of a call are an object", 'method="json_schema"'),
        ("'names'",),
    ),
    "list by function calling": (
        lambda url: chat(url).with_structured_output({"type": "array"}, method="function_calling"),
        ("the arguments of a call are an object",),
        ("another provider",),
    ),
    "no schema": (
        lambda url: chat(url).with_structured_output(3),  # type: ignore[arg-type]  # the mistake
        ("3 gives no JSON schema", "list[int]"),
        ("arbitrary_types_allowed",),
    ),
    "list in LlamaIndex": (
        lambda url: OllamaDify(model="m", base_url=url).structured_predict(
            list[int],  # type: ignore[type-var]  # the mistake
            PromptTemplate("?"),
        ),
        ("list[int] is no pydantic class", "class Answer(BaseModel)"),
        (),
    ),
    "Enum in LlamaIndex": (
        lambda url: OllamaDify(model="m", base_url=url).as_structured_llm(Mood),  # type: ignore[arg-type]
        ("is no pydantic class",),
        ("is_subclass_of",),
    ),
    "complete(None)": (
        lambda url: OllamaDify(model="llama3.2", base_url=url).complete(None),  # type: ignore[arg-type]
        ("takes texts, images and sounds, not a value of type NoneType", "Image.from_path"),
        ("vision",),
    ),
    "complete(None) in completion mode": (
        lambda url: OllamaDify(model="m", base_url=url, mode="completion").complete(None),  # type: ignore[arg-type]
        ("A prompt is a text, not a value of type NoneType",),
        ("the server only loads the model",),
    ),
    "chat of a text": (
        lambda url: client(url).chat("Hello"),  # type: ignore[arg-type]  # the mistake
        ("a list of messages made by user()", 'chat([user("…")])'),
        ("has no attribute",),
    ),
    "chat of dicts": (
        lambda url: client(url).chat([{"role": "user", "content": "?"}]),  # type: ignore[list-item]
        ("a list of messages made by user()",),
        ("has no attribute",),
    ),
    "a block without a type": (
        lambda url: block(url, text="Hello"),
        ("this block has no type; its keys are 'text'", '{"type": "text", "text": …}'),
        ("type None",),
    ),
    "a video": (
        lambda url: block(url, type="video", base64="AAAA", mime_type="video/mp4"),
        ("no block of type 'video' (video/mp4)", "send the frames of a video as images"),
        (),
    ),
    "a call that reloads": (
        lambda url: chat(url).invoke("?", context_size=9),
        ("'context_size' cannot change per call", "make a second object"),
        (),
    ),
}


@pytest.mark.parametrize(("mistake", "says", "said"), SENTENCES.values(), ids=SENTENCES)
def test_sentences(
    simulated_ollama: SimulatedOllama,
    mistake: Callable[[str], Any],
    says: tuple[str, ...],
    said: tuple[str, ...],
) -> None:
    with pytest.raises(OllamaError) as raised:
        mistake(simulated_ollama.base_url)
    message = str(raised.value)
    for part in says:
        assert part in message
    for part in said:
        assert part not in message
    assert message.count(f"{message.partition(':')[0]}:") <= 1, "the prefix stands twice"


@pytest.mark.parametrize(
    "kind", [ChatOllamaDify, OllamaDifyLLM, OllamaDifyEmbeddings, OllamaDify, OllamaDifyEmbedding]
)
def test_repr_shows_what_was_set(kind: Any) -> None:
    model = kind(model="m", base_url="http://h:1", api_key="hidden", keep_alive=5)
    assert repr(model) == f"{kind.__name__}(base_url='http://h:1', model='m', keep_alive=5)"


@pytest.mark.parametrize("kind", [ChatOllamaDify, OllamaDify])
def test_errors_are_short(kind: Any) -> None:
    """As a notebook shows them: no chain of our own errors; the system's error stays as the cause."""
    ask = "invoke" if kind is ChatOllamaDify else "complete"
    found = {}
    for name, values in {
        "refused": {"base_url": "http://127.0.0.1:1"},
        "settings": {"temperature": "hot"},
    }.items():
        with pytest.raises(OllamaError) as raised:
            getattr(kind(**{"model": "m", "max_retries": 0, **values}), ask)("?")
        found[name] = "".join(traceback.format_exception(raised.value)).count("Traceback")
        assert not isinstance(raised.value.__cause__, OllamaError)
    assert found == {"refused": 2, "settings": 1}
