"""When to try again, and how often a dead server is asked at most."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ollama_dify import ChatSettings
from ollama_dify.client.retry import RetryBudget, retry_delay
from ollama_dify.client.session import ModelCache, Session
from ollama_dify.errors import ServerBusyError, ServerError
from ollama_dify.transport.network import run
from ollama_dify.wire.requests import WireRequest


@pytest.mark.parametrize(
    ("details", "attempt", "max_retries", "spread", "seconds"),
    [
        pytest.param({}, 1, 2, 0.5, None, id="permanent"),
        pytest.param({"retryable": True}, 1, 2, 0.0, 0.0, id="no wait is possible"),
        pytest.param({"retryable": True}, 1, 2, 1.0, 0.5, id="first"),
        pytest.param({"retryable": True}, 2, 2, 1.0, 1.0, id="second"),
        pytest.param({"retryable": True}, 3, 2, 1.0, None, id="used up"),
        pytest.param({"retryable": True}, 1, 0, 1.0, None, id="none wanted"),
        pytest.param({"retryable": True}, 5, 9, 1.0, 8.0, id="longest"),
        pytest.param({"retryable": True}, 90, 100, 1.0, 8.0, id="stays longest"),
        pytest.param({"retryable": True}, 3, 9, 0.25, 0.5, id="spread"),
        pytest.param({"retryable": True, "retry_after_s": 30.0}, 1, 2, 0.5, 30.0, id="Retry-After wins"),
        pytest.param({"retryable": True, "retry_after_s": 0.0}, 1, 2, 0.5, 0.0, id="Retry-After: 0"),
        pytest.param({"retryable": True, "retry_after_s": 30.0}, 3, 2, 0.5, None, id="Retry-After used up"),
        pytest.param({"retryable": True, "retry_once": True}, 1, 9, 1.0, 0.5, id="once"),
        pytest.param({"retryable": True, "retry_once": True}, 2, 9, 1.0, None, id="only once"),
        pytest.param({"retry_once": True}, 1, 9, 1.0, None, id="once needs retryable"),
    ],
)
def test_delay(
    details: dict[str, Any], attempt: int, max_retries: int, spread: float, seconds: float | None
) -> None:
    error = ServerError("It broke.", **details)
    assert retry_delay(error, attempt=attempt, max_retries=max_retries, spread=spread) == seconds


def test_a_retry_that_succeeds_gives_back_what_it_cost() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        assert budget.take()
        budget.refund(retried=True)


def test_successes_refill_slowly_and_not_beyond_the_top() -> None:
    budget = RetryBudget()
    budget.refund(retried=False)
    assert sum(budget.take() for _ in range(1000)) == 100
    for _ in range(4):
        budget.refund(retried=False)
    assert not budget.take()
    budget.refund(retried=False)
    assert budget.take()
    assert not budget.take()


def test_threads_share_one_budget() -> None:
    budget, taken = RetryBudget(), []

    def work() -> None:
        taken.append(sum(budget.take() for _ in range(50)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sum(taken) == 100


class Failing:
    """A network whose server is always busy."""

    sent = 0

    async def send(self, request: WireRequest, limit: int = 0) -> Any:
        self.sent += 1
        raise ServerBusyError("busy", retryable=True)

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0


def test_calls_to_a_dead_server_share_one_budget() -> None:
    network: Any = Failing()
    session = Session(ChatSettings(model="m"), network, ModelCache(), RetryBudget())
    for _ in range(300):
        with pytest.raises(ServerBusyError):
            run(session.fetch(WireRequest("GET", "/api/version")))
    assert 300 < network.sent <= 400
