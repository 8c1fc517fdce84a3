"""Whether a document answers a query, as a reranker model says it: one token, yes or no."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Mapping
from typing import Any

from ..faults import Reply
from . import reading

_LABELLED = re.compile(
    r"<?\b(?:Query|Question)>?\s*:\s*(?P<query>.+?)\s*<?\b(?:Document|Passage|Text)>?\s*:\s*(?P<document>.*?)\s*"
    r"(?:<\|im_end\|>|\n\s*Answer\b|\Z)",
    re.DOTALL | re.IGNORECASE,
)
# How a real model's certainty is spread over the spellings of one word.
_SPELLINGS = ((str.lower, 0.8), (str.capitalize, 0.13), (" {}".format, 0.05), (str.upper, 0.02))


def judged(body: Mapping[str, Any]) -> Reply | None:
    """The answer to a prompt with a query and a document that asks for one token and its logprobs."""
    options = body.get("options") or {}
    if not (body.get("logprobs") and options.get("num_predict") == 1):
        return None
    found = _LABELLED.search(str(body.get("prompt") or ""))
    if found is None:
        return None
    asked = reading.key_words(found["query"])
    share = len(asked & reading.key_words(found["document"])) / max(1, len(asked))
    likely = {"yes": 0.02 + 0.96 * share, "no": 0.98 - 0.96 * share}
    spelt = {
        spell(word): math.log(0.999 * chance * part)
        for word, chance in likely.items()
        for spell, part in _SPELLINGS
    }
    others = {letter: -12.0 - rank for rank, letter in enumerate(string.ascii_lowercase[:12])}
    return Reply(pieces=["yes" if share >= 0.5 else "no"], logprobs=[{**spelt, **others}])
