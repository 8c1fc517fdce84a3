"""The error tree: what catches what, what is said, what survives a pickle."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from ollama_dify import errors
from ollama_dify.wire.responses import ChatResult, Finish, Usage

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
EXTRA: dict[str, dict[str, Any]] = {
    "RequestTimeoutError": {"phase": "idle"},
    "AuthenticationError": {"signin_url": "https://example.com/connect"},
    "ContextOverflowError": {"prompt_tokens": 2139, "limit": 255},
    "EmbeddingError": {"indexes": (1, 3)},
}


def test_the_tree_is_whole() -> None:
    bases = {
        name: " ".join(base.__name__ for base in getattr(errors, name).__bases__) for name in errors.__all__
    }
    assert bases == TREE


@pytest.mark.parametrize("name", TREE)
def test_the_docstring_draws_each_class(name: str) -> None:
    assert name in (errors.__doc__ or "")


@pytest.mark.parametrize("copied", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("name", TREE)
def test_every_error_survives_copies(name: str, copied: Any) -> None:
    partial = ChatResult("Hel", finish=Finish("length", "m", usage=Usage(3, 1)))
    made = getattr(errors, name)(
        "It broke.",
        hint="Mend it.",
        status=500,
        url="http://h:1/api/chat",
        model="m",
        retryable=True,
        attempts=3,
        partial=partial,
        retry_after_s=2.5,
        retry_once=True,
        **EXTRA.get(name, {}),
    )
    again = copied(made)
    assert type(again) is type(made)
    assert vars(again) == vars(made)
    assert vars(again).items() >= EXTRA.get(name, {}).items()
    assert again.args == made.args == ("It broke.",)
    assert str(again) == str(made)


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
