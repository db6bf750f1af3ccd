"""When a failed request is sent again, and how much of that a failing backend is allowed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ._settings import check_ints, check_numbers
from .errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how patiently one request is tried.

    The pause before try *n* is random between 0 and ``min(max_delay, base_delay * 2 ** (n - 2))``
    (AWS Architecture Blog, "Exponential Backoff and Jitter": full jitter), or what the service
    asked for, if that is longer.

    Args:
        attempts: Tries in all, the first one included; 1 switches retries off.
        base_delay: Seconds, for the first pause.
        max_delay: Seconds that no pause exceeds, whatever the service asks for.
        budget: How many retries a driver may have outstanding in all, beside those that its
            successes earn back: what keeps a dead backend from being hammered.

    Raises:
        ConfigError: A number that makes no sense.
        TypeError: One is no number.
    """

    attempts: int = 5
    base_delay: float = 0.1
    max_delay: float = 10.0
    budget: int = 100

    def __post_init__(self) -> None:
        check_ints(attempts=self.attempts, budget=self.budget)
        check_numbers(base_delay=self.base_delay, max_delay=self.max_delay)
        if self.attempts < 1 or self.base_delay < 0 or self.max_delay < 0 or self.budget < 0:
            raise ConfigError(f"attempts is at least 1 and nothing is negative in {self}")

    def delay(self, attempt: int, retry_after: float | None = None) -> float:
        """Return the seconds to wait after try number `attempt` failed."""
        ceiling = min(self.max_delay, self.base_delay * 2.0 ** min(attempt - 1, 1000))
        jittered = random.uniform(0, ceiling)  # noqa: S311 - spreads load, keeps no secret
        return min(self.max_delay, max(jittered, retry_after or 0.0))
