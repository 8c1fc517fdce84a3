"""Both frameworks send the same second request after an answer that is not valid."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel

from langchain_ollama_dify import ChatOllamaDify
from llamaindex_ollama_dify import OllamaDify
from ollama_dify.testing import Reply, SimulatedOllama


class City(BaseModel):
    name: str
    people: int


ANSWERS: dict[str, Reply] = {
    "wrong type": Reply('{"name": "Oslo", "people": "many"}'),
    "missing fields": Reply("{}"),
    "with thinking": Reply('{"name": "Oslo"}', thinking="How many?"),
}
GOOD = Reply('{"name": "Oslo", "people": 700000}')


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_the_second_request(simulated_ollama: SimulatedOllama, answer: Reply) -> None:
    settings: dict[str, Any] = {"model": "qwen3", "base_url": simulated_ollama.base_url}
    seen: list[list[Any]] = []
    with ChatOllamaDify(**settings) as chain, OllamaDify(**settings) as llm:
        model, asked = chain.with_structured_output(City, repair=True), PromptTemplate("Oslo?")
        ways = [
            lambda: model.invoke("Oslo?"),
            lambda: model.ainvoke("Oslo?"),
            lambda: llm.structured_predict(City, asked, llm_kwargs={"repair": True}),
            lambda: llm.astructured_predict(City, asked, llm_kwargs={"repair": True}),
        ]
        for way in ways:
            simulated_ollama.reset()
            simulated_ollama.script([answer, GOOD])
            made = way()
            made = await made if hasattr(made, "__await__") else made
            assert made == City(name="Oslo", people=700_000)
            seen.append(
                [request.body for request in simulated_ollama.requests if request.path == "/api/chat"]
            )
        await chain.aclose()
        await llm.aclose()
    assert [len(bodies) for bodies in seen] == [2, 2, 2, 2]
    assert all(bodies == seen[0] for bodies in seen)
