"""Reranking by a model that says yes or no for each document: published prompts, and reading the answer."""

from __future__ import annotations

import logging
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import CapabilityError, ConfigurationError, ContextOverflowError
from ..settings import ChatSettings, ModelSettings, RerankSettings
from ..wire.messages import system, user
from ..wire.requests import Prompt, encode, rerank_request
from ..wire.responses import RerankResult, Usage, objects, wrong
from ..wire.streaming import ChatDecoder
from .prefixes import name_to_search
from .session import Session, settings_of
from .trim import check_uncut, checked_texts, split_text

logger = logging.getLogger("ollama_dify")

# Characters per token, to guess a length when a document is shortened.
_CHARS_PER_TOKEN = 4


async def rerank(session: Session, query: str, documents: Sequence[str]) -> RerankResult:
    """How relevant each document is to the query.

    Every document is sent whole. Only those that the server refuses as too long are counted, and cut or
    split as `overflow` says.
    """
    settings = settings_of(session.settings, RerankSettings)
    if not isinstance(query, str) or not query.strip():
        raise ConfigurationError("rerank() needs a query that is a text and not empty.")
    texts = checked_texts("rerank", "document", documents)
    for index, text in enumerate(texts):
        encode({"query": query, f"document {index}": text})
    known = format_of(settings.model)
    ask = partial(known.ask, settings, query)
    ask("")  # raises for an instruction that the prompt cannot hold
    scores: list[list[float]] = [[] for _ in texts]
    usages: list[Usage] = []
    last = partial(check_uncut, context_size=settings.context_size)
    decoder = partial(ChatDecoder, generated=True, model=settings.model, last=last)

    async def judge(index: int, text: str) -> ContextOverflowError | None:
        """Add the probability of yes to `scores`; nothing where the model says neither yes nor no."""
        try:
            result = await session.complete(rerank_request(settings, ask(text)), decoder)
        except ContextOverflowError as error:
            if settings.overflow == "error":
                _name(error, index, settings)
                raise
            return error.with_traceback(None)
        if not result.logprobs and (result.text or result.thinking):
            raise CapabilityError(
                f"The server answered for {settings.model!r} without log probabilities, which reranking "
                "reads.",
                model=settings.model,
                hint="They need Ollama 0.12.11 or newer, and a model that runs on the server itself: "
                "update it.",
            )
        usages.append(result.usage)
        share = yes_share(result.logprobs, known.yes, known.no)
        scores[index] += [] if share is None else [share]
        return None

    pieces = list(enumerate(texts))
    while pieces:
        jobs = [partial(judge, index, text) for index, text in pieces]
        refused = await session.network.gather(jobs, settings.max_concurrency)
        over = [(index, text, error) for (index, text), error in zip(pieces, refused, strict=True) if error]
        pieces = await _smaller(session, settings, ask, over) if over else []
    return _ranked(settings, scores, usages)


async def _smaller(
    session: Session,
    settings: RerankSettings,
    ask: Callable[[str], Prompt],
    over: Sequence[tuple[int, str, ContextOverflowError]],
) -> list[tuple[int, str]]:
    """Shorter texts in place of those that do not fit. Raises if the prompt alone is too long."""
    from .count import load_counter  # few documents are too long, and this import is large

    asked = ChatSettings(
        **{**settings.explicit(fields=ModelSettings), "base_url": settings.address.url, "think": False}
    )
    counter = await load_counter(session, asked, probed=not ask("").raw)

    def count(text: str) -> int:
        prompt = ask(text)
        if prompt.raw:
            return counter.text(prompt.text).tokens
        return counter.bound([system(prompt.system or ""), user(prompt.text)]).tokens

    smaller: list[tuple[int, str]] = []
    for index, text, error in over:
        known = [size for size in (settings.context_size, error.limit) if size is not None]
        size = 0
        if known:
            # A prompt of exactly the context's size leaves no room for the answer's one token.
            size = await session.network.compute(partial(_fitting, count, text, min(known) - 1))
        if not 0 < size < len(text):
            _name(error, index, settings)
            raise error
        if settings.overflow == "truncate":
            smaller.append((index, text[:size]))
        else:
            smaller += [(index, piece) for piece in split_text(text, size) if not piece.isspace()]
    return smaller


def _fitting(count: Callable[[str], int], text: str, limit: int) -> int:
    """How many characters of the text's beginning fit; 0 where none do."""
    fits, high = 0, min(len(text), limit * _CHARS_PER_TOKEN)
    while high > fits and count(text[:high]) <= limit:
        fits, high = high, min(len(text), 2 * high)
    sizes = range(fits + 1, high)
    return fits + bisect_right(sizes, limit, key=lambda size: count(text[:size]))


