"""What a conversation costs, against the prompts and counts of a real server."""

from __future__ import annotations

import gzip
import json
import statistics
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ollama_dify import Image, Message, TextPart, TokenCounter, Tool, ToolCall, system, user
from ollama_dify.tokens.counter import count_rendered
from ollama_dify.tokens.image_cost import UNKNOWN_IMAGE_TOKENS, image_tokens
from ollama_dify.tokens.probes import PROBES, PROBES_NAME
from ollama_dify.tokens.tokenizer import TokenEstimator

DATA = Path(__file__).parent.parent / "data"


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(gzip.decompress((DATA / "tokens" / name).read_bytes()))
    return content


MODELS: dict[str, Any] = read("chats.json.gz")["models"]
VOCABULARIES = read("tokenizers.json.gz")["tokenizers"]
PROBED = read("probes.json.gz")


@cache
def counter(model: str) -> TokenCounter:
    """With the recorded projector and vocabulary, and nothing rendered."""
    shown = MODELS[model]["show"]
    information = VOCABULARIES[MODELS[model]["tokenizer"]]["model_info"]
    return TokenCounter.from_show({**shown, "model_info": {**(shown.get("model_info") or {}), **information}})


@cache
def probed(model: str, think: bool | None) -> TokenCounter:
    return counter(model).with_renderings(PROBED["models"][model][json.dumps(think)])


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


def asked(talk: dict[str, Any]) -> tuple[list[Message], list[Tool]]:
    return [message(turn) for turn in talk["messages"]], [tool(given) for given in talk.get("tools", ())]


def talks(model: str) -> list[dict[str, Any]]:
    return [talk for talk in MODELS[model]["conversations"] if talk["prompt_eval_count"]]


def cut_by_the_server(talk: dict[str, Any]) -> bool:
    """Whether the recorded server left messages out: it reckons 768 tokens an image, and these did not fit.

    The bound is for the whole conversation; the count of a part says nothing about it.
    """
    given = sum(len(message.get("images", ())) for message in talk["messages"])
    return bool(given != talk["image_count"])


@pytest.mark.parametrize("model", MODELS)
def test_a_rendered_prompt_counts_as_the_server_counted(model: str) -> None:
    own = counter(model)
    for talk in talks(model):
        messages, _ = asked(talk)
        counted = own.rendered(messages, talk["rendered"])
        assert counted.tokens == talk["prompt_eval_count"]
        assert counted.exact is (talk["image_count"] == 0)
    assert len(talks(model)) >= 23


def test_the_probes_bound_every_recorded_conversation_closely() -> None:
    assert PROBED["probes"] == PROBES_NAME, PROBED["note"]
    plain, with_tools = [], []
    for model in MODELS:
        above = []
        for talk in talks(model):
            bound = probed(model, talk.get("think")).bound(*asked(talk))
            assert not bound.exact
            assert bound.tokens >= talk["prompt_eval_count"], talk["messages"]
            if not cut_by_the_server(talk):
                (with_tools if talk.get("tools") else above).append(bound.tokens - talk["prompt_eval_count"])
        # Images are bounded themselves, and their texts are counted in pieces.
        assert statistics.median(above) <= (20 if model == "tiny-vision" else 10)
        plain += above
    assert (len(plain), len(with_tools)) == (142, 24)
    assert statistics.median(plain) <= 8
    assert statistics.quantiles(plain, n=10)[-1] <= 20
    assert statistics.median(with_tools) <= 100


def test_a_text_that_one_probe_hides_counts_where_another_shows_it() -> None:
    """Of several answers to one question `{{ .Prompt }}` writes the last."""
    words = "some words " * 40
    said = Message("assistant", (TextPart(words),), tool_calls=(ToolCall("f", {}),))
    messages, own = [user("A"), said, user("B")], probed("chat-prompt", None)
    assert own.bound(messages, []).tokens >= own.rendered(messages, f"A{words}B").tokens


def test_probes_that_the_server_refused_leave_a_bound_or_an_estimate() -> None:
    """Of each model, every second probe was rendered, or none with tools, or none at all."""
    for model in MODELS:
        rendered = PROBED["models"][model]["null"]
        half = counter(model).with_renderings(
            [text if number % 2 else None for number, text in enumerate(rendered)]
        )
        no_tools = counter(model).with_renderings(
            [None if probe.tools else text for probe, text in zip(PROBES, rendered, strict=True)]
        )
        nothing = counter(model).with_renderings([None] * len(PROBES))
        for talk in talks(model):
            partly = [half, no_tools] if talk.get("think") is None else []
            for own in (*partly, nothing, counter(model)):
                bound = own.bound(*asked(talk))
                assert bound.tokens >= talk["prompt_eval_count"], talk["messages"]
                assert not bound.exact


