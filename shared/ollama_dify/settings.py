"""The form, once: connection, model, and what a chat or an embedding adds.

`ConnectionSettings` ← `ModelSettings` ← `ChatSettings`, `EmbeddingSettings`. The framework classes
inherit these fields, so a name, its default, its validation and its documentation exist here only.
An adapter puts its framework's class first in the bases (otherwise `extra="forbid"` is lost).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from . import form
from .address import Address, is_ollama_cloud, resolve_address
from .errors import ConfigurationError

__all__ = ["ChatSettings", "ConnectionSettings", "EmbeddingSettings", "ModelSettings", "Timeouts"]

_S = TypeVar("_S", bound="ConnectionSettings")

# What other libraries, and Ollama's own options, call our fields.
FOREIGN_NAMES: Mapping[str, str] = {
    "api_base": "base_url",
    "baseURL": "base_url",
    "base_uri": "base_url",
    "host": "base_url",
    "ollama_host": "base_url",
    "url": "base_url",
    "client_kwargs": "headers, timeout, verify or proxy",
    "context_length": "context_size",
    "context_window": "context_size",
    "n_ctx": "context_size",
    "num_ctx": "context_size",
    "embed_batch_size": "batch_size",
    "json_mode": 'format="json"',
    "response_format": "format",
    "max_output_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "model_id": "model",
    "model_name": "model",
    "model_kwargs": "options",
    "additional_kwargs": "options",
    "reasoning": "think",
    "thinking": "think",
    "request_timeout": "timeout",
    "validate_model_on_init": "warmup() after construction",
}

# The server reloads the model when one of these changes, so they belong to the object, not to a call.
LOAD_OPTIONS = ("num_gpu", "num_thread", "num_batch", "main_gpu", "use_mmap")

SAMPLING_OPTIONS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "repeat_last_n",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "num_keep",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "tfs_z",
)

# Options that have a field of their own under another name.
_RENAMED_OPTIONS = {"num_ctx": "context_size", "num_predict": "num_predict"}

_OPTION_NAMES = (*LOAD_OPTIONS, *SAMPLING_OPTIONS, *_RENAMED_OPTIONS)

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# h11 takes no others, and shows the value in its error.
_HEADER_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?")
_OWN_HEADERS = ("accept-encoding", "content-encoding", "content-length", "content-type", "transfer-encoding")
_GO_DURATION = re.compile(r"[+-]?(?:0|(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)")


class Timeouts(BaseModel):
    """Seconds each phase of an exchange may take; None means no limit.

    connect: TCP and TLS. first_byte: from the request to the first byte of a streamed answer, which
    includes the server's queue, loading the model and reading the prompt. idle: between two pieces of a
    streamed answer. pool: waiting for a free connection. total: the whole exchange. An answer that is
    not streamed sends its first byte at its end, so only `total` binds it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    connect: float | None = Field(5.0, gt=0)
    first_byte: float | None = Field(600.0, gt=0)
    idle: float | None = Field(300.0, gt=0)
    pool: float | None = Field(60.0, gt=0)
    total: float | None = Field(None, gt=0)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _configuration_error(type(self), error) from None


def _one_line(value: str) -> str:
    if any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise ValueError("holds a control character (a line break, for example)")
    if not value.strip():
        raise ValueError("is empty")
    return value.strip()


def _sendable_key(key: str, name: str = "") -> str:
    if re.search(r"[^\x21-\x7e]", key):
        raise ValueError(f"{name}holds a space, a line break or a character outside ASCII")
    return key


def _duration(value: float | str) -> float | str:
    if isinstance(value, str) and not _GO_DURATION.fullmatch(value):
        raise ValueError(
            f"{value!r} is no duration: give seconds as a number (300) or a string with a unit "
            '("300s", "10m", "24h"); -1 keeps the model loaded, 0 unloads it'
        )
    return value


Name = Annotated[str, AfterValidator(_one_line)]
KeepAlive = Annotated[int | float | str, AfterValidator(_duration)]
StopWords = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


