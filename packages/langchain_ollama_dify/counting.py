"""Token counts of texts for LangChain's methods, by the model's own tokenizer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ollama_dify import ClientOwner

from .errors import langchain_errors

__all__ = ["count_text", "on_event_loop", "token_ids"]

Encoder = Callable[[str], list[int]]


def token_ids(model: ClientOwner, text: str, custom: Encoder | None) -> list[int]:
    """The ids of a text's tokens; `custom` is LangChain's `custom_get_token_ids`.

    Raises ConfigurationError for a model whose vocabulary the server does not show.
    """
    if custom is not None:
        return custom(text)
    with langchain_errors():
        return model.counter().token_ids(text)


def count_text(model: ClientOwner, text: str, custom: Encoder | None) -> int:
    """How many tokens a text has; an upper bound where the server shows no vocabulary."""
    if custom is not None:
        return len(custom(text))
    with langchain_errors():
        return model.counter().text(text).tokens


def on_event_loop() -> bool:
    """Whether waiting here would stop an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
