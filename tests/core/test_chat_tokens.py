"""What a conversation costs, against the prompts and counts of a real server."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ollama_dify.tokens.chat_bound import UNKNOWN_IMAGE_TOKENS, ChatOverhead, count_rendered, image_tokens

from ollama_dify.tokens.tokenizer import ModelTokenizer, TokenEstimator

DATA = Path(__file__).parent.parent / "data" / "tokens"
MODELS: dict[str, Any] = json.loads(gzip.decompress((DATA / "chats.json.gz").read_bytes()))["models"]
VOCABULARIES = json.loads(gzip.decompress((DATA / "tokenizers.json.gz").read_bytes()))["tokenizers"]


@cache
def tokenizer(model: str) -> ModelTokenizer:
    return ModelTokenizer.from_show(VOCABULARIES[MODELS[model]["tokenizer"]])


def overhead(model: str) -> ChatOverhead:
    return ChatOverhead.from_show(MODELS[model]["show"], tokenizer(model))


def conversations(model: str) -> list[dict[str, Any]]:
    return [talk for talk in MODELS[model]["conversations"] if talk["prompt_eval_count"]]


def given(model: str, talk: dict[str, Any]) -> dict[str, Any]:
    images = sum(len(message.get("images", ())) for message in talk["messages"])
    costs = [image_tokens(MODELS[model]["show"])] * images
    return {"tools": talk.get("tools", ()), "think": talk.get("think"), "image_costs": costs}


def close(bound: int, true: int) -> bool:
    return 0 <= bound - true <= max(16, true * 0.05)


@pytest.mark.parametrize("model", MODELS)
def test_a_rendered_prompt_counts_as_the_server_counted(model: str) -> None:
    cost = image_tokens(MODELS[model]["show"])
    for talk in conversations(model):
        counted = count_rendered(tokenizer(model), talk["rendered"], [cost] * talk["image_count"])
        assert counted.tokens == talk["prompt_eval_count"]
        assert counted.exact == (talk["image_count"] == 0)


def test_an_image_tag_that_the_user_wrote_is_text() -> None:
    counted = count_rendered(tokenizer("tiny-chat"), "see [img-7]", [16])
    assert counted.tokens == tokenizer("tiny-chat").count("see [img-7]")


@pytest.mark.parametrize("model", MODELS)
def test_the_bound_is_never_below_the_count(model: str) -> None:
    start = overhead(model)
    for talk in conversations(model):
        bound = start.bound(talk["messages"], **given(model, talk))
        assert bound.tokens >= talk["prompt_eval_count"], talk["messages"]
        assert not bound.exact


@pytest.mark.parametrize("model", MODELS)
def test_the_bound_stays_one_whatever_was_observed(model: str) -> None:
    talks = conversations(model)
    for seen in talks:
        learned = overhead(model).observe(seen["messages"], seen["prompt_eval_count"], **given(model, seen))
        for talk in talks:
            tokens = learned.bound(talk["messages"], **given(model, talk)).tokens
            assert tokens >= talk["prompt_eval_count"], (seen["messages"], talk["messages"])


def cut_by_the_server(talk: dict[str, Any]) -> bool:
    """Whether the recorded server left messages out: it reckons 768 tokens an image, and these did not fit.

    The bound is for the whole conversation; the count of a part says nothing about it.
    """
    given = sum(len(message.get("images", ())) for message in talk["messages"])
    return bool(given != talk["image_count"])


@pytest.mark.parametrize("model", MODELS)
def test_the_bound_is_close_in_every_recorded_conversation(model: str) -> None:
    start = overhead(model)
    talks = conversations(model)
    whole = [talk for talk in talks if not cut_by_the_server(talk)]
    for talk in whole:
        bound = start.bound(talk["messages"], **given(model, talk)).tokens
        assert close(bound, talk["prompt_eval_count"]), talk["messages"]
    assert len(talks) - len(whole) == (1 if model == "tiny-vision" else 0)
    assert len(whole) >= 23


def as_literal_text(model: str) -> ChatOverhead:
    """The bound of a template that is not understood: one with a function that is not known."""
    show = MODELS[model]["show"]
    unknown = (
        "{% if false %}{% debug %}{% endif %}"
        if "{%" in show["template"]
        else "{{ if false }}{{ x }}{{ end }}"
    )
    return ChatOverhead.from_show({**show, "template": show["template"] + unknown}, tokenizer(model))


@pytest.mark.parametrize(
    ("model", "share"),
    [
        pytest.param("tiny-plain", 1.0, id="go"),
        pytest.param("chat-llama3", 0.9, id="go-tools"),
        pytest.param("chat-llama2", 0.85, id="go-system"),
        pytest.param("tiny-chat", 0.75, id="go-thinking-tools"),
        pytest.param("tiny-vision", 0.75, id="go-images"),
        pytest.param("chat-prompt", 0.75, id="go-prompt-only"),
        pytest.param("tiny-native", 0.15, id="jinja"),
    ],
)
def test_a_template_that_is_not_understood_still_bounds(model: str, share: float) -> None:
    start = as_literal_text(model)
    talks = conversations(model)
    near = 0
    for talk in talks:
        bound = start.bound(talk["messages"], **given(model, talk)).tokens
        assert bound >= talk["prompt_eval_count"], talk["messages"]
        near += close(bound, talk["prompt_eval_count"])
    assert near / len(talks) >= share


def test_an_answer_over_the_bound_ends_the_trust_in_the_rendering() -> None:
    """A server that renders otherwise than this template says is believed."""
    messages = [{"role": "user", "content": "Hello"}]
    other = [{"role": "user", "content": "Other"}]
    start = overhead("tiny-native")
    bound = start.bound(messages).tokens
    believed = start.observe(messages, bound)
    corrected = start.observe(messages, bound + 1)
    assert believed.bound(other).tokens == start.bound(other).tokens
    literal = as_literal_text("tiny-native").bound(messages).tokens
    assert bound + 1 == corrected.bound(messages).tokens <= literal
    assert corrected.bound(other).tokens > start.bound(other).tokens


def test_a_prompt_built_in_code_is_bounded_with_room() -> None:
    show = {"template": "{{ .Prompt }}", "renderer": "some-model", "capabilities": ["completion", "tools"]}
    renders_itself = ChatOverhead.from_show(show, tokenizer("tiny-plain"))
    plain = ChatOverhead.from_show({**show, "renderer": ""}, tokenizer("tiny-plain"))
    messages = [{"role": "user", "content": "Hello"}] * 3
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    assert renders_itself.bound(messages).tokens >= plain.bound(messages).tokens + 3 * 20
    assert renders_itself.bound(messages, tools=[tool]).tokens >= renders_itself.bound(messages).tokens + 600


@pytest.mark.parametrize("model", [model for model in MODELS if model != "tiny-vision"])
def test_an_observed_conversation_is_close_when_it_comes_again_or_goes_on(model: str) -> None:
    for talk in conversations(model):
        call = given(model, talk)
        learned = overhead(model).observe(talk["messages"], talk["prompt_eval_count"], **call)
        assert close(learned.bound(talk["messages"], **call).tokens, talk["prompt_eval_count"])
        longer = [*talk["messages"], {"role": "user", "content": "Go on."}]
        grown = learned.bound(longer, **call).tokens
        assert talk["prompt_eval_count"] < grown <= overhead(model).bound(longer, **call).tokens


def test_observing_makes_a_new_object_and_images_teach_nothing() -> None:
    start = overhead("tiny-chat")
    messages = [{"role": "user", "content": "Hello"}]
    learned = start.observe(messages, 3)
    assert learned.bound(messages).tokens == 3 < start.bound(messages).tokens
    assert start.observe(messages, 3, image_costs=[16]) is start


def test_a_shorter_text_earns_nothing() -> None:
    """The long text may never have been in the prompt, so a short one does not make the prompt shorter."""
    hidden = {"role": "tool", "content": "never shown " * 20}
    user = {"role": "user", "content": "Hi"}
    learned = overhead("tiny-native").observe([hidden, user], 12)
    shorter = learned.bound([{**hidden, "content": "short"}, user]).tokens
    assert 12 <= shorter <= 16
    longer = learned.bound([{**hidden, "content": "never shown " * 25}, user]).tokens
    assert longer > shorter


def test_the_models_own_texts_count_as_if_they_were_sent() -> None:
    system = {"role": "system", "content": "You are a pirate. " * 10}
    said = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
    show = {**MODELS["tiny-plain"]["show"], "system": system["content"], "messages": said}
    own = ChatOverhead.from_show(show, tokenizer("tiny-plain"))
    ask = {"role": "user", "content": "Hi"}
    plain = overhead("tiny-plain")
    assert own.bound([ask]) == plain.bound([system, *said, ask])
    # A system text at the head of the call takes the place of the model's.
    mine = {"role": "system", "content": "Be brief."}
    assert own.bound([mine, ask]) == plain.bound([*said, mine, ask])


def test_an_unknown_tokenizer_still_bounds() -> None:
    bound = ChatOverhead.from_show(MODELS["tiny-chat"]["show"], TokenEstimator())
    for talk in conversations("tiny-chat"):
        assert bound.bound(talk["messages"], **given("tiny-chat", talk)).tokens >= talk["prompt_eval_count"]


def clip(**keys: Any) -> dict[str, Any]:
    return {"projector_info": {f"clip.{name.replace('__', '.')}": value for name, value in keys.items()}}


@pytest.mark.parametrize(
    ("show", "size", "expected"),
    [
        pytest.param(MODELS["tiny-vision"]["show"], None, 16, id="recorded"),
        pytest.param(
            clip(projector_type="mlp", vision__image_size=336, vision__patch_size=14), None, 576, id="llava"
        ),
        pytest.param(
            clip(
                projector_type="mlp",
                vision__image_size=336,
                vision__patch_size=14,
                vision__image_grid_pinpoints=[336, 672, 672, 672],
            ),
            None,
            2880,
            id="llava-1.6",
        ),
        pytest.param(clip(projector_type="ldpv2", vision__image_size=336), None, 144, id="mobile-vlm"),
        pytest.param({"model_info": {"general.architecture": "gemma3"}}, None, 260, id="gemma3"),
        pytest.param(
            {"model_info": {"general.architecture": "qwen25vl", "qwen25vl.vision.patch_size": 14}},
            (280, 560),
            11 * 21 + 2,
            id="qwen2.5-vl",
        ),
        pytest.param(
            {"model_info": {"general.architecture": "qwen25vl"}}, (9000, 9000), 4098, id="qwen-huge"
        ),
        pytest.param(
            clip(projector_type="no-such", vision__image_size=336), None, UNKNOWN_IMAGE_TOKENS, id="unknown"
        ),
        pytest.param({}, None, UNKNOWN_IMAGE_TOKENS, id="nothing"),
    ],
)
def test_the_cost_of_a_image(show: dict[str, Any], size: tuple[int, int] | None, expected: int) -> None:
    assert image_tokens(show, size) == expected
