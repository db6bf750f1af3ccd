"""The retry policy: how often a failed request is sent again, and when requests stop being sent at all."""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import inf

from ._settings import check_counts, check_ints, check_numbers
from .errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreaker:
    """When a backend is considered unavailable, so that requests to it fail at once.

    Each driver of a service has a circuit breaker. It *opens* after `failures` attempts in a row failed
    with UnavailableError or TimedOutError, over at least `duration` seconds, and no request to the
    driver succeeded meanwhile. A service that throttles a part of its requests therefore does not open
    it. While it is open, requests raise UnavailableError without being sent, and are not retried.
    After a pause, one request is sent as a *probe*. If it succeeds, the breaker closes. If it fails,
    the next pause is twice as long. Any other success closes the breaker as well, for example of
    `Trove.health`, which always sends its pings.

    A download or an upload in parts that is in progress does not fail at once. Each of its remaining
    attempts waits for the next probe.

    Drivers without a network (`Capabilities.embedded`) have no circuit breaker.

    Args:
        failures: The number of failed attempts in a row.
        duration: The minimum time from the start of the first of these attempts, in seconds.
        pause: The maximum of the first pause, in seconds. A pause is random between half its maximum
            and its maximum.
        max_pause: The maximum of any pause, in seconds. A probe that takes longer does not keep the
            next one waiting.

    Raises:
        ConfigError: A value is out of range.
        TypeError: A value has the wrong type.
    """

    failures: int = 10
    duration: float = 5.0
    pause: float = 1.0
    max_pause: float = 30.0

    def __post_init__(self) -> None:
        check_counts(failures=self.failures)
        check_numbers(duration=self.duration, pause=self.pause, max_pause=self.max_pause)
        if not 0 <= self.duration < inf or not 0 < self.pause <= self.max_pause < inf:
            raise ConfigError(
                "duration must be 0 or more, pause more than 0 and at most max_pause, and all of them"
                f" finite, got {self}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a failed request is sent again, and after which pauses.

    The pause before attempt *n* is random between 0 and ``min(max_delay, base_delay * 2 ** (n - 2))``
    (AWS Architecture Blog, "Exponential Backoff and Jitter": full jitter). If the service requests a
    longer pause, the policy uses it, up to `max_delay`.

    Args:
        attempts: The number of attempts, including the first; 1 disables retries.
        base_delay: The maximum of the first pause, in seconds.
        max_delay: The maximum of any pause, in seconds, even if the service requests a longer one.
        budget: The number of retries that all requests of one driver share. Ten successful requests
            earn one retry back, up to this number. The budget keeps a failing backend from being
            flooded with retries.
        breaker: When requests stop being sent, because the backend is considered unavailable; None:
            never.

    Raises:
        ConfigError: A value is out of range.
        TypeError: A value has the wrong type.
    """

    attempts: int = 5
    base_delay: float = 0.1
    max_delay: float = 10.0
    budget: int = 100
    breaker: CircuitBreaker | None = CircuitBreaker()

    def __post_init__(self) -> None:
        if self.breaker is not None and not isinstance(self.breaker, CircuitBreaker):
            raise TypeError(
                f"breaker must be a CircuitBreaker or None, got {type(self.breaker).__name__}"
            )
        check_ints(attempts=self.attempts, budget=self.budget)
        check_numbers(base_delay=self.base_delay, max_delay=self.max_delay)
        if self.attempts < 1 or self.base_delay < 0 or self.max_delay < 0 or self.budget < 0:
            raise ConfigError(
                f"attempts must be at least 1, and the other values must not be negative, got {self}"
            )

    def delay(self, attempt: int, retry_after: float | None = None) -> float:
        """Return the pause in seconds after attempt number `attempt` has failed."""
        # A float overflows at 2.0 ** 1024.
        ceiling = min(self.max_delay, self.base_delay * 2.0 ** min(attempt - 1, 1000))
        jittered = random.uniform(0, ceiling)  # noqa: S311 - spreads load, keeps no secret
        return min(self.max_delay, max(jittered, retry_after or 0.0))
