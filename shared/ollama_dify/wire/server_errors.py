"""What the server said went wrong → one of our errors, with what to do next. Pure.

The texts were read in Ollama's source and recorded from servers 0.24 to 0.33; newer servers put JSON
inside the error text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import orjson

from ..errors import (
    AuthenticationError,
    CapabilityError,
    ContextOverflowError,
    InvalidRequestError,
    ModelNotFoundError,
    OllamaError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    ServerBusyError,
    ServerError,
    UnsupportedContentError,
)
from ..language import _
from .responses import printable

__all__ = ["ServerMessage", "error_from_response", "error_in_stream", "retry_after", "server_message"]

_OVERFLOW = re.compile(
    r"exceeds the available context size|input length exceeds the context length"
    r"|prompt is longer than the context length|exceed_context_size_error"
)
_OVERFLOW_COUNTS = re.compile(r"request \((\d+) tokens\) exceeds the available context size \((\d+) tokens\)")
_CANNOT = re.compile(
    r"does not support (thinking|tools|chat|generate|insert|vision|embeddings?|multimodal)"
    r"|image input is not supported"
)
_BAD_IMAGE = re.compile(r"illegal base64 data|Failed to load image|failed to (?:process|decode) image")
_BAD_SCHEMA = re.compile(r"grammar|number of (?:repetitions|rules)", re.IGNORECASE)
_NO_MODEL = re.compile(r"^model ['\"].+['\"] not found")
# A server that is only starting, swapping or restarting a model; everything else that is a 500 stays one.
_PASSING = re.compile(r"^(?:do embedding request: |unexpected server status|no slots available)")
_MEMORY = re.compile(
    r"requires more system memory|out of memory|unable to allocate|cudaMalloc failed|memory layout cannot be"
)
_RUNNER_STOPPED = re.compile(r"^(?:do embedding request: .*)?model runner has unexpectedly stopped")


@dataclass(frozen=True, slots=True)
class ServerMessage:
    """The error text, unwrapped, with the numbers that came beside it."""

    text: str
    details: Mapping[str, Any]
    is_json: bool = True


def server_message(body: bytes) -> ServerMessage:
    """Unwrap an error body: JSON, JSON within the error text, or plain text."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ServerMessage(printable(body.decode("utf-8", "replace")), {}, is_json=False)
    details: Mapping[str, Any] = {}
    for _depth in range(6):  # bounded: a hostile server may nest for ever
        if isinstance(value, Mapping):
            details = {**details, **value}
            value = value.get("error", value.get("message", ""))
        elif isinstance(value, str) and value.lstrip().startswith("{"):
            try:
                value = orjson.loads(value)
            except orjson.JSONDecodeError:
                break
        else:
            break
    text = value if isinstance(value, str) else ""
    return ServerMessage(printable(text), details)


