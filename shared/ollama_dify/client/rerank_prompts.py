"""What models are asked about a query and a document: published prompts, and how yes is read. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError
from ..settings import RerankSettings
from ..wire.requests import Prompt
from ..wire.responses import objects, wrong
from .prefixes import name_to_search

__all__ = ["FORMATS", "PLAIN", "RerankFormat", "format_of", "yes_share"]


@dataclass(frozen=True, slots=True)
class RerankFormat:
    """How one family of models is asked.

    pattern: as in the table of prefixes. prompt: with `{instruction}`, `{query}` and `{document}`.
    source: the model card that says so. system: None means a raw prompt; else the server puts the model's own
    template around system and prompt. instruction: how one is written; "" for a prompt without.
    default: the instruction of the card. yes, no: the answers.
    """

    name: str
    pattern: str
    prompt: str
    source: str
    system: str | None = None
    instruction: str = ""
    default: str | None = None
    yes: str = "yes"
    no: str = "no"

    def ask(self, settings: RerankSettings, query: str, document: str) -> Prompt:
        """The prompt. Raises ConfigurationError for an instruction that has no place in it."""
        chosen = self.default if settings.instruction is None else settings.instruction
        if chosen and not self.instruction:
            raise ConfigurationError(
                f"The prompt that {settings.model!r} was trained with has no place for an instruction.",
                hint="Leave `instruction` unset for this model.",
            )
        told = self.instruction.format(chosen) if chosen else ""
        text = self.prompt.format(instruction=told, query=query, document=document)
        return Prompt(text, system=self.system, raw=self.system is None)


# Sources are model cards on huggingface.co.
FORMATS: tuple[RerankFormat, ...] = (
    RerankFormat(
        "qwen3-reranker",
        r"qwen3-reranker",
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
        'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
        "{instruction}<Query>: {query}\n<Document>: {document}<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "Qwen/Qwen3-Reranker-0.6B",
        instruction="<Instruct>: {}\n",
        default="Given a web search query, retrieve relevant passages that answer the query",
    ),
    RerankFormat(
        "mxbai-rerank-v2",
        r"mxbai-rerank-(?:base|large)-v2",
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n{instruction}query: {query}\ndocument: {document}\nYou are a search relevance "
        "expert who evaluates how well documents match search queries. For each query-document pair, "
        "carefully analyze the semantic relationship between them, then provide your binary relevance "
        "judgment (0 for not relevant, 1 for relevant).\nRelevance:<|im_end|>\n<|im_start|>assistant\n",
        "mixedbread-ai/mxbai-rerank-large-v2, whose code is mixedbread-ai/mxbai-rerank",
        instruction="instruction: {}\n",
        yes="1",
        no="0",
    ),
    RerankFormat(
        "bge-reranker-v2-gemma",
        r"bge-reranker-v2-gemma",
        "A: {query}\nB: {document}\nGiven a query A and a passage B, determine whether the passage contains "
        "an answer to the query by providing a prediction of either 'Yes' or 'No'.",
        "BAAI/bge-reranker-v2-gemma",
    ),
)

# A raw prompt would lack the special tokens of another family; the server's own template has them.
PLAIN = RerankFormat(
    "any chat model",
    "",
    "{instruction}Query: {query}\n\nDocument: {document}\n\n"
    "Answer yes or no: is the document relevant to the query?",
    "",
    system="You judge whether a document is relevant to a query. You answer with one word: yes or no.",
    instruction="Instruction: {}\n\n",
)


def format_of(model: str) -> RerankFormat:
    """The model's published format, else a plain question for any chat model."""
    name = name_to_search(model)
    return next((known for known in FORMATS if re.search(known.pattern, name)), PLAIN)


def yes_share(logprobs: Sequence[Mapping[str, Any]], yes: str = "yes", no: str = "no") -> float | None:
    """The probability of yes against no as the first token, all spellings added up; None for neither.

    Of two, a word that is not among the likeliest tokens counts as impossible.
    """
    if not logprobs:
        return None
    found: dict[str, list[float]] = {yes: [], no: []}
    for entry in objects(logprobs[0].get("top_logprobs"), "`top_logprobs`") or logprobs[:1]:
        token, value = entry.get("token"), entry.get("logprob")
        if not isinstance(token, str):
            raise wrong("a token", token)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong("a `logprob`", value)
        word = token.replace("▁", " ").strip().lower()
        if word in found:
            found[word].append(value)
    if not (found[yes] or found[no]):
        return None
    # Shifted by the largest, since both may be too unlikely for a float.
    most = max([*found[yes], *found[no]])
    said, denied = (math.fsum(math.exp(value - most) for value in found[word]) for word in (yes, no))
    return said / (said + denied)
