"""The server's error message → one of our errors, with what to do next. Pure.

The texts come from Ollama's source and from recordings of servers 0.24 to 0.33; newer servers put JSON
inside the error text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

import orjson

from .. import errors
from ..language import N_, _
from .responses import printable

_OVERFLOW = re.compile(
    r"exceeds the available context size|input length exceeds the context length"
    r"|prompt is longer than the context length|exceed_context_size_error"
)
_OVERFLOW_COUNTS = re.compile(r"request \((\d+) tokens\) exceeds the available context size \((\d+) tokens\)")
_CANNOT = re.compile(
    r"does not support (thinking|tools|chat|generate|insert|vision|embeddings?|multimodal)"
    r"|image input is not supported"
)
_CAPABILITIES = {"chat": "completion", "generate": "completion", "multimodal": "vision"}
_MEMORY = "memory"  # instead of a hint: its text is in `advice`
# Pattern of the server's text; the error, its sentence before that text, its hint.
_BY_TEXT: tuple[tuple[str, Callable[..., errors.OllamaError], str, str], ...] = (
    (
        r"illegal base64 data|Failed to load image|failed to (?:process|decode) image",
        errors.UnsupportedContentError,
        "The server could not read an image",
        N_("Send PNG, JPEG, static WebP, GIF or BMP; older servers read no WebP."),
    ),
    (
        r"(?i)grammar|number of (?:repetitions|rules)",
        errors.InvalidRequestError,
        "The server could not make a grammar of the schema",
        N_("Simplify the schema: smaller minItems, maxItems and lengths, fewer patterns and levels."),
    ),
    (
        r"Chunk not found",
        errors.ServerError,
        "The server could not go on from an earlier prompt with images",
        N_(
            "Another program sent two images side by side, and this prompt begins like that one. Put "
            "a text before the image, or have the server load the model anew (keep_alive=0)."
        ),
    ),
    (
        r"^model ['\"].+['\"] not found",
        errors.ModelNotFoundError,
        "The server has no such model",
        N_("Get it with: ollama pull {model}"),
    ),
    (
        r"^(?:do embedding request: .*)?model runner has unexpectedly stopped",
        partial(errors.ServerError, retryable=True, retry_once=True),
        "The model's process stopped",
        _MEMORY,
    ),
    (
        r"requires more system memory|out of memory|unable to allocate|cudaMalloc failed"
        r"|memory layout cannot be",
        errors.ServerError,
        "The server has too little memory for this model",
        _MEMORY,
    ),
    (  # a server that is only starting, swapping or restarting a model; any other 500 is not tried again
        r"^(?:do embedding request: |unexpected server status|no slots available)",
        partial(errors.ServerError, retryable=True),
        "The server is starting or changing the model",
        N_("Try again."),
    ),
)
_UPSTREAM = (
    partial(errors.ServerError, retryable=True),
    "A proxy or the server's upstream failed ({status}): {text}.",
    N_("Try again."),
)
# A status; the error, its message, its hint.
_BY_STATUS: Mapping[int, tuple[Callable[..., errors.OllamaError], str, str]] = {
    **dict.fromkeys((408, 502, 504), _UPSTREAM),
    429: (
        partial(errors.RateLimitError, retryable=True),
        "Too many requests: {text}.",
        N_("Wait, then try again."),
    ),
    501: (errors.CapabilityError, "The server cannot do this: {text}.", N_("Choose another model.")),
    503: (
        partial(errors.ServerBusyError, retryable=True),
        "The server is busy: {text}.",
        N_("Try again; OLLAMA_MAX_QUEUE and OLLAMA_NUM_PARALLEL on the server raise the limit."),
    ),
}


def server_message(body: bytes) -> tuple[str, Mapping[str, Any] | None]:
    """The text of an error body (JSON, JSON inside the error text, or plain text), and the other values of
    the JSON, None for a body that is not JSON."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return printable(body.decode("utf-8", "replace")), None
    details: dict[str, Any] = {}
    for _depth in range(6):  # bounded: a hostile server may nest endlessly
        if isinstance(value, Mapping):
            details |= value
            value = value.get("error", value.get("message", ""))
        elif isinstance(value, str) and value.lstrip().startswith("{"):
            try:
                value = orjson.loads(value)
            except orjson.JSONDecodeError:
                break
        else:
            break
    return printable(value if isinstance(value, str) else ""), details


