"""What to say to a model whose structured answer is not valid. Pure."""

from __future__ import annotations

from typing import Any

__all__ = ["correction"]

_MOST_PROBLEMS = 10


def correction(problem: BaseException) -> str:
    """The request to answer again, which names what was wrong.

    problem: pydantic's ValidationError, of either version, is told place by place, ten places at most; of
    another error, the first line. Both frameworks send this text.
    """
    told = "\n".join(f"- {line}" for line in _problems(problem))
    return f"That is not valid:\n{told}\nAnswer again with the whole corrected JSON and nothing else."


def _problems(problem: BaseException) -> list[str]:
    list_errors: Any = getattr(problem, "errors", None)
    if not callable(list_errors):
        return [str(problem).partition("\n")[0] or type(problem).__name__]
    found = list_errors()
    lines = []
    for one in found[:_MOST_PROBLEMS]:
        place = ".".join(map(str, one["loc"]))
        lines.append(f"{place}: {one['msg']}" if place else str(one["msg"]))
    left = len(found) - len(lines)
    return [*lines, f"{left} more"] if left else lines
