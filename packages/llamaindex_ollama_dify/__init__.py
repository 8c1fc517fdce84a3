"""Dify's Ollama settings as LlamaIndex models: LLM, embedding, reranking."""

try:
    import llama_index.core  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in ("llama_index", "llama_index.core"):
        raise
    raise ModuleNotFoundError(
        'llamaindex_ollama_dify needs LlamaIndex: pip install "ollama-dify[llamaindex]"', name=error.name
    ) from error

from typing import TYPE_CHECKING, Any

from .embedding import OllamaDifyEmbedding
from .llm import OllamaDify
from .prompts import prompt_template

if TYPE_CHECKING:
    from .rerank import OllamaDifyRerank

__all__ = ["OllamaDify", "OllamaDifyEmbedding", "OllamaDifyRerank", "prompt_template"]


def __getattr__(name: str) -> Any:
    if name != "OllamaDifyRerank":  # few programs rerank
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .rerank import OllamaDifyRerank

    return OllamaDifyRerank


def __dir__() -> list[str]:
    return __all__
