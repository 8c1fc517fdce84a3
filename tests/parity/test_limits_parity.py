"""What ends an answer, told alike in both frameworks: limits, cached tokens, cloud fields, refusals."""

from __future__ import annotations

import base64
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from llama_index.core.base.llms.types import AudioBlock, ChatMessage, TextBlock

import ollama_dify
from langchain_ollama_dify import ChatOllamaDify, OllamaDifyLLM
from llamaindex_ollama_dify import OllamaDify
from ollama_dify import IncompleteResponseError, InvalidRequestError, ProtocolError
from ollama_dify.testing import Reply, SimulatedModel, SimulatedOllama

from .ways import CHAT, TEXT

WAYS = {**CHAT, **TEXT}
every_way = pytest.mark.parametrize("way", WAYS)
PNG = (Path(__file__).parents[1] / "data" / "images" / "png_1024x768.png").read_bytes()
WAV = (Path(__file__).parents[1] / "data" / "images" / "wav.wav").read_bytes()


async def metadata(way: str, **settings: Any) -> dict[str, Any]:
    """The metadata of one answer."""
    kind, ask = WAYS[way]
    with kind(**{"model": "llama3.2", **settings}) as model:
        asked: Any = "Tell me of ships, please."
        if way in CHAT:
            asked = [HumanMessage(asked)] if kind is ChatOllamaDify else [ChatMessage(asked)]
        try:
            return await ask(model, asked)
        finally:
            await model.aclose()


def answering(settings: dict[str, Any], **last: Any) -> dict[str, Any]:
    """Settings whose server answers "Ships." with these fields beside, whole and streamed."""

    def answer(request: httpx.Request) -> httpx.Response:
        generated = request.url.path == "/api/generate"
        said = (
            {"response": "Ships."} if generated else {"message": {"role": "assistant", "content": "Ships."}}
        )
        body = {"model": "m", "created_at": "", **said, "done": True, "done_reason": "stop", **last}
        return httpx.Response(200, content=orjson.dumps(body) + b"\n")

    transport = httpx.MockTransport(answer)
    return {
        "model": "m",
        "http_client": httpx.Client(transport=transport),
        "http_async_client": httpx.AsyncClient(transport=transport),
        **settings,
    }


# Settings, what the server says, and the limit that it was.
CUTS: dict[str, tuple[dict[str, Any], dict[str, Any], str | None]] = {
    "max_tokens": ({"max_tokens": 20}, {"prompt_eval_count": 9, "eval_count": 20}, "max_tokens"),
    "num_predict": ({"num_predict": 5}, {"prompt_eval_count": 9, "eval_count": 5}, "max_tokens"),
    "context": ({}, {"prompt_eval_count": 4074, "eval_count": 22}, "context_size"),
    "no count": ({"max_tokens": 20}, {}, None),
    "the server decides": ({"context_size": None}, {"prompt_eval_count": 9, "eval_count": 20}, None),
}


@every_way
@pytest.mark.parametrize(("settings", "told", "cut_by"), CUTS.values(), ids=CUTS)
async def test_what_cut_an_answer(
    way: str, settings: dict[str, Any], told: dict[str, Any], cut_by: str | None
) -> None:
    found = await metadata(way, **answering(settings, done_reason="length", **told))
    assert found["done_reason"] == "length"
    assert found["cut_by"] == cut_by


@every_way
async def test_a_whole_answer_was_not_cut(way: str) -> None:
    assert "cut_by" not in await metadata(way, **answering({}))


@every_way
async def test_cached_tokens_and_who_answered(way: str) -> None:
    remote = {"remote_model": "big:cloud", "remote_host": "https://ollama.com"}
    found = await metadata(way, **answering({}, prompt_eval_count=9, prompt_eval_cached_count=7, **remote))
    assert {key: found[key] for key in remote} == remote
    assert found["prompt_eval_cached_count"] == 7


async def test_cached_tokens_in_each_frameworks_own_place() -> None:
    values = answering({}, prompt_eval_count=9, prompt_eval_cached_count=7)
    usage = (await ChatOllamaDify(**values).ainvoke("?")).usage_metadata
    assert usage is not None
    assert usage["input_token_details"] == {"cache_read": 7}
    response = await OllamaDify(**values).achat([ChatMessage("?")])
    assert response.additional_kwargs["cached_tokens"] == response.raw["usage"]["cached_tokens"] == 7


