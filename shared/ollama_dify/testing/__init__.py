"""A simulated Ollama server for tests and demos: real protocol, scripted or rule-made answers, no GPU."""

from .faults import Fault, RecordedRequest, Reply
from .models import SimulatedModel, default_models
from .server import SimulatedOllama
from .state import ConnectionCounts, Latency

__all__ = [
    "ConnectionCounts",
    "Fault",
    "Latency",
    "RecordedRequest",
    "Reply",
    "SimulatedModel",
    "SimulatedOllama",
    "default_models",
]
