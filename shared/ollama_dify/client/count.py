"""Asking the server for what counting (`tokens`) needs: vocabulary, probes, a conversation's prompt."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from ..errors import InvalidRequestError, ProtocolError, ServerError
from ..media.image import ImageUrl
from ..settings import ChatSettings, ConnectionSettings, EmbeddingSettings
from ..tokens import cache
from ..tokens.counter import TokenCounter
from ..tokens.probes import PROBES, PROBES_NAME
from ..tokens.tokenizer import TokenCount, tokenizer_part_of_show
from ..wire.messages import Message, Tool
from ..wire.models import ModelInfo
from ..wire.requests import WireRequest, chat_request
from ..wire.responses import load_json
from .session import Session, settings_of, think_name

_MAX_SHOW_BYTES = 32 * 1024 * 1024
_MAX_SHOW_VALUES = 3_000_000
"""Of a verbose /api/show answer; the largest in use have 12 MiB and 1.3 million values. With these bounds and
those of `Vocabulary`, reading one and building its tokenizer takes at most about 800 MB and 6 s of a core."""


async def load_counter(
    session: Session, settings: ConnectionSettings, *, probed: bool = True, fresh: bool = False
) -> TokenCounter:
    """The counter of a model: from memory, from the disk by the model's digest, else from the server.

    probed: with a bound for conversations, if the settings are for chats. fresh: not from a cache.
    """
    model = session.model_name(getattr(settings, "model", None))
    info = await session.model_info(model)
    key, known, compute = info.digest or model, session.cache.counters, session.network.compute
    if fresh or (key, "") not in known:
        show = await _kept(session, info, "show", fresh, partial(_vocabulary, session, model))
        # Building takes up to a second or two for large vocabularies: not on an event loop.
        known[key, ""] = await compute(partial(TokenCounter.from_show, show))
    if not probed or not isinstance(settings, ChatSettings):
        return known[key, ""]
    name = think_name(settings)
    if fresh or (key, name) not in known:
        ask = partial(_renderings, session, settings, info)
        renderings = await _kept(session, info, f"{PROBES_NAME} {name}", fresh, ask)
        kept = renderings if isinstance(renderings, list) else []  # a file may hold anything
        texts = [text if isinstance(text, str) else None for text in kept]
        known[key, name] = await compute(partial(known[key, ""].with_renderings, texts))
    return known[key, name]


async def _kept(
    session: Session, info: ModelInfo, kind: str, fresh: bool, ask: Callable[[], Awaitable[Any]]
) -> Any:
    """A model's data from the disk cache, else from the server, then stored in the cache."""
    if info.digest is None:
        return await ask()
    names = session.settings.address.url, info.digest, kind
    found = None if fresh else await session.network.compute(partial(cache.load, *names))
    if found is None:
        found = await ask()
        if found:
            await session.network.compute(partial(cache.store, *names, found))
    return found


async def _vocabulary(session: Session, model: str) -> dict[str, Any]:
    request = WireRequest("POST", "/api/show", {"model": model, "verbose": True}, model)
    body = await session.fetch(request, bytes, _MAX_SHOW_BYTES)
    return await session.network.compute(partial(_read_show, body, model))


def _read_show(body: bytes, model: str) -> dict[str, Any]:
    """The part of the answer that counting needs. ProtocolError if it is not a description of a model."""
    # Checked before parsing, because a million empty lists need a hundred times the memory of their text.
    is_small = sum(map(body.count, (b",", b"[", b"{"))) <= _MAX_SHOW_VALUES
    show = load_json(body) if is_small else None
    if not isinstance(show, dict):
        what = "is no JSON object" if is_small else f"has more than {_MAX_SHOW_VALUES:,} values"
        raise ProtocolError(
            f"The server's description of {model!r} {what}.",
            model=model,
            hint="Is this an Ollama server? A proxy or another program may be answering.",
        )
    return tokenizer_part_of_show(show)


async def _renderings(session: Session, settings: ChatSettings, info: ModelInfo) -> list[str | None]:
    """The server's renderings of the probes, None for each that it refuses; empty if it renders none."""
    able = settings.function_call_support is not False and info.can("tools") is not False
    texts: list[str | None] = []
    for probe in PROBES:
        text = None
        if able or not probe.tools:
            with suppress(InvalidRequestError, ServerError):
                # Only the first is retried (a busy server); a template that fails on a probe fails again.
                text = await _render(session, settings, probe.messages, probe.tools, retried=not texts)
                if text is None:
                    return []
        texts.append(text)
    return texts


async def _render(
    session: Session,
    settings: ChatSettings,
    messages: Sequence[Message],
    tools: Sequence[Tool],
    *,
    retried: bool = True,
) -> str | None:
    """The prompt that the server renders from a conversation; None if the server cannot show it."""
    request = chat_request(settings, messages, tools=tools)
    body = request.body or {}
    # Without truncate:false the server would render a cut conversation. num_predict: a proxy that does not
    # know the debug option answers the conversation instead, with one token.
    limited = {**body.get("options", {}), "num_predict": 1}
    request = replace(
        request, body={**body, "_debug_render_only": True, "truncate": False, "options": limited}
    )
    shown = await session.fetch(request) if retried else load_json(await session.network.send(request))
    info = shown.get("_debug_info") if isinstance(shown, dict) else None
    text = info.get("rendered_template") if isinstance(info, dict) else None
    return text if isinstance(text, str) else None


async def count_tokens(
    session: Session, counted: str | Sequence[Message], tools: Sequence[Tool] = ()
) -> TokenCount:
    """Tokens of a text, or of a conversation's whole prompt."""
    settings = session.settings
    if not isinstance(counted, str):
        return await count_conversation(session, settings_of(settings, ChatSettings), counted, tools)
    counter = await load_counter(session, settings, probed=False)
    return (counter.embedding if isinstance(settings, EmbeddingSettings) else counter.text)(counted)


async def count_conversation(
    session: Session, settings: ChatSettings, messages: Sequence[Message], tools: Sequence[Tool]
) -> TokenCount:
    """Tokens of the conversation's prompt: exact if the server renders it for us, else the bound."""
    prompt = None
    # Images are not fetched just for counting.
    if not any(isinstance(part, ImageUrl) for message in messages for part in message.content):
        with suppress(InvalidRequestError, ServerError):  # no rendering, or this prompt is refused
            prompt = await _render(session, settings, messages, tools)
    counter = await load_counter(session, settings, probed=prompt is None)
    if prompt is None:
        return await session.network.compute(partial(counter.bound, messages, tools))
    return await session.network.compute(partial(counter.rendered, messages, prompt))