def test_a_bound_grows_with_every_message_tool_and_thought() -> None:
    own = probed("tiny-chat", None)
    add = Tool("add", "Adds two numbers", {"type": "object", "properties": {"a": {"type": "integer"}}})
    plain = own.bound([user("Hi")]).tokens
    assert plain < own.bound([system("Be brief."), user("Hi")]).tokens
    assert plain < own.bound([user("Hi")], [add]).tokens < own.bound([user("Hi")], [add, add]).tokens
    assert plain < probed("tiny-chat", False).bound([user("Hi")]).tokens  # an empty thought is written


def written(messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    """By a template that puts tools before the first message that is no system message, or at the end."""
    given = "".join(f"{tool.name}: {tool.description} {json.dumps(tool.parameters)}\n" for tool in tools)
    around = f"{'These tools may be called as JSON. ' * 20}\n{given}" if tools else ""
    systems = [turn for turn in messages if turn.role == "system"]
    others = [turn for turn in messages if turn.role != "system"]
    before, after = ("".join(f"<{t.role}>{t.text}</{t.role}>\n" for t in part) for part in (systems, others))
    return f"{before}{around}{after}<assistant>"


@pytest.mark.parametrize("tools", [[], [Tool("add", "Adds two numbers", {"type": "object"})]])
def test_system_messages_alone_are_bounded_though_no_probe_is_like_them(tools: list[Tool]) -> None:
    own = counter("tiny-chat").with_renderings([written(one.messages, one.tools) for one in PROBES])
    for count in (1, 2):
        messages = [system("Be brief.")] * count
        assert own.bound(messages, tools).tokens >= own.text(written(messages, tools)).tokens


@pytest.mark.parametrize("text", ["", "Hello"])
@pytest.mark.parametrize("name", ["tok-bpe-llama3", "tok-spm-prefix", "tiny-chat"])
def test_an_empty_prompt_costs_what_stands_around_any(name: str, text: str) -> None:
    tokenizer = TokenCounter.from_show(VOCABULARIES[name]).tokenizer
    around = tokenizer.count_embedding("a") - tokenizer.count_text("a")
    counted = count_rendered(tokenizer, text)
    assert counted.exact
    assert counted.tokens == around + tokenizer.count_text(text)
    assert around == (0 if name == "tiny-chat" else 1)


def test_an_image_tag_that_the_user_wrote_is_text() -> None:
    tokenizer = counter("tiny-chat").tokenizer
    assert count_rendered(tokenizer, "see [img-7]", [16]).tokens == tokenizer.count("see [img-7]")


def test_an_unknown_tokenizer_still_bounds() -> None:
    own = TokenCounter(TokenEstimator(), {}).with_renderings(PROBED["models"]["tiny-chat"]["null"])
    for talk in talks("tiny-chat"):
        if talk.get("think") is None:
            assert own.bound(*asked(talk)).tokens >= talk["prompt_eval_count"]


def clip(kind: str, edge: Any = 336, **keys: Any) -> dict[str, Any]:
    found = {"projector_type": kind, "vision.image_size": edge, "vision.patch_size": 14}
    found.update({f"vision.{name}": value for name, value in keys.items()})
    return {"projector_info": {f"clip.{name}": value for name, value in found.items()}}


def brings(architecture: str) -> dict[str, Any]:
    """A model with an image encoder of its own."""
    return {"model_info": {"general.architecture": architecture}}


IMAGE_COSTS: dict[str, tuple[dict[str, Any], tuple[int, int] | None, int]] = {
    "recorded": (MODELS["tiny-vision"]["show"], None, 16),
    "llava": (clip("mlp"), None, 576),
    "llava 1.6": (clip("mlp", image_grid_pinpoints=[336, 672, 672, 672]), None, 2880),
    "mobile-vlm": (clip("ldpv2"), None, 144),
    "gemma3": (brings("gemma3"), None, 260),
    "qwen2.5-vl": (brings("qwen25vl"), (280, 560), 11 * 21 + 2),
    "a huge image": (brings("qwen25vl"), (9000, 9000), 4098),
    "unknown": (clip("no-such"), None, UNKNOWN_IMAGE_TOKENS),
    "nothing": ({}, None, UNKNOWN_IMAGE_TOKENS),
    "no objects": ({"projector_info": "x", "model_info": [1]}, None, UNKNOWN_IMAGE_TOKENS),
    "no geometry": (clip("mlp", 10**400, patch_size="x"), None, UNKNOWN_IMAGE_TOKENS),
    "no pinpoints": (clip("mlp", image_grid_pinpoints=["x", None, 10**400, 336, -1, 336]), None, 576),
}


@pytest.mark.parametrize("case", IMAGE_COSTS)
def test_the_cost_of_an_image(case: str) -> None:
    show, size, expected = IMAGE_COSTS[case]
    assert image_tokens(show, size) == expected
