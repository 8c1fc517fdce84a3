"""Objects from a model: the same requests, the same object or error, and one more request with `repair`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel

from langchain_ollama_dify import ChatOllamaDify
from llamaindex_ollama_dify import OllamaDify
from ollama_dify.testing import Reply, SimulatedOllama


class City(BaseModel):
    """A city."""

    name: str
    people: int


OSLO = City(name="Oslo", people=700_000)
WHOLE = '{"name": "Oslo", "people": 700000}'
BROKEN = '{"name": "Oslo", "people": "many"}'
WRONG = "people: Input should be a valid integer"
IN_WORDS = "Answer with one JSON value that satisfies this JSON schema"
WAYS = (
    "invoke",
    "ainvoke",
    "stream",
    "astream",
    "structured_predict",
    "astructured_predict",
    "stream_structured_predict",
    "astream_structured_predict",
)


@dataclass(frozen=True)
class Row:
    """answers: the server's. told: what the last request says is wrong. error: what is raised for it."""

    answers: list[str | Reply]
    told: str = ""
    error: str = ""
    repair: bool = True
    settings: dict[str, Any] = field(default_factory=dict)


TWICE: dict[str, Row] = {
    "wrong type": Row([BROKEN, WHOLE], WRONG),
    "missing field": Row(['{"name": "Oslo"}', WHOLE], "people: Field required"),
    "no JSON": Row(["Oslo it is.", WHOLE], IN_WORDS),
    "nothing": Row(["", WHOLE], "Expecting value: line 1"),
    "thinking": Row(
        [Reply(BROKEN, thinking="How many?"), Reply(WHOLE, thinking="700000.")],
        WRONG,
        settings={"model": "qwen3"},
    ),
    "never a third time": Row([BROKEN, '{"name": "Oslo"}', WHOLE], WRONG, "Field required"),
    "completion": Row([BROKEN, WHOLE], WRONG, settings={"mode": "completion"}),
}
ONCE: dict[str, Row] = {
    "valid": Row([WHOLE]),
    "fenced": Row([f"Here it is:\n```json\n{WHOLE}\n```\nGood?"]),
    "fenced without a name": Row([f"```\n{WHOLE}\n```"]),
    "cut": Row([Reply(BROKEN[:30], done_reason="length"), WHOLE], error="raise max_tokens"),
    "plain": Row([WHOLE], repair=False),
    "plain, thinking": Row([Reply(WHOLE, thinking="{not this}")], repair=False, settings={"model": "qwen3"}),
    "plain, completion": Row([WHOLE], repair=False, settings={"mode": "completion"}),
    "plain, wrong type": Row([BROKEN, WHOLE], error="should be a valid integer", repair=False),
    "plain, no JSON": Row(["Oslo it is.", WHOLE], error="not JSON", repair=False),
    "plain, nothing": Row(["", WHOLE], error="it is empty|is no City: ''", repair=False),
    "plain, cut": Row(
        [Reply(BROKEN[:30], done_reason="length"), WHOLE], error="raise max_tokens", repair=False
    ),
}


async def objects(server: SimulatedOllama, way: str, row: Row) -> list[Any]:
    """All that comes; of a stream, each object."""
    server.script([Reply(pieces=[said]) if isinstance(said, str) else said for said in row.answers])
    values = {"model": "llama3.2", "base_url": server.base_url, **row.settings}
    framework: Any = OllamaDify if "predict" in way else ChatOllamaDify
    async with framework(**values) as model:
        try:
            if framework is OllamaDify:
                call = {"temperature": 0, "repair": row.repair}
                made = getattr(model, way)(City, PromptTemplate("{of}?"), llm_kwargs=call, of="Oslo")
                assert call == {"temperature": 0, "repair": row.repair}
            else:
                chain = model.with_structured_output(City, repair=row.repair, temperature=0)
                made = getattr(chain, way)("Oslo?")
            made = await made if hasattr(made, "__await__") else made
            if "stream" not in way:
                return [made]
            return [one async for one in made] if hasattr(made, "__anext__") else list(made)
        finally:
            model.close()


def sent(server: SimulatedOllama) -> list[dict[str, Any]]:
    return [asked.body for asked in server.requests if asked.path in ("/api/chat", "/api/generate")]


async def ended(server: SimulatedOllama, way: str, row: Row) -> list[dict[str, Any]]:
    """The bodies, after what came was looked at."""
    if row.error:
        with pytest.raises(ValueError, match=row.error):
            await objects(server, way, row)
    else:
        *before, made = await objects(server, way, row)
        assert made == OSLO
        assert not (row.repair and before), "parts of an answer that may be replaced"
    for body in sent(server):
        assert body["format"] == City.model_json_schema()
        assert body["options"]["temperature"] == 0
    return sent(server)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("row", ONCE.values(), ids=ONCE)
async def test_one_request(simulated_ollama: SimulatedOllama, way: str, row: Row) -> None:
    (body,) = await ended(simulated_ollama, way, row)
    if "mode" in row.settings:
        assert body["prompt"] == "Oslo?"
    else:
        assert body["messages"] == [{"role": "user", "content": "Oslo?"}]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("row", TWICE.values(), ids=TWICE)
async def test_the_answer_and_its_problem_are_sent_back_once(
    simulated_ollama: SimulatedOllama, way: str, row: Row
) -> None:
    first, second = await ended(simulated_ollama, way, row)
    if "mode" in row.settings:
        assert BROKEN in second["prompt"]
        assert row.told in second["prompt"]
        return
    asked, *said, problem = second["messages"]
    assert [asked] == first["messages"] == [{"role": "user", "content": "Oslo?"}]
    (answer,) = row.answers[:1]
    if isinstance(answer, Reply):
        assert said == [{"role": "assistant", "content": BROKEN, "thinking": "How many?"}]
    else:
        assert said == [{"role": "assistant", "content": answer}][: bool(answer)]
    assert problem["role"] == "user"
    assert row.told in problem["content"]
    assert "whole corrected JSON" in problem["content"]


async def test_a_server_that_ignores_format_is_remembered(simulated_ollama: SimulatedOllama) -> None:
    values: dict[str, Any] = {"model": "llama3.2", "base_url": simulated_ollama.base_url}
    with ChatOllamaDify(**values) as chat, OllamaDify(**values) as llm:
        chain, prompt = chat.with_structured_output(City, repair=True), PromptTemplate("Oslo?")
        call: dict[str, Any] = {"llm_kwargs": {"repair": True}}
        simulated_ollama.script(["Oslo.", WHOLE, "Oslo.", WHOLE, *[WHOLE] * 4])
        made = [chain.invoke("Oslo?"), llm.structured_predict(City, prompt, **call)]
        assert len(sent(simulated_ollama)) == 4
        made += [chain.invoke("Oslo?"), await chain.ainvoke("Oslo?")]
        made += [llm.structured_predict(City, prompt, **call)]
        made += [await llm.astructured_predict(City, prompt, **call)]
        await chat.aclose()
        await llm.aclose()
    assert made == [OSLO] * 6
    first, *others = [body["messages"] for body in sent(simulated_ollama)[4:]]
    assert others == [first] * 3
    assert IN_WORDS in first[-1]["content"]
