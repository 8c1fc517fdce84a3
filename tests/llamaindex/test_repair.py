"""`llm_kwargs={"repair": True}`: one more request after an answer that is not valid."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMStructuredPredictEndEvent,
    LLMStructuredPredictStartEvent,
)
from llama_index.core.types import PydanticProgramMode

from llamaindex_ollama_dify import OllamaDify
from ollama_dify import ConfigurationError
from ollama_dify.testing import Reply, SimulatedOllama
from tests.llamaindex.asking import sent
from tests.llamaindex.test_structured import ANSWER, FORMS, POEM, Poem, every_form, predict
from tests.llamaindex.watching import Watcher

MakeLLM = Callable[..., OllamaDify]
BROKEN = '{"title": "The Sea", "lines": [{"text": "Blue", "number": "one"}]}'
REPAIR = {"repair": True}

PROBLEMS: dict[str, tuple[str, list[str], str]] = {
    "wrong-type": (BROKEN, ["user", "assistant", "user"], "lines.0.number: Input should be a valid integer"),
    "missing-field": ('{"title": "x"}', ["user", "assistant", "user"], "lines: Field required"),
    "no-json": ("I would rather not.", ["user", "assistant", "user"], "Expecting value: line 1"),
    "nothing": ("", ["user", "user"], "Expecting value: line 1"),
}


@every_form
@pytest.mark.parametrize(("answer", "roles", "told"), PROBLEMS.values(), ids=PROBLEMS)
async def test_the_answer_and_its_problem_are_sent_back_once(
    server: SimulatedOllama, llm: OllamaDify, form: str, answer: str, roles: list[str], told: str
) -> None:
    server.script([Reply(pieces=[answer]), ANSWER])
    llm_kwargs = {"temperature": 0, **REPAIR}
    assert await predict(llm, form, llm_kwargs=llm_kwargs) == [POEM]
    assert llm_kwargs == {"temperature": 0, **REPAIR}
    first, second = sent(server)
    assert [turn["role"] for turn in second["messages"]] == roles
    assert second["messages"][: len(first["messages"])] == first["messages"]
    if answer:
        assert second["messages"][1]["content"] == answer
    assert told in second["messages"][-1]["content"]
    assert {key: second[key] for key in first if key != "messages"} == {
        key: first[key] for key in first if key != "messages"
    } | {"stream": second["stream"]}


@every_form
async def test_there_is_never_a_third_request(server: SimulatedOllama, llm: OllamaDify, form: str) -> None:
    server.script([BROKEN, '{"title": "x"}', ANSWER])
    with pytest.raises(ValueError, match="first: Field required"):
        await predict(llm, form, llm_kwargs=REPAIR)
    assert len(sent(server)) == 2


@every_form
async def test_a_valid_answer_is_asked_for_once(server: SimulatedOllama, llm: OllamaDify, form: str) -> None:
    server.script([ANSWER])
    assert await predict(llm, form, llm_kwargs=REPAIR) == [POEM]
    assert len(sent(server)) == 1


@every_form
async def test_a_cut_answer_is_not_asked_for_again(
    server: SimulatedOllama, llm: OllamaDify, form: str
) -> None:
    server.script([Reply(ANSWER[:40], done_reason="length"), ANSWER])
    with pytest.raises(ValueError, match="cut off by the token limit"):
        await predict(llm, form, llm_kwargs=REPAIR)
    assert len(sent(server)) == 1


@every_form
@pytest.mark.parametrize("llm_kwargs", [None, {"repair": False}], ids=["unset", "off"])
async def test_without_it_nothing_is_repaired(
    server: SimulatedOllama, llm: OllamaDify, form: str, llm_kwargs: dict[str, Any] | None
) -> None:
    server.script([BROKEN, ANSWER])
    with pytest.raises(ValueError, match="should be a valid integer"):
        await predict(llm, form, llm_kwargs=llm_kwargs)
    assert len(sent(server)) == 1


@every_form
async def test_a_thinking_model_and_the_events(
    server: SimulatedOllama, make_llm: MakeLLM, watcher: Watcher, form: str
) -> None:
    server.script([Reply(BROKEN, thinking="Count."), Reply(ANSWER, thinking="Numbers.")])
    assert await predict(make_llm("qwen3"), form, llm_kwargs=REPAIR) == [POEM]
    assert sent(server)[-1]["messages"][1]["thinking"] == "Count."
    assert watcher.count(LLMStructuredPredictStartEvent) == 1
    assert watcher.count(LLMStructuredPredictEndEvent) == 1
    assert watcher.count(LLMChatEndEvent) == 2


@every_form
async def test_in_completion_mode(server: SimulatedOllama, make_llm: MakeLLM, form: str) -> None:
    server.script([BROKEN, ANSWER])
    assert await predict(make_llm(mode="completion"), form, llm_kwargs=REPAIR) == [POEM]
    prompt = sent(server, "/api/generate")[-1]["prompt"]
    assert BROKEN in prompt
    assert "lines.0.number: Input should be a valid integer" in prompt


@pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # LlamaIndex's StructuredLLM calls it
@pytest.mark.parametrize("form", ["chat", "achat", "stream_chat", "astream_chat"])
async def test_as_structured_llm(server: SimulatedOllama, llm: OllamaDify, form: str) -> None:
    server.script([BROKEN, ANSWER])
    answered = getattr(llm.as_structured_llm(Poem), form)([ChatMessage(content="A poem.")], repair=True)
    if form.startswith("a"):
        answered = await answered
    if "stream" in form:
        answered = ([one async for one in answered] if form.startswith("a") else list(answered))[-1]
    await llm.aclose()
    assert answered.raw == POEM
    assert json.loads(answered.message.content) == json.loads(ANSWER)
    assert len(sent(server)) == 2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("mode", "repair", "told"),
    [
        (PydanticProgramMode.FUNCTION, True, "needs pydantic_program_mode=DEFAULT, not 'function'"),
        (PydanticProgramMode.LLM, True, "needs pydantic_program_mode=DEFAULT, not 'llm'"),
        (PydanticProgramMode.DEFAULT, "twice", "neither True nor False"),
    ],
    ids=["function-mode", "text-mode", "no-boolean"],
)
async def test_what_cannot_be_repaired_is_refused(
    server: SimulatedOllama, make_llm: MakeLLM, form: str, mode: Any, repair: Any, told: str
) -> None:
    server.script([ANSWER])
    with pytest.raises(ConfigurationError, match=told):
        await predict(make_llm(pydantic_program_mode=mode), form, llm_kwargs={"repair": repair})
    assert sent(server) == []
