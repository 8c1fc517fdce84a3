"""Dify's Ollama settings as LangChain models: `ChatOllamaDify`, `OllamaDifyLLM`, `OllamaDifyEmbeddings`."""

try:
    import langchain_core  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "langchain_core":
        raise
    raise ModuleNotFoundError(
        'langchain_ollama_dify needs LangChain: pip install "ollama-dify[langchain]"', name=error.name
    ) from error

from .chat_models import ChatOllamaDify
from .embeddings import OllamaDifyEmbeddings
from .llms import OllamaDifyLLM

__all__ = ["ChatOllamaDify", "OllamaDifyEmbeddings", "OllamaDifyLLM"]
