"""The form: one settings object for both frameworks."""

from .connection import ConnectionSettings, Timeouts
from .model import (
    LOAD_OPTIONS,
    SAMPLING_OPTIONS,
    ChatSettings,
    EmbeddingSettings,
    ModelSettings,
    RerankSettings,
)

__all__ = [
    "LOAD_OPTIONS",
    "SAMPLING_OPTIONS",
    "ChatSettings",
    "ConnectionSettings",
    "EmbeddingSettings",
    "ModelSettings",
    "RerankSettings",
    "Timeouts",
]
