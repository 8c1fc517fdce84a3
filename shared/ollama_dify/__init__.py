"""Dify's Ollama form as one settings object, and a client that follows it exactly.

    from ollama_dify import ChatSettings, OllamaClient, user

    with OllamaClient(ChatSettings(model="llava", context_size=4096)) as client:
        print(client.chat([user("Hello")]).text)

Adapters: `langchain_ollama_dify`, `llamaindex_ollama_dify`.
"""

from typing import TYPE_CHECKING, Any

from .address import Address
from .client.asynchronous import AsyncChatStream, AsyncOllamaClient
from .client.blocking import ChatStream, OllamaClient
from .client.operations import PullProgress
from .errors import *
from .language import language, set_language
from .media.image import Audio, Image, ImageUrl
from .media.source import ImageLimits
from .settings import *
from .wire.json_schema import inline_refs
from .wire.messages import Message, TextPart, Tool, ToolCall, assistant, system, user
from .wire.models import LocalModel, ModelInfo, RunningModel
from .wire.requests import Prompt
from .wire.responses import ChatChunk, ChatResult, EmbedResult, Finish, RerankResult, Usage

if TYPE_CHECKING:
    from .doctor import adiagnose, diagnose
    from .settings.dify_app import DifyApp, DifyNode, load_dify_app
    from .tokens.counter import TokenCounter
    from .tokens.tokenizer import TokenCount

__all__ = [
    "Address",
    "AsyncChatStream",
    "AsyncOllamaClient",
    "Audio",
    "AuthenticationError",
    "CapabilityError",
    "ChatChunk",
    "ChatResult",
    "ChatSettings",
    "ChatStream",
    "ConfigurationError",
    "ConnectionFailedError",
    "ConnectionSettings",
    "ContextOverflowError",
    "DifyApp",
    "DifyAppError",
    "DifyNode",
    "EmbedResult",
    "EmbeddingError",
    "EmbeddingSettings",
    "EmptyResponseError",
    "Finish",
    "Image",
    "ImageLimits",
    "ImageUrl",
    "IncompleteResponseError",
    "InvalidRequestError",
    "LocalModel",
    "Message",
    "ModelInfo",
    "ModelNotFoundError",
    "ModelSettings",
    "OllamaClient",
    "OllamaError",
    "PermissionDeniedError",
    "Prompt",
    "ProtocolError",
    "PullProgress",
    "RateLimitError",
    "RequestTimeoutError",
    "RerankResult",
    "RerankSettings",
    "RunningModel",
    "ServerBusyError",
    "ServerError",
    "TextPart",
    "Timeouts",
    "TokenCount",
    "TokenCounter",
    "Tool",
    "ToolCall",
    "UnsupportedContentError",
    "Usage",
    "adiagnose",
    "assistant",
    "diagnose",
    "inline_refs",
    "language",
    "load_dify_app",
    "set_language",
    "system",
    "user",
]

__version__ = "0.1.0"

# Most programs neither count tokens nor call the doctor, so those modules are imported on first use.
_ON_DEMAND = {
    **dict.fromkeys(("DifyApp", "DifyNode", "load_dify_app"), "settings.dify_app"),
    "TokenCount": "tokens.tokenizer",
    "TokenCounter": "tokens.counter",
    "adiagnose": "doctor",
    "diagnose": "doctor",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(f".{_ON_DEMAND[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
