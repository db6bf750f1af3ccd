"""The retries of one request, and the retry budget of a driver."""

from __future__ import annotations

from typing import NoReturn

from trove_async._concurrency import speculative
from trove_async.errors import PoolTimeoutError, TroveError
from trove_async.retry import RetryPolicy

from .breaker import Breaker, CircuitOpenError


class RetryBudget:
    """The retries that a driver may still make. A retry costs one; a success earns a tenth of one.

    Args:
        policy: `RetryPolicy.budget` is the initial and the maximum balance.

    Attributes:
        is_full: Whether the balance is the maximum, so that a success earns nothing.
    """

    __slots__ = ("_balance", "_limit", "is_full")

    COST = 10
    """The number of successes that pay for one retry. In the long run, at most a tenth of requests are retries."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._limit = policy.budget * self.COST
        self._balance = self._limit  # in successes: ten floats of 0.1 would not add up to 1
        self.is_full = True

    def spend(self) -> bool:
        """Pay for one retry. Return False if the balance is too low."""
        if self._balance < self.COST:
            return False
        self._balance -= self.COST
        self.is_full = False
        return True

    def earn(self) -> None:
        """Record a success."""
        self._balance = min(self._balance + 1, self._limit)
        self.is_full = self._balance == self._limit


class FailedAttempt:
    """The first attempt of a request, which was made without `Calls.retry` and failed.

    Args:
        error: Its error.
        successes: The value of `Breaker.successes` when it began.
        started: The time at which it began.

    Attributes:
        maybe_done: Whether it may have succeeded although it raised.
        started: The time at which it began.
    """

    __slots__ = ("_error", "_successes", "maybe_done", "started")

    def __init__(self, error: TroveError, successes: int, started: float) -> None:
        # Only until it is raised: its traceback refers to the frame that refers to this object.
        self._error: TroveError | None = error
        self._successes = successes
        self.maybe_done = error.maybe_done
        self.started = started

    def raise_error(self, breaker: Breaker) -> NoReturn:
        """Record the failure in the circuit breaker, and raise the error. Call this once."""
        error, self._error = self._error, None
        assert error is not None  # noqa: S101 - called once
        breaker.failed(error, successes=self._successes, started=self.started)
        try:
            raise error
        finally:
            del error


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
