"""What happens around a question: what is asked of the server before it, once, and what is never asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ollama_dify import (
    CapabilityError,
    ChatSettings,
    Image,
    OllamaClient,
    Prompt,
    Tool,
    user,
)
from ollama_dify.testing import SimulatedOllama

IMAGE = Image.from_path(Path(__file__).parent.parent / "data" / "images" / "png_rgb.png")
TOOL = Tool("look")
SHOWN = ["/api/tags", "/api/show"]


def client(server: SimulatedOllama, **values: Any) -> OllamaClient:
    return OllamaClient(ChatSettings(**{"model": "llava", "base_url": server.base_url, **values}))


def paths(server: SimulatedOllama) -> list[str]:
    return [request.path for request in server.requests]


ASKED_BEFORE = [
    pytest.param({}, [user("Hi")], (), [], id="nothing special"),
    pytest.param({}, [user(IMAGE)], (), SHOWN, id="an image"),
    pytest.param({"vision_support": True}, [user(IMAGE)], (), [], id="an image, by the form"),
    pytest.param({"model": "llama3.2"}, [user("Hi")], (TOOL,), SHOWN, id="a tool"),
    pytest.param(
        {"model": "llama3.2", "function_call_support": True},
        [user("Hi")],
        (TOOL,),
        [],
        id="a tool, by the form",
    ),
]


@pytest.mark.parametrize(("values", "messages", "tools", "before"), ASKED_BEFORE)
def test_what_is_looked_up_and_that_it_is_once(
    simulated_ollama: SimulatedOllama, values: dict[str, Any], messages: Any, tools: Any, before: list[str]
) -> None:
    with client(simulated_ollama, **values) as asking:
        for _ in range(3):
            asking.chat(messages, tools=tools)
    assert paths(simulated_ollama) == [*before, *["/api/chat"] * 3]


REFUSED = [
    pytest.param({"model": "llama3.2"}, [user(IMAGE)], (), SHOWN, "vision_support=True", id="a blind model"),
    pytest.param({}, [user("Hi")], (TOOL,), SHOWN, "function_call_support=True", id="a model without tools"),
    pytest.param({"vision_support": False}, [user(IMAGE)], (), [], "vision_support=False", id="no vision"),
    pytest.param(
        {"function_call_support": False},
        [user("Hi")],
        (TOOL,),
        [],
        "function_call_support=False",
        id="no tools",
    ),
]


@pytest.mark.parametrize(("values", "messages", "tools", "asked", "said"), REFUSED)
def test_what_cannot_be_done_is_not_sent(
    simulated_ollama: SimulatedOllama,
    values: dict[str, Any],
    messages: Any,
    tools: Any,
    asked: Any,
    said: str,
) -> None:
    with client(simulated_ollama, **values) as asking, pytest.raises(CapabilityError, match=said):
        asking.chat(messages, tools=tools)
    assert paths(simulated_ollama) == asked


def test_each_client_asks_for_itself(simulated_ollama: SimulatedOllama) -> None:
    with client(simulated_ollama) as one, client(simulated_ollama) as other:
        one.chat([user(IMAGE)])
        other.chat([user(IMAGE)])
    assert paths(simulated_ollama).count("/api/show") == 2


def test_a_claim_is_believed(simulated_ollama: SimulatedOllama) -> None:
    """What the server says of the image decides."""
    with client(simulated_ollama, model="llama3.2", vision_support=True) as asking:
        asking.model_info()
        with pytest.raises(CapabilityError, match="multimodal"):
            asking.chat([user(IMAGE)])
    assert paths(simulated_ollama)[-1] == "/api/chat"


def test_a_prompt_with_images_is_checked_the_same(simulated_ollama: SimulatedOllama) -> None:
    with client(simulated_ollama) as asking:
        asking.generate(Prompt("What?", images=(IMAGE,)))
    assert paths(simulated_ollama) == [*SHOWN, "/api/generate"]
    body = json.loads(simulated_ollama.requests[-1].raw)
    assert body["images"] == [IMAGE.base64()]
