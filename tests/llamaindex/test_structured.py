"""structured_predict and its kin."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.instrumentation.events.llm import (
    LLMStructuredPredictEndEvent,
    LLMStructuredPredictInProgressEvent,
    LLMStructuredPredictStartEvent,
)
from llama_index.core.prompts import PromptTemplate
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel

from llamaindex_ollama_dify import OllamaDify
from ollama_dify import IncompleteResponseError
from ollama_dify.testing import Reply, SimulatedOllama
from tests.llamaindex.asking import sent
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


@every_form
@pytest.mark.parametrize("thinking", [None, "I count the lines."], ids=["plain", "thinking"])
@pytest.mark.parametrize("mode", ["chat", "completion"])
async def test_object_by_format(
    server: SimulatedOllama, make_llm: MakeLLM, form: str, thinking: str | None, mode: str
) -> None:
    server.script([Reply(ANSWER, thinking=thinking)])
    llm = make_llm("qwen3" if thinking else "llama3.2", mode=mode, system_prompt="You rhyme.")
    llm_kwargs = {"temperature": 0}
    made = await predict(llm, form, llm_kwargs=llm_kwargs)
    assert made[-1] == POEM
    assert llm_kwargs == {"temperature": 0}
    body = sent(server)[-1]
    assert body["format"] == Poem.model_json_schema()
    assert body["options"]["temperature"] == 0
    if mode == "chat":
        assert body["messages"] == [
            {"role": "system", "content": "You rhyme."},
            {"role": "user", "content": "Write a poem about the sea."},
        ]
    else:
        assert (body["prompt"], body["system"]) == ("Write a poem about the sea.", "You rhyme.")


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
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Reply("I would rather not."), "is no Poem: 'I would rather not.'"),
        (Reply('{"title": "x"}'), "first: Field required"),
        (Reply(ANSWER[:40], done_reason="length"), "cut off by the token limit"),
        (Reply(""), "is no Poem: ''"),
    ],
    ids=["prose", "lacks-a-field", "cut-by-limit", "nothing"],
)
async def test_answer_that_is_no_object(
    server: SimulatedOllama, llm: OllamaDify, form: str, answer: Reply, told: str
) -> None:
    server.script([answer])
    with pytest.raises(ValueError, match=told):
        await predict(llm, form)


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
async def test_events_once(server: SimulatedOllama, llm: OllamaDify, watcher: Watcher, form: str) -> None:
    server.script([ANSWER])
    made = await predict(llm, form)
    assert watcher.count(LLMStructuredPredictStartEvent) == 1
    assert watcher.count(LLMStructuredPredictEndEvent) == 1
    assert watcher.count(LLMStructuredPredictInProgressEvent) == len(made) - 1
    (ended,) = watcher.of(LLMStructuredPredictEndEvent)
    assert ended.output == POEM


@pytest.mark.parametrize("form", ["chat", "achat", "complete", "acomplete"])
async def test_as_structured_llm(server: SimulatedOllama, llm: OllamaDify, form: str) -> None:
    server.script([ANSWER])
    structured = llm.as_structured_llm(Poem)
    asked: Any = [ChatMessage(content="A poem, please.")] if "chat" in form else "A poem, please."
    answered = getattr(structured, form)(asked)
    response = await answered if form.startswith("a") else answered
    await llm.aclose()
    assert response.raw == POEM
    assert sent(server)[-1]["format"] == Poem.model_json_schema()


@pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # LlamaIndex's StructuredLLM calls it
@pytest.mark.parametrize("form", ["stream_chat", "astream_chat"])
async def test_as_structured_llm_streams(server: SimulatedOllama, llm: OllamaDify, form: str) -> None:
    server.script([ANSWER])
    answered = getattr(llm.as_structured_llm(Poem), form)([ChatMessage(content="A poem, please.")])
    responses = [one async for one in await answered] if form.startswith("a") else list(answered)
    await llm.aclose()
    assert responses[-1].raw == POEM
    assert len(responses) > 3
