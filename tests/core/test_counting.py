"""Counting as the client does, against the prompts and counts of a real server."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest

from ollama_dify import ChatSettings, Image, ImageUrl, Message, TextPart, TokenCount, Tool, ToolCall, user
from ollama_dify.client.count import Counter, count_conversation, load_counter
from ollama_dify.client.retry import RetryBudget
from ollama_dify.client.session import ModelCache, Session
from ollama_dify.errors import ConfigurationError, InvalidRequestError
from ollama_dify.testing import SimulatedOllama
from ollama_dify.transport.network import Answer, run
from ollama_dify.wire.requests import WireRequest

T = TypeVar("T")
DATA = Path(__file__).parent.parent / "data"
MODELS: dict[str, Any] = json.loads(gzip.decompress((DATA / "tokens" / "chats.json.gz").read_bytes()))[
    "models"
]
VOCABULARIES = json.loads(gzip.decompress((DATA / "tokens" / "tokenizers.json.gz").read_bytes()))[
    "tokenizers"
]


@cache
def show(model: str) -> dict[str, Any]:
    """What /api/show says, verbose: the recorded template with the model's recorded vocabulary."""
    return {**MODELS[model]["show"], **_information(model)}


def _information(model: str) -> dict[str, Any]:
    vocabulary = VOCABULARIES[MODELS[model]["tokenizer"]]
    own = MODELS[model]["show"].get("model_info") or {}
    return {"model_info": {**own, **vocabulary["model_info"]}}


class Server:
    """A `Network`: renders as the recorded server did, or not at all."""

    def __init__(self, model: str, rendered: str | None) -> None:
        self.model = model
        self.rendered = rendered
        self.asked: list[tuple[str, dict[str, Any]]] = []
        network: Any = self  # nothing is streamed, fetched or slept
        self.session = Session(ChatSettings(model=model, max_retries=0), network, ModelCache(), RetryBudget())

    async def compute(self, work: Callable[[], T]) -> T:
        return work()

    async def send(self, request: WireRequest, limit: int = 0) -> Answer:
        body = dict(request.body or {})
        self.asked.append((request.path, body))
        if request.path == "/api/tags":
            return Answer(b'{"models":[]}', {})
        if request.path == "/api/show":
            return Answer(orjson.dumps(show(self.model)), {})
        assert body["_debug_render_only"] is True
        assert body["truncate"] is False
        if self.rendered is None:
            raise InvalidRequestError("The server refused the request.")
        return Answer(orjson.dumps({"_debug_info": {"rendered_template": self.rendered}}), {})


def message(turn: dict[str, Any]) -> Message:
    images = [Image.from_path(DATA / "images" / name) for name in turn.get("images", ())]
    return Message(
        turn["role"],
        (*images, TextPart(turn.get("content", ""))),
        thinking=turn.get("thinking"),
        tool_calls=tuple(
            ToolCall(call["function"]["name"], call["function"]["arguments"], call.get("id"))
            for call in turn.get("tool_calls", ())
        ),
        tool_name=turn.get("tool_name"),
        tool_call_id=turn.get("tool_call_id"),
    )


def tool(given: dict[str, Any]) -> Tool:
    function = given["function"]
    return Tool(function["name"], function.get("description", ""), function.get("parameters", {}))


def count(model: str, talk: dict[str, Any], rendered: str | None) -> tuple[TokenCount, Server]:
    server = Server(model, rendered)
    settings = ChatSettings(model=model, think=talk.get("think"))
    messages = [message(turn) for turn in talk["messages"]]
    tools = [tool(given) for given in talk.get("tools", ())]
    return run(count_conversation(server.session, settings, messages, tools)), server


def talks(model: str) -> list[dict[str, Any]]:
    return [talk for talk in MODELS[model]["conversations"] if talk["prompt_eval_count"]]


@pytest.mark.parametrize("model", MODELS)
def test_a_conversation_counts_what_the_server_counts(model: str) -> None:
    exact = 0
    for talk in talks(model):
        counted, _ = count(model, talk, talk["rendered"])
        assert counted.tokens == talk["prompt_eval_count"]
        assert counted.exact is (talk["image_count"] == 0)
        exact += counted.exact
    assert exact >= 7


@pytest.mark.parametrize("model", MODELS)
def test_without_rendering_the_count_is_an_upper_bound_and_close(model: str) -> None:
    far = []
    for talk in talks(model):
        counted, _ = count(model, talk, None)
        assert not counted.exact
        above = counted.tokens - talk["prompt_eval_count"]
        assert above >= 0, talk["messages"]
        if above > max(16, talk["prompt_eval_count"] * 0.05):
            far.append(talk)
    # Of this one the recorded server kept a part, as the images that are missing show.
    images = [sum(len(turn.get("images", ())) for turn in talk["messages"]) for talk in far]
    assert [(count, talk["image_count"]) for count, talk in zip(images, far, strict=True)] == (
        [(5, 2)] if model == "tiny-vision" else []
    )


