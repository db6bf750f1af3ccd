"""The retry policy: how often a failed request is sent again, and after which pauses."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ._settings import check_ints, check_numbers
from .errors import ConfigError


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

    Raises:
        ConfigError: A value is out of range.
        TypeError: A value has the wrong type.
    """

    attempts: int = 5
    base_delay: float = 0.1
    max_delay: float = 10.0
    budget: int = 100

    def __post_init__(self) -> None:
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
