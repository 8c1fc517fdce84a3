"""What the simulated model says when no script tells it: rules over what was really sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .faults import Reply


@dataclass(frozen=True, slots=True)
class Question:
    """A request as the model sees it."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    format: Any = None
    thinking: bool = False
    suffix: str = ""


def compose(question: Question) -> Reply:
    """The answer to a question."""
    return Reply("Hello! How can I help you today?", thinking="The user greets me. I greet back.\n")
