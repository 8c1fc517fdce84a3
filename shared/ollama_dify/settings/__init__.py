"""The form: one settings object for both frameworks."""

from .connection import ConnectionSettings, Timeouts
from .model import ChatSettings, EmbeddingSettings, ModelSettings, RerankSettings

__all__ = [
    "ChatSettings",
    "ConnectionSettings",
    "EmbeddingSettings",
    "ModelSettings",
    "RerankSettings",
    "Timeouts",
]
