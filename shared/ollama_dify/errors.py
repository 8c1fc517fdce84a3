"""Every error this library raises.

    OllamaError
    ├── ConfigurationError            (also ValueError) a setting or argument cannot work
    │   └── DifyAppError              a file is not an export of a Dify app
    ├── UnsupportedContentError       (also ValueError) a message has content that cannot be sent
    ├── ConnectionFailedError         no connection, or it broke
    │   └── RequestTimeoutError       a phase took longer than its timeout
    ├── AuthenticationError           401; `signin_url` when the server gives one
    ├── PermissionDeniedError         403
    ├── InvalidRequestError           the server refused the request
    │   ├── ContextOverflowError      the prompt does not fit: `prompt_tokens`, `limit`
    │   └── CapabilityError           the model cannot do this (vision, tools, thinking …)
    ├── ModelNotFoundError            404 for the model
    ├── RateLimitError                429
    ├── ServerBusyError               503, the queue is full
    ├── ServerError                   any other 5xx
    ├── ProtocolError                 the answer is not what Ollama sends
    │   ├── IncompleteResponseError   the answer ended before `done:true`: `partial`
    │   └── EmptyResponseError        200 with nothing in it
    └── EmbeddingError                some inputs have no usable vector: `indexes`

`str(error)` says what happened, then what to do (`hint`). Every error pickles.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

__all__ = [
    "AuthenticationError",
    "CapabilityError",
    "ConfigurationError",
    "ConnectionFailedError",
    "ContextOverflowError",
    "DifyAppError",
    "EmbeddingError",
    "EmptyResponseError",
    "IncompleteResponseError",
    "InvalidRequestError",
    "ModelNotFoundError",
    "OllamaError",
    "PermissionDeniedError",
    "ProtocolError",
    "RateLimitError",
    "RequestTimeoutError",
    "ServerBusyError",
    "ServerError",
    "UnsupportedContentError",
]


@dataclass(eq=False, repr=False)
class OllamaError(Exception):
    """Root of the tree.

    status: HTTP status, None when no response arrived.
    url: where the request went, without credentials.
    model: the model of the request.
    retryable: whether the same request may succeed later.
    attempts: total number of requests sent.
    partial: what had arrived: a `ChatResult`, or for embeddings a list of vectors and None.
    hint: what to do next.
    retry_after_s: seconds the server asked to wait.
    retry_once: the failure is retryable, but at most once.
    """

    message: str
    _: KW_ONLY
    hint: str | None = None
    status: int | None = None
    url: str | None = None
    model: str | None = None
    retryable: bool = False
    attempts: int = 0
    partial: Any = None
    retry_after_s: float | None = None
    retry_once: bool = False

    def __str__(self) -> str:
        tries = f" (after {self.attempts} attempts)" if self.attempts > 1 else ""
        advice = f"\n{self.hint}" if self.hint else ""
        return f"{self.message}{tries}{advice}"

    def __repr__(self) -> str:
        # With the hint, because frameworks show errors of models and tools by their repr.
        return f"{type(self).__name__}({str(self)!r})"


class ConfigurationError(OllamaError, ValueError):
    """A setting, an argument or their combination cannot work; nothing was sent."""


class DifyAppError(ConfigurationError):
    """A file is not a readable export of a Dify app."""


class UnsupportedContentError(OllamaError, ValueError):
    """A message has content that Ollama or these settings do not accept; nothing was sent."""


class ConnectionFailedError(OllamaError):
    """No connection to the server, or it broke before the answer began."""


@dataclass(eq=False, repr=False, kw_only=True)
class RequestTimeoutError(ConnectionFailedError):
    """A phase of the exchange took longer than its timeout; `phase` names it."""

    phase: str = "total"


@dataclass(eq=False, repr=False, kw_only=True)
class AuthenticationError(OllamaError):
    """The server wants credentials (401); `signin_url` is where to sign in, if it said so."""

    signin_url: str | None = None


class PermissionDeniedError(OllamaError):
    """The server refuses this client or this use (403)."""


class InvalidRequestError(OllamaError):
    """The server understood the request and refused it."""


@dataclass(eq=False, repr=False, kw_only=True)
class ContextOverflowError(InvalidRequestError):
    """The prompt does not fit into the context.

    prompt_tokens: length of the prompt in tokens, None when the server did not say.
    limit: tokens a prompt may have.
    """

    prompt_tokens: int | None = None
    limit: int | None = None


class CapabilityError(InvalidRequestError):
    """The model, or the settings for it, cannot do what was asked."""


class ModelNotFoundError(OllamaError):
    """The server does not have the model (404)."""


class RateLimitError(OllamaError):
    """Too many requests (429)."""


class ServerBusyError(OllamaError):
    """The server's queue is full (503)."""


class ServerError(OllamaError):
    """The server failed (5xx, or an error line inside a 200 stream)."""


class ProtocolError(OllamaError):
    """The answer is not what an Ollama server sends: a proxy, another server, a broken body."""


class IncompleteResponseError(ProtocolError):
    """The answer ended before `done:true`, or at a limit under `on_length="error"`; see `partial`."""


class EmptyResponseError(ProtocolError):
    """A successful status with an empty body."""


@dataclass(eq=False, repr=False, kw_only=True)
class EmbeddingError(OllamaError):
    """Some inputs have no usable vector.

    indexes: positions of those inputs in the caller's list.
    partial: the caller's list of vectors with None at `indexes`.
    """

    indexes: tuple[int, ...] = ()
