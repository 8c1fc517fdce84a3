"""Dify's Ollama settings as LangChain models: `ChatOllamaDify`, `OllamaDifyLLM`, `OllamaDifyEmbeddings`."""

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

__all__ = ["ChatOllamaDify", "OllamaDifyEmbeddings", "OllamaDifyLLM"]


def __getattr__(name: str) -> Any:
    """LangChain's base class of completion models costs as much to import as all the rest here."""
    if name == "OllamaDifyLLM":
        from .llms import OllamaDifyLLM

        return OllamaDifyLLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
