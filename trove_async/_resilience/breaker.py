"""The circuit breaker of a driver: while its backend is unavailable, requests fail at once.

::

    closed ── N failed attempts in a row, over at least five seconds ──> open
    open ── the pause is over: one request, the probe, is let through ──> half-open
    half-open ── the probe fails: the next pause is twice as long ──> open
    half-open ── the probe is cancelled: the next request is the probe ──> open
    open, half-open ── any request or ping succeeds ──> closed

The pattern is from M. Nygard, "Release It!". Two kinds of rule are in use to open a circuit. A rate over
a window (Polly: 10 % of at least 100 calls in 30 s; resilience4j: 50 % of the last 100 calls) opens it for
a service that throttles a share of its requests, although the others succeed. A run of failures without
any success between them (Envoy's outlier detection: ``consecutive_5xx``) proves more, and costs one
counter. This breaker uses a run, with the minimum time of Polly's kind of rule: a burst of concurrent
requests that meets a restart of the service does not open the circuit. The minimum costs callers little.
It counts from the start of the first attempt, so timeouts, which are longer, open the circuit when they
end. Requests that are refused fail in milliseconds anyway.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias, TypeVar

from trove_async._secrets import redact_nothing
from trove_async.errors import (
    AlreadyExistsError,
    BucketNotEmptyError,
    NotFoundError,
    PermissionDeniedError,
    PoolTimeoutError,
    PreconditionFailedError,
    RangeError,
    StorageFullError,
    TroveError,
    UnavailableError,
)
from trove_async.models import BreakerState
from trove_async.retry import CircuitBreaker

T = TypeVar("T")

Transition: TypeAlias = Callable[[BreakerState, "TroveError | None"], object]

_RESPONSES = (
    NotFoundError,
    AlreadyExistsError,
    PreconditionFailedError,
    BucketNotEmptyError,
    PermissionDeniedError,
    RangeError,
    StorageFullError,
)
"""Errors that a working service sends as its response. Other errors may be raised without a response."""


class CircuitOpenError(UnavailableError):
    """The request was not sent, because the backend is considered unavailable."""

    maybe_done = False


class Breaker:
    """The state of one driver's circuit. No method blocks or sends a request.

    An attempt counts as failed if it raised UnavailableError or TimedOutError, and no request has
    succeeded since the attempt began. `PoolTimeoutError` is about this process and does not count.

    Args:
        settings: The settings; None: the circuit is always closed.
        clock: The event loop's clock.
        on_change: Called after each change of state, with the new state and the error that caused it.
        redact: Removes secrets from an error.

    Attributes:
        state: The state of the circuit.
        tripped: Whether the state is not ``closed``.
        successes: The number of successes. An attempt that begins notes it, for `failed`.
        failures: The number of failed attempts in a row. It is not 0 while `tripped`.
    """

    __slots__ = (
        "_changed",
        "_clock",
        "_due",
        "_last_error",
        "_on_change",
        "_openings",
        "_redact",
        "_settings",
        "_since",
        "failures",
        "state",
        "successes",
        "tripped",
    )

    def __init__(
        self,
        settings: CircuitBreaker | None,
        clock: Callable[[], float],
        on_change: Transition,
        redact: Callable[[TroveError], None] = redact_nothing,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._on_change = on_change
        self._redact = redact
        self.state: BreakerState = "closed"
        self.tripped = False
        self.successes = 0
        self.failures = 0
        self._since = 0.0  # the start of the first attempt of the run
        self._last_error = ""
        self._openings = 0  # in a row, without a success
        self._due = 0.0  # the time from which the next request is the probe
        self._changed: asyncio.Future[None] | None = None

    # -- before an attempt: called only while `tripped` ------------------------------------------------

    def admit(self) -> Literal[True]:
        """Admit the probe. Every other request is refused.

        Raises:
            CircuitOpenError: No probe is due.
        """
        assert self._settings is not None  # noqa: S101 - otherwise never tripped
        now = self._clock()
        if now < self._due:
            raise self.refusal()
        # A probe that takes very long, such as a large upload to a slow service, does not keep the
        # next one waiting.
        self._due = now + self._settings.max_pause
        self._change("half-open", None)
        return True

    async def wait(self) -> bool:
        """Wait until the circuit is closed, or until this request is the probe.

        This is for transfers in progress, which would lose more than the time of a request.

        Returns:
            Whether this request is the probe.

        Raises:
            CircuitOpenError: A probe of another request failed.
        """
        openings = self._openings
        while self.tripped:
            remaining = self._due - self._clock()
            if remaining <= 0:
                return self.admit()
            if self._openings != openings:
                raise self.refusal()
            if self._changed is None:
                self._changed = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._changed], timeout=remaining)
        return False

    def refusal(self) -> CircuitOpenError:
        """Return the error of a request that is not sent."""
        assert self._settings is not None  # noqa: S101 - otherwise never tripped
        now = self._clock()
        pause = max(self._due - now, 0.0)
        next_request = f"the next request is sent in {pause:.1f} s"
        if self.state == "half-open":  # `_due` is the time at which the probe is given up
            pause = min(pause, self._settings.pause)
            next_request = "a request that probes it is in progress"
        return CircuitOpenError(
            f"the request was not sent: the backend is considered unavailable, because"
            f" {self.failures} attempts in a row failed in {now - self._since:.0f} s, the last one with"
            f" {self._last_error}; {next_request}",
            retry_after=pause,
        )

    # -- after an attempt --------------------------------------------------------------------------

    def failed(
        self, error: TroveError, *, successes: int, started: float, probe: bool = False
    ) -> None:
        """Record an attempt that raised an error.

        Args:
            error: The error.
            successes: The value of `successes` when the attempt began.
            started: The time at which the attempt began.
            probe: Whether the attempt was the probe.
        """
        if isinstance(error, _RESPONSES):
            self.succeeded()
        elif not isinstance(error, UnavailableError) or isinstance(
            error, (PoolTimeoutError, CircuitOpenError)
        ):
            if probe:
                self.give_back()  # the request was not sent, or its error proves nothing
        elif self.tripped:
            if probe:
                self._open(error)
        elif self._settings is not None and successes == self.successes:
            self.failures += 1
            self._since = started if self.failures == 1 else min(self._since, started)
            if (
                self.failures >= self._settings.failures
                and self._clock() - self._since >= self._settings.duration
            ):
                self._open(error)

    def succeeded(self) -> None:
        """Record a success. It closes the circuit."""
        self.successes += 1
        if self.failures:
            self.reset()

    def reset(self) -> None:
        """Forget the failures and close the circuit, after a success."""
        self.failures = self._openings = 0
        if self.tripped:
            self._change("closed", None)

    def give_back(self) -> None:
        """Record that the probe ended without an outcome, so that the next request is the probe."""
        if self.state == "half-open":
            self._due = self._clock()
            self._change("open", None)

    async def guard(self, attempt: Callable[[], Awaitable[T]], *, wait: bool) -> T:
        """Make an attempt, unless it is refused, and record its outcome.

        Args:
            attempt: Makes the attempt.
            wait: Whether to wait for the next probe instead of refusing the attempt (`wait`).

        Raises:
            CircuitOpenError: The attempt was refused.
        """
        probe = self.tripped and (await self.wait() if wait else self.admit())
        successes, started = self.successes, self._clock()
        try:
            result = await attempt()
        except TroveError as error:
            self.failed(error, successes=successes, started=started, probe=probe)
            raise
        except BaseException:
            if probe:
                self.give_back()
            raise
        self.succeeded()
        return result

    async def record(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Make an attempt even if the circuit is open, and record its outcome."""
        successes, started = self.successes, self._clock()
        try:
            result = await attempt()
        except TroveError as error:
            self.failed(error, successes=successes, started=started)
            raise
        self.succeeded()
        return result

    def _open(self, error: TroveError) -> None:
        settings = self._settings
        assert settings is not None  # noqa: S101 - otherwise no failure is counted
        pause = min(settings.max_pause, settings.pause * 2.0 ** min(self._openings, 1000))
        self._openings += 1
        # Jitter, so that the processes of a service do not send their probes at the same time.
        self._due = self._clock() + random.uniform(pause / 2, pause)  # noqa: S311 - no secret
        # The text only: the error itself would keep its traceback, and the frames in it, alive.
        self._redact(error)
        self._last_error = f"{type(error).__name__}: {error.message}"
        self._change("open", error)

    def _change(self, state: BreakerState, error: TroveError | None) -> None:
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)
        if state == self.state:
            return
        self.state = state
        self.tripped = state != "closed"
        self._on_change(state, error)