class ConnectionSettings(BaseModel):
    """Where the server is and how to talk to it.

    Raises ConfigurationError for anything that cannot work; nothing falls back to localhost.
    """

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    base_url: str | None = Field(
        None,
        title="Base URL",
        description="Address of the Ollama server. Unset: `OLLAMA_HOST` as Ollama's own client reads it, "
        "else http://localhost:11434.",
    )
    api_key: SecretStr | None = Field(
        None, title="API Key", description="Sent as a Bearer token.", exclude=True, repr=False
    )
    api_key_from_env: bool = Field(
        False, description="Use `OLLAMA_API_KEY` for this address too, not only for ollama.com."
    )
    headers: dict[str, str] = Field(
        default_factory=dict, description="Sent with every request.", exclude=True, repr=False
    )
    timeout: float | Timeouts | None = Field(
        None, description="Seconds for a whole exchange, or a `Timeouts` to set each phase."
    )
    max_retries: int = Field(2, ge=0, le=100, description="How often a transient failure is tried again.")
    max_connections: int = Field(100, ge=1, description="Connections of one object to its server at once.")
    verify: Any = Field(
        True, description="TLS: True, False (loud), a path to a CA bundle, or an ssl.SSLContext.", repr=False
    )
    proxy: SecretStr | None = Field(None, description="URL of a proxy to use.", exclude=True, repr=False)
    trust_env: bool = Field(
        True, description="Honour HTTP_PROXY and its kin; loopback and private addresses bypass them."
    )
    follow_redirects: bool = Field(False, description="Follow 307 and 308 within the same origin.")
    http_backend: Literal["httpx", "aiohttp"] = Field(
        "httpx", description="Transport of async calls; aiohttp needs the extra `aiohttp`."
    )
    http_client: Any = Field(
        None, description="An httpx.Client to use instead of an own one.", exclude=True, repr=False
    )
    http_async_client: Any = Field(
        None, description="An httpx.AsyncClient to use instead of an own one.", exclude=True, repr=False
    )

    _address: Address = PrivateAttr()
    _resolved_for: tuple[str | None, bool] = PrivateAttr((None, False))
    # Counts changes of the connection, so that clients know when to connect anew.
    _revision: int = PrivateAttr(0)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _configuration_error(type(self), error) from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in type(self).model_fields:
            self._set_other(name, value)
            return
        before, were_set = dict(self.__dict__), set(self.model_fields_set)
        private = dict(self.__pydantic_private__ or {})
        try:
            super().__setattr__(name, value)
        except ValidationError as error:
            # A failed check across fields comes after pydantic stored the value.
            self.__dict__.update(before)
            self.model_fields_set.intersection_update(were_set)
            self.__pydantic_private__ = private
            raise _configuration_error(type(self), error) from None
        if name in ConnectionSettings.model_fields:
            self._revision += 1

    def _set_other(self, name: str, value: Any) -> None:
        try:
            super().__setattr__(name, value)
        except ValueError:
            if hasattr(type(self), name):
                raise
            raise ConfigurationError(
                f"{type(self).__name__}: {unknown_name(name, type(self).model_fields)}"
            ) from None

    def __deepcopy__(self: _S, memo: dict[int, Any] | None = None) -> _S:
        memo = {} if memo is None else memo
        # Shared with the copy: what holds sockets and locks cannot be copied.
        for name in ("verify", "http_client", "http_async_client"):
            value = self.__dict__.get(name)
            if value is not None:
                memo[id(value)] = value
        return super().__deepcopy__(memo)

    @property
    def address(self) -> Address:
        """The server's address and where it came from."""
        return self._address

    @property
    def timeouts(self) -> Timeouts:
        """Each phase's timeout; a plain number is the total."""
        if isinstance(self.timeout, Timeouts):
            return self.timeout
        return Timeouts(total=self.timeout)

    def explicit(self, *, fields: type[ConnectionSettings] | None = None) -> dict[str, Any]:
        """The values that were set, secrets included, as keyword arguments for a settings class.

        fields: only what this class has too.
        """
        known = (fields or type(self)).model_fields
        return {name: getattr(self, name) for name in self.model_fields_set if name in known}

    @classmethod
    def from_settings(cls: type[_S], settings: ConnectionSettings, **changes: Any) -> _S:
        """The same settings in this class, with changes: `ChatOllamaDify.from_settings(settings)`."""
        return cls(**{**settings.explicit(fields=_settings_part(cls)), **changes})

    def for_embedding(self, model: str, **values: Any) -> EmbeddingSettings:
        """Embedding settings for the same server, with the same key, headers and timeouts."""
        return EmbeddingSettings(**{**self.explicit(fields=ConnectionSettings), "model": model, **values})

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ValueError(
                    f"header {name!r} holds a character that HTTP does not allow (a line break, a space at "
                    "an end, anything outside ASCII)"
                )
            if name.lower() in _OWN_HEADERS:
                raise ValueError(f"header {name!r} is set by the client itself; leave it out")
        if len({name.lower() for name in headers}) < len(headers):
            raise ValueError("the same header is given twice, in different case")
        return dict(headers)

    @field_validator("timeout")
    @classmethod
    def _check_timeout(cls, timeout: float | Timeouts | None) -> float | Timeouts | None:
        if isinstance(timeout, (int, float)) and timeout <= 0:
            raise ValueError("is a number of seconds greater than 0; None means no limit")
        return timeout

    @field_validator("api_key")
    @classmethod
    def _check_api_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is None or not key.get_secret_value():
            return None
        return SecretStr(_sendable_key(key.get_secret_value()))

    @model_validator(mode="after")
    def _resolve(self) -> ConnectionSettings:
        """Read the environment, and move credentials out of the address; again only when those change."""
        asked = (self.base_url, self.api_key_from_env)
        known = (self.__pydantic_private__ or {}).get("_address")
        if known is None or asked != self._resolved_for:
            self._take_address(known, resolve_address(self.base_url, os.environ))
        if self.api_key is None and (self.api_key_from_env or is_ollama_cloud(self._address.url)):
            key = os.environ.get("OLLAMA_API_KEY", "").strip()
            self.__dict__["api_key"] = SecretStr(_sendable_key(key, "OLLAMA_API_KEY ")) if key else None
            # Belongs to this address only, so it is none of the values that were set.
            self.model_fields_set.discard("api_key")
        self._resolved_for = (self.base_url, self.api_key_from_env)
        return self

    def _take_address(self, old: Address | None, new: Address) -> None:
        """Use an address; credentials that came with the old one are not sent to the new one."""
        values = self.__dict__
        if self.base_url is not None:
            values["base_url"] = new.url
        headers = dict(self.headers)
        if old is not None and old.url != new.url:
            if "api_key" not in self.model_fields_set:
                values["api_key"] = None
            if old.authorization is not None and headers.get("Authorization") == old.authorization:
                del headers["Authorization"]
        if new.authorization and not any(name.lower() == "authorization" for name in headers):
            headers["Authorization"] = new.authorization
            self.model_fields_set.add("headers")
        if headers != self.headers:
            values["headers"] = headers
        self._address = new


