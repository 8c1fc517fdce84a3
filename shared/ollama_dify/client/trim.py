"""Fit the context: drop the oldest turns of conversations, cut long texts into pieces. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, ContextOverflowError
from ..wire.messages import Message, TextPart
from ..wire.responses import ChatChunk

if TYPE_CHECKING:
    from ..tokens.tokenizer import TokenCount


def droppable(messages: Sequence[Message]) -> list[tuple[int, ...]]:
    """Positions that may be dropped, oldest first, in groups that are dropped together.

    A group is an exchange: a user message and what follows it. Exchanges that share a tool call and its
    result are one group. System messages are kept, and so is everything from the last user message on, with
    the exchanges whose calls it answers.
    """
    users = [index for index, message in enumerate(messages) if message.role == "user"]
    calls = _answered_calls(messages)
    # A group begins at a user message before which every call has its result.
    starts = [at for at in users if not any(call < at <= result for call, result in calls)]
    groups = [range(start, end) for start, end in pairwise([0, *starts])]
    found = [tuple(index for index in group if messages[index].role != "system") for group in groups]
    return [group for group in found if group]


def _answered_calls(messages: Sequence[Message]) -> list[tuple[int, int]]:
    """Positions of a call and of its result. A result without a known id answers the calls before it."""
    pairs = []
    callers: dict[str | None, int] = {}
    for index, message in enumerate(messages):
        if message.tool_calls:
            callers |= dict.fromkeys([None, *(call.id for call in message.tool_calls)], index)
        elif message.role == "tool" and callers:
            pairs.append((callers.get(message.tool_call_id, callers[None]), index))
    return pairs


def kept(messages: Sequence[Message], dropped: Sequence[int]) -> list[Message]:
    """The messages without those at the dropped positions."""
    gone = set(dropped)
    return [message for index, message in enumerate(messages) if index not in gone]


def length(messages: Sequence[Message]) -> int:
    """Characters of messages, plus a constant per message and per image."""
    total = 0
    for message in messages:
        total += 16 + len(message.text) + len(message.thinking or "")
        total += sum(len(call.name) + len(str(call.arguments)) for call in message.tool_calls)
        total += 2000 * sum(not isinstance(part, TextPart) for part in message.content)
    return total


def drop_oldest(
    messages: Sequence[Message],
    dropped: Sequence[int],
    wanted: float = 0.0,
    size: Callable[[Sequence[Message]], float] = length,
) -> tuple[int, ...] | None:
    """Positions to drop next: at least one more exchange than `dropped`; None if none is left.

    wanted: how much must be freed. size: an upper bound of what an exchange frees, so that no more is dropped
    than needed.
    """
    gone = set(dropped)
    left = [group for group in droppable(messages) if not gone.issuperset(group)]
    if not left:
        return None
    freed = 0.0
    for group in left:
        gone.update(group)
        freed += size([messages[index] for index in group])
        if freed >= wanted:
            break
    return tuple(sorted(gone))


def check_uncut(chunk: ChatChunk, context_size: int | None) -> ChatChunk:
    """Raise ContextOverflowError for a prompt as long as the context, if the server was told not to cut.

    Servers before 0.30 have cut it; later ones round the context up to 256 tokens, above the settings' size.
    """
    finish = chunk.finish
    if finish is not None and context_size is not None and finish.usage.input_tokens >= context_size:
        raise ContextOverflowError(
            f"The prompt does not fit into the context: it fills all {context_size} tokens.",
            prompt_tokens=finish.usage.input_tokens,
            limit=context_size - 1,
            hint='Raise context_size, shorten the prompt, or set context_overflow="trim" or "truncate".',
        )
    return chunk


def was_cut(reported: int, size: int | None, expected: TokenCount | None) -> bool | None:
    """Whether the server cut the prompt; None if neither its count nor ours shows it."""
    if size is None or reported >= size:
        return None if size is None else True
    if expected is not None and (expected.exact or expected.tokens < size):
        return expected.tokens >= size
    return None


def add_numbers(error: ContextOverflowError, context_size: int | None, counted: TokenCount | None) -> None:
    """Put the settings' limit into the error, and our own exact count if the server sent none.

    The server uses a context rounded up to 256 tokens, and before 0.30 sends no numbers.
    """
    if context_size is not None:
        error.limit = min(context_size - 1, context_size if error.limit is None else error.limit)
    if error.prompt_tokens is None and counted is not None and counted.exact:
        error.prompt_tokens = counted.tokens
    if error.limit is not None:
        tokens = "" if error.prompt_tokens is None else f"{error.prompt_tokens} tokens, "
        _, mark, said = error.message.partition("The server said: ")
        told = f" {mark}{said}" if mark else ""
        error.message = f"The prompt does not fit into the context: {tokens}at most {error.limit} fit.{told}"


# Strongest first. A match ends where the next piece may begin.
_BOUNDARIES = (
    re.compile(r"\n[^\S\n]*\n\s*"),  # paragraph
    re.compile(r"[.!?…]+[\"'”’)\]]*\s+|[。！？]+[」』”’）]*\s*|\n+"),  # sentence, or line
    re.compile(r"\s+|(?<=[、，；：])"),  # word, or clause where words are not spaced
)


def checked_texts(call: str, noun: str, texts: object) -> list[str]:
    """The given texts of a call as a list. Raises ConfigurationError for anything else."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise ConfigurationError(
            f"{call}() takes a list of {noun}s, not {type(texts).__name__}; for one text pass [text]."
        )
    listed: list[Any] = list(texts)
    for index, text in enumerate(listed):
        if not isinstance(text, str):
            found = f"{noun.capitalize()} {index} is of type {type(text).__name__}"
            raise ConfigurationError(f"{found}; {call}() takes texts (str) only.")
    return listed


def split_text(text: str, size: int) -> Iterator[str]:
    """Pieces of at most `size` characters, in order; joined they are the text again.

    A piece ends at the last paragraph end in its second half, else sentence, else word, else at `size`.
    """
    start = 0
    while len(text) - start > size:
        end = _cut(text, start, start + size)
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def _cut(text: str, start: int, limit: int) -> int:
    """Where the piece that begins at `start` ends: at most at `limit`."""
    middle = start + (limit - start + 1) // 2
    for boundary in _BOUNDARIES:
        end = None
        for found in boundary.finditer(text, middle, limit):
            end = found.end()
        if end is not None:
            return end
    return limit
