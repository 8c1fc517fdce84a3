"""Both adapters behind one face: ask a `Case`, get an `Outcome`."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.tools import FunctionTool
from llama_index.core.tools.types import ToolMetadata

from langchain_ollama_dify import ChatOllamaDify
from llamaindex_ollama_dify import OllamaDify

from .cases import Case, Turn
from .ways import ended


@dataclass
class Outcome:
    """What a user gets, in neutral words."""

    text: str
    thinking: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    usage: tuple[int, int] = (0, 0)
    done_reason: str = ""
    model: str = ""


class LangChain:
    """The chat model, asked once or streamed."""

    def __init__(self, base_url: str, case: Case) -> None:
        self.model = ChatOllamaDify(**{"model": "llama3.2", "base_url": base_url, **case.settings})
        self.case = case
        self.messages = [_langchain_message(turn) for turn in case.turns]

    def _bound(self) -> Any:
        if not self.case.tools:
            return self.model
        tools = [{"type": "function", "function": tool} for tool in self.case.tools]
        return self.model.bind_tools(tools, tool_choice=self.case.tool_choice)

    async def ask(self, *, awaited: bool, streamed: bool = False) -> Outcome:
        name = "stream" if streamed else "invoke"
        ask = getattr(self._bound(), f"a{name}" if awaited else name)
        made = await ended(ask(self.messages, **self.case.call))
        return _from_langchain(reduce(add, made) if streamed else made)

    def close(self) -> None:
        self.model.close()

    async def aclose(self) -> None:
        await self.model.aclose()


class LlamaIndex:
    """The LLM, asked once or streamed."""

    def __init__(self, base_url: str, case: Case) -> None:
        self.model = OllamaDify(**{"model": "llama3.2", "base_url": base_url, **case.settings})
        self.case = case
        self.messages = [_llamaindex_message(turn) for turn in case.turns]

    def _call(self) -> dict[str, Any]:
        case = self.case
        if not case.tools:
            return dict(case.call)
        prepared = self.model._prepare_chat_with_tools(
            [_llamaindex_tool(tool) for tool in case.tools], chat_history=self.messages, **case.call
        )
        prepared.pop("messages")
        if case.tool_choice is not None:
            prepared["tool_choice"] = case.tool_choice
        return dict(prepared)

    async def ask(self, *, awaited: bool, streamed: bool = False) -> Outcome:
        name = "stream_chat" if streamed else "chat"
        ask = getattr(self.model, f"a{name}" if awaited else name)
        made = await ended(ask(self.messages, **self._call()))
        return _from_llamaindex(made[-1] if streamed else made)

    def close(self) -> None:
        self.model.close()

    async def aclose(self) -> None:
        await self.model.aclose()


def _langchain_message(turn: Turn) -> BaseMessage:
    content: list[Any] = []
    for part in turn.parts:
        if isinstance(part, Path):
            data = base64.b64encode(part.read_bytes()).decode()
            content.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
        else:
            content.append({"type": "text", "text": part})
    said: Any = turn.parts[0] if len(turn.parts) == 1 and isinstance(turn.parts[0], str) else content
    if turn.role == "system":
        return SystemMessage(said)
    if turn.role == "user":
        return HumanMessage(said)
    if turn.answers is not None:
        return ToolMessage(said, tool_call_id=turn.answers[0], name=turn.answers[1])
    calls = [{"id": id, "name": name, "args": arguments} for id, name, arguments in turn.calls]
    return AIMessage(said, tool_calls=calls)


def _llamaindex_message(turn: Turn) -> ChatMessage:
    blocks: list[Any] = [ThinkingBlock(content=turn.thinking)] if turn.thinking else []
    for part in turn.parts:
        blocks.append(ImageBlock(path=part) if isinstance(part, Path) else TextBlock(text=part))
    for id, name, arguments in turn.calls:
        blocks.append(ToolCallBlock(tool_call_id=id, tool_name=name, tool_kwargs=arguments))
    extra = {"tool_call_id": turn.answers[0], "name": turn.answers[1]} if turn.answers else {}
    return ChatMessage(role=turn.role, blocks=blocks, additional_kwargs=extra)


def _llamaindex_tool(tool: dict[str, Any]) -> FunctionTool:
    class Metadata(ToolMetadata):
        def get_parameters_dict(self) -> dict[str, Any]:
            return dict(tool["parameters"])

    return FunctionTool(fn=lambda **_: None, metadata=Metadata(tool["description"], tool["name"]))


def _from_langchain(message: Any) -> Outcome:
    usage = message.usage_metadata
    return Outcome(
        text=message.text,
        thinking=message.additional_kwargs.get("reasoning_content", ""),
        calls=[(call["name"], call["args"]) for call in message.tool_calls],
        usage=(usage["input_tokens"], usage["output_tokens"]),
        done_reason=message.response_metadata["done_reason"],
        model=message.response_metadata["model_name"],
    )


def _from_llamaindex(response: ChatResponse) -> Outcome:
    blocks = response.message.blocks
    extra = response.additional_kwargs
    return Outcome(
        text="".join(block.text for block in blocks if isinstance(block, TextBlock)),
        thinking="".join(block.content or "" for block in blocks if isinstance(block, ThinkingBlock)),
        calls=[
            (
                block.tool_name,
                json.loads(block.tool_kwargs) if isinstance(block.tool_kwargs, str) else block.tool_kwargs,
            )
            for block in blocks
            if isinstance(block, ToolCallBlock)
        ],
        usage=(extra["prompt_tokens"], extra["completion_tokens"]),
        done_reason=response.raw["done_reason"],
        model=response.raw["model_name"],
    )
