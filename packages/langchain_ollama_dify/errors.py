"""The core's errors as LangChain's own: each raised class is both.

`except ollama_dify.RateLimitError` and `except langchain_core.exceptions.ModelRateLimitError` catch the
same error, so LangChain's retries, fallbacks and middleware act on it; `is_retryable` is the core's
`retryable`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core import exceptions

import ollama_dify as core

__all__ = ["as_langchain", "langchain_errors"]

_THEIRS: dict[type[core.OllamaError], type[exceptions.ModelError]] = {
    core.OllamaError: exceptions.ModelError,
    core.UnsupportedContentError: exceptions.ModelInvalidRequestError,
    core.ConnectionFailedError: exceptions.ModelConnectionError,
    core.RequestTimeoutError: exceptions.ModelTimeoutError,
    core.AuthenticationError: exceptions.ModelAuthenticationError,
    core.PermissionDeniedError: exceptions.ModelPermissionDeniedError,
    core.InvalidRequestError: exceptions.ModelInvalidRequestError,
    core.ContextOverflowError: exceptions.ContextOverflowError,
    core.CapabilityError: exceptions.ModelInvalidRequestError,
    core.ModelNotFoundError: exceptions.ModelNotFoundError,
    core.RateLimitError: exceptions.ModelRateLimitError,
    core.ServerBusyError: exceptions.ModelAPIError,
    core.ServerError: exceptions.ModelAPIError,
    core.ProtocolError: exceptions.ModelAPIError,
    core.IncompleteResponseError: exceptions.ModelAPIError,
    core.EmptyResponseError: exceptions.ModelAPIError,
    core.EmbeddingError: exceptions.ModelError,
}


class _Retryable:
    """LangChain's name for `retryable`."""

    retryable: bool

    @property
    def is_retryable(self) -> bool:
        return self.retryable


_RAISED: dict[type[core.OllamaError], Any] = {
    kind: type(kind.__name__, (_Retryable, kind, theirs), {"__module__": __name__, "__doc__": kind.__doc__})
    for kind, theirs in _THEIRS.items()
}
# A pickled error names its class by module and name.
globals().update({kind.__name__: both for kind, both in _RAISED.items()})


def as_langchain(error: core.OllamaError) -> core.OllamaError:
    """The same error in the class that is also LangChain's."""
    kind = _RAISED.get(type(error))
    if kind is None:
        return error
    raised: core.OllamaError = kind.__new__(kind, *error.args)
    raised.__dict__.update(error.__dict__)
    return raised


@contextmanager
def langchain_errors() -> Iterator[None]:
    """Errors of the core raised inside get LangChain's class too, with the same cause and traceback."""
    try:
        yield
    except core.OllamaError as error:
        raised = as_langchain(error)
        if raised is error:
            raise
        raise raised.with_traceback(error.__traceback__) from error.__cause__
