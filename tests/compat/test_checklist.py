"""The names of langchain-ollama's public integration tests, and which of them hold for our classes.

Each name has a test of that name beside this file. "differs" names assert what ours does instead.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest

import ollama_dify
from tests.compat.shim import ChatOllama, in_our_words

HOLDS = "holds"
KEPT = "differs: with reasoning unset the model's thoughts are kept apart, theirs drops them"
OWN_ERROR = "holds, with our error class instead of pydantic's"
CHECKLIST: dict[str, dict[str, str]] = {
    "test_chat_models": {
        "test_init_model_not_found": OWN_ERROR,
        "test_init_connection_error": OWN_ERROR,
        "test_init_response_error": OWN_ERROR,
        "test_structured_output": HOLDS,
        "test_structured_output_deeply_nested": HOLDS,
        "test_tool_streaming": HOLDS,
        "test_tool_astreaming": HOLDS,
        "test_agent_loop": HOLDS,
    },
    "test_chat_models_reasoning": {
        "test_stream_no_reasoning": HOLDS,
        "test_stream_reasoning_none": KEPT,
        "test_reasoning_stream": HOLDS,
        "test_invoke_no_reasoning": HOLDS,
        "test_invoke_reasoning_none": KEPT,
        "test_reasoning_invoke": HOLDS,
        "test_reasoning_modes_behavior": KEPT,
    },
    "test_chat_models_standard": {
        "TestChatOllama": "holds, without their three expected failures (tool_calling, tool_calling_async, "
        "tool_calling_with_no_arguments) and with tool_choice, which theirs leaves out",
    },
    "test_chat_models_v1": {
        "test_v1_basic_output_format": "holds, but for block ids, which langchain-core 1.x does not make",
        "test_v1_reasoning_output": "holds, but for block ids",
        "test_v1_streaming": HOLDS,
        "test_v1_async": "holds, but for block ids",
        "test_v1_async_streaming": HOLDS,
        "test_v1_structured_output": HOLDS,
        "test_v1_structured_output_streaming": HOLDS,
        "test_v1_vs_v0_comparison": "holds, but for block ids",
        "test_v1_content_blocks_property": "holds, but for block ids",
    },
    "test_llms": {
        "test_stream_text_tokens": HOLDS,
        "test__stream_no_reasoning": KEPT,
        "test__stream_with_reasoning": HOLDS,
        "test_astream_text_tokens": HOLDS,
        "test__astream_no_reasoning": KEPT,
        "test__astream_with_reasoning": HOLDS,
        "test_abatch": HOLDS,
        "test_abatch_tags": HOLDS,
        "test_batch": HOLDS,
        "test_ainvoke": HOLDS,
        "test_invoke": HOLDS,
    },
    "test_embeddings": {"TestOllamaEmbeddings": HOLDS},
}


@pytest.mark.parametrize("module", CHECKLIST)
def test_every_name_has_its_test(module: str) -> None:
    tests = vars(importlib.import_module(f"tests.compat.{module}"))
    own = {
        name
        for name, value in tests.items()
        if name.lower().startswith("test") and getattr(value, "__module__", "").endswith(f".{module}")
    }
    assert own == set(CHECKLIST[module])


def test_how_many_hold() -> None:
    states = [state for names in CHECKLIST.values() for state in names.values()]
    assert (sum(state.startswith("holds") for state in states), len(states)) == (32, 37)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"num_ctx": 2048}, {"context_size": 2048}),
        ({"num_predict": 64}, {"max_tokens": 64}),
        ({"reasoning": "low"}, {"think": "low"}),
        ({"client_kwargs": {"headers": {"A": "b"}, "timeout": 9}}, {"headers": {"A": "b"}, "timeout": 9}),
        ({"temperature": 0, "seed": 7}, {"temperature": 0, "seed": 7}),
    ],
    ids=lambda value: next(iter(value)),
)
def test_the_shim_maps_names(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    assert in_our_words(theirs) == ours
    model = ChatOllama(model="llama3.1", **theirs)
    assert {name: getattr(model, name) for name in ours} == ours


def test_what_has_no_word_of_ours_is_refused() -> None:
    with pytest.raises(ollama_dify.ConfigurationError, match="sync_client_kwargs"):
        ChatOllama(model="llama3.1", sync_client_kwargs={"follow_redirects": True})
