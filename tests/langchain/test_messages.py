"""Every kind of LangChain message and block: what goes on the wire, or why it is refused."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

import ollama_dify
from ollama_dify.testing import SimulatedOllama
from tests.langchain.asking import ask, chat, ways

IMAGES = Path(__file__).parents[1] / "data" / "images"
PNG = IMAGES / "png_rgb.png"
DATA = PNG.read_bytes()
BASE64 = base64.b64encode(DATA).decode()
URL = f"data:image/png;base64,{BASE64}"


CALL = {"name": "look", "args": {"at": "sky"}, "id": "c1"}
WIRE_CALL = {"id": "c1", "function": {"index": 0, "name": "look", "arguments": {"at": "sky"}}}

TURNS: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "human": (HumanMessage("a"), [{"role": "user", "content": "a"}]),
    "system": (SystemMessage("a"), [{"role": "system", "content": "a"}]),
    "assistant": (AIMessage("a"), [{"role": "assistant", "content": "a"}]),
    "chunk": (AIMessageChunk("a"), [{"role": "assistant", "content": "a"}]),
    "developer role": (ChatMessage("a", role="developer"), [{"role": "system", "content": "a"}]),
    "function": (FunctionMessage("a", name="f"), [{"role": "tool", "content": "a", "tool_name": "f"}]),
    "a line per text block": (
        HumanMessage([{"type": "text", "text": "a"}, "b"]),
        [{"role": "user", "content": "a\nb"}],
    ),
    "other providers' texts": (
        HumanMessage(
            [
                {"type": "input_text", "text": "a"},
                {"type": "text-plain", "text": "b", "mime_type": "text/plain"},
                {"type": "text", "text": "c", "cache_control": {"type": "ephemeral"}},
            ]
        ),
        [{"role": "user", "content": "a\nb\nc"}],
    ),
    "line separators are kept": (
        HumanMessage("a\u0085b\u2028c"),
        [{"role": "user", "content": "a\u0085b\u2028c"}],
    ),
    "calls": (
        AIMessage("", tool_calls=[CALL]),
        [{"role": "assistant", "content": "", "tool_calls": [WIRE_CALL]}],
    ),
    "calls among the content": (
        AIMessage([{"type": "tool_use", "id": "c1", "name": "look", "input": {"at": "sky"}}]),
        [{"role": "assistant", "content": "", "tool_calls": [WIRE_CALL]}],
    ),
    "calls in both places": (
        AIMessage([{"type": "tool_call", **CALL}], tool_calls=[CALL]),
        [{"role": "assistant", "content": "", "tool_calls": [WIRE_CALL]}],
    ),
    "calls as OpenAI's responses have them": (
        AIMessage([{"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at": "sky"}'}]),
        [{"role": "assistant", "content": "", "tool_calls": [WIRE_CALL]}],
    ),
    "text arguments stay text": (
        AIMessage("", tool_calls=[{"name": "look", "args": {"at": "[1, 2]"}, "id": "c1"}]),
        [
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"id": "c1", "function": {"index": 0, "name": "look", "arguments": {"at": "[1, 2]"}}}
                ],
            }
        ],
    ),
    "reasoning": (
        AIMessage("a", additional_kwargs={"reasoning_content": "r"}),
        [{"role": "assistant", "content": "a", "thinking": "r"}],
    ),
    "reasoning blocks": (
        AIMessage([{"type": "reasoning", "reasoning": "r"}, {"type": "text", "text": "a"}]),
        [{"role": "assistant", "content": "a", "thinking": "r"}],
    ),
    "Anthropic's thinking": (
        AIMessage([{"type": "thinking", "thinking": "r", "signature": "s"}, {"type": "text", "text": "a"}]),
        [{"role": "assistant", "content": "a", "thinking": "r"}],
    ),
    "OpenAI's summary": (
        AIMessage([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "r"}]}, "a"]),
        [{"role": "assistant", "content": "a", "thinking": "r"}],
    ),
    "Anthropic's results": (
        HumanMessage(
            [
                {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "blue"}]},
                {"type": "text", "text": "So?"},
            ]
        ),
        [{"role": "tool", "content": "blue", "tool_call_id": "c1"}, {"role": "user", "content": "So?"}],
    ),
}


@ways
@pytest.mark.parametrize(("message", "sent"), TURNS.values(), ids=TURNS)
async def test_a_message_on_the_wire(
    server: SimulatedOllama, way: str, message: Any, sent: list[dict[str, Any]]
) -> None:
    await ask(chat(), way, [HumanMessage("first"), message, HumanMessage("last")])

    assert server.requests[-1].body["messages"][1:-1] == sent


@ways
async def test_a_result_gets_the_name_of_its_tool(server: SimulatedOllama, way: str) -> None:
    other = {"name": "listen", "args": {}, "id": "c2"}
    asked = [
        HumanMessage("?"),
        AIMessage("", tool_calls=[CALL, other]),
        ToolMessage("nothing", tool_call_id="c2"),
        ToolMessage("blue", tool_call_id="c1", name="own name"),
    ]

    await ask(chat(), way, asked)

    assert server.requests[-1].body["messages"][2:] == [
        {"role": "tool", "content": "nothing", "tool_name": "listen", "tool_call_id": "c2"},
        {"role": "tool", "content": "blue", "tool_name": "own name", "tool_call_id": "c1"},
    ]


def data_url(name: str, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode((IMAGES / name).read_bytes()).decode()}"


BAD_BLOCKS: dict[str, tuple[dict[str, Any], str]] = {
    "video": ({"type": "video", "url": "data:video/mp4;base64,AAAA"}, "'video'"),
    "file": ({"type": "file", "base64": "AAAA", "mime_type": "application/pdf"}, "'file' (application/pdf)"),
    "OpenAI's file": ({"type": "file", "file": {"filename": "a.pdf", "file_data": URL}}, "'file'"),
    "Anthropic's document": (
        {"type": "document", "source": {"type": "base64", "data": "AAAA"}},
        "'document'",
    ),
    "something new": ({"type": "hologram", "data": "AAAA"}, "'hologram'"),
    "v1 file id": ({"type": "image", "file_id": "file-1"}, "another provider keeps"),
    "v0 file id": ({"type": "image", "source_type": "id", "id": "file-1"}, "another provider keeps"),
    "Anthropic's file id": (
        {"type": "image", "source": {"type": "file", "file_id": "f"}},
        "another provider",
    ),
    "empty block": ({"type": "image"}, "holds no image"),
}


@ways
@pytest.mark.parametrize(("block", "message"), BAD_BLOCKS.values(), ids=BAD_BLOCKS)
async def test_a_block_is_refused_with_its_place(
    server: SimulatedOllama, way: str, block: dict[str, Any], message: str
) -> None:
    asked = [SystemMessage("s"), HumanMessage([{"type": "text", "text": "?"}, block])]

    with pytest.raises(ollama_dify.UnsupportedContentError) as caught:
        await ask(chat(), way, asked)

    assert "messages[1].content[1]" in str(caught.value)
    assert message in str(caught.value)
    assert isinstance(caught.value, ModelInvalidRequestError)
    assert server.requests == []


BAD_MESSAGES: dict[str, tuple[Any, str]] = {
    "an unknown role": (ChatMessage("a", role="narrator"), "'narrator'"),
    "a removal": (RemoveMessage(id="1"), "RemoveMessage"),
    "arguments that are no JSON": (
        AIMessage("", invalid_tool_calls=[{"name": "look", "args": "{", "id": "1", "error": None}]),
        "not JSON",
    ),
    "half a character": (HumanMessage("\ud83d"), "surrogate"),
}


@ways
@pytest.mark.parametrize(("message", "said"), BAD_MESSAGES.values(), ids=BAD_MESSAGES)
async def test_a_message_is_refused(server: SimulatedOllama, way: str, message: Any, said: str) -> None:
    with pytest.raises(ollama_dify.UnsupportedContentError, match=said):
        await ask(chat(), way, [HumanMessage("first"), message])

    assert server.requests == []
