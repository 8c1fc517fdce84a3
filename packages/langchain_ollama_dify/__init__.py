"""Dify's Ollama settings as LangChain models: chat, completion, embeddings, reranking."""

try:
    import langchain_core  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "langchain_core":
        raise
    raise ModuleNotFoundError(
        'langchain_ollama_dify needs LangChain: pip install "ollama-dify[langchain]"', name=error.name
    ) from error

from typing import TYPE_CHECKING, Any

from .chat_models import ChatOllamaDify
from .embeddings import OllamaDifyEmbeddings

if TYPE_CHECKING:
    from .llms import OllamaDifyLLM
    from .prompts import prompt_template
    from .rerank import OllamaDifyRerank

__all__ = ["ChatOllamaDify", "OllamaDifyEmbeddings", "OllamaDifyLLM", "OllamaDifyRerank", "prompt_template"]

# Imported on first use: LangChain's base class of completion models costs as much as all other imports.
_ON_DEMAND = {"OllamaDifyLLM": "llms", "OllamaDifyRerank": "rerank", "prompt_template": "prompts"}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_ON_DEMAND[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
