"""The core's errors as LangChain's own: each raised class is both.

`except ollama_dify.RateLimitError` and `except langchain_core.exceptions.ModelRateLimitError` catch the
same error, so LangChain's retries, fallbacks and middleware act on it; `is_retryable` is the core's
`retryable`. Where the installed langchain-core lacks a class, the core's stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core import exceptions

import ollama_dify as core

__all__ = ["as_langchain", "langchain_errors"]

_THEIRS: dict[type[core.OllamaError], str] = {
    core.OllamaError: "ModelError",
    core.UnsupportedContentError: "ModelInvalidRequestError",
    core.ConnectionFailedError: "ModelConnectionError",
    core.RequestTimeoutError: "ModelTimeoutError",
    core.AuthenticationError: "ModelAuthenticationError",
    core.PermissionDeniedError: "ModelPermissionDeniedError",
    core.InvalidRequestError: "ModelInvalidRequestError",
    core.ContextOverflowError: "ContextOverflowError",
    core.CapabilityError: "ModelInvalidRequestError",
    core.ModelNotFoundError: "ModelNotFoundError",
    core.RateLimitError: "ModelRateLimitError",
    core.ServerBusyError: "ModelAPIError",
    core.ServerError: "ModelAPIError",
    core.ProtocolError: "ModelAPIError",
    core.IncompleteResponseError: "ModelAPIError",
    core.EmptyResponseError: "ModelAPIError",
    core.EmbeddingError: "ModelError",
}


class _Retryable:
    """LangChain's name for `retryable`."""

    retryable: bool

    @property
    def is_retryable(self) -> bool:
        return self.retryable


def _both(kind: type[core.OllamaError], name: str) -> type[core.OllamaError]:
    theirs = getattr(exceptions, name, None)
    if theirs is None:
        return kind
    described = {"__module__": __name__, "__doc__": kind.__doc__}
    return type(kind.__name__, (_Retryable, kind, theirs), described)


_RAISED = {kind: _both(kind, name) for kind, name in _THEIRS.items()}
# A pickled error names its class by module and name.
globals().update({kind.__name__: both for kind, both in _RAISED.items()})


def as_langchain(error: core.OllamaError) -> core.OllamaError:
    """The same error in the class that is LangChain's too."""
    kind: Any = _RAISED.get(type(error))
    if kind is None or kind is type(error):
        return error
    raised: core.OllamaError = kind.__new__(kind, *error.args)
    raised.__dict__.update(error.__dict__)
    return raised


@contextmanager
def langchain_errors() -> Iterator[None]:
    """Whatever the core raises inside leaves in LangChain's class, with its cause and its traceback."""
    try:
        yield
    except core.OllamaError as error:
        raised = as_langchain(error)
        if raised is error:
            raise
        raise raised.with_traceback(error.__traceback__) from error.__cause__
