"""What the server said went wrong → one of our errors, with what to do next. Pure.

The texts were read in Ollama's source and recorded from servers 0.24 to 0.33; newer servers put JSON
inside the error text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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
from ..language import N_, _
from .json_reading import printable

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
_MEMORY = "memory"  # in place of a hint: `memory_advice` has it
_ONCE = {"retryable": True, "retry_once": True}
# A pattern of the text; the error, its sentence before the text, its hint and when to try again.
_BY_TEXT: tuple[tuple[str, type[OllamaError], str, str, Mapping[str, Any]], ...] = (
    (
        r"illegal base64 data|Failed to load image|failed to (?:process|decode) image",
        UnsupportedContentError,
        "The server could not read an image",
        "Send PNG, JPEG, static WebP, GIF or BMP; older servers read no WebP.",
        {},
    ),
    (
        r"(?i)grammar|number of (?:repetitions|rules)",
        InvalidRequestError,
        "The server could not make a grammar of the schema",
        "Simplify the schema: smaller minItems, maxItems and lengths, fewer patterns and levels.",
        {},
    ),
    (
        r"Chunk not found",
        ServerError,
        "The server could not go on from an earlier prompt with images",
        "Another program sent two images side by side, and this prompt begins like that one. Put "
        "a text before the image, or have the server load the model anew (keep_alive=0).",
        {},
    ),
    (
        r"^model ['\"].+['\"] not found",
        ModelNotFoundError,
        "The server has no such model",
        N_("Get it with: ollama pull {model}"),
        {},
    ),
    (
        r"^(?:do embedding request: .*)?model runner has unexpectedly stopped",
        ServerError,
        "The model's process stopped",
        _MEMORY,
        _ONCE,
    ),
    (
        r"requires more system memory|out of memory|unable to allocate|cudaMalloc failed"
        r"|memory layout cannot be",
        ServerError,
        "The server has too little memory for this model",
        _MEMORY,
        {},
    ),
    (  # a server that is only starting, swapping or restarting a model; any other 500 is not tried again
        r"^(?:do embedding request: |unexpected server status|no slots available)",
        ServerError,
        "The server is starting or changing the model",
        "Try again.",
        {"retryable": True},
    ),
)
_UPSTREAM = (ServerError, "A proxy or the server's upstream failed ({status}): {text}.", "Try again.", True)
# A status; the error, its message, its hint and whether the same request may succeed later.
_BY_STATUS: Mapping[int, tuple[type[OllamaError], str, str, bool]] = {
    408: _UPSTREAM,
    429: (RateLimitError, "Too many requests: {text}.", "Wait, then try again.", True),
    501: (CapabilityError, "The server cannot do this: {text}.", "Choose another model.", False),
    502: _UPSTREAM,
    503: (
        ServerBusyError,
        "The server is busy: {text}.",
        "Try again; OLLAMA_MAX_QUEUE and OLLAMA_NUM_PARALLEL on the server raise the limit.",
        True,
    ),
    504: _UPSTREAM,
}


def server_message(body: bytes) -> tuple[str, Mapping[str, Any] | None]:
    """The text of an error body, out of JSON, JSON within the error text or plain text; and the values
    beside it, None of a body that is not JSON."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return printable(body.decode("utf-8", "replace")), None
    details: dict[str, Any] = {}
    for _depth in range(6):  # bounded: a hostile server may nest for ever
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
        import email.utils  # hardly a server sends a date

        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now_s
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), 120.0) if seconds == seconds else None


def error_from_response(
    status: int, headers: Mapping[str, str], body: bytes, *, url: str, model: str | None, now_s: float
) -> OllamaError:
    """The error for a response that is no success.

    headers: lower-case or case-insensitive. body: at most as much as one wants to read of it.
    """
    text, details = server_message(body)
    error = _by_text(text, details or {}, model)
    error = error or _by_status(status, headers, text, details, url)
    error.status, error.url, error.model = status, url, model
    error.retry_after_s = retry_after(headers.get("retry-after"), now_s)
    return error


