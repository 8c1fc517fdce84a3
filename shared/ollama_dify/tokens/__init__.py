"""Token counts by the model's own tokenizer."""

from .tokenizer import TokenCount, tokenizer_from_show

__all__ = ["TokenCount", "tokenizer_from_show"]
