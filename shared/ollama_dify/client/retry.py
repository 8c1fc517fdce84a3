"""When to try again: one pure decision and a budget shared per server."""

from __future__ import annotations

from collections import deque

from ..errors import OllamaError

BASE_S = 0.5
LONGEST_S = 8.0


class RetryBudget:
    """Limits retries: they cost tokens, successes return some, so that a dead server is not overloaded.

    As in botocore's standard mode: 500 tokens, a retry costs 5, which are returned if it succeeds; success on
    the first try returns 1. Safe to share between threads and after a fork: single operations and no lock,
    because Ctrl-C could leave a lock taken forever.
    """

    CAPACITY = 500
    COST = 5

    def __init__(self) -> None:
        self._tokens = deque([None] * self.CAPACITY, maxlen=self.CAPACITY)

    def take(self) -> bool:
        """Take the tokens for one retry; False if the budget is used up."""
        paid: list[None] = []
        try:
            while len(paid) < self.COST:
                paid.append(self._tokens.pop())
        except IndexError:
            self._tokens.extend(paid)
            return False
        return True

    def refund(self, *, retried: bool) -> None:
        """Give back after a success."""
        self._tokens.extend([None] * (self.COST if retried else 1))


def retry_delay(error: OllamaError, *, attempt: int, max_retries: int, spread: float) -> float | None:
    """Seconds to wait before another try, or None for no more.

    attempt: requests sent so far, from 1. spread: a random number in [0, 1), for full jitter: the wait is
    anywhere between nothing and 0.5 s, 1 s, 2 s … 8 s. What the server asked for (Retry-After) wins.
    """
    if not error.retryable or attempt > max_retries or (error.retry_once and attempt > 1):
        return None
    if error.retry_after_s is not None:
        return error.retry_after_s
    return spread * min(LONGEST_S, BASE_S * 2.0 ** (attempt - 1))


_budgets: dict[str, RetryBudget] = {}


def budget_for(url: str) -> RetryBudget:
    """The retry budget of a server, shared by all clients of this process."""
    return _budgets.get(url) or _budgets.setdefault(url, RetryBudget())