def error_in_stream(line: bytes, *, model: str | None) -> OllamaError:
    """The error for an `{"error": …}` line inside a 200 answer; never retryable once a chunk was given."""
    text, details = server_message(line)
    error = _by_text(text, details or {}, model) or ServerError(
        f"The server stopped answering: {text or 'it gave no reason'}.",
        hint="See the server's log; what had arrived is in the error's `partial`.",
    )
    error.status, error.model = 200, model
    return error


def _advice() -> ModuleType:
    """Imported when something went wrong."""
    from .. import advice

    return advice


def _by_text(text: str, details: Mapping[str, Any], model: str | None) -> OllamaError | None:
    if _OVERFLOW.search(text) or details.get("type") == "exceed_context_size_error":
        return _overflow(text, details)
    if found := _CANNOT.search(text):
        word = found[1] or "vision"
        capability = "embedding" if "embedding" in word else _CAPABILITIES.get(word, word)
        # The server advises an option of llama.cpp's own server there, which Ollama does not have.
        said = "it makes no embeddings" if capability == "embedding" else text
        hint = _advice().capability_advice(model or "MODEL", capability)
        return CapabilityError(f"The model cannot do this: {said}", hint=hint)
    for pattern, kind, sentence, hint, again in _BY_TEXT:
        if re.search(pattern, text):
            hint = _advice().memory_advice(model) if hint is _MEMORY else _(hint).format(model=model)
            return kind(f"{sentence}: {text}", hint=hint, **again)
    return None


def _overflow(text: str, details: Mapping[str, Any]) -> ContextOverflowError:
    prompt_tokens, context = details.get("n_prompt_tokens"), details.get("n_ctx")
    if found := _OVERFLOW_COUNTS.search(text):
        prompt_tokens, context = int(found[1]), int(found[2])
    prompt_tokens = prompt_tokens if type(prompt_tokens) is int else None
    # A prompt of exactly the context's size is already cut, so one token less is what fits.
    limit = context - 1 if type(context) is int else None
    numbers = f": {prompt_tokens} tokens, at most {limit} fit" if prompt_tokens and limit else ""
    return ContextOverflowError(
        f"The prompt does not fit into the context{numbers}. The server said: {text}",
        prompt_tokens=prompt_tokens,
        limit=limit,
        hint=_advice().context_advice(),
    )


def _by_status(
    status: int, headers: Mapping[str, str], said: str, details: Mapping[str, Any] | None, url: str
) -> OllamaError:
    text = said or "it gave no reason"
    if 300 <= status < 400:
        return ProtocolError(
            f"The server redirects to {printable(headers.get('location', ''))!r}.",
            hint="Set base_url to where it points, or follow_redirects=True for the same origin.",
        )
    if status == 401:
        signin_url = (details or {}).get("signin_url")
        place = signin_url if isinstance(signin_url, str) else None
        hint = _advice().auth_advice(url, signin_url=place)
        return AuthenticationError(f"The server wants credentials: {text}.", signin_url=place, hint=hint)
    if status == 403:
        text = said or "the body is empty, as when Ollama rejects the Host or Origin header"
        hint = _advice().permission_advice(has_body=bool(said))
        return PermissionDeniedError(f"The server refuses: {text}.", hint=hint)
    if status in (404, 405):
        return ProtocolError(f"Nothing answers at {url}: {text}.", hint=_advice().missing_route_advice())
    if status in _BY_STATUS:
        kind, message, hint, again = _BY_STATUS[status]
        return kind(message.format(status=status, text=text), hint=hint, retryable=again)
    if status >= 500:
        return ServerError(f"The server failed ({status}): {text}.", hint="See the server's log.")
    if details is None:
        return ProtocolError(
            f"The answer ({status}) is not Ollama's: {text}.",
            hint="A proxy or another program may be answering at this address.",
        )
    return InvalidRequestError(
        f"The server refused the request ({status}): {text}.", hint="Change what it names, then try again."
    )
