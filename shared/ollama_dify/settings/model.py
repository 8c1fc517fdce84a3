"""The form, in one place: a model on a server, and what chat, embedding and rerank models add.

`ConnectionSettings` ← `ModelSettings` ← `ChatSettings`, `EmbeddingSettings`, `RerankSettings`. The
framework classes inherit these fields, so a name, its default, its validation and its documentation exist
here only. An adapter puts its framework's class first in the bases (otherwise `extra="forbid"` is lost).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator
from typing_extensions import Self

from .answer_format import answer_format
from .connection import ConnectionSettings
from .dify_form import ModelType, form_from_values, values_from_form

__all__ = ["ChatSettings", "EmbeddingSettings", "ModelSettings", "RerankSettings"]

# The server reloads the model when one of these changes, so they belong to the object, not to a call.
LOAD_OPTIONS = ("num_gpu", "num_thread", "num_batch", "main_gpu", "use_mmap")

SAMPLING_OPTIONS = (
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n", "tfs_z"),
    *("presence_penalty", "frequency_penalty", "seed", "stop", "num_keep"),
    *("mirostat", "mirostat_eta", "mirostat_tau"),
)

# Ollama's options that have a field of their own → the name of the field.
_RENAMED_OPTIONS = {"num_ctx": "context_size", "num_predict": "num_predict"}

_OPTION_NAMES = (*LOAD_OPTIONS, *SAMPLING_OPTIONS, *_RENAMED_OPTIONS)

_GO_DURATION = re.compile(r"[+-]?(?:0|(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)")


def _one_line(value: str) -> str:
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError("holds a control character (a line break, for example)")
    if not value.strip():
        raise ValueError("is empty")
    return value.strip()


def _duration(value: float | str) -> float | str:
    if isinstance(value, str) and not _GO_DURATION.fullmatch(value):
        raise ValueError(
            f"{value!r} is no duration: give seconds as a number (300) or a string with a unit "
            '("300s", "10m", "24h"); -1 keeps the model loaded, 0 unloads it'
        )
    return value


Name = Annotated[str, AfterValidator(_one_line)]
KeepAlive = Annotated[int | float | str, AfterValidator(_duration)]
if TYPE_CHECKING:
    StopWords = list[str] | str
else:
    StopWords = Annotated[
        list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
    ]


class ModelSettings(ConnectionSettings):
    """Which model, and how the server loads it."""

    model: Name = Field(description="Name as `ollama list` shows it, e.g. `llava`.")
    context_size: int | None = Field(
        default=4096, gt=0, description="Tokens of context, sent as `num_ctx`. None: the server decides."
    )
    keep_alive: KeepAlive | None = Field(
        default=None, description='How long the model stays loaded: seconds, or a duration such as "10m".'
    )
    pull: Literal["missing"] | None = Field(
        default=None, description='"missing": a call whose model the server lacks has the server download it.'
    )
    num_gpu: int | None = Field(default=None, description="Layers on the GPU.")
    num_thread: int | None = Field(default=None, ge=0, description="CPU threads.")
    num_batch: int | None = Field(default=None, gt=0, description="Prompt tokens per batch.")
    main_gpu: int | None = Field(default=None, ge=0, description="Index of the first GPU.")
    use_mmap: bool | None = Field(default=None, description="Map the model's file into memory.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Other options by Ollama's own names, for which there is no field."
    )

    # Fields that are sent inside the request's `options`.
    option_fields: ClassVar[tuple[str, ...]] = LOAD_OPTIONS
    # Dify's name for models of this type.
    _model_type: ClassVar[ModelType]

    @classmethod
    def from_dify(
        cls,
        model: str,
        credentials: Mapping[str, Any],
        completion_params: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> Self:
        """Settings from Dify's credentials form, whose values are strings; missing keys take its defaults.

        completion_params: an app's parameters for this model. Raises ConfigurationError for a name that is
        neither a field of the form nor a parameter.
        """
        return cls(**{**values_from_form(model, credentials, cls._model_type, completion_params), **changes})

    def to_dify(self, *, secrets: bool = True) -> dict[str, str]:
        """The credentials form as Dify stores it; unset values are left out.

        It has the key, and the password of an address, as plain text. secrets: False leaves both out. Values
        without a field on the form (`headers`, a key in the environment) are never included.
        """
        url = self.address.url_with_password if secrets else self.address.url
        key = self.secret("api_key") if secrets else None
        return form_from_values({**vars(self), "base_url": url, "api_key": key}, self._model_type)

    @field_validator("options")
    @classmethod
    def _check_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name in options:
            field = _RENAMED_OPTIONS.get(name, name)
            if field in cls.model_fields:
                raise ValueError(f"{name!r} has a field of its own: set {field}=")
            # Checked here, because the server only logs an unknown option.
            close = difflib.get_close_matches(name, _OPTION_NAMES, n=1, cutoff=0.85)
            if close and name not in _OPTION_NAMES:
                raise ValueError(f"Ollama knows no option {name!r}; did you mean {close[0]!r}?")
        return dict(options)

    def for_embedding(self, model: str, **values: Any) -> EmbeddingSettings:
        """Embedding settings for the same server, with the same key, headers and timeouts.

        For another server give its credentials too: `for_embedding(model, base_url=…, api_key=…)`.
        """
        return EmbeddingSettings(**{**self.explicit(fields=ConnectionSettings), "model": model, **values})

    def for_rerank(self, model: str, **values: Any) -> RerankSettings:
        """Rerank settings for the same server, like `for_embedding`."""
        return RerankSettings(**{**self.explicit(fields=ConnectionSettings), "model": model, **values})


class ChatSettings(ModelSettings):
    """The form for a model of type LLM, and Ollama's own parameters.

    Unset values are not sent. Ollama's parameters can also be given per call, except those that make the
    server load the model again.
    """

    mode: Literal["chat", "completion"] = Field(
        default="chat", description="`chat` uses /api/chat, `completion` /api/generate."
    )
    max_tokens: int | None = Field(
        default=None, gt=0, description="Upper bound of an answer's tokens. Unset: the context size."
    )
    vision_support: bool | None = Field(
        default=None, description="Unset: the server is asked when an image comes up."
    )
    function_call_support: bool | None = Field(
        default=None, description="Unset: the server is asked when a tool comes up."
    )
    context_overflow: Literal["error", "trim", "truncate"] = Field(
        default="error",
        description="A prompt that does not fit: an error, drop the oldest turns, or let the server cut it.",
    )
    on_length: Literal["return", "warn", "error"] = Field(
        default="warn",
        description="An answer cut at a limit: given as it is, with one log warning per object, or an error.",
    )
    num_predict: int | None = Field(
        default=None, ge=-2, description="Fewer tokens than the upper bound; 0, -1 and -2 mean the bound."
    )
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    min_p: float | None = Field(default=None, ge=0, le=1)
    typical_p: float | None = Field(default=None, ge=0, le=1)
    repeat_penalty: float | None = Field(default=None)
    repeat_last_n: int | None = Field(default=None, ge=-1)
    presence_penalty: float | None = Field(default=None)
    frequency_penalty: float | None = Field(default=None)
    seed: int | None = Field(default=None)
    stop: StopWords | None = Field(default=None)
    num_keep: int | None = Field(default=None, ge=-1)
    mirostat: Literal[0, 1, 2] | None = Field(default=None)
    mirostat_eta: float | None = Field(default=None)
    mirostat_tau: float | None = Field(default=None)
    tfs_z: float | None = Field(default=None)
    think: bool | Literal["low", "medium", "high", "max"] | None = Field(
        default=None, description="Reasoning: on, off, or a level. Unset: on where the model can."
    )
    format: Annotated[Literal["json"] | dict[str, Any] | None, BeforeValidator(answer_format)] = Field(
        default=None, description='"json", or a JSON schema that the answer must satisfy.'
    )
    logprobs: bool | None = Field(default=None, description="Log probabilities of the answer's tokens.")
    top_logprobs: int | None = Field(default=None, ge=0, le=20, description="Alternatives per token.")
    allow_image_paths: bool | Path = Field(
        default=True,
        description="Images by file path object: allowed, refused, or only below this directory.",
    )
    allow_image_urls: bool = Field(
        default=False, description="Fetch images from public http(s) addresses named in messages."
    )
    convert_images: bool = Field(
        default=False, description="Convert images that the server cannot read; needs the extra `images`."
    )
    max_image_edge: int | None = Field(
        default=None, gt=0, description="Downsize converted images to this many pixels on the longer edge."
    )

    option_fields: ClassVar[tuple[str, ...]] = LOAD_OPTIONS + SAMPLING_OPTIONS
    _model_type: ClassVar[ModelType] = "llm"
    _hint: ClassVar[str | None] = "Make ChatSettings for the chat model: ChatSettings(model=…, base_url=…)."

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        bound = self.token_bound
        if self.num_predict is not None and bound is not None and self.num_predict > bound:
            raise ValueError(
                f"num_predict={self.num_predict} asks for more than the upper bound max_tokens={bound}; "
                "ask for less, or raise max_tokens"
            )
        if self.max_image_edge is not None and not self.convert_images:
            edge = f"max_image_edge={self.max_image_edge}"
            raise ValueError(f"{edge} needs convert_images=True: other images are sent as they are")
        return self

    @property
    def token_bound(self) -> int | None:
        """Maximum number of tokens in an answer: `max_tokens`, else the context size."""
        return self.context_size if self.max_tokens is None else self.max_tokens

    @property
    def answer_limit(self) -> int | None:
        """The value sent as `num_predict`."""
        return self.num_predict if (self.num_predict or 0) > 0 else self.token_bound

    @property
    def answer_reserve(self) -> int | None:
        """Tokens of the context kept free for the answer: min(max_tokens, context_size // 4)."""
        if self.context_size is None:
            return None
        return min(self.token_bound or self.context_size, self.context_size // 4)


class EmbeddingSettings(ModelSettings):
    """The form for a model of type Text Embedding."""

    dimensions: int | None = Field(default=None, gt=0, description="Length of vectors, for models that can.")
    batch_size: int = Field(default=64, ge=1, le=2048, description="Texts per request.")
    max_concurrency: int = Field(default=4, ge=1, le=256, description="Requests of all calls at once.")
    overflow: Literal["error", "truncate", "split"] = Field(
        default="error",
        description="A text over the limit: an error naming it, cut by the server, or split and averaged.",
    )
    prefixes: bool = Field(
        default=False, description="Put the model family's query and document prefixes in front of texts."
    )
    query_prefix: str | None = Field(
        default=None,
        description="Put in front of queries, as it is; unset: the family's with prefixes=True, else none.",
    )
    document_prefix: str | None = Field(default=None, description="The same for documents.")
    on_empty: Literal["embed", "error"] = Field(
        default="embed",
        description="A text without a word: embedded as the server does, or an error naming it.",
    )

    _model_type: ClassVar[ModelType] = "text-embedding"
    _hint: ClassVar[str | None] = 'Use settings.for_embedding("nomic-embed-text"): an embedding model.'


class RerankSettings(ModelSettings):
    """The form for a model of type Rerank: a model that answers yes or no for a query and a document."""

    instruction: str | None = Field(default=None, description="What is relevant; unset: as its card says.")
    top_n: int | None = Field(default=None, gt=0, description="Most documents in the order; unset: all.")
    max_concurrency: int = Field(default=4, ge=1, le=256, description="Requests under way at once.")
    overflow: Literal["error", "truncate", "split"] = Field(
        default="error",
        description="A document over the limit: an error, cut at its end, or split; the best piece counts.",
    )

    _model_type: ClassVar[ModelType] = "rerank"
    _hint: ClassVar[str | None] = 'Use settings.for_rerank("qwen3-reranker"): a model that reranks.'

    @field_validator("options")
    @classmethod
    def _check_fixed(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name in ("temperature", "num_predict"):
            if name in options:
                raise ValueError(f"{name!r} is fixed here: one token is read, the likeliest; leave it out")
        return options
