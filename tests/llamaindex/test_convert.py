"""LlamaIndex's messages on the wire."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    CacheControl,
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.llms.llm import ToolSelection

from llamaindex_ollama_dify import OllamaDify
from llamaindex_ollama_dify.convert import to_messages
from ollama_dify import CapabilityError, ChatSettings, UnsupportedContentError
from ollama_dify.testing import SimulatedOllama
from tests.llamaindex.asking import CHAT_METHODS, ask, sent
from tests.llamaindex.conftest import PIXEL

MakeLLM = Callable[..., OllamaDify]
PIXEL_BASE64 = base64.b64encode(PIXEL).decode()


@pytest.mark.parametrize(
    ("role", "sent_role"),
    [
        (MessageRole.SYSTEM, "system"),
        (MessageRole.DEVELOPER, "system"),
        (MessageRole.USER, "user"),
        (MessageRole.ASSISTANT, "assistant"),
        (MessageRole.CHATBOT, "assistant"),
        (MessageRole.MODEL, "assistant"),
        (MessageRole.TOOL, "tool"),
        (MessageRole.FUNCTION, "tool"),
    ],
    ids=lambda role: str(getattr(role, "value", role)),
)
async def test_roles(server: SimulatedOllama, llm: OllamaDify, role: MessageRole, sent_role: str) -> None:
    await ask(llm, "achat", [ChatMessage(role=role, content="x"), ChatMessage(content="Hello")])
    assert sent(server)[-1]["messages"][0] == {"role": sent_role, "content": "x"}


def test_every_role_is_known() -> None:
    from llamaindex_ollama_dify.convert import ROLES

    assert set(ROLES) == set(MessageRole)


def opened(data: bytes) -> ImageBlock:
    """A block that holds the bytes as they are; without a file LlamaIndex itself encodes them."""
    return ImageBlock(image=io.BytesIO(data))


def test_a_image_is_not_copied() -> None:
    block = ImageBlock(image=PIXEL)
    (message,) = to_messages([ChatMessage(blocks=[block])], ChatSettings(model="llava"))
    assert message.images[0].payload is block.image


# A GIF of one pixel in which every byte is below 128.
ASCII_GIF = b"GIF87a\1\0\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\x08\x04\0\1\x04\x04\0;"


async def test_a_file_in_ascii_is_no_text(server: SimulatedOllama, make_llm: MakeLLM) -> None:
    message = ChatMessage(blocks=[ImageBlock(image=io.BytesIO(ASCII_GIF))])
    await ask(make_llm("llava"), "chat", [message])
    assert sent(server)[-1]["messages"][0]["images"] == [base64.b64encode(ASCII_GIF).decode()]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: VideoBlock(video=b"\0"), "takes no VideoBlock"),
        (lambda: DocumentBlock(data=b"%PDF"), "takes no DocumentBlock"),
        (lambda: CitableBlock(title="t", source="s", content="c"), "takes no CitableBlock"),
        (
            lambda: CitationBlock(title="t", source="s", cited_content="c", additional_location_info={}),
            "takes no CitationBlock",
        ),
        (lambda: ImageBlock(), "holds no image"),
        (lambda: opened(b"aGVsbG8"), "not strict base64"),
        (lambda: opened(b"/etc/passwd"), "looks like a file path"),
        (lambda: opened(b"HTTPS://example.com/cat.png"), "set allow_image_urls=True"),
        (lambda: ToolCallBlock(tool_name="f", tool_kwargs="{bad"), "arguments are not JSON"),
        (lambda: ToolCallBlock(tool_name="f", tool_kwargs="[1]"), "arguments are of type list"),
    ],
    ids=[
        "video", "document", "citable", "citation", "empty-image",
        "bad-base64", "path-as-bytes", "http-url-as-bytes", "bad-arguments", "list-arguments",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", CHAT_METHODS)
async def test_refused_blocks_are_named_and_nothing_is_sent(
    server: SimulatedOllama, make_llm: MakeLLM, method: str, make: Callable[[], Any], told: str
) -> None:
    messages = [ChatMessage(content="Hello"), ChatMessage(blocks=[TextBlock(text="x"), make()])]
    with pytest.raises(UnsupportedContentError, match=told) as caught:
        await ask(make_llm("llava"), method, messages)
    assert "messages[1].blocks[1]" in str(caught.value)
    assert server.requests == []


async def test_completion_mode_checks_addresses_too(server: SimulatedOllama, make_llm: MakeLLM) -> None:
    llm = make_llm("llava", mode="completion", allow_image_urls=True)
    block = ImageBlock(url=f"{server.base_url}/cat.png")
    with pytest.raises(UnsupportedContentError, match=r"blocks\[1\].*not on the public internet"):
        await ask(llm, "chat", [ChatMessage(blocks=[TextBlock(text="What?"), block])])
    assert server.requests == []


async def test_cache_point_needs_nothing_on_the_wire(server: SimulatedOllama, llm: OllamaDify) -> None:
    point = CachePoint(cache_control=CacheControl(type="ephemeral"))
    await ask(llm, "chat", [ChatMessage(blocks=[TextBlock(text="Hello"), point])])
    assert sent(server)[-1]["messages"] == [{"role": "user", "content": "Hello"}]


HISTORIES: dict[str, ChatMessage] = {
    "blocks": ChatMessage(
        role="assistant",
        blocks=[
            ThinkingBlock(content="First."),
            ThinkingBlock(content="Then."),
            TextBlock(text="I look."),
            ToolCallBlock(tool_call_id="c1", tool_name="look", tool_kwargs={"at": "[1,2]"}),
        ],
    ),
    "json-arguments": ChatMessage(
        role="assistant",
        blocks=[
            ThinkingBlock(content="First.\nThen."),
            TextBlock(text="I look."),
            ToolCallBlock(tool_call_id="c1", tool_name="look", tool_kwargs='{"at": "[1,2]"}'),
        ],
    ),
    "ollama-kwargs": ChatMessage(
        role="assistant",
        blocks=[ThinkingBlock(content="First.\nThen."), ThinkingBlock(), TextBlock(text="I look.")],
        additional_kwargs={
            "tool_calls": [{"id": "c1", "function": {"name": "look", "arguments": {"at": "[1,2]"}}}]
        },
    ),
    "selections": ChatMessage(
        role="assistant",
        blocks=[ThinkingBlock(content="First.\nThen."), TextBlock(text="I look."), TextBlock(text="")],
        additional_kwargs={
            "tool_calls": [ToolSelection(tool_id="c1", tool_name="look", tool_kwargs={"at": "[1,2]"})]
        },
    ),
    "openai-kwargs": ChatMessage(
        role="assistant",
        blocks=[ThinkingBlock(content="First.\nThen."), TextBlock(text="I look.")],
        additional_kwargs={
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"at": "[1,2]"}'},
                }
            ]
        },
    ),
}


@pytest.mark.parametrize("form", HISTORIES)
@pytest.mark.parametrize("names_itself", [True, False], ids=["named-result", "id-only"])
async def test_tool_loop_is_replayed_whole(
    server: SimulatedOllama, make_llm: MakeLLM, form: str, names_itself: bool
) -> None:
    extra = {"tool_call_id": "c1", **({"name": "look"} if names_itself else {})}
    history = [
        ChatMessage(content="What is there?"),
        HISTORIES[form],
        ChatMessage(role="tool", content="A cat.", additional_kwargs=extra),
    ]
    before = [message.model_copy(deep=True) for message in history]
    await ask(make_llm("qwen3"), "achat", history)
    assert sent(server)[-1]["messages"][1:] == [
        {
            "role": "assistant",
            "content": "I look.",
            "thinking": "First.\nThen.",
            "tool_calls": [
                {"id": "c1", "function": {"index": 0, "name": "look", "arguments": {"at": "[1,2]"}}}
            ],
        },
        {"role": "tool", "content": "A cat.", "tool_name": "look", "tool_call_id": "c1"},
    ]
    assert history == before


async def test_call_without_arguments_or_name(server: SimulatedOllama, llm: OllamaDify) -> None:
    def said(call: dict[str, Any]) -> ChatMessage:
        return ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": [call]})

    for arguments in ({"arguments": ""}, {"arguments": None}, {}):
        await ask(llm, "chat", [said({"function": {"name": "look", **arguments}}), ChatMessage(content="Hi")])
        (call,) = sent(server)[-1]["messages"][0]["tool_calls"]
        assert call == {"function": {"index": 0, "name": "look", "arguments": {}}}
    with pytest.raises(UnsupportedContentError, match="a tool call without a name"):
        await ask(llm, "chat", [said({"function": {}})])


async def test_own_prompt_formats(server: SimulatedOllama, make_llm: MakeLLM) -> None:
    llm = make_llm(
        mode="completion",
        messages_to_prompt=lambda messages: "|".join(str(message.content) for message in messages),
        completion_to_prompt=lambda prompt: f"<{prompt}>",
    )
    await ask(llm, "chat", [ChatMessage(role="system", content="A."), ChatMessage(content="Hi")])
    await ask(llm, "complete", "Hi")
    await ask(llm, "complete", "Hi", formatted=True)
    assert [body["prompt"] for body in sent(server)] == ["Hi", "<Hi>", "Hi"]
    await ask(llm, "chat", [ChatMessage(content="Hi"), ChatMessage(content="You")])
    assert sent(server)[-1]["prompt"] == "Hi|You"


async def test_prompt_arguments_of_completion_mode(server: SimulatedOllama, make_llm: MakeLLM) -> None:
    llm = make_llm(mode="completion")
    await ask(llm, "acomplete", "def f(", system="Code.", raw=True)
    body = sent(server)[-1]
    assert (body["prompt"], body["system"], body["raw"]) == ("def f(", "Code.", True)


async def test_completion_mode_refuses_a_history_with_tools(
    server: SimulatedOllama, make_llm: MakeLLM
) -> None:
    with pytest.raises(CapabilityError, match='mode="completion"'):
        await ask(make_llm(mode="completion"), "chat", [ChatMessage(content="Hi"), HISTORIES["blocks"]])
    assert server.requests == []
