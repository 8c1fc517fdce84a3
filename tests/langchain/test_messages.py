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


BLOCKS: dict[str, dict[str, Any]] = {
    "image_url": {"type": "image_url", "image_url": {"url": URL, "detail": "low"}},
    "image_url as text": {"type": "image_url", "image_url": URL},
    "image_url of plain base64": {"type": "image_url", "image_url": BASE64},
    "image_url with a wrong label": {
        "type": "image_url",
        "image_url": {"url": f"data:image/jpeg;base64,{BASE64}"},
    },
    "v1 base64": {"type": "image", "base64": BASE64, "mime_type": "image/png", "id": "lc_1"},
    "v1 data URL": {"type": "image", "url": URL},
    "v0 base64": {"type": "image", "source_type": "base64", "data": BASE64, "mime_type": "image/png"},
    "v0 data URL": {"type": "image", "source_type": "url", "url": URL},
    "Anthropic base64": {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": BASE64},
    },
    "Anthropic data URL": {"type": "image", "source": {"type": "url", "url": URL}},
    "OpenAI responses": {"type": "input_image", "image_url": URL, "detail": "auto"},
    "Bedrock": {"image": {"format": "png", "source": {"bytes": DATA}}},
    "Google": {"type": "media", "mime_type": "image/png", "data": DATA},
    "bytes": {"type": "image", "image": DATA},
    "path object": {"type": "image", "path": PNG},
    "our Image": {"type": "image", "image": ollama_dify.Image.from_bytes(DATA)},
}


@ways
@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
async def test_each_shape_of_a_image_gives_the_same_bytes(
    server: SimulatedOllama, way: str, block: dict[str, Any]
) -> None:
    await ask(chat(), way, [HumanMessage([{"type": "text", "text": "What is it?"}, block])])

    (request,) = [one for one in server.requests if one.path == "/api/chat"]
    assert request.body["messages"] == [{"role": "user", "content": "What is it?", "images": [BASE64]}]


@ways
@pytest.mark.parametrize("kind", ["tool message", "anthropic result", "several", "completion"])
async def test_where_images_may_stand(server: SimulatedOllama, way: str, kind: str) -> None:
    block = BLOCKS["v1 base64"]
    call = AIMessage("", tool_calls=[CALL])
    asked: dict[str, list[Any]] = {
        "tool message": [HumanMessage("?"), call, ToolMessage([block], tool_call_id="c1")],
        "anthropic result": [
            HumanMessage("?"),
            call,
            HumanMessage([{"type": "tool_result", "tool_use_id": "c1", "content": [block]}]),
        ],
        "several": [HumanMessage(["?", block, block])],
        "completion": [HumanMessage(["?", block])],
    }

    await ask(chat(mode="completion" if kind == "completion" else "chat"), way, asked[kind])

    body = server.requests[-1].body
    last = body if kind == "completion" else body["messages"][-1]
    assert last["images"] == [BASE64] * (2 if kind == "several" else 1)
    if kind in ("tool message", "anthropic result"):
        assert (last["role"], last["tool_name"], last["tool_call_id"]) == ("tool", "look", "c1")


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
    "web address": (
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        "a web address",
    ),
    "v1 web address": ({"type": "image", "url": "http://example.com/a.png"}, "a web address"),
    "file address": ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "file: address"),
    "path text": ({"type": "image", "url": str(PNG)}, "paths in messages are never opened"),
    "no image": ({"type": "image_url", "image_url": data_url("text.txt")}, "PNG"),
    "svg called png": ({"type": "image", "image": data_url("svg.svg").partition(",")[2]}, "SVG"),
    "cut": ({"type": "image_url", "image_url": data_url("png_truncated_header.png")}, ""),
    "not base64": ({"type": "image", "base64": "%%%", "mime_type": "image/png"}, "not strict base64"),
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


@pytest.mark.parametrize("settings", [{"allow_image_paths": False}, {"allow_image_paths": Path("/nowhere")}])
@ways
async def test_paths_can_be_ruled_out(server: SimulatedOllama, way: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ollama_dify.UnsupportedContentError):
        await ask(chat(**settings), way, [HumanMessage([{"type": "image", "path": PNG}])])

    assert server.requests == []


@ways
async def test_images_can_be_ruled_out(server: SimulatedOllama, way: str) -> None:
    with pytest.raises(ollama_dify.CapabilityError, match="vision_support=False"):
        await ask(chat(vision_support=False), way, [HumanMessage([BLOCKS["bytes"]])])

    assert server.requests == []


async def test_the_callers_messages_stay_as_they_are(server: SimulatedOllama) -> None:
    asked = [HumanMessage([{"type": "text", "text": "?"}, dict(BLOCKS["v0 base64"])])]
    before = [message.model_copy(deep=True) for message in asked]

    chat().invoke(asked)

    assert asked == before
