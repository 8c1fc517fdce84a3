"""langchain-ollama's three classes as ours: its constructor arguments in our words."""

from __future__ import annotations

from typing import Any

from langchain_ollama_dify import ChatOllamaDify, OllamaDifyEmbeddings, OllamaDifyLLM

_OUR_WORDS = {"num_ctx": "context_size", "num_predict": "max_tokens", "reasoning": "think"}
_CLIENT_WORDS = ("headers", "timeout", "verify", "proxy")


def in_our_words(values: dict[str, Any]) -> dict[str, Any]:
    """Constructor arguments of langchain-ollama as ours; what has no word of ours goes on, and is refused."""
    ours = {_OUR_WORDS.get(name, name): value for name, value in values.items()}
    client = ours.pop("client_kwargs", None) or {}
    known = {name: client[name] for name in _CLIENT_WORDS if name in client}
    left = {name: value for name, value in client.items() if name not in known}
    return {**ours, **known, **({"client_kwargs": left} if left else {})}


class ChatOllama(ChatOllamaDify):
    """`validate_model_on_init=True` is `warmup()`; all else are names."""

    def __init__(self, *, validate_model_on_init: bool = False, **values: Any) -> None:
        super().__init__(**in_our_words(values))
        if validate_model_on_init:
            self.warmup()


class OllamaLLM(OllamaDifyLLM):
    def __init__(self, *, validate_model_on_init: bool = False, **values: Any) -> None:
        super().__init__(**in_our_words(values))
        if validate_model_on_init:
            self.warmup()


class OllamaEmbeddings(OllamaDifyEmbeddings):
    def __init__(self, *, validate_model_on_init: bool = False, **values: Any) -> None:
        super().__init__(**in_our_words(values))
        if validate_model_on_init:
            self.warmup()
