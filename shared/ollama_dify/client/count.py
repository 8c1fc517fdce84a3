"""Counting tokens as a model does: its tokenizer and what its template adds, looked up once per digest.

Counting itself is offline; only the first look at a model, and an exact count of a conversation, ask the
server. `tokenizers` is imported when the first count is made, not before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..errors import ConfigurationError, InvalidRequestError, ServerError
from ..media.audio import Audio
from ..media.image import Image, ImageUrl
from ..settings.model import ChatSettings
from ..tokens.cache import TokenizerCache
from ..tokens.chat_bound import ChatOverhead, count_rendered, image_tokens
from ..tokens.tokenizer import (
    ModelTokenizer,
    TokenCount,
    TokenEstimator,
    tokenizer_from_show,
    tokenizer_part_of_show,
)
from ..wire.messages import Message, TextPart, Tool
from ..wire.requests import WireRequest, chat_request, show_request, wire_message, wire_tool
from .session import Session

__all__ = ["Counter", "count_conversation", "load_counter"]

_KEPT_ANSWERS = 16


@dataclass(slots=True)
class Counter:
    """Counts for one model. `bound` and `text` need no network; what answers report makes `bound` tighter."""

    tokenizer: ModelTokenizer | TokenEstimator
    show: Mapping[str, Any]
    overhead: ChatOverhead
    _answers: list[tuple[Sequence[Message], Sequence[Tool], Any, int]] = field(default_factory=list)

    @classmethod
    def from_show(cls, show: Mapping[str, Any]) -> Counter:
        tokenizer = tokenizer_from_show(show)
        return cls(tokenizer, show, ChatOverhead.from_show(show, tokenizer))

    def text(self, text: str) -> TokenCount:
        """What the server counts for this text as a raw prompt."""
        return TokenCount(self.tokenizer.count(text), self.tokenizer.exact)

    def embedding(self, text: str) -> TokenCount:
        """What the server counts for this text as an embedding input."""
        return TokenCount(self.tokenizer.count_embedding(text), self.tokenizer.exact)

    def token_ids(self, text: str) -> list[int]:
        """The ids that `text` counts. Raises ConfigurationError for a model that shows no vocabulary."""
        if isinstance(self.tokenizer, TokenEstimator):
            raise ConfigurationError(
                "The server shows no vocabulary for this model, so there are no token ids."
            )
        return self.tokenizer.encode(text)

    def bound(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), think: bool | str | None = None
    ) -> TokenCount:
        """At least the tokens of the conversation's prompt; never exact."""
        answers, self._answers = self._answers, []
        for said, had, thought, tokens in answers:
            self.overhead = self.overhead.observe(
                _wire(said), tokens, tools=[wire_tool(tool) for tool in had], think=thought
            )
        return self.overhead.bound(
            _wire(messages),
            tools=[wire_tool(tool) for tool in tools],
            think=think,
            image_costs=self.image_costs(messages),
        )

    def learn(
        self, messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None, tokens: int
    ) -> None:
        """Keep an answer's prompt count; it is looked at when the next bound is asked for."""
        if not _images(messages):
            self._answers = [
                *self._answers[1 - _KEPT_ANSWERS :],
                (tuple(messages), tuple(tools), think, tokens),
            ]

    def image_costs(self, messages: Sequence[Message]) -> list[int]:
        """Tokens that each image costs at most; one still to be fetched may have any size."""
        return [
            image_tokens(self.show, (image.width, image.height) if isinstance(image, Image) else None)
            for image in _images(messages)
        ]


def _images(messages: Sequence[Message]) -> list[Image | Audio | ImageUrl]:
    return [part for message in messages for part in message.content if not isinstance(part, TextPart)]


def _wire(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as they are sent; of the images, the number is enough."""
    images = [len(_images([message])) for message in messages]
    return [
        {**wire_message(message, with_images=any(images)), "images": [None] * count}
        for message, count in zip(messages, images, strict=True)
    ]


async def load_counter(session: Session, model: str) -> Counter:
    """The counter of a model: from memory, from the disk by the model's digest, else from the server."""
    info = await session.model_info(model)
    key = info.digest or model
    known, network = session.cache.counters, session.network
    if key not in known:
        cache = TokenizerCache()
        digest = info.digest
        show = None if digest is None else await network.compute(partial(cache.load, digest))
        if show is None:
            verbose = await session.fetch(show_request(model, verbose=True))
            show = tokenizer_part_of_show(verbose if isinstance(verbose, dict) else {})
            if digest is not None:
                await network.compute(partial(cache.store, digest, show))
        # Building takes up to a second or two for large vocabularies: not on an event loop.
        known[key] = await network.compute(partial(Counter.from_show, show))
    session.cache.counter_names[model] = key
    return known[key]


async def count_conversation(
    session: Session, settings: ChatSettings, messages: Sequence[Message], tools: Sequence[Tool]
) -> TokenCount:
    """Tokens of the conversation's prompt: exact where the server renders it for us, else the bound."""
    counter = await load_counter(session, settings.model)
    if any(isinstance(image, ImageUrl) for image in _images(messages)):
        # Nothing is fetched to be counted.
        return counter.bound(messages, tools, settings.think)
    request = chat_request(settings, messages, tools=tools)
    # Without truncate:false the server would render what it would keep, not what was sent.
    body = {**(request.body or {}), "_debug_render_only": True, "truncate": False}
    try:
        shown = await session.fetch(WireRequest("POST", request.path, body, settings.model))
        rendered = shown["_debug_info"]["rendered_template"]
    except (InvalidRequestError, ServerError, KeyError, TypeError):
        # A server without this aid, or a prompt it will not even render.
        return counter.bound(messages, tools, settings.think)
    if not isinstance(rendered, str):
        return counter.bound(messages, tools, settings.think)
    counted = count_rendered(counter.tokenizer, rendered, counter.image_costs(messages))
    if counted.exact:
        counter.learn(messages, tools, settings.think, counted.tokens)
    return counted
