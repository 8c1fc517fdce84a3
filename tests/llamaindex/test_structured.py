"""structured_predict and its kin: modes, events, LlamaIndex's structured model. The rest: tests/parity."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ThinkingBlock
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMStructuredPredictEndEvent,
    LLMStructuredPredictInProgressEvent,
    LLMStructuredPredictStartEvent,
)
from llama_index.core.prompts import PromptTemplate
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel

from llamaindex_ollama_dify import OllamaDify
from ollama_dify import ConfigurationError, IncompleteResponseError
from ollama_dify.testing import Reply, SimulatedOllama
from tests.llamaindex.asking import METHODS, ask, sent
from tests.llamaindex.watching import Watcher

MakeLLM = Callable[..., OllamaDify]
FORMS = (
    "structured_predict",
    "astructured_predict",
    "stream_structured_predict",
    "astream_structured_predict",
)
every_form = pytest.mark.parametrize("form", FORMS)


class Line(BaseModel):
    text: str
    number: int


class Poem(BaseModel):
    """A poem."""

    title: str
    lines: list[Line]


PROMPT = PromptTemplate("Write a poem about {topic}.")
ANSWER = (
    '{"title": "The Sea", "lines": [{"text": "Blue {deep}", "number": 1}, {"text": "Wide", "number": 2}]}'
)
BROKEN = '{"title": "The Sea", "lines": [{"text": "Blue", "number": "one"}]}'
POEM = Poem(title="The Sea", lines=[Line(text="Blue {deep}", number=1), Line(text="Wide", number=2)])


async def predict(llm: OllamaDify, form: str, **call: Any) -> list[Any]:
    try:
        made = getattr(llm, form)(Poem, PROMPT, topic="the sea", **call)
        if form.startswith("a"):
            made = await made
        if "stream" not in form:
            return [made]
        return [one async for one in made] if form.startswith("a") else list(made)
    finally:
        await llm.aclose()


@pytest.mark.parametrize("form", FORMS[2:])
async def test_partial_objects_only_grow(server: SimulatedOllama, llm: OllamaDify, form: str) -> None:
    server.script([Reply(pieces=list(ANSWER))])
    *partial, whole = await predict(llm, form)
    assert whole == POEM
    known = [one.title for one in partial if one.title]
    assert known == sorted(known, key=len)
    assert "The Se" in known
    shown = [one.model_dump() for one in partial]
    assert all(before != after for before, after in pairwise(shown))


@every_form
async def test_answer_without_end_is_an_error(server: SimulatedOllama, llm: OllamaDify, form: str) -> None:
    server.reply(Reply(ANSWER, done=False), times=None)
    with pytest.raises(IncompleteResponseError):
        await predict(llm, form, llm_kwargs={"max_retries": 0})


@pytest.mark.parametrize("form", FORMS[:2])
async def test_function_mode_forces_the_call(server: SimulatedOllama, make_llm: MakeLLM, form: str) -> None:
    server.script([f'{{"Poem": {ANSWER}}}'])
    llm = make_llm(pydantic_program_mode=PydanticProgramMode.FUNCTION)
    assert await predict(llm, form) == [POEM]
    body = sent(server)[-1]
    assert [tool["function"]["name"] for tool in body["tools"]] == ["Poem"]
    assert list(body["format"]["properties"]) == ["Poem"]


@every_form
async def test_text_mode_is_llamaindexs_own(server: SimulatedOllama, make_llm: MakeLLM, form: str) -> None:
    server.script([ANSWER])
    llm = make_llm(pydantic_program_mode=PydanticProgramMode.LLM)
    assert (await predict(llm, form))[-1].title == "The Sea"
    assert "format" not in sent(server)[-1]


@every_form
@pytest.mark.parametrize("repair", [False, True])
async def test_events_once(
    server: SimulatedOllama, llm: OllamaDify, watcher: Watcher, form: str, repair: bool
) -> None:
    server.script([*[BROKEN] * repair, ANSWER])
    made = await predict(llm, form, llm_kwargs={"repair": repair})
    assert watcher.count(LLMChatEndEvent) == 1 + repair
    assert watcher.count(LLMStructuredPredictStartEvent) == 1
    assert watcher.count(LLMStructuredPredictEndEvent) == 1
    assert watcher.count(LLMStructuredPredictInProgressEvent) == len(made) - 1
    (ended,) = watcher.of(LLMStructuredPredictEndEvent)
    assert ended.output == POEM


@pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # LlamaIndex's StructuredLLM calls it
@pytest.mark.parametrize("form", METHODS[:6])
@pytest.mark.parametrize("repair", [False, True])
async def test_as_structured_llm(server: SimulatedOllama, make_llm: MakeLLM, form: str, repair: bool) -> None:
    """With a thinking model; a history's thinking goes back."""
    server.script([*[BROKEN] * repair, Reply(ANSWER, thinking="{not this}")])
    llm = make_llm("qwen3", think=True)
    history = [
        ChatMessage(content="A poem?"),
        ChatMessage(role="assistant", blocks=[ThinkingBlock(content="Easy.")]),
        ChatMessage(content="Of the sea."),
    ]
    responses = await ask(
        llm.as_structured_llm(Poem), form, history if "chat" in form else "A poem.", repair=repair
    )
    await llm.aclose()
    assert responses[-1].raw == POEM
    assert len(responses) > 3 or "stream" not in form or repair
    body = sent(server)[-1]
    assert (body["think"], body["format"]) == (True, Poem.model_json_schema())
    if "chat" in form:
        assert json.loads(responses[-1].message.content) == json.loads(ANSWER)
        assert body["messages"][1]["thinking"] == "Easy."
    assert len(sent(server)) == 1 + repair


@every_form
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
    with pytest.raises(ConfigurationError, match=told):
        await predict(make_llm(pydantic_program_mode=mode), form, llm_kwargs={"repair": repair})
    assert sent(server) == []