def retry_after(value: str | None, now_s: float) -> float | None:
    """Seconds to wait from a Retry-After header (seconds or a date), at most 120."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        import email.utils  # hardly a server sends a date

        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now_s
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), 120.0) if seconds == seconds else None


def error_from_response(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    url: str,
    model: str | None,
    now_s: float,
) -> OllamaError:
    """The error for a response that is no success.

    headers: lower-case or case-insensitive. body: at most as much as one wants to read of it.
    """
    said = server_message(body)
    error = _by_text(said, model) or _by_status(status, headers, said, url, model)
    error.status = status
    error.url = url
    error.model = model
    error.retry_after_s = retry_after(headers.get("retry-after"), now_s)
    return error


def error_in_stream(said: ServerMessage, *, model: str | None) -> OllamaError:
    """The error for an `{"error": …}` line inside a 200 answer; never retryable once a chunk was given."""
    error = _by_text(said, model)
    if error is None:
        error = ServerError(
            f"The server stopped answering: {said.text or 'it gave no reason'}.",
            hint="See the server's log; what had arrived is in the error's `partial`.",
        )
    error.status = 200
    error.model = model
    return error


def _advice() -> ModuleType:
    """Imported when something went wrong."""
    from .. import advice

    return advice


def _by_text(said: ServerMessage, model: str | None) -> OllamaError | None:
    text = said.text
    if _OVERFLOW.search(text) or said.details.get("type") == "exceed_context_size_error":
        return _overflow(said)
    if _CANNOT.search(text) or "does not support embeddings" in text:
        capability = _capability(text)
        # The server advises an option of llama.cpp's own server there, which Ollama does not have.
        said_so = "it makes no embeddings" if capability == "embedding" else text
        return CapabilityError(
            f"The model cannot do this: {said_so}",
            hint=_advice().capability_advice(model or "MODEL", capability),
        )
    if _BAD_IMAGE.search(text):
        return UnsupportedContentError(
            f"The server could not read an image: {text}",
            hint="Send PNG, JPEG, static WebP, GIF or BMP; older servers read no WebP.",
        )
    if _BAD_SCHEMA.search(text):
        return InvalidRequestError(
            f"The server could not make a grammar of the schema: {text}",
            hint="Simplify the schema: smaller minItems, maxItems and lengths, fewer patterns and levels.",
        )
    if "Chunk not found" in text:
        return ServerError(
            f"The server could not go on from an earlier prompt with images: {text}.",
            hint="Another program sent two images side by side, and this prompt begins like that one. Put "
            "a text before the image, or have the server load the model anew (keep_alive=0).",
        )
    if _NO_MODEL.search(text):
        return ModelNotFoundError(
            f"The server has no such model: {text}.",
            hint=_("Get it with: ollama pull {model}").format(model=model),
        )
    if _RUNNER_STOPPED.search(text):
        return ServerError(
            f"The model's process stopped: {text}",
            retryable=True,
            retry_once=True,
            hint=_advice().memory_advice(model),
        )
    if _MEMORY.search(text):
        return ServerError(
            f"The server has too little memory for this model: {text}", hint=_advice().memory_advice(model)
        )
    if _PASSING.search(text):
        return ServerError(
            f"The server is starting or changing the model: {text}", retryable=True, hint="Try again."
        )
    return None


def _capability(text: str) -> str:
    """The capability that an error text says is lacking, as /api/show names it."""
    found = _CANNOT.search(text)
    word = found.group(1) if found is not None and found.group(1) else "vision"
    names = {"chat": "completion", "generate": "completion", "multimodal": "vision"}
    return "embedding" if "embedding" in text else names.get(word, word)


def _overflow(said: ServerMessage) -> ContextOverflowError:
    prompt_tokens, context = said.details.get("n_prompt_tokens"), said.details.get("n_ctx")
    if found := _OVERFLOW_COUNTS.search(said.text):
        prompt_tokens, context = int(found[1]), int(found[2])
    prompt_tokens = prompt_tokens if type(prompt_tokens) is int else None
    # A prompt of exactly the context's size is already cut, so one token less is what fits.
    limit = context - 1 if type(context) is int else None
    numbers = f": {prompt_tokens} tokens, at most {limit} fit" if prompt_tokens and limit else ""
    return ContextOverflowError(
        f"The prompt does not fit into the context{numbers}. The server said: {said.text}",
        prompt_tokens=prompt_tokens,
        limit=limit,
        hint=_advice().context_advice(),
    )


def _by_status(
    status: int, headers: Mapping[str, str], said: ServerMessage, url: str, model: str | None
) -> OllamaError:
    text = said.text or "it gave no reason"
    if 300 <= status < 400:
        return ProtocolError(
            f"The server redirects to {printable(headers.get('location', ''))!r}.",
            hint="Set base_url to where it points, or follow_redirects=True for the same origin.",
        )
    if status == 401:
        signin_url = said.details.get("signin_url")
        place = signin_url if isinstance(signin_url, str) else None
        return AuthenticationError(
            f"The server wants credentials: {text}.",
            signin_url=place,
            hint=_advice().auth_advice(url, signin_url=place),
        )
    if status == 403:
        if not said.text:
            text = "the body is empty, as when Ollama rejects the Host or Origin header"
        hint = _advice().permission_advice(has_body=bool(said.text))
        return PermissionDeniedError(f"The server refuses: {text}.", hint=hint)
    if status == 404 or status == 405:
        return ProtocolError(
            f"Nothing answers at {url}: {text}.",
            hint=_advice().missing_route_advice(),
        )
    if status == 429:
        return RateLimitError(f"Too many requests: {text}.", retryable=True, hint="Wait, then try again.")
    if status == 503:
        return ServerBusyError(
            f"The server is busy: {text}.",
            retryable=True,
            hint="Try again; OLLAMA_MAX_QUEUE and OLLAMA_NUM_PARALLEL on the server raise the limit.",
        )
    if status in (408, 502, 504):
        return ServerError(
            f"A proxy or the server's upstream failed ({status}): {text}.", retryable=True, hint="Try again."
        )
    if status == 501:
        return CapabilityError(f"The server cannot do this: {text}.", hint="Choose another model.")
    if status >= 500:
        return ServerError(f"The server failed ({status}): {text}.", hint="See the server's log.")
    if not said.is_json:
        return ProtocolError(
            f"The answer ({status}) is not Ollama's: {text}.",
            hint="A proxy or another program may be answering at this address.",
        )
    return InvalidRequestError(
        f"The server refused the request ({status}): {text}.", hint="Change what it names, then try again."
    )
