"""Asking the server for what counting needs: the vocabulary, the probes, and the prompt of a conversation.

What is counted, and how, is in `tokens`. `tokenizers` is imported when the first count is made, not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..errors import InvalidRequestError, ProtocolError, ServerError
from ..media.image import ImageUrl
from ..settings.model import ChatSettings, ConnectionSettings
from ..tokens.cache import TokenizerCache
from ..tokens.counter import TokenCounter
from ..tokens.probes import PROBES, PROBES_NAME
from ..tokens.tokenizer import TokenCount, tokenizer_part_of_show
from ..transport.network import Compute, Flow, Send
from ..wire.messages import Message, Tool
from ..wire.requests import chat_request, show_request
from ..wire.responses import ModelInfo, load_json
from .session import Context, fetch, model_info, with_retries

__all__ = ["count_conversation", "known_counter", "load_counter"]

_MAX_SHOW_BYTES = 32 * 1024 * 1024
_MAX_SHOW_VALUES = 3_000_000
"""Of a verbose /api/show answer; the largest in use have 12 MiB and 1.3 million values. Reading one within
these bounds takes at most some 400 MB and 2 s of one core, and building its tokenizer as much again."""


def load_counter(
    context: Context, settings: ConnectionSettings, model: str, *, probed: bool = True, fresh: bool = False
) -> Flow[TokenCounter]:
    """The counter of a model: from memory, from the disk by the model's digest, else from the server.

    probed: with a bound for conversations, where the settings are for chats. fresh: not from a cache.
    """
    info = yield from model_info(context, model)
    key = info.digest or model
    known = context.lookups.counters
    if fresh or (key, "") not in known:
        show = yield from _kept(context, info, "show", partial(_vocabulary, context, model), fresh)
        # Building takes up to a second or two for large vocabularies: not on an event loop.
        known[key, ""] = yield Compute(lambda: TokenCounter.from_show(show))
        context.lookups.counter_names[model] = key
    if not probed or not isinstance(settings, ChatSettings):
        return known[key, ""]
    name = _probed_name(settings)
    if fresh or (key, name) not in known:
        flow = partial(_renderings, context, settings, info)
        renderings = yield from _kept(context, info, name, flow, fresh)
        base = known[key, ""]
        known[key, name] = yield Compute(lambda: base.with_renderings(_texts(renderings)))
    return known[key, name]


def known_counter(context: Context, settings: ConnectionSettings, model: str) -> TokenCounter | None:
    """The counter if it was loaded before, with the probes if these were; no network."""
    key = context.lookups.counter_names.get(model)
    if key is None:
        return None
    known = context.lookups.counters
    name = _probed_name(settings) if isinstance(settings, ChatSettings) else ""
    return known.get((key, name)) or known.get((key, ""))


def _probed_name(settings: ChatSettings) -> str:
    """The probes follow `think`, which changes what a template writes."""
    return f"probes {PROBES_NAME} {settings.think!r}"


def _kept(context: Context, info: ModelInfo, kind: str, ask: Any, fresh: bool) -> Flow[Any]:
    """What the disk holds of a model, else what the server answers, which is then kept there."""
    digest = info.digest
    cache = TokenizerCache()
    found = None
    if digest is not None and not fresh:
        found = yield Compute(lambda: cache.load(context.origin, digest, kind))
    if found is None:
        found = yield from ask()
        if digest is not None and found:
            yield Compute(lambda: cache.store(context.origin, digest, kind, found))
    return found


def _vocabulary(context: Context, model: str) -> Flow[dict[str, Any]]:
    def attempt() -> Flow[bytes]:
        answer = yield Send(show_request(model, verbose=True), _MAX_SHOW_BYTES)
        body: bytes = answer.body
        return body

    body = yield from with_retries(context, attempt)
    show: dict[str, Any] = yield Compute(lambda: _read_show(body, model))
    return show


def _read_show(body: bytes, model: str) -> dict[str, Any]:
    """The part of the answer that counting needs. ProtocolError for what is no description of a model."""
    # Counted before it is parsed, since a million empty lists are a hundred times as large as their text.
    if sum(map(body.count, (b",", b"[", b"{"))) > _MAX_SHOW_VALUES:
        raise ProtocolError(
            f"The server's description of {model!r} has more than {_MAX_SHOW_VALUES:,} values.",
            model=model,
            hint="Is this an Ollama server? No model's vocabulary is as large.",
        )
    show = load_json(body)
    if not isinstance(show, dict):
        raise ProtocolError(
            f"The server's description of {model!r} is no JSON object.",
            model=model,
            hint="Is this an Ollama server? A proxy or another program may be answering.",
        )
    return tokenizer_part_of_show(show)


def _renderings(context: Context, settings: ChatSettings, info: ModelInfo) -> Flow[list[str | None]]:
    """What the server renders of the probes, None for each that it refuses; nothing if it renders none."""
    texts: list[str | None] = []
    for probe in PROBES:
        text = None
        if not probe.tools or (
            settings.function_call_support is not False and info.can("tools") is not False
        ):
            try:
                text = yield from _render(context, settings, probe.messages, probe.tools)
            except (InvalidRequestError, ServerError):
                pass
            else:
                if text is None:
                    return []
        texts.append(text)
        # Only the first may find the server busy; a template that fails on a probe fails again.
        context = context._replace(max_retries=0)
    return texts


def _texts(value: Any) -> list[str | None]:
    """Renderings as they were kept; a file may hold anything."""
    return [text if isinstance(text, str) else None for text in value] if isinstance(value, list) else []


def _render(
    context: Context, settings: ChatSettings, messages: Sequence[Message], tools: Sequence[Tool]
) -> Flow[str | None]:
    """The prompt that the server makes of a conversation; None for a server that does not tell."""
    request = chat_request(settings, messages, tools=tools)
    body = request.body or {}
    # Without truncate:false the server would render what it would keep, not what was sent. A proxy that does
    # not know the rest answers instead, with one token.
    limited = {**body.get("options", {}), "num_predict": 1}
    body = {**body, "_debug_render_only": True, "truncate": False, "options": limited}
    shown = yield from fetch(context, replace(request, body=body))
    info = shown.get("_debug_info") if isinstance(shown, dict) else None
    text = info.get("rendered_template") if isinstance(info, dict) else None
    return text if isinstance(text, str) else None


def count_conversation(
    context: Context, settings: ChatSettings, messages: Sequence[Message], tools: Sequence[Tool]
) -> Flow[TokenCount]:
    """Tokens of the conversation's prompt: exact where the server renders it for us, else the bound."""
    prompt = None
    # Nothing is fetched to be counted.
    if not any(isinstance(part, ImageUrl) for message in messages for part in message.content):
        try:
            prompt = yield from _render(context, settings, messages, tools)
        except (InvalidRequestError, ServerError):
            # A server without this aid, or a prompt it will not even render.
            prompt = None
    counter = yield from load_counter(context, settings, settings.model, probed=prompt is None)
    text = prompt
    if text is None:
        bound: TokenCount = yield Compute(lambda: counter.bound(messages, tools))
        return bound
    counted: TokenCount = yield Compute(lambda: counter.rendered(messages, text))
    return counted
