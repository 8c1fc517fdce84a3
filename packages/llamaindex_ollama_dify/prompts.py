"""The prompt of a node of a Dify app as a LlamaIndex prompt."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import ChatPromptTemplate
from pydantic import PrivateAttr

from ollama_dify import ConfigurationError, DifyNode

__all__ = ["prompt_template"]


class _NodePrompt(ChatPromptTemplate):  # type: ignore[no-redef]  # the framework has a field called kwargs
    """LlamaIndex knows no escape for braces and no place for messages, so the texts are filled in here."""

    _node: DifyNode = PrivateAttr()

    def __init__(self, node: DifyNode) -> None:
        turns = [(m.text or "{history}", "user" if m.role == "history" else m.role) for m in node.messages]
        super().__init__([ChatMessage(text, role=role) for text, role in turns])
        self.template_vars = list(node.variables)
        self._node = node

    def format_messages(self, llm: BaseLLM | None = None, **kwargs: Any) -> list[ChatMessage]:
        """The messages. history: earlier messages, optional.

        Raises ConfigurationError for a missing variable.
        """
        values = self._map_all_vars({**self.kwargs, **kwargs})
        missing = [name for name in self._node.variables if name not in values]
        if missing:
            raise ConfigurationError(
                f"The prompt of {self._node.title!r} lacks a value for {', '.join(missing)}."
            )
        messages: list[ChatMessage] = []
        for message in self._node.messages:
            if message.role == "history":
                earlier = list(values.get("history") or ())
                # A round of the window is a question and its answer.
                window = self._node.memory_window
                messages += earlier if window is None else earlier[-2 * window :]
            else:
                messages.append(ChatMessage(message.filled(values), role=message.role))
        return messages if self.output_parser is None else self.output_parser.format_messages(messages)


def prompt_template(node: DifyNode) -> ChatPromptTemplate:
    """The node's prompt: `llm.chat(prompt_template(node).format_messages(topic="rivers"))`.

    Its variables are those of `node.variables`. Braces in the node's texts stay as they are. Where the node
    has a memory, the optional variable `history` takes the earlier messages (a list of ChatMessage), and
    keeps as many of the last ones as the memory's window says.
    """
    return _NodePrompt(node)
