"""The completion model: always /api/generate, one text in, one text out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.outputs import LLMResult
from langchain_core.prompts import ChatPromptTemplate

import ollama_dify
from langchain_ollama_dify import OllamaDifyLLM
from ollama_dify.testing import Reply, SimulatedOllama
from tests.langchain.asking import chunks, ways

PNG = (Path(__file__).parents[1] / "data" / "images" / "png_rgb.png").read_bytes()


def llm(**settings: Any) -> OllamaDifyLLM:
    return OllamaDifyLLM(**{"model": "all-round", **settings})


async def complete(model: Any, way: str, asked: Any, /, **call: Any) -> str:
    if way == "invoke":
        return str(model.invoke(asked, **call))
    if way == "ainvoke":
        return str(await model.ainvoke(asked, **call))
    return "".join(await chunks(model, way, asked, **call))


@ways
async def test_an_unknown_argument_is_refused(server: SimulatedOllama, way: str) -> None:
    with pytest.raises(ollama_dify.ConfigurationError, match="did you mean 'temperature'"):
        await complete(llm(), way, "Hello", temprature=1)

    assert server.requests == []


@ways
async def test_messages_become_langchains_prompt(server: SimulatedOllama, way: str) -> None:
    asked = ChatPromptTemplate([("system", "Be brief."), ("human", "{x}")]).invoke({"x": "Hello"})

    await complete(llm(), way, asked)

    assert server.requests[-1].body["prompt"] == "System: Be brief.\nHuman: Hello"


@ways
async def test_a_image_among_messages_is_not_dropped(server: SimulatedOllama, way: str) -> None:
    with pytest.raises(ollama_dify.UnsupportedContentError, match=r"messages\[0\] holds an image"):
        await complete(llm(), way, [HumanMessage(["?", {"type": "image", "image": PNG}])])

    assert server.requests == []


class Told(BaseCallbackHandler):
    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.info: list[Any] = []

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.tokens.append(token)

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        self.info.append(response.generations[0][0].generation_info)


@ways
async def test_usage_and_metadata_reach_callbacks(server: SimulatedOllama, way: str) -> None:
    server.reply(Reply(pieces=["Good", " day"], thinking="Hm."))
    told = Told()

    await complete(llm(model="qwen3"), way, "Hello", config={"callbacks": [told]})

    (info,) = told.info
    assert info["usage_metadata"]["output_tokens"] > 0
    assert info["usage_metadata"]["input_tokens"] > 0
    assert (info["model_name"], info["done_reason"]) == ("qwen3", "stop")
    assert info["reasoning_content"] == "Hm."
    assert "".join(told.tokens) == ("Good day" if way in ("stream", "astream") else "")


@pytest.mark.parametrize("awaited", [False, True])
async def test_several_prompts_at_once(server: SimulatedOllama, awaited: bool) -> None:
    asked = ["one", "two", "three"]
    server.answerer = lambda request: f"{request.body['prompt']}!"

    got = await llm().abatch(asked) if awaited else llm().batch(asked)

    assert got == ["one!", "two!", "three!"]
    assert len(server.requests) == 3