# What is asked, `on_length`, and how many log warnings two answers make.
WARNINGS = {
    "by default": ({"max_tokens": 2}, 1),
    "wanted as it is": ({"max_tokens": 2, "on_length": "return"}, 0),
}


@every_way
@pytest.mark.parametrize(("settings", "count"), WARNINGS.values(), ids=WARNINGS)
async def test_a_cut_answer_is_told_once_per_object(
    caplog: pytest.LogCaptureFixture, way: str, settings: dict[str, Any], count: int
) -> None:
    kind, ask = WAYS[way]
    with kind(**answering(settings, done_reason="length", eval_count=2)) as model:
        asked: Any = "?"
        if way in CHAT:
            asked = [HumanMessage("?")] if kind is ChatOllamaDify else [ChatMessage("?")]
        with caplog.at_level(logging.WARNING, "ollama_dify"):
            for _ in range(2):
                await ask(model, asked)
        await model.aclose()
    said = [record.getMessage() for record in caplog.records if record.name == "ollama_dify"]
    assert len(said) == count
    assert all("limit of 2 tokens" in text for text in said)


@pytest.mark.parametrize("name", ["num_predict", "max_tokens"])
async def test_the_limit_of_the_call_itself_is_no_news(caplog: pytest.LogCaptureFixture, name: str) -> None:
    values = answering({}, done_reason="length", eval_count=2)
    with caplog.at_level(logging.WARNING, "ollama_dify"):
        await ChatOllamaDify(**values).ainvoke("?", **{name: 2})
        OllamaDifyLLM(**values).invoke("?", **{name: 2})
        await OllamaDify(**values).achat([ChatMessage("?")], **{name: 2})
        OllamaDify(**values).complete("?", **{name: 2})
    assert [record for record in caplog.records if record.name == "ollama_dify"] == []


@every_way
async def test_a_cut_answer_as_an_error(way: str) -> None:
    values = answering({"max_tokens": 2, "on_length": "error"}, done_reason="length", eval_count=2)
    with pytest.raises(IncompleteResponseError, match="limit of 2 tokens") as raised:
        await metadata(way, **values)
    assert raised.value.partial.text == "Ships."


FORCED = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("framework", ["langchain", "llamaindex"])
async def test_a_forced_call_that_is_given_up_keeps_what_came(framework: str, streamed: bool) -> None:
    said = '{"add": {"a": 1, "b'
    values = answering({}, message={"role": "assistant", "content": said}, done=False)
    with pytest.raises(IncompleteResponseError) as raised:
        if framework == "langchain":
            model = ChatOllamaDify(**values, streaming=streamed).bind_tools([FORCED], tool_choice="add")
            await model.ainvoke("?")
        else:
            llm, call = OllamaDify(**values), {"tools": [FORCED], "tool_choice": "add"}
            if streamed:
                async for _ in await llm.astream_chat([ChatMessage("?")], **call):
                    pass
            else:
                await llm.achat([ChatMessage("?")], **call)
    assert raised.value.partial.text == said


async def test_far_too_many_tool_calls_end_the_answer() -> None:
    calls = [{"function": {"name": "add", "arguments": {}}}] * 200_000
    values = answering({}, message={"role": "assistant", "content": "", "tool_calls": calls})
    for ask in (
        lambda: ChatOllamaDify(**values).ainvoke("?"),
        lambda: OllamaDify(**values).achat([ChatMessage("?")]),
    ):
        with pytest.raises(ProtocolError, match="over 1000 tool calls"):
            await ask()


def test_a_schema_too_large_for_the_servers_grammar() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500, json={"error": "failed to parse grammar"})

    values = {"model": "m", "http_client": httpx.Client(transport=httpx.MockTransport(refuse))}
    for ask in (
        lambda: ChatOllamaDify(**values).invoke("?", format={"type": "array", "minItems": 3000}),
        lambda: OllamaDify(**values).complete("?", format={"type": "array", "minItems": 3000}),
    ):
        with pytest.raises(InvalidRequestError, match="Simplify the schema"):
            ask()


WAV_TEXT = base64.b64encode(WAV).decode()
SOUNDS: dict[str, Any] = {
    "v1": {"type": "audio", "base64": WAV_TEXT, "mime_type": "audio/wav"},
    "v1 without a type": {"type": "audio", "base64": WAV_TEXT},
    "v0": {"type": "audio", "source_type": "base64", "data": WAV_TEXT, "mime_type": "audio/wav"},
    "openai": {"type": "input_audio", "input_audio": {"data": WAV_TEXT, "format": "wav"}},
    "google": {"type": "media", "mime_type": "audio/wav", "data": WAV_TEXT},
    "file": {"type": "file", "mime_type": "audio/wav", "base64": WAV_TEXT},
    "our audio": {"type": "audio", "audio": ollama_dify.Audio.from_bytes(WAV)},
    "LlamaIndex": AudioBlock(audio=WAV),
}


