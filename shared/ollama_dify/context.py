"""Making a conversation fit: what may be dropped, what is dropped, and whether the server cut. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from .errors import ContextOverflowError
from .messages import Message
from .responses import ChatChunk, Finish

__all__ = ["ContextReport", "drop_oldest", "droppable", "kept", "prompt_limit"]


def prompt_limit(context_size: int | None, reserve: int | None) -> int | None:
    """Tokens a prompt may have when the answer's reserve stays free; None when the server decides."""
    # A prompt of exactly the context's size is already cut by the server: one less is usable.
    return None if context_size is None else max(context_size - 1 - (reserve or 0), 1)


def droppable(messages: Sequence[Message]) -> list[tuple[int, ...]]:
    """Positions that may be dropped, oldest first, in groups that only go together.

    A group is an exchange: a user message and what followed it, so a tool call never loses its result.
    System messages stay, and so does everything from the last user message on.
    """
    users = [index for index, message in enumerate(messages) if message.role == "user"]
    end = users[-1] if users else 0
    groups: list[list[int]] = []
    for index, message in enumerate(messages[:end]):
        if message.role == "system":
            continue
        if message.role == "user" or not groups:
            groups.append([])
        groups[-1].append(index)
    return [tuple(group) for group in groups]


def kept(messages: Sequence[Message], dropped: Sequence[int]) -> list[Message]:
    """The messages without those at the dropped positions."""
    gone = set(dropped)
    return [message for index, message in enumerate(messages) if index not in gone]


def drop_oldest(
    messages: Sequence[Message], dropped: Sequence[int], excess: float | None = None
) -> tuple[int, ...] | None:
    """Positions to drop next: at least one more exchange than `dropped`; None when there is none left.

    excess: the share of the remaining conversation that is too much (0.25 = a quarter), None when unknown:
        then one exchange is dropped. Shares are of characters, which is close enough to need few tries.
    """
    gone = set(dropped)
    left = [group for group in droppable(messages) if not gone.issuperset(group)]
    if not left:
        return None
    total = sum(_length(message) for index, message in enumerate(messages) if index not in gone)
    wanted = 0.0 if excess is None else excess * total
    freed = 0
    for group in left:
        gone.update(group)
        freed += sum(_length(messages[index]) for index in group)
        if freed >= wanted:
            break
    return tuple(sorted(gone))


def _length(message: Message) -> int:
    """Characters of a message, with some for its frame and what pictures are worth."""
    calls = sum(len(call.name) + len(str(call.arguments)) for call in message.tool_calls)
    return 16 + len(message.text) + len(message.thinking or "") + calls + 2000 * len(message.images)


class ContextReport:
    """Puts what became of the prompt into the last chunk.

    Where the server was told not to cut and yet reports a prompt as long as the context, the answer was
    made from half a prompt (servers before 0.30 do that): ContextOverflowError.
    """

    def __init__(
        self,
        *,
        context_size: int | None,
        may_cut: bool,
        dropped: tuple[int, ...] = (),
        expected: int | None = None,
        limit: int | None = None,
        learn: Callable[[int], None] | None = None,
    ) -> None:
        """expected: an upper bound of the prompt's tokens by our own count. limit: tokens that fit.
        learn: told the prompt's tokens of an answer made from the whole prompt."""
        self._context_size = context_size
        self._may_cut = may_cut
        self._dropped = dropped
        self._expected = expected
        self._limit = limit
        self._learn = learn

    def feed(self, chunk: ChatChunk) -> ChatChunk:
        finish = chunk.finish
        if finish is None:
            return chunk
        if self._may_cut:
            finish = replace(finish, truncated=self._was_cut(finish))
        elif self._context_size is not None and finish.usage.input_tokens >= self._context_size:
            raise ContextOverflowError(
                f"The prompt filled the context of {self._context_size} tokens, so the server cut it.",
                prompt_tokens=finish.usage.input_tokens,
                limit=self._context_size - 1,
                hint='Raise context_size, shorten the prompt, or set context_overflow="trim" or "truncate".',
            )
        elif self._learn is not None:
            self._learn(finish.usage.input_tokens)
        if self._dropped:
            finish = replace(finish, dropped=self._dropped)
        return chunk._replace(finish=finish)

    def _was_cut(self, finish: Finish) -> bool | None:
        reported, size = finish.usage.input_tokens, self._context_size
        if size is not None and reported >= size:
            return True
        if self._expected is None or self._limit is None:
            return None
        if self._expected <= self._limit:
            return False
        # The bound is at most 5 % or 16 tokens above the truth; what is missing beyond that was cut.
        return reported < min(self._expected * 0.95, self._expected - 16)
