"""The prompt of a node of a Dify app as a LangChain prompt."""

from __future__ import annotations

from langchain_core.prompts import AIMessagePromptTemplate, ChatPromptTemplate, MessagesPlaceholder
from langchain_core.prompts.chat import HumanMessagePromptTemplate, SystemMessagePromptTemplate
from langchain_core.prompts.message import BaseMessagePromptTemplate

from ollama_dify import DifyNode

__all__ = ["prompt_template"]

_KINDS = {
    "system": SystemMessagePromptTemplate,
    "user": HumanMessagePromptTemplate,
    "assistant": AIMessagePromptTemplate,
}


def prompt_template(node: DifyNode) -> ChatPromptTemplate:
    """The node's prompt: `prompt_template(node) | ChatOllamaDify.from_settings(node.settings())`.

    Its input variables are those of `node.variables`. Braces in the node's texts stay as they are. Where the
    node has a memory, the optional variable `history` takes the earlier messages, and keeps as many of the
    last ones as the memory's window says.
    """
    messages: list[BaseMessagePromptTemplate] = []
    for message in node.messages:
        if message.role == "history":
            # A round of the window is a question and its answer.
            limit = None if node.memory_window is None else 2 * node.memory_window
            messages.append(MessagesPlaceholder("history", optional=True, n_messages=limit))
        else:
            text = "".join(
                literal.replace("{", "{{").replace("}", "}}") + ("" if name is None else f"{{{name}}}")
                for literal, name in message.parts
            )
            messages.append(_KINDS[message.role].from_template(text))
    return ChatPromptTemplate(messages)
