"""The retries of one request, and the retry budget of a driver."""

from __future__ import annotations

from trove_async.errors import PoolTimeoutError, TroveError
from trove_async.retry import RetryPolicy


class RetryBudget:
    """The retries that a driver may still make. A retry costs one; a success earns a tenth of one.

    Args:
        policy: `RetryPolicy.budget` is the initial and the maximum balance.
    """

    __slots__ = ("_balance", "_limit")

    COST = 10
    """The number of successes that pay for one retry. In the long run, at most a tenth of requests are retries."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._limit = policy.budget * self.COST
        self._balance = self._limit  # in successes: ten floats of 0.1 would not add up to 1

    def spend(self) -> bool:
        """Pay for one retry. Return False if the balance is too low."""
        if self._balance < self.COST:
            return False
        self._balance -= self.COST
        return True

    def earn(self) -> None:
        """Record a success."""
        if self._balance < self._limit:
            self._balance += 1


class Retries:
    """The attempts of one request.

    Args:
        policy: The number of attempts and the pauses between them.
        budget: The driver's retry budget.

    Attributes:
        attempt: The number of the current attempt, from 1.
    """

    __slots__ = ("_budget", "_policy", "attempt")

    def __init__(self, policy: RetryPolicy, budget: RetryBudget) -> None:
        self._policy = policy
        self._budget = budget
        self.attempt = 1

    def after(self, error: TroveError) -> float | None:
        """Return the pause in seconds before the next attempt; None: do not retry."""
        if not error.retryable or isinstance(error, PoolTimeoutError):
            return None  # a second wait for a permit would only double Timeout.permit
        if self.attempt >= self._policy.attempts or not self._budget.spend():
            return None
        pause = self._policy.delay(self.attempt, error.retry_after)
        self.attempt += 1
        return pause
