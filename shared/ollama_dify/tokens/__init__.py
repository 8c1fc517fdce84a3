"""Token counts by the model's own tokenizer."""

from .tokenizer import (
    ModelTokenizer,
    TokenCount,
    TokenEstimator,
    TokenizerLike,
    UnsupportedTokenizerError,
    tokenizer_from_show,
    tokenizer_part_of_show,
)

__all__ = [
    "ModelTokenizer",
    "TokenCount",
    "TokenEstimator",
    "TokenizerLike",
    "UnsupportedTokenizerError",
    "tokenizer_from_show",
    "tokenizer_part_of_show",
]
