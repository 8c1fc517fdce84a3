"""One table for both adapters: what is asked, in neutral words."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

IMAGES = Path(__file__).parent.parent / "data" / "images"

WEATHER = {
    "name": "get_weather",
    "description": "Get the current weather for a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "City name"}},
        "required": ["city"],
    },
}
ADD = {
    "name": "add",
    "description": "Add two numbers",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


@dataclass(frozen=True)
class Turn:
    """A message. `parts` are texts and Paths of images; `calls` are (id, name, arguments)."""

    role: Literal["system", "user", "assistant", "tool"]
    parts: tuple[str | Path, ...]
    calls: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    answers: tuple[str, str] | None = None
    thinking: str | None = None


@dataclass(frozen=True)
class Case:
    """turns asked of a model with these settings and, per call, these arguments."""

    name: str
    turns: tuple[Turn, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: str | None = None
    error: str | None = None
    """Name of the core error that both must raise."""


def said(*texts: str | Path) -> tuple[Turn, ...]:
    return (Turn("user", texts),)


HELLO = said("Hello")
CALL = Turn("assistant", (), calls=(("call_1", "get_weather", {"city": "Paris"}),))
TWO_CALLS = Turn(
    "assistant",
    ("Looking.",),
    calls=(("call_1", "get_weather", {"city": "Paris"}), ("call_2", "add", {"a": 1, "b": 2})),
)

CASES = [
    Case("plain", HELLO),
    Case("system", (Turn("system", ("You are a pirate.",)), *HELLO)),
    Case(
        "conversation",
        (*said("My name is Bob."), Turn("assistant", ("Nice to meet you.",)), *said("What is my name?")),
    ),
    Case("two texts", said("one", "two")),
    Case("unicode", said("你好 \u0085 \u2028 🙂 \x00")),
    Case("empty assistant", (*HELLO, Turn("assistant", ("",)), *HELLO)),
    Case("context size", HELLO, {"context_size": 8192}),
    Case("server decides context", HELLO, {"context_size": None}),
    Case("token bound", HELLO, {"max_tokens": 64}),
    Case("fewer tokens by field", HELLO, {"max_tokens": 64, "num_predict": 8}),
    Case("fewer tokens per call", HELLO, {"max_tokens": 64}, {"num_predict": 8}),
    Case("no limit of its own", HELLO, {"max_tokens": 64}, {"num_predict": -1}),
    Case("temperature zero", HELLO, {"temperature": 0}),
    Case("temperature per call", HELLO, {"temperature": 0.7}, {"temperature": 0.0}),
    Case("stop", said("Count to ten"), {"stop": ["5"]}),
    Case("stop per call", said("Count to ten"), {}, {"stop": ["5", "7"]}),
    Case("seed", HELLO, {"seed": 7, "top_p": 0.5, "top_k": 10, "min_p": 0.1}),
    Case("load options", HELLO, {"num_gpu": 0, "num_thread": 2, "use_mmap": False}),
    Case("own options", HELLO, {"options": {"draft_num_predict": 3}}),
    Case("keep alive", HELLO, {"keep_alive": "10m"}),
    Case("keep alive per call", HELLO, {"keep_alive": "10m"}, {"keep_alive": 0}),
    Case("json", said("Give me JSON"), {"format": "json"}),
    Case("schema", said("Bob is 42."), {}, {"format": PERSON}),
    Case("think", HELLO, {"model": "qwen3", "think": True}),
    Case("think off per call", HELLO, {"model": "qwen3", "think": True}, {"think": False}),
    Case("think level", HELLO, {"model": "qwen3", "think": "high"}),
    Case("logprobs", HELLO, {"logprobs": True, "top_logprobs": 2}),
    Case("server cuts", HELLO, {"context_overflow": "truncate"}),
    Case("other model per call", HELLO, {}, {"model": "qwen3", "think": False}),
    Case("tools", said("What is the weather in Paris?"), tools=(WEATHER, ADD)),
    Case("tools, none", said("What is the weather in Paris?"), tools=(WEATHER, ADD), tool_choice="none"),
    Case("tools, any", said("What is the weather in Paris?"), tools=(WEATHER, ADD), tool_choice="required"),
    Case("tools, one", said("Add 2 and 3"), tools=(WEATHER, ADD), tool_choice="add"),
    Case(
        "tool result",
        (*said("Weather in Paris?"), CALL, Turn("tool", ("22 degrees",), answers=("call_1", "get_weather"))),
        tools=(WEATHER,),
    ),
    Case(
        "two tool results",
        (
            *said("Weather in Paris, and 1 + 2?"),
            TWO_CALLS,
            Turn("tool", ("22 degrees",), answers=("call_1", "get_weather")),
            Turn("tool", ("3",), answers=("call_2", "add")),
        ),
        tools=(WEATHER, ADD),
    ),
    Case("image", said("What is this?", IMAGES / "png_rgb.png"), {"model": "llava"}),
    Case("jpeg", said(IMAGES / "jpeg_baseline.jpg", "What is this?"), {"model": "llava"}),
    Case(
        "two images",
        said("Compare", IMAGES / "png_rgb.png", "with", IMAGES / "png_gray.png"),
        {"model": "llava"},
    ),
    Case("vision off", said(IMAGES / "png_rgb.png"), {"vision_support": False}, error="CapabilityError"),
    Case("blind model", said(IMAGES / "png_rgb.png"), error="CapabilityError"),
    Case("no image", said(IMAGES / "text.txt"), {"model": "llava"}, error="UnsupportedContentError"),
    Case("functions off", HELLO, {"function_call_support": False}, tools=(ADD,), error="CapabilityError"),
    Case("over the bound", HELLO, {"max_tokens": 64}, {"num_predict": 65}, error="ConfigurationError"),
    Case("reload per call", HELLO, {}, {"context_size": 99}, error="ConfigurationError"),
    Case("unknown argument", HELLO, {}, {"tempertur": 1}, error="ConfigurationError"),
    Case("unknown tool", HELLO, tools=(ADD,), tool_choice="nope", error="ConfigurationError"),
    Case(
        "two ways to ask for a form",
        HELLO,
        {},
        {"format": "json", "response_format": PERSON},
        error="ConfigurationError",
    ),
    Case("nothing", (), error="UnsupportedContentError"),
    Case("nothing, completion", said(""), {"mode": "completion"}, error="UnsupportedContentError"),
    Case("tools, completion", HELLO, {"mode": "completion"}, tools=(ADD,), error="CapabilityError"),
    Case(
        "nobody there",
        HELLO,
        {"base_url": "http://127.0.0.1:9", "max_retries": 0},
        error="ConnectionFailedError",
    ),
    Case("missing model", HELLO, {"model": "nope"}, error="ModelNotFoundError"),
    Case("too long", said("word " * 500), {"context_size": 256}, error="ContextOverflowError"),
    Case("surrogate", said("half \ud800"), error="UnsupportedContentError"),
]
