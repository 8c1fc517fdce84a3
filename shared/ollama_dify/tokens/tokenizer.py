"""Token counts by the model's own tokenizer, built from the vocabulary that the server sends.

`/api/show` with `verbose: true` has tokens, merges, scores and flags; the server uses them with llama.cpp's
tokenizer. The `tokenizers` library is imported when a byte-pair or unigram model is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .vocabulary.byte_level import byte_pair_encoder
from .vocabulary.sentencepiece import sentencepiece_encoder
from .vocabulary.special_tokens import special_token_cutter
from .vocabulary.unigram import unigram_encoder
from .vocabulary.vocabulary import Encode, Vocabulary
from .vocabulary.wordpiece import wordpiece_encoder

__all__ = ["ModelTokenizer", "TokenCount", "TokenEstimator", "tokenizer_from_show", "tokenizer_part_of_show"]

_ENCODERS: dict[str, Callable[[Vocabulary], Encode]] = {
    "gpt2": byte_pair_encoder,
    "gemma4": byte_pair_encoder,
    "llama": sentencepiece_encoder,
    "bert": wordpiece_encoder,
    "t5": unigram_encoder,
}
_TRIAL = "".join(map(chr, range(256))) + "Ԁ東京 \U0001f642 hello"
"""A test text: a vocabulary that cannot tokenise it is not used."""


@dataclass(frozen=True, slots=True)
class TokenCount:
    """A number of tokens; not `exact` means an upper bound."""

    tokens: int
    exact: bool


class ModelTokenizer:
    """The tokenizer of one model. Safe to share between threads; texts are split at special tokens first."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._before, self._after = vocabulary.around
        self._strips_bos = bool(vocabulary.add_bos_token)
        self._cut = special_token_cutter(vocabulary)
        self._encode = _ENCODERS[vocabulary.model](vocabulary)
        self.exact = vocabulary.exact

    def __reduce__(self) -> tuple[type[ModelTokenizer], tuple[Vocabulary]]:
        return ModelTokenizer, (self._vocabulary,)

    @classmethod
    def from_show(cls, show: Mapping[str, Any]) -> ModelTokenizer:
        """Build from a verbose `/api/show` answer. An unusable vocabulary raises any exception."""
        return cls(Vocabulary.from_show(show))

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids; with `special`, including those that the server puts before and after a prompt.

        Special tokens written in the text are always recognised, as on the server.
        """
        ids = list(self._before) if special else []
        for part in self._cut(_valid(text)):
            ids.extend((part,) if isinstance(part, int) else self._encode(part))
        return ids + self._after if special else ids

    def count(self, text: str) -> int:
        """The `prompt_eval_count` of this prompt, sent raw; 0 for an empty prompt."""
        if not text:
            return 0
        # The server removes it if the model itself declares `add_bos_token`.
        return len(self.encode(text.removeprefix("<bos>") if self._strips_bos else text))

    def count_embedding(self, text: str) -> int:
        """The `prompt_eval_count` of one embedding input; 0 for an empty one."""
        return len(self.encode(text)) if text else 0

    def count_text(self, text: str) -> int:
        """Tokens of the text only, without those around a prompt."""
        return len(self.encode(text, special=False))


class TokenEstimator:
    """An upper bound for models without a usable vocabulary: no tokenizer makes more tokens than bytes."""

    exact = False
    AROUND = 4
    """Tokens allowed for what the server adds around a prompt, and for a space written as three bytes."""

    def count(self, text: str) -> int:
        """An upper bound of the prompt's tokens."""
        return len(_valid(text).encode()) + self.AROUND if text else 0

    count_embedding = count

    def count_text(self, text: str) -> int:
        """An upper bound of the text's own tokens."""
        return len(_valid(text).encode())


def tokenizer_from_show(show: Mapping[str, Any]) -> ModelTokenizer | TokenEstimator:
    """The model's own tokenizer, or the estimator if `/api/show` has no usable vocabulary."""
    try:
        vocabulary = Vocabulary.from_show(show)
        if not vocabulary.spells_all():
            return TokenEstimator()
        tokenizer = ModelTokenizer(vocabulary)
        tokenizer.count(_TRIAL)
    except BaseException as error:
        # A server can send anything. The tokenizers library raises a bare Exception for what it refuses, and
        # a panic, which is not an Exception, for a vocabulary it did not expect.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return TokenEstimator()
    return tokenizer


def tokenizer_part_of_show(show: Mapping[str, Any]) -> dict[str, Any]:
    """The small part of a show answer that counting needs, to be stored in a cache."""
    kept = ("model_info", "projector_info")
    return {key: show[key] for key in kept if key in show}


def _valid(text: str) -> str:
    """The text as the server reads it: surrogate pairs joined, each lone surrogate U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
