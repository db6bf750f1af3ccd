"""The retries of one request, and the retry budget of a driver."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trove_async._resilience.retries import Retries, RetryBudget
from trove_async.errors import (
    ObjectNotFoundError,
    PoolTimeoutError,
    TimedOutError,
    TroveError,
    UnavailableError,
)
from trove_async.retry import RetryPolicy


def retries(**settings: float) -> Retries:
    policy = RetryPolicy(**settings)  # type: ignore[arg-type]  # some are ints
    return Retries(policy, RetryBudget(policy))


def test_only_retryable_errors_are_retried() -> None:
    assert retries().after(UnavailableError("busy")) is not None
    assert retries().after(TimedOutError("late")) is not None
    assert retries().after(TroveError("temporary", retryable=True)) is not None
    assert retries().after(ObjectNotFoundError("missing")) is None
    assert retries().after(UnavailableError("permanent", retryable=False)) is None


def test_timeout_of_a_permit_is_not_retried() -> None:
    assert retries().after(PoolTimeoutError("none became free")) is None


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_attempts_include_the_first_one(attempts: int) -> None:
    counter = retries(attempts=attempts, base_delay=0)
    count = 1
    while counter.after(UnavailableError("busy")) is not None:
        count += 1
    assert count == attempts == counter.attempt


def test_pause_requested_by_the_service_is_used_up_to_max_delay() -> None:
    assert retries(base_delay=0).after(UnavailableError("busy", retry_after=3)) == 3
    assert retries(base_delay=0, max_delay=2).after(UnavailableError("busy", retry_after=3)) == 2


@given(
    limit=st.integers(0, 20),
    history=st.lists(st.sampled_from(["spend", "earn"]), max_size=200),
)
def test_retries_never_exceed_the_budget_and_the_earned_ones(
    limit: int, history: list[str]
) -> None:
    budget = RetryBudget(RetryPolicy(budget=limit))
    spent = earned = 0
    for action in history:
        if action == "earn":
            budget.earn()
            earned += 1
        else:
            spent += budget.spend()
        assert spent <= limit + earned / 10


def test_ten_successes_earn_one_retry() -> None:
    budget = RetryBudget(RetryPolicy(budget=1))
    assert budget.spend()
    assert not budget.spend()
    for _ in range(9):
        budget.earn()
    assert not budget.spend()
    budget.earn()
    assert budget.spend()
    assert not budget.spend()


def test_budget_never_exceeds_its_initial_balance() -> None:
    budget = RetryBudget(RetryPolicy(budget=2))
    for _ in range(100):
        budget.earn()
    assert [budget.spend() for _ in range(3)] == [True, True, False]


def test_budget_is_shared_by_the_requests_of_a_driver() -> None:
    policy = RetryPolicy(budget=1, base_delay=0)
    budget = RetryBudget(policy)
    assert Retries(policy, budget).after(UnavailableError("busy")) == 0
    assert Retries(policy, budget).after(UnavailableError("busy")) is None
