"""The counter of one model: exact for texts, an upper bound for conversations; no network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ConfigurationError, UnsupportedContentError
from ..media.image import Audio, Image
from ..wire.messages import Message, TextPart, Tool
from .image_cost import image_tokens
from .probed import Template, estimate
from .probes import PROBES
from .tokenizer import ModelTokenizer, TokenCount, TokenEstimator, tokenizer_from_show

__all__ = ["TokenCounter", "count_rendered"]

_IMAGE_SLACK = 4
"""Extra tokens that a text may have if an image splits it."""
_IMAGE_TAG = re.compile(r"\[img-(\d+)\]")


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """Counts for one model and one value of `think`.

    probed: the templates without and with tools, None for one that the server does not render; None if the
    server was not asked.
    """

    tokenizer: ModelTokenizer | TokenEstimator
    show: Mapping[str, Any]
    probed: tuple[Template | None, Template | None] | None = None

    @classmethod
    def from_show(cls, show: Mapping[str, Any]) -> TokenCounter:
        """Build from a verbose `/api/show` answer, which is not trusted."""
        return cls(tokenizer_from_show(show), show)

    def with_renderings(self, renderings: Sequence[str | None]) -> TokenCounter:
        """The same counter with the server's renderings of the probes, in the order of the probes."""
        shown = [(probe, text) for probe, text in zip(PROBES, renderings, strict=False) if text is not None]
        plain = [pair for pair in shown if not pair[0].tools]
        with_tools = [pair for pair in shown if pair[0].tools] or plain
        without, within = (
            Template(pairs, self.tokenizer) if pairs else None for pairs in (plain, with_tools)
        )
        return replace(self, probed=(without, within))

    def text(self, text: str) -> TokenCount:
        """The tokens that the server counts for this text as a raw prompt."""
        return TokenCount(self.tokenizer.count(text), self.tokenizer.exact)

    def embedding(self, text: str) -> TokenCount:
        """The tokens that the server counts for this text as an embedding input."""
        return TokenCount(self.tokenizer.count_embedding(text), self.tokenizer.exact)

    def token_ids(self, text: str) -> list[int]:
        """The token ids that `text` counts. Raises ConfigurationError without a vocabulary."""
        if isinstance(self.tokenizer, TokenEstimator):
            raise ConfigurationError(
                "There are no token ids: no vocabulary of this model is known.\n"
                "On an event loop call `await model.awarmup()` once before; else the server shows none."
            )
        return self.tokenizer.encode(text)

    def bound(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> TokenCount:
        """An upper bound of the tokens of the conversation's prompt, from the probes; never exact.

        Without probes it is an estimate: the bytes, plus a constant per message.
        """
        template = None if self.probed is None else self.probed[bool(tools)]
        if template is None or not messages:
            tokens = estimate(messages, tools)
        else:
            tokens = template.bound(messages, tools)
        images = sum(cost + _IMAGE_SLACK for cost in self.image_costs(messages))
        return TokenCount(tokens + images, exact=False)

    def rendered(self, messages: Sequence[Message], prompt: str) -> TokenCount:
        """The tokens of the prompt that the server rendered from these messages."""
        return count_rendered(self.tokenizer, prompt, self.image_costs(messages))

    def image_costs(self, messages: Sequence[Message]) -> list[int]:
        """Maximum tokens of each image; an image that is not fetched yet may have any size.

        Raises UnsupportedContentError for audio.
        """
        images = [part for message in messages for part in message.content if not isinstance(part, TextPart)]
        if any(isinstance(part, Audio) for part in images):
            raise UnsupportedContentError(
                "The tokens of audio cannot be counted: no server tells what a sound costs.",
                hint="Count the messages without it; an answer's prompt_eval_count has the whole.",
            )
        return [
            image_tokens(self.show, (image.width, image.height) if isinstance(image, Image) else None)
            for image in images
        ]


def count_rendered(
    tokenizer: ModelTokenizer | TokenEstimator, rendered: str, image_costs: Sequence[int] = ()
) -> TokenCount:
    """Tokens of the prompt; exact if it has no image.

    The server writes `[img-N]` for each image and tokenises the texts between them separately. An empty
    prompt counts the tokens that the server puts around every prompt.
    """
    texts, images = [""], 0
    at = 0
    for tag in _IMAGE_TAG.finditer(rendered):
        number = int(tag.group(1))
        if number < len(image_costs):
            texts[-1] += rendered[at : tag.start()]
            texts.append("")
            images += image_costs[number]
            at = tag.end()
    texts[-1] += rendered[at:]
    if len(texts) == 1 and rendered:
        return TokenCount(tokenizer.count(rendered), tokenizer.exact)
    around = max(0, tokenizer.count_embedding("a") - tokenizer.count_text("a"))
    exact = tokenizer.exact and len(texts) == 1
    return TokenCount(around + sum(map(tokenizer.count_text, texts)) + images, exact)