def retry_after(value: str | None, now_s: float) -> float | None:
    """Seconds to wait from a Retry-After header (seconds or a date), at most 120."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        import email.utils  # few servers send a date

        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now_s
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), 120.0) if seconds == seconds else None


def error_from_response(
    status: int, headers: Mapping[str, str], body: bytes, *, url: str, model: str | None, now_s: float
) -> errors.OllamaError:
    """The error for a response without a success status.

    headers: lower-case or case-insensitive. body: may be only its beginning.
    """
    text, details = server_message(body)
    error = _by_text(text, details or {}, model)
    error = error or _by_status(status, headers, text, details, url)
    error.status, error.url, error.model = status, url, model
    error.retry_after_s = retry_after(headers.get("retry-after"), now_s)
    return error


def error_in_stream(line: bytes, *, model: str | None) -> errors.OllamaError:
    """The error for an `{"error": …}` line inside a 200 answer; never retryable once a chunk was given."""
    text, details = server_message(line)
    error = _by_text(text, details or {}, model) or errors.ServerError(
        f"The server stopped answering: {text or 'it gave no reason'}.",
        hint=_("See the server's log; what had arrived is in the error's `partial`."),
    )
    error.status, error.model = 200, model
    return error


def _advice() -> ModuleType:
    """The module `advice`, imported only for an error."""
    from .. import advice

    return advice


def _by_text(text: str, details: Mapping[str, Any], model: str | None) -> errors.OllamaError | None:
    if _OVERFLOW.search(text) or details.get("type") == "exceed_context_size_error":
        return _overflow(text, details)
    if found := _CANNOT.search(text):
        word = found[1] or "vision"
        capability = "embedding" if "embedding" in word else _CAPABILITIES.get(word, word)
        # That text of the server names an option of llama.cpp's server that Ollama does not have.
        said = "it makes no embeddings" if capability == "embedding" else text
        hint = _advice().capability_advice(model or "MODEL", capability)
        return errors.CapabilityError(f"The model cannot do this: {said}", hint=hint)
    for pattern, kind, sentence, hint in _BY_TEXT:
        if re.search(pattern, text):
            hint = _advice().advice("memory", model=model) if hint is _MEMORY else _(hint).format(model=model)
            return kind(f"{sentence}: {text}", hint=hint)
    return None


def _overflow(text: str, details: Mapping[str, Any]) -> errors.ContextOverflowError:
    prompt_tokens, context = details.get("n_prompt_tokens"), details.get("n_ctx")
    if found := _OVERFLOW_COUNTS.search(text):
        prompt_tokens, context = int(found[1]), int(found[2])
    prompt_tokens = prompt_tokens if type(prompt_tokens) is int else None
    # A prompt of exactly the context's size is already cut, so the limit is one token less.
    limit = context - 1 if type(context) is int else None
    numbers = f": {prompt_tokens} tokens, at most {limit} fit" if prompt_tokens and limit else ""
    return errors.ContextOverflowError(
        f"The prompt does not fit into the context{numbers}. The server said: {text}",
        prompt_tokens=prompt_tokens,
        limit=limit,
        hint=_advice().advice("context"),
    )


def _by_status(
    status: int, headers: Mapping[str, str], said: str, details: Mapping[str, Any] | None, url: str
) -> errors.OllamaError:
    text = said or "it gave no reason"
    if 300 <= status < 400:
        return errors.ProtocolError(
            f"The server redirects to {printable(headers.get('location', ''))!r}.",
            hint=_("Set base_url to where it points, or follow_redirects=True for the same origin."),
        )
    if status == 401:
        signin_url = (details or {}).get("signin_url")
        place = signin_url if isinstance(signin_url, str) else None
        hint = _advice().auth_advice(url, signin_url=place)
        return errors.AuthenticationError(
            f"The server wants credentials: {text}.", signin_url=place, hint=hint
        )
    if status == 403:
        text = said or "the body is empty, as when Ollama rejects the Host or Origin header"
        hint = _advice().advice("no-right" if said else "unknown-host")
        return errors.PermissionDeniedError(f"The server refuses: {text}.", hint=hint)
    if status in (404, 405):
        return errors.ProtocolError(f"Nothing answers at {url}: {text}.", hint=_advice().advice("no-route"))
    if status in _BY_STATUS:
        kind, message, hint = _BY_STATUS[status]
        return kind(message.format(status=status, text=text), hint=_(hint))
    if status >= 500:
        return errors.ServerError(f"The server failed ({status}): {text}.", hint=_("See the server's log."))
    if details is None:
        return errors.ProtocolError(
            f"The answer ({status}) is not Ollama's: {text}.",
            hint=_("A proxy or another program may be answering at this address."),
        )
    return errors.InvalidRequestError(
        f"The server refused the request ({status}): {text}.", hint=_("Change what it names, then try again.")
    )