class ModelSettings(ConnectionSettings):
    """Which model, and how the server loads it."""

    model: Name = Field(title="Model Name", description="Name as `ollama list` shows it, e.g. `llava`.")
    context_size: int | None = Field(
        4096,
        gt=0,
        title="Model context size",
        description="Tokens of context; sent as `num_ctx` with every request. None: the server decides.",
    )
    keep_alive: KeepAlive | None = Field(
        None, description='How long the model stays loaded: seconds, or a duration such as "10m".'
    )
    num_gpu: int | None = Field(None, description="Layers on the GPU.")
    num_thread: int | None = Field(None, ge=0, description="CPU threads.")
    num_batch: int | None = Field(None, gt=0, description="Prompt tokens per batch.")
    main_gpu: int | None = Field(None, ge=0, description="Index of the first GPU.")
    use_mmap: bool | None = Field(None, description="Map the model's file into memory.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Other options by Ollama's own names, for which there is no field."
    )

    # Fields that travel inside the request's `options`.
    option_fields: ClassVar[tuple[str, ...]] = LOAD_OPTIONS

    @field_validator("options")
    @classmethod
    def _check_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name in options:
            field = _RENAMED_OPTIONS.get(name, name)
            if field in cls.model_fields:
                raise ValueError(f"{name!r} has a field of its own: set {field}=")
            # The server only logs an option it does not know.
            close = difflib.get_close_matches(name, _OPTION_NAMES, n=1, cutoff=0.85)
            if close and name not in _OPTION_NAMES:
                raise ValueError(f"Ollama knows no option {name!r}; did you mean {close[0]!r}?")
        return dict(options)