@pytest.fixture
def hearing() -> Iterator[SimulatedOllama]:
    with SimulatedOllama([SimulatedModel("hearing", ("completion", "audio", "tools"))]) as server:
        yield server


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("sound", SOUNDS.values(), ids=SOUNDS)
async def test_audio_of_a_user_and_of_a_tool(hearing: SimulatedOllama, sound: Any, awaited: bool) -> None:
    """The same bytes in both places, also where long conversations are trimmed; it has no count."""
    values = {"model": "hearing", "base_url": hearing.base_url, "context_overflow": "trim"}
    called = {"tool_call_id": "c", "name": "listen"}
    model: Any
    if isinstance(sound, AudioBlock):
        model, blocks = OllamaDify(**values), [TextBlock(text="What is said?"), sound]
        tool = ChatMessage(role="tool", blocks=blocks, additional_kwargs=called)
        asked: list[Any] = [ChatMessage(blocks=blocks), tool]
        await model.achat(asked) if awaited else model.chat(asked)
    else:
        model, said = ChatOllamaDify(**values), [{"type": "text", "text": "What is said?"}, sound]
        asked = [HumanMessage(said), ToolMessage(said, **called)]
        await model.ainvoke(asked) if awaited else model.invoke(asked)
        with pytest.raises(ollama_dify.UnsupportedContentError, match="tokens of audio cannot be counted"):
            model.get_num_tokens_from_messages(asked)
    bodies = [request.body for request in hearing.requests if request.path == "/api/chat"]
    (body,) = [body for body in bodies if "_debug_render_only" not in body]
    content = {"content": "What is said?", "images": [WAV_TEXT]}
    assert body["messages"] == [
        {"role": "user", **content},
        {"role": "tool", **content, "tool_name": "listen", "tool_call_id": "c"},
    ]
    heard = [ollama_dify.user(ollama_dify.Audio.from_bytes(WAV))]
    with pytest.raises(ollama_dify.UnsupportedContentError, match="tokens of audio cannot be counted"):
        await model.async_client.count_tokens(heard) if awaited else model.client.count_tokens(heard)
    model.close()
    await model.aclose()


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
async def test_a_model_that_does_not_hear(simulated_ollama: SimulatedOllama, awaited: bool) -> None:
    values: dict[str, Any] = {"model": "llama3.2", "base_url": simulated_ollama.base_url}
    block = {"type": "audio", "audio": ollama_dify.Audio.from_bytes(WAV)}
    with ChatOllamaDify(**values) as chat, OllamaDify(**values) as llm:
        with pytest.raises(ollama_dify.CapabilityError, match="lacks the capability 'audio'"):
            await chat.ainvoke([HumanMessage([block])]) if awaited else chat.invoke([HumanMessage([block])])
        said = [ChatMessage(blocks=[AudioBlock(audio=WAV)])]
        with pytest.raises(ollama_dify.CapabilityError, match="lacks the capability 'audio'"):
            await llm.achat(said) if awaited else llm.chat(said)
        await chat.aclose()
        await llm.aclose()


def test_the_hint_survives_what_frameworks_show_of_an_error(simulated_ollama: SimulatedOllama) -> None:
    simulated_ollama.script([Reply("never")])
    values: dict[str, Any] = {"model": "llama3.2", "base_url": simulated_ollama.base_url, "context_size": 256}
    raised = []
    with ChatOllamaDify(**values) as chat, OllamaDify(**values) as llm:
        for ask in (lambda: chat.invoke("word " * 500), lambda: llm.complete("word " * 500)):
            with pytest.raises(ollama_dify.ContextOverflowError) as found:
                ask()
            raised.append(found.value)
    for error in raised:
        assert error.hint
        assert error.hint in str(error)
        assert error.hint[:40] in repr(error)
        # As deepagents does, whose middleware raises an error of its own.
        with pytest.raises(RuntimeError) as wrapped:
            raise RuntimeError("does not fit") from error
        assert error.hint in "".join(traceback.format_exception(wrapped.value))
