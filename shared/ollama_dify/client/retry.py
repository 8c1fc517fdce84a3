"""When to try again: one pure decision and a budget shared per server."""

from __future__ import annotations

from collections import deque

from ..errors import OllamaError

BASE_S = 0.5
LONGEST_S = 8.0


class RetryBudget:
    """Tokens that retries cost and successes give back, so that a dead server is not hammered.

    The scheme of botocore's standard mode: 500 tokens, a retry costs 5, what it cost comes back when it
    succeeds, a first-try success gives 1. Safe to share between threads and with a fork: no lock, which an
    interrupt could leave taken for good, but single operations.
    """

    CAPACITY = 500
    COST = 5

    def __init__(self) -> None:
        self._tokens = deque([None] * self.CAPACITY, maxlen=self.CAPACITY)

    def take(self) -> bool:
        """Pay for one retry; False when the budget is used up."""
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
    return _budgets.setdefault(url, RetryBudget())
