"""The error tree: what catches what, what is said, what survives a pickle."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_dify import errors

TREE = {
    "OllamaError": "Exception",
    "ConfigurationError": "OllamaError ValueError",
    "DifyAppError": "ConfigurationError",
    "UnsupportedContentError": "OllamaError ValueError",
    "ConnectionFailedError": "OllamaError",
    "RequestTimeoutError": "ConnectionFailedError",
    "AuthenticationError": "OllamaError",
    "PermissionDeniedError": "OllamaError",
    "InvalidRequestError": "OllamaError",
    "ContextOverflowError": "InvalidRequestError",
    "CapabilityError": "InvalidRequestError",
    "ModelNotFoundError": "OllamaError",
    "RateLimitError": "OllamaError",
    "ServerBusyError": "OllamaError",
    "ServerError": "OllamaError",
    "ProtocolError": "OllamaError",
    "IncompleteResponseError": "ProtocolError",
    "EmptyResponseError": "ProtocolError",
    "EmbeddingError": "OllamaError",
}


def test_the_tree_is_whole() -> None:
    bases = {
        name: " ".join(base.__name__ for base in getattr(errors, name).__bases__) for name in errors.__all__
    }
    assert bases == TREE
    assert [name for name in TREE if name not in (errors.__doc__ or "")] == []


@pytest.mark.parametrize(
    ("details", "text"),
    [
        pytest.param({}, "It broke.", id="message"),
        pytest.param({"hint": "Mend it."}, "It broke.\nMend it.", id="hint"),
        pytest.param({"attempts": 1}, "It broke.", id="one attempt"),
        pytest.param(
            {"attempts": 3, "hint": "Mend it."}, "It broke. (after 3 attempts)\nMend it.", id="attempts"
        ),
    ],
)
def test_what_happened_comes_first(details: dict[str, Any], text: str) -> None:
    assert str(errors.OllamaError("It broke.", **details)) == text
