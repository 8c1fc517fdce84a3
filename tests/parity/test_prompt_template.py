"""A node's prompt in both frameworks: exactly its variables, and the text that Dify would send."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core.base.llms.types import ChatMessage

import langchain_ollama_dify
import llamaindex_ollama_dify
from ollama_dify import ConfigurationError, load_dify_app

from ..settings.test_dify_app import PROMPTS

Sent = list[tuple[str, str]]
ROLES = {"human": "user", "ai": "assistant"}


def langchain(node: Any, values: dict[str, str], earlier: Sent) -> tuple[set[str], Sent]:
    template = langchain_ollama_dify.prompt_template(node)
    turns = [HumanMessage(text) if role == "user" else AIMessage(text) for role, text in earlier]
    messages = template.invoke({**values, "history": turns}).to_messages()
    return set(template.input_variables), [(ROLES.get(m.type, m.type), m.text) for m in messages]


def llamaindex(node: Any, values: dict[str, str], earlier: Sent) -> tuple[set[str], Sent]:
    template = llamaindex_ollama_dify.prompt_template(node)
    turns = [ChatMessage(text, role=role) for role, text in earlier]
    messages = template.format_messages(**values, history=turns)
    return set(template.template_vars), [(m.role.value, m.content or "") for m in messages]


each_framework = pytest.mark.parametrize("framework", [langchain, llamaindex])


@each_framework
@pytest.mark.parametrize("name", PROMPTS)
def test_a_filled_template_is_what_dify_sends(name: str, framework: Any) -> None:
    (node,) = load_dify_app(yaml.safe_dump(PROMPTS[name][0], allow_unicode=True)).nodes
    values = {variable: f"{{value of}} {variable}" for variable in node.variables}
    earlier = [("user", "first {x}"), ("assistant", "second")] * 9
    variables, sent = framework(node, values, earlier)
    assert variables == set(node.variables)
    expected: Sent = []
    for message in node.messages:
        if message.role == "history":
            expected += earlier[-2 * node.memory_window :] if node.memory_window else earlier
        else:
            expected.append((message.role, message.filled(values)))
    assert sent == expected


@each_framework
def test_a_missing_variable_is_named(framework: Any) -> None:
    (node,) = load_dify_app(yaml.safe_dump(PROMPTS["an LLM node"][0])).nodes
    with pytest.raises((ConfigurationError, KeyError), match="topic"):
        framework(node, {"query": "?"}, [])