def _name(error: ContextOverflowError, index: int, settings: RerankSettings) -> None:
    """Put the position of its document into the error, and the advice for a document."""
    told = "" if error.prompt_tokens is None else f": {error.prompt_tokens} tokens, at most {error.limit} fit"
    error.message = f"Document {index} does not fit into the context with the query{told}."
    error.hint = "Raise context_size, or shorten the query."
    if settings.overflow == "error":
        error.hint = 'Raise context_size, shorten the document, or set overflow="truncate" or "split".'


def _ranked(
    settings: RerankSettings, scores: Sequence[Sequence[float]], usages: Sequence[Usage]
) -> RerankResult:
    failed = tuple(index for index, found in enumerate(scores) if not found)
    if failed:
        logger.warning(
            "The model %r said neither yes nor no of %d of %d documents; they come last, with the score 0. "
            "A model that thinks first cannot rerank.",
            settings.model,
            len(failed),
            len(scores),
        )
    best = [max(found, default=0.0) for found in scores]
    order = sorted(range(len(best)), key=lambda index: (not scores[index], -best[index]))
    usage = Usage(sum(one.input_tokens for one in usages), sum(one.output_tokens for one in usages))
    return RerankResult(tuple(best), tuple(order[: settings.top_n]), usage, failed)


@dataclass(frozen=True, slots=True)
class RerankFormat:
    """The prompt format of one family of models.

    pattern: found in the model's name (`name_to_search`). prompt: with `{instruction}`, `{query}` and
    `{document}`. system: None means a raw prompt; else the server puts the model's own template around both.
    instruction: its template; "" for a prompt without one. default: the instruction of the model card.
    yes, no: the answers.
    """

    pattern: str
    prompt: str
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


# Sources, on huggingface.co: Qwen/Qwen3-Reranker-0.6B, mixedbread-ai/mxbai-rerank-large-v2 (its code is
# mixedbread-ai/mxbai-rerank) and BAAI/bge-reranker-v2-gemma.
_FORMATS = (
    RerankFormat(
        r"qwen3-reranker",
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
        'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
        "{instruction}<Query>: {query}\n<Document>: {document}<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        instruction="<Instruct>: {}\n",
        default="Given a web search query, retrieve relevant passages that answer the query",
    ),
    RerankFormat(
        r"mxbai-rerank-(?:base|large)-v2",
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n{instruction}query: {query}\ndocument: {document}\nYou are a search relevance "
        "expert who evaluates how well documents match search queries. For each query-document pair, "
        "carefully analyze the semantic relationship between them, then provide your binary relevance "
        "judgment (0 for not relevant, 1 for relevant).\nRelevance:<|im_end|>\n<|im_start|>assistant\n",
        instruction="instruction: {}\n",
        yes="1",
        no="0",
    ),
    RerankFormat(
        r"bge-reranker-v2-gemma",
        "A: {query}\nB: {document}\nGiven a query A and a passage B, determine whether the passage contains "
        "an answer to the query by providing a prediction of either 'Yes' or 'No'.",
    ),
)

# A raw prompt would lack the special tokens of another family; the server's own template has them.
_PLAIN = RerankFormat(
    "",
    "{instruction}Query: {query}\n\nDocument: {document}\n\n"
    "Answer yes or no: is the document relevant to the query?",
    system="You judge whether a document is relevant to a query. You answer with one word: yes or no.",
    instruction="Instruction: {}\n\n",
)


def format_of(model: str) -> RerankFormat:
    """The model's published format, else a plain question for any chat model."""
    name = name_to_search(model)
    return next((known for known in _FORMATS if re.search(known.pattern, name)), _PLAIN)


def yes_share(logprobs: Sequence[Mapping[str, Any]], yes: str = "yes", no: str = "no") -> float | None:
    """The probability of yes against no as the first token, all spellings added up; None for neither.

    If only one of the two words is among the likeliest tokens, the other counts as impossible.
    """
    if not logprobs:
        return None
    found: dict[str, list[float]] = {yes: [], no: []}
    for entry in objects(logprobs[0].get("top_logprobs"), "`top_logprobs`") or logprobs[:1]:
        token, value = entry.get("token"), entry.get("logprob")
        if not isinstance(token, str) or isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong("a token with its `logprob`", entry)
        word = token.replace("▁", " ").strip().lower()
        if word in found:
            found[word].append(value)
    if not (found[yes] or found[no]):
        return None
    # Shifted by the largest, since both may be too unlikely for a float.
    most = max([*found[yes], *found[no]])
    said, denied = (math.fsum(math.exp(value - most) for value in found[word]) for word in (yes, no))
    return said / (said + denied)
