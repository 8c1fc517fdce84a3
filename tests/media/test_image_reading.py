"""Images on their way to the wire: where they stand in a message, and the door they come in by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from ollama_dify import ChatSettings, Image, Message, OllamaClient, Prompt, ServerError, assistant, user
from ollama_dify.testing import SimulatedOllama
from ollama_dify.testing.fitting import prompt_renderer, render_chat
from ollama_dify.testing.models import SimulatedModel
from ollama_dify.testing.prompts import Conversation
from ollama_dify.wire.requests import chat_request, generate_request, wire_message

IMAGES = Path(__file__).parent.parent / "data" / "images"
RED, GREEN, BLUE = (Image.from_path(IMAGES / f"png_{name}.png") for name in ("rgb", "green", "blue"))
RECORDED: dict[str, list[int]] = json.loads((IMAGES / "chunk_not_found.json").read_text())

WHAT, WHICH = "What color is this image?", "Describe it."
# What was asked, one conversation after the other, under each recorded title.
ASKED: dict[str, list[list[Message]]] = {
    "3 images, fresh": [[user(RED, GREEN, BLUE, WHAT)]],
    "3 images twice": [[user(RED, GREEN, BLUE, WHAT)]] * 2,
    "RED,RED fresh": [[user(RED, RED, WHAT)]],
    "16 RED fresh": [[user(*[RED] * 16, WHAT)]],
    "RED then RED other question": [[user(RED, WHAT)], [user(RED, WHICH)]],
    "RED then RED+BLUE": [[user(RED, WHAT)], [user(RED, BLUE, WHAT)]],
    "RED+BLUE then RED+GREEN": [[user(RED, BLUE, WHAT)], [user(RED, GREEN, WHAT)]],
    "RED+BLUE then RED": [[user(RED, BLUE, WHAT)], [user(RED, WHAT)]],
    "RED then BLUE then RED": [[user(RED, WHAT)], [user(BLUE, WHAT)], [user(RED, WHAT)]],
    "text then RED": [[user("Hello")], [user(RED, WHAT)]],
    "RED then text then RED": [[user(RED, WHAT)], [user("Hello")], [user(RED, WHAT)]],
    "RED then empty content RED": [[user(RED, WHAT)], [user(RED)]],
    "same request 5 times": [[user(RED, WHAT)]] * 5,
    "failed request, then the same again x3": [[user(RED, BLUE, WHAT)], *[[user(RED, GREEN, WHAT)]] * 3],
    "images in two messages: RED..BLUE then RED..GREEN": [
        [user(RED, WHAT), assistant("Red."), user(second, WHAT)] for second in (BLUE, GREEN)
    ],
    "after the 500 another model prompt frees it: RED+BLUE, RED+GREEN (500), Hello, RED+GREEN": [
        [user(RED, BLUE, WHAT)],
        [user(RED, GREEN, WHAT)],
        [user("Hello")],
        [user(RED, GREEN, WHAT)],
    ],
    "content starts with the image and ends at once: RED empty content then RED+BLUE": [
        [user(RED)],
        [user(RED, BLUE)],
        [user(RED)],
    ],
    "0.32.15: RED+BLUE then RED+GREEN": [[user(RED, BLUE, WHAT)], [user(RED, GREEN, WHAT)]],
    "0.24.0: RED+BLUE then RED+GREEN": [[user(RED, BLUE, WHAT)], [user(RED, GREEN, WHAT)]],
}


def version(title: str) -> str:
    return title.partition(":")[0] if title[0] == "0" else "0.33.0-rc2"


def side_by_side(message: Message) -> dict[str, Any]:
    """The message as other clients send it: the text as it is, the server puts the images before it."""
    images = [image.base64() for image in message.images]
    return {"role": message.role, "content": message.text, "images": images}


@pytest.mark.parametrize("title", ASKED)
def test_images_side_by_side_fail_as_recorded(title: str) -> None:
    assert sum(500 in RECORDED[one] for one in ASKED) >= 6
    with SimulatedOllama(version=version(title)) as server:
        statuses = [status(server, [side_by_side(turn) for turn in asked]) for asked in ASKED[title]]
    assert statuses == RECORDED[title]


def status(server: SimulatedOllama, messages: list[dict[str, Any]]) -> int:
    body = {"model": "llava", "messages": messages, "stream": False}
    return httpx.post(f"{server.base_url}/api/chat", json=body, trust_env=False).status_code


@pytest.mark.parametrize("title", ASKED)
def test_our_requests_never_fail_so(title: str) -> None:
    with SimulatedOllama(version=version(title)) as server:
        settings = ChatSettings(model="llava", base_url=server.base_url)
        with OllamaClient(settings) as client:
            for asked in ASKED[title]:
                assert client.chat(asked).text


def test_a_failure_that_another_program_caused_is_a_server_error() -> None:
    with SimulatedOllama() as server:
        assert status(server, [side_by_side(user(RED, BLUE, WHAT))]) == 200
        with (
            OllamaClient(ChatSettings(model="llava", base_url=server.base_url)) as client,
            pytest.raises(ServerError, match="Chunk not found"),
        ):
            client.chat([user(RED, WHAT)])


PLACED = [
    pytest.param(user(RED, "a"), "a", "[img-0]a", id="alone"),
    pytest.param(user("a", RED), "a", "[img-0]a", id="alone, after a text"),
    pytest.param(user(RED), "", "[img-0]", id="alone, no text"),
    pytest.param(user(RED, GREEN), "[img]\n[img]", "[img-0]\n[img-1]", id="two"),
    pytest.param(user(RED, GREEN, "a"), "[img]\n[img]\na", "[img-0]\n[img-1]\na", id="two, then a text"),
    pytest.param(user("a", RED, GREEN), "a\n[img]\n[img]", "a\n[img-0]\n[img-1]", id="a text, then two"),
    pytest.param(
        user("a", RED, "b", GREEN, "c"),
        "a\n[img]\nb\n[img]\nc",
        "a\n[img-0]\nb\n[img-1]\nc",
        id="among texts",
    ),
    pytest.param(user(RED, "", GREEN), "[img]\n\n[img]", "[img-0]\n\n[img-1]", id="an empty text between"),
    pytest.param(user("see [img]", RED), "see [\u2060img]", "[img-0]see [\u2060img]", id="a place in a text"),
    pytest.param(
        user("[img] [img]", RED, "[img]", GREEN),
        "[\u2060img] [\u2060img]\n[img]\n[\u2060img]\n[img]",
        "[\u2060img] [\u2060img]\n[img-0]\n[\u2060img]\n[img-1]",
        id="places in texts",
    ),
    pytest.param(
        user("[img-0] [img-x] [IMG]", RED),
        "[\u2060img-0] [img-x] [IMG]",
        "[img-0][\u2060img-0] [img-x] [IMG]",
        id="a mark in a text",
    ),
    pytest.param(user("see [img] and [img-0]"), "see [img] and [img-0]", None, id="no image, no change"),
]


@pytest.mark.parametrize(("message", "content", "read"), PLACED)
def test_where_images_stand(message: Message, content: str, read: str | None) -> None:
    wire = wire_message(message, with_images=bool(message.images))
    assert wire["content"] == content
    assert wire.get("images", []) == list(message.images)
    if read is not None:
        turn = {**wire, "images": [image.base64() for image in message.images]}
        prompt = render_chat(SimulatedModel("v", ("completion", "vision")), Conversation([turn]))
        assert f"<|im_start|>user\n{read}<|im_end|>" in prompt.text
        visible = prompt.text.replace("\u2060", "")
        for part in message.content:
            assert isinstance(part, Image) or part.text in visible


def test_a_mark_in_another_message_takes_no_image() -> None:
    settings = ChatSettings(model="llava")
    body = chat_request(settings, [user("the tag [img-0]"), user(RED)]).body
    assert body is not None
    assert [turn["content"] for turn in body["messages"]] == ["the tag [\u2060img-0]", ""]


@pytest.mark.parametrize(
    ("prompt", "sent"),
    [
        pytest.param(Prompt("a", images=(RED,)), "a", id="one"),
        pytest.param(Prompt("a", images=(RED, BLUE)), "[img]\n[img]\na", id="two"),
        pytest.param(Prompt("a [img]", images=(RED,)), "a [\u2060img]", id="a place in the text"),
        pytest.param(Prompt("[img-0] [img-1] a", images=(RED, BLUE), raw=True), None, id="raw"),
        pytest.param(Prompt("a", images=(RED, BLUE), template="{{ .Prompt }}"), None, id="a template"),
        pytest.param(Prompt("[img]"), None, id="none"),
    ],
)
def test_where_a_prompts_images_stand(prompt: Prompt, sent: str | None) -> None:
    body = generate_request(ChatSettings(model="llava"), prompt).body
    assert body is not None
    assert body["prompt"] == (prompt.text if sent is None else sent)
    if sent is not None:
        turn = {"role": "user", "content": sent, "images": [image.base64() for image in prompt.images]}
        rendered = prompt_renderer({})(SimulatedModel("v", ("completion", "vision")), Conversation([turn]))
        assert rendered.images == len(prompt.images)
        assert "][img" not in rendered.text
