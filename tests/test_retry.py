"""When a request is tried again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trove_async._resilience.retries import Retries, RetryBudget
from trove_async.errors import (
    ConfigError,
    ObjectNotFoundError,
    PoolTimeoutError,
    TimedOutError,
    TroveError,
    UnavailableError,
)
from trove_async.retry import RetryPolicy

SECONDS = st.floats(0, 1000)


def retries(**policy: float) -> Retries:
    made = RetryPolicy(**policy)  # type: ignore[arg-type]  # some are ints
    return Retries(made, RetryBudget(made))


@pytest.mark.parametrize(
    "policy",
    [{"attempts": 0}, {"base_delay": -1}, {"max_delay": -0.1}, {"budget": -1}],
)
def test_policy_that_makes_no_sense_is_refused(policy: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        retries(**policy)


@pytest.mark.parametrize(
    "policy",
    [
        {"attempts": "3"},
        {"attempts": 1.5},
        {"base_delay": "1"},
        {"max_delay": None},
        {"budget": "1"},
    ],
)
def test_policy_of_another_type_is_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(policy))} must be an? (int|number)"):
        retries(**policy)


@given(
    base=SECONDS,
    most=SECONDS,
    attempt=st.integers(1, 10**9),
    asked=st.none() | st.floats(0, 10**6),
)
def test_pause_is_within_its_bounds(
    base: float, most: float, attempt: int, asked: float | None
) -> None:
    policy = RetryPolicy(base_delay=base, max_delay=most)
    pause = policy.delay(attempt, asked)
    assert 0 <= pause <= most
    if asked is not None:
        assert pause >= min(asked, most)
    else:
        assert pause <= base * 2.0 ** min(attempt - 1, 1000)


def test_only_what_is_retryable_is_retried() -> None:
    assert retries().after(UnavailableError("busy")) is not None
    assert retries().after(TimedOutError("late")) is not None
    assert retries().after(TroveError("passing", retryable=True)) is not None
    assert retries().after(ObjectNotFoundError("gone")) is None
    assert retries().after(UnavailableError("for good", retryable=False)) is None


def test_who_has_waited_in_line_is_not_told_to_do_so_again() -> None:
    assert retries().after(PoolTimeoutError("none became free")) is None


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_attempts_are_tries_in_all(attempts: int) -> None:
    counted = retries(attempts=attempts, base_delay=0)
    tries = 1
    while counted.after(UnavailableError("busy")) is not None:
        tries += 1
    assert tries == attempts == counted.attempt


def test_service_that_asks_for_a_pause_gets_it() -> None:
    assert retries(base_delay=0).after(UnavailableError("busy", retry_after=3)) == 3
    assert retries(base_delay=0, max_delay=2).after(UnavailableError("x", retry_after=3)) == 2


@given(
    budget=st.integers(0, 20),
    history=st.lists(st.sampled_from(["spend", "earn"]), max_size=200),
)
def test_retries_never_exceed_the_budget_and_what_successes_earn(
    budget: int, history: list[str]
) -> None:
    left = RetryBudget(RetryPolicy(budget=budget))
    spent = earned = 0
    for event in history:
        if event == "earn":
            left.earn()
            earned += 1
        else:
            spent += left.spend()
        assert spent <= budget + earned / 10 + 1e-9


def test_ten_successes_earn_one_retry() -> None:
    budget = RetryBudget(RetryPolicy(budget=1))
    assert budget.spend()
    assert not budget.spend()
    for _ in range(11):  # a tenth has no exact float
        budget.earn()
    assert budget.spend()
    assert not budget.spend()


def test_successes_earn_no_more_than_there_was_at_first() -> None:
    budget = RetryBudget(RetryPolicy(budget=2))
    for _ in range(100):
        budget.earn()
    assert [budget.spend() for _ in range(3)] == [True, True, False]


def test_budget_is_shared_by_the_requests_of_a_driver() -> None:
    policy = RetryPolicy(budget=1, base_delay=0)
    budget = RetryBudget(policy)
    assert Retries(policy, budget).after(UnavailableError("busy")) == 0
    assert Retries(policy, budget).after(UnavailableError("busy")) is None
