"""The retries of one request, and the retry budget of a driver."""

from __future__ import annotations

from trove_async._concurrency import speculative
from trove_async.errors import PoolTimeoutError, TroveError
from trove_async.retry import RetryPolicy

from .breaker import Breaker, CircuitOpenError


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
        breaker: The driver's circuit breaker. While it is open, the request is not repeated.
        in_progress: Whether the request continues a transfer. It is then repeated nevertheless, and
            each of its attempts waits for the breaker (`Breaker.wait`).

    Attributes:
        attempt: The number of the current attempt, from 1.
    """

    __slots__ = ("_breaker", "_budget", "_failure", "_in_progress", "_policy", "attempt")

    def __init__(
        self,
        policy: RetryPolicy,
        budget: RetryBudget,
        breaker: Breaker | None = None,
        *,
        in_progress: bool = False,
    ) -> None:
        self._policy = policy
        self._budget = budget
        self._breaker = breaker
        self._in_progress = in_progress
        self._failure: TroveError | None = None  # of the last attempt that was made
        self.attempt = 1

    def after(self, error: TroveError) -> float | None:
        """Return the pause in seconds before the next attempt; None: do not retry."""
        if not isinstance(error, CircuitOpenError):
            self._failure = error
        if not error.retryable or isinstance(error, PoolTimeoutError):
            return None  # a second wait for a permit would only double Timeout.permit
        if speculative.get():
            return None  # its budget pays for one request
        if self._breaker is not None and self._breaker.tripped and not self._in_progress:
            return None
        if self.attempt >= self._policy.attempts or not self._budget.spend():
            return None
        pause = self._policy.delay(self.attempt, error.retry_after)
        self.attempt += 1
        return pause

    def raise_earlier(self, error: TroveError) -> None:
        """Raise the error of the previous attempt if `error` is a `CircuitOpenError`: no request was sent.

        Only the earlier error shows whether the request may have succeeded.
        """
        failure = self._failure
        if failure is not None and isinstance(error, CircuitOpenError):
            failure.add_note(f"(not repeated: {error.message})")
            raise failure from failure.__cause__
