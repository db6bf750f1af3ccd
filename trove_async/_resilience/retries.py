"""The retries of one request, and how many a driver has left."""

from __future__ import annotations

from trove_async.errors import PoolTimeoutError, TroveError
from trove_async.retry import RetryPolicy


class RetryBudget:
    """The retries that one driver has left: each costs one, each success gives a tenth back.

    Args:
        policy: Its `RetryPolicy.budget` is what there is at first, and at the most.
    """

    __slots__ = ("_most", "_tokens")

    EARNED = 0.1
    """Ten successes pay for one retry, so in the long run at most a tenth of requests are retries."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._most = float(policy.budget)
        self._tokens = self._most

    def spend(self) -> bool:
        """Take one retry; False if there is none left."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def earn(self) -> None:
        """Note a success."""
        if self._tokens < self._most:
            self._tokens = min(self._most, self._tokens + self.EARNED)


class Retries:
    """The tries of one request: asked after each failure whether, and when, to go on.

    Args:
        policy: How often and how patiently.
        budget: The driver's.
    """

    __slots__ = ("_budget", "_policy", "attempt")

    def __init__(self, policy: RetryPolicy, budget: RetryBudget) -> None:
        self._policy = policy
        self._budget = budget
        self.attempt = 1

    def after(self, error: TroveError) -> float | None:
        """Return the seconds to wait before the next try, or None if there is to be none."""
        if not error.retryable or isinstance(error, PoolTimeoutError):
            return None  # who has waited in line for so long here is not told to do so again
        if self.attempt >= self._policy.attempts or not self._budget.spend():
            return None
        pause = self._policy.delay(self.attempt, error.retry_after)
        self.attempt += 1
        return pause
