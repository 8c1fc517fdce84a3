"""The counter of one model: texts exactly by its vocabulary, conversations as a bound, without network."""

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
"""Tokens that a text may gain where an image cuts it."""
_IMAGE_TAG = re.compile(r"\[img-(\d+)\]")


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """Counts for one model and one value of `think`.

    probed: the templates without and with tools, None for what the server does not render; None where it was
    not asked.
    """

    tokenizer: ModelTokenizer | TokenEstimator
    show: Mapping[str, Any]
    probed: tuple[Template | None, Template | None] | None = None

    @classmethod
    def from_show(cls, show: Mapping[str, Any]) -> TokenCounter:
        """Build from a verbose `/api/show` answer; what it holds may be anything."""
        return cls(tokenizer_from_show(show), show)

    def with_renderings(self, renderings: Sequence[str | None]) -> TokenCounter:
        """The same with what the server rendered of the probes, in their order."""
        shown = [(probe, text) for probe, text in zip(PROBES, renderings, strict=False) if text is not None]
        plain = [pair for pair in shown if not pair[0].tools]
        with_tools = [pair for pair in shown if pair[0].tools] or plain
        without, within = (
            Template(pairs, self.tokenizer) if pairs else None for pairs in (plain, with_tools)
        )
        return replace(self, probed=(without, within))

    def text(self, text: str) -> TokenCount:
        """What the server counts for this text as a raw prompt."""
        return TokenCount(self.tokenizer.count(text), self.tokenizer.exact)

    def embedding(self, text: str) -> TokenCount:
        """What the server counts for this text as an embedding input."""
        return TokenCount(self.tokenizer.count_embedding(text), self.tokenizer.exact)

    def token_ids(self, text: str) -> list[int]:
        """The ids that `text` counts. Raises ConfigurationError where there is no vocabulary."""
        if isinstance(self.tokenizer, TokenEstimator):
            raise ConfigurationError(
                "There are no token ids: no vocabulary of this model is known.\n"
                "On an event loop call `await model.awarmup()` once before; else the server shows none."
            )
        return self.tokenizer.encode(text)

    def bound(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> TokenCount:
        """At least the tokens of the conversation's prompt, by the probes; never exact.

        Without probes it is an estimate: bytes, and a constant for each message.
        """
        template = None if self.probed is None else self.probed[bool(tools)]
        if template is None or not messages:
            tokens = estimate(messages, tools)
        else:
            tokens = template.bound(messages, tools)
        images = sum(cost + _IMAGE_SLACK for cost in self.image_costs(messages))
        return TokenCount(tokens + images, exact=False)

    def rendered(self, messages: Sequence[Message], prompt: str) -> TokenCount:
        """The tokens of a prompt that the server made of these messages."""
        return count_rendered(self.tokenizer, prompt, self.image_costs(messages))

    def image_costs(self, messages: Sequence[Message]) -> list[int]:
        """Tokens that each image costs at most; one still to be fetched may have any size.

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
    """Tokens of the prompt; exact where no image is in it.

    The server puts `[img-N]` for each image and reads the texts between them apart. An empty prompt costs
    what the server puts around any.
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