class ChatSettings(ModelSettings):
    """The form for a model of type LLM, and Ollama's own parameters.

    What is unset is not sent. Each of Ollama's parameters can also be given per call, except those
    that make the server load the model again.
    """

    mode: Literal["chat", "completion"] = Field(
        "chat", title="Completion mode", description="`chat` uses /api/chat, `completion` /api/generate."
    )
    max_tokens: int | None = Field(
        None,
        gt=0,
        title="Upper bound for max tokens",
        description="Most tokens an answer may have; sent as `num_predict`. Unset: the context size.",
    )
    vision_support: bool | None = Field(
        None, title="Vision support", description="Unset: the server is asked when a picture comes up."
    )
    function_call_support: bool | None = Field(
        None, title="Function call support", description="Unset: the server is asked when a tool comes up."
    )
    context_overflow: Literal["error", "trim", "truncate"] = Field(
        "error",
        description="A prompt that does not fit: an error, drop the oldest turns, or let the server cut it.",
    )
    num_predict: int | None = Field(
        None, ge=-2, description="Fewer tokens than the upper bound; 0, -1 and -2 mean the bound."
    )
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, le=1)
    typical_p: float | None = Field(None, ge=0, le=1)
    repeat_penalty: float | None = None
    repeat_last_n: int | None = Field(None, ge=-1)
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: StopWords | None = None
    num_keep: int | None = Field(None, ge=-1)
    mirostat: Literal[0, 1, 2] | None = None
    mirostat_eta: float | None = None
    mirostat_tau: float | None = None
    tfs_z: float | None = None
    think: bool | Literal["low", "medium", "high", "max"] | None = Field(
        None, description="Reasoning of thinking models: on, off, or a level. Unset: on where the model can."
    )
    format: Literal["json"] | dict[str, Any] | None = Field(
        None, description='"json", or a JSON schema that the answer must satisfy.'
    )
    logprobs: bool | None = Field(None, description="Log probabilities of the answer's tokens.")
    top_logprobs: int | None = Field(None, ge=0, le=20, description="Alternatives per token.")
    allow_image_paths: bool | Path = Field(
        True, description="Pictures by file path object: allowed, refused, or only below this directory."
    )
    allow_image_urls: bool = Field(
        False, description="Fetch pictures from public http(s) addresses named in messages."
    )
    convert_images: bool = Field(
        False, description="Convert pictures that the server cannot read; needs the extra `images`."
    )
    max_image_edge: int | None = Field(
        None, gt=0, description="Downsize converted pictures to this many pixels on the longer edge."
    )

    option_fields: ClassVar[tuple[str, ...]] = LOAD_OPTIONS + SAMPLING_OPTIONS

    @model_validator(mode="after")
    def _check_num_predict(self) -> ChatSettings:
        bound = self.token_bound
        if self.num_predict is not None and bound is not None and self.num_predict > bound:
            raise ValueError(
                f"num_predict={self.num_predict} asks for more than the upper bound max_tokens={bound}; "
                "ask for less, or raise max_tokens"
            )
        return self

    @property
    def token_bound(self) -> int | None:
        """Most tokens an answer may have: `max_tokens`, else the context size."""
        return self.context_size if self.max_tokens is None else self.max_tokens

    @property
    def answer_limit(self) -> int | None:
        """What is sent as `num_predict`."""
        if self.num_predict is not None and self.num_predict > 0:
            return self.num_predict
        return self.token_bound

    @property
    def answer_reserve(self) -> int | None:
        """Tokens of the context kept free for the answer: min(max_tokens, context_size // 4)."""
        if self.context_size is None:
            return None
        return min(self.token_bound or self.context_size, self.context_size // 4)

    @classmethod
    def from_dify(cls, model: str, credentials: Mapping[str, Any], **changes: Any) -> ChatSettings:
        """Settings from Dify's credentials form, whose values are strings; missing keys take its defaults."""
        return cls(**{**form.chat_values_from_form(model, credentials), **changes})

    def to_dify(self) -> dict[str, str]:
        """The credentials form as Dify stores it; what is unset here is left out."""
        return form.chat_form(_form_values(self))


class EmbeddingSettings(ModelSettings):
    """The form for a model of type Text Embedding."""

    dimensions: int | None = Field(None, gt=0, description="Length of the vectors, for models that can.")
    batch_size: int = Field(64, ge=1, le=2048, description="Texts per request.")
    max_concurrency: int = Field(4, ge=1, le=256, description="Requests under way at once.")
    overflow: Literal["error", "truncate", "split"] = Field(
        "error",
        description="A text over the limit: an error naming it, cut by the server, or split and averaged.",
    )
    prefixes: bool = Field(
        False, description="Put the model family's query and document prefixes in front of texts."
    )
    query_prefix: str | None = Field(
        None,
        description="Put in front of queries, as it is; unset: the family's with prefixes=True, else none.",
    )
    document_prefix: str | None = Field(None, description="The same for documents.")
    skip_failed: bool = Field(False, description="None in the place of a text that cannot be embedded.")

    @classmethod
    def from_dify(cls, model: str, credentials: Mapping[str, Any], **changes: Any) -> EmbeddingSettings:
        """Settings from Dify's credentials form for a Text Embedding model."""
        return cls(**{**form.embedding_values_from_form(model, credentials), **changes})

    def to_dify(self) -> dict[str, str]:
        """The credentials form as Dify stores it."""
        return form.embedding_form(_form_values(self))


def _form_values(settings: ModelSettings) -> dict[str, Any]:
    key = settings.api_key
    return {
        **{name: getattr(settings, name) for name in type(settings).model_fields if name not in ("verify",)},
        "base_url": settings.address.url,
        "api_key": None if key is None else key.get_secret_value(),
    }


def _settings_part(cls: type[ConnectionSettings]) -> type[ConnectionSettings]:
    """The settings class an adapter inherits from: the first of its bases that is ours alone."""
    own = (ChatSettings, EmbeddingSettings, ModelSettings, ConnectionSettings)
    return next(base for base in own if issubclass(cls, base))


def _configuration_error(cls: type[BaseModel], error: ValidationError) -> ConfigurationError:
    """Say pydantic's findings in our words, without the values, which may be secret."""
    lines = []
    for found in error.errors(include_input=False, include_url=False):
        place = ".".join(str(step) for step in found["loc"])
        if found["type"] == "extra_forbidden":
            lines.append(unknown_name(place, cls.model_fields))
            continue
        text = found["msg"].removeprefix("Value error, ")
        lines.append(f"{place}: {text}" if place else text)
    what = f"{cls.__name__}: " + "; ".join(dict.fromkeys(lines))
    return ConfigurationError(what)


def unknown_name(name: str, known: Mapping[str, Any]) -> str:
    """Name an argument that does not exist and the closest one that does."""
    if name in FOREIGN_NAMES:
        return f"unknown argument {name!r}: here it is called {FOREIGN_NAMES[name]}"
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(known))}"
    return f"unknown argument {name!r}{hint}"