def test_the_server_is_looked_at_once() -> None:
    talk = talks("tiny-chat")[0]
    server = Server("tiny-chat", talk["rendered"])
    settings = ChatSettings(model="tiny-chat", context_size=2048)
    messages = [message(turn) for turn in talk["messages"]]
    for _ in range(3):
        run(count_conversation(server.session, settings, messages, ()))
        run(load_counter(server.session, "tiny-chat"))
    paths = [path for path, _ in server.asked]
    # Without a digest in /api/tags the model is described anew, the vocabulary is not.
    assert sum(bool(body.get("verbose")) for _, body in server.asked) == 1
    assert set(paths) == {"/api/tags", "/api/show", "/api/chat"}
    assert {body["options"]["num_ctx"] for path, body in server.asked if path == "/api/chat"} == {2048}


def test_a_counter_is_known_once_it_was_loaded() -> None:
    server = Server("tiny-chat", None)
    assert server.session.cache.counter("tiny-chat") is None
    loaded = run(load_counter(server.session, "tiny-chat"))
    assert server.session.cache.counter("tiny-chat") is loaded


def test_a_image_still_to_be_fetched_is_counted_and_not_fetched() -> None:
    server = Server("tiny-vision", "[img-0]a")
    settings = ChatSettings(model="tiny-vision", allow_image_urls=True)
    address = ImageUrl("https://example.com/cat.png")
    plain = run(count_conversation(server.session, settings, [user("a")], ()))
    counted = run(count_conversation(server.session, settings, [user("a", address)], ()))
    assert not counted.exact
    assert counted.tokens >= plain.tokens + 16
    assert sum(path == "/api/chat" for path, _ in server.asked) == 1


def test_what_answers_report_makes_the_bound_tighter() -> None:
    for model in ("tiny-native", "chat-llama3"):
        for talk in talks(model)[:10]:
            if talk["image_count"]:
                continue
            counter = Counter.from_show(show(model))
            messages = [message(turn) for turn in talk["messages"]]
            tools = [tool(given) for given in talk.get("tools", ())]
            counter.learn(messages, tools, talk.get("think"), talk["prompt_eval_count"])
            assert counter.bound(messages, tools, talk.get("think")).tokens == talk["prompt_eval_count"]


def test_an_exact_count_makes_the_bound_tighter_too() -> None:
    talk = next(talk for talk in talks("tiny-native") if len(talk["messages"]) > 6)
    _, server = count("tiny-native", talk, talk["rendered"])
    counter = server.session.cache.counter("tiny-native")
    assert counter is not None
    tools = [tool(given) for given in talk.get("tools", ())]
    longer = [*map(message, talk["messages"]), user("Go on.")]
    fresh = Counter.from_show(show("tiny-native")).bound(longer, tools, talk.get("think")).tokens
    assert talk["prompt_eval_count"] < counter.bound(longer, tools, talk.get("think")).tokens < fresh


def test_without_a_vocabulary_there_are_bounds_and_no_ids() -> None:
    counter = Counter.from_show({"template": "{{ .Prompt }}", "model_info": {}})
    assert counter.text("Hello") == TokenCount(9, False)
    with pytest.raises(ConfigurationError, match="shows no vocabulary"):
        counter.token_ids("Hello")


PROGRAM = """
import sys
{imports}
{asked}
readers = [name for name in sys.modules if ".templates." in name]
print("tokenizers" in sys.modules, bool(readers))
"""
CORE = "from ollama_dify import ChatSettings, OllamaClient, user"
CLIENT = "OllamaClient(ChatSettings(model='llava', base_url={url!r}))"
PROGRAMS = {
    "core": (CORE, f"{CLIENT}.chat([user('Hi')])", False),
    "langchain": (
        "from langchain_ollama_dify import ChatOllamaDify",
        "ChatOllamaDify(model='llava', base_url={url!r}).invoke('Hi')",
        False,
    ),
    "llamaindex": (
        "from llamaindex_ollama_dify import OllamaDify",
        "OllamaDify(model='llava', base_url={url!r}).complete('Hi')",
        False,
    ),
    "one that counts": (CORE, f"{CLIENT}.count_tokens('Hi')", True),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_only_a_process_that_counts_imports_tokenizers_and_template_readers(
    program: str, simulated_ollama: SimulatedOllama
) -> None:
    imports, asked, counts = PROGRAMS[program]
    script = PROGRAM.format(imports=imports, asked=asked.format(url=simulated_ollama.base_url))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == f"{counts} {counts}", done.stderr
    assert simulated_ollama.requests
