"""Calls of a driver: each request gets a permit, a time limit, retries, events and error context.

While a retry pauses, it holds no permit, and no memory except the bytes that it will send again.
Permits are acquired in this package and not by drivers: one for each call that sends requests, except
pings, presigned URLs and aborts. The requests that a driver sends within a call need no further permit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar, TypeVarTuple, Unpack

import anyio

from trove_async._concurrency import Deadlines, OwnedTasks, Permits, speculative
from trove_async._secrets import redact_nothing
from trove_async.driver import AsyncDriver, Capabilities, DriverContext, Redacting
from trove_async.errors import (
    AlreadyExistsError,
    NotFoundError,
    PoolTimeoutError,
    PreconditionFailedError,
    TroveError,
)
from trove_async.events import Event
from trove_async.models import BreakerState, MiB, ObjectInfo
from trove_async.retry import RetryPolicy

from .breaker import Breaker, CircuitOpenError
from .lost_responses import LostResponse
from .retries import FailedAttempt, Retries, RetryBudget

T = TypeVar("T")
Args = TypeVarTuple("Args")

_CAUSED_BY_OWN_WRITE = (PreconditionFailedError, AlreadyExistsError, NotFoundError)
"""Errors that a retry of a write may get if an earlier attempt succeeded and its response was lost."""


class Calls:
    """The calls of one open driver.

    Args:
        driver: The open driver.
        context: The context that it was opened with.
        policy: The retry policy.
        tasks: The store's tasks, for read-ahead and for parked connections that are being closed.
        deadlines: Enforces the time limits.
    """

    def __init__(
        self,
        driver: AsyncDriver,
        context: DriverContext,
        policy: RetryPolicy,
        *,
        tasks: OwnedTasks,
        deadlines: Deadlines,
    ) -> None:
        self.driver = driver
        # A service's error may quote the request, including the driver's secrets.
        self.redact = driver.redact if isinstance(driver, Redacting) else redact_nothing
        self.tasks = tasks
        self.backend = context.backend
        self.pool = context.pool
        self.events = context.events
        self.timeout = context.timeout
        self.capabilities: Capabilities = driver.capabilities
        self.read_permits = Permits(self.capabilities.max_reads, "connection for reading")
        self.write_permits = Permits(self.capabilities.max_writes, "connection for writing")
        self.request_permits = Permits(
            self.capabilities.max_requests, "connection for other requests"
        )
        self.clock = asyncio.get_running_loop().time
        # Whether a first attempt may skip the time limit that `await_response` applies.
        self.is_timed = self.capabilities.embedded or self.capabilities.own_timeouts
        self._policy = policy
        self._within = deadlines.within
        self._budget = RetryBudget(policy)
        # A driver without a network has no timeouts to save. Its temporary failures (a lock that is
        # held, a file that changes) are about single objects.
        settings = None if self.capabilities.embedded else policy.breaker
        self.breaker = Breaker(settings, self.clock, self._on_breaker_change, self.redact)

    async def retry(
        self,
        operation: str,
        bucket: str | None,
        key: str | None,
        attempt: Callable[[], Awaitable[T]],
        *,
        recognise: Callable[[TroveError], Awaitable[tuple[T] | None]] | None = None,
        in_progress: bool = False,
        failed: FailedAttempt | None = None,
    ) -> T:
        """Return the result of `attempt`, which is repeated as the retry policy allows.

        While the circuit breaker is open, no attempt is made.

        Args:
            operation: The operation, for events and errors.
            bucket: The bucket, for events and errors.
            key: The key, for events and errors.
            attempt: Makes one attempt.
            recognise: Called with the error of a retry. If an earlier attempt turns out to have
                succeeded, it returns the result of that attempt in a tuple, otherwise None.
            in_progress: Whether the request continues a transfer. An attempt that meets an open circuit
                breaker then waits for the next probe (`Breaker.wait`), and is repeated if that fails.
            failed: The first attempt, if it was made already.
        """
        retries: Retries | None = None
        while True:
            started = self.clock() if failed is None else failed.started
            # 1. Make one attempt, unless the circuit breaker is open.
            try:
                if failed is not None:
                    failed.raise_error(self.breaker)
                result = await self.breaker.guard(attempt, wait=in_progress)
            except TroveError as error:
                failed = None
                # 2. It failed: add context to the error and emit an event.
                self.locate(error, operation, bucket, key)
                retries = retries or self.retries(in_progress=in_progress)
                if self.events and not isinstance(error, CircuitOpenError):
                    self._emit(
                        operation,
                        bucket,
                        key,
                        duration=self.clock() - started,
                        attempt=retries.attempt,
                        error=error,
                    )
                # 3. An earlier attempt may have succeeded without its response arriving.
                if retries.attempt > 1 and recognise is not None:
                    recognised = await recognise(error)
                    if recognised is not None:
                        return recognised[0]
                # 4. Retry after a pause, if the error, the breaker, the policy and the budget allow it.
                pause = retries.after(error)
                if pause is None:
                    retries.raise_earlier(error)
                    retries = None  # it refers to the error, whose traceback refers to this frame
                    raise
            else:
                self._budget.earn()
                if self.events:
                    self._emit(
                        operation,
                        bucket,
                        key,
                        duration=self.clock() - started,
                        attempt=retries.attempt if retries else 1,
                    )
                return result
            await anyio.sleep(pause)

    def succeeded(self) -> None:
        """Record the success of a first attempt that was made without `retry`."""
        breaker = self.breaker
        breaker.successes += 1
        if breaker.failures:
            breaker.reset()
        if not self._budget.is_full:
            self._budget.earn()

    def _on_breaker_change(self, state: BreakerState, error: TroveError | None) -> None:
        if self.events:
            self.events.emit(
                Event(
                    kind="breaker",
                    operation="breaker",
                    backend=self.backend,
                    error=error,
                    state=state,
                )
            )
        if state == "open":
            # Otherwise each request in line would wait for its permit and then for its timeout.
            for permits in (self.read_permits, self.write_permits, self.request_permits):
                permits.dismiss()

    def _emit(
        self,
        operation: str,
        bucket: str | None,
        key: str | None,
        *,
        kind: Literal["attempt", "wait"] = "attempt",
        duration: float,
        attempt: int = 1,
        error: TroveError | None = None,
    ) -> None:
        self.events.emit(
            Event(
                kind=kind,
                operation=operation,
                backend=self.backend,
                bucket=bucket,
                key=key,
                duration=duration,
                attempt=attempt,
                error=error,
            )
        )

    def track_lost_response(self, failed: FailedAttempt | None) -> LostResponse:
        """Return a tracker for the attempts of one write. `failed` is the first one, if it was made already."""
        tracker = LostResponse(self.clock if self.capabilities.settles_doubt else None)
        if failed is not None:
            tracker.record(failed.maybe_done, failed.started)
        return tracker

    def retries(self, *, in_progress: bool = False) -> Retries:
        """Return a counter for the attempts of one request. See `Retries`."""
        return Retries(self._policy, self._budget, self.breaker, in_progress=in_progress)

    def locate(
        self, error: TroveError, operation: str, bucket: str | None, key: str | None
    ) -> None:
        """Add the operation and the object to an error, and remove the driver's secrets from it."""
        self.redact(error)
        error.located(operation=operation, backend=self.backend, bucket=bucket, key=key)

    def await_response(self, work: Awaitable[T], idle_timeouts: int = 0) -> Awaitable[T]:
        """Limit the time until the response arrives, unless the driver is embedded.

        The limit is `Timeout.first_byte`, plus `idle_timeouts` times `Timeout.idle`.
        """
        if self.capabilities.embedded:
            return work
        seconds = self.timeout.first_byte + self.timeout.idle * idle_timeouts
        return self._within(seconds, "no response arrived", work)

    def await_progress(self, work: Awaitable[T], message: str) -> Awaitable[T]:
        """Limit the wait for the next bytes of a body to `Timeout.idle`, unless the driver is embedded."""
        if self.capabilities.embedded:
            return work
        return self._within(self.timeout.idle, message, work)

    async def acquire(
        self, permits: Permits, operation: str, bucket: str | None, key: str | None
    ) -> None:
        """Acquire a permit. Emit an event if that had to wait.

        Raises:
            PoolTimeoutError: No permit became free in time, or the request is `speculative` and would
                have to wait.
            CircuitOpenError: The circuit breaker opened during the wait.
        """
        if permits.try_acquire():
            return
        if speculative.get():
            # Not retryable, so that it is not logged as a failed attempt.
            raise PoolTimeoutError("no connection is free for a second request", retryable=False)
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            await permits.acquire(self.timeout.permit)
        except PoolTimeoutError:
            if self.breaker.state == "open":
                raise self.breaker.refusal() from None
            raise
        if self.breaker.state == "open":  # it opened between the permit and this step of the task
            permits.release()
            raise self.breaker.refusal()
        if self.events:
            self._emit(operation, bucket, key, kind="wait", duration=clock() - started)

    async def request(
        self,
        operation: str,
        bucket: str | None,
        key: str | None,
        call: Callable[[Unpack[Args]], Awaitable[T]],
        *args: *Args,
        idle_timeouts: int = 0,
    ) -> T:
        """Send a request that transfers no body, with a permit and a time limit.

        The time limit does not include the wait for the permit, which `Timeout.permit` limits.

        Args:
            operation: The operation, for events.
            bucket: The bucket, for events.
            key: The key, for events.
            call: The driver's method.
            *args: The arguments of `call`.
            idle_timeouts: The number of idle timeouts to add to `Timeout.first_byte`.
        """
        if not self.request_permits.try_acquire():
            await self.acquire(self.request_permits, operation, bucket, key)
        try:
            return await self.await_response(call(*args), idle_timeouts)
        finally:
            self.request_permits.release()

    async def write(
        self, operation: str, bucket: str, key: str, size: int, work: Callable[[], Awaitable[T]]
    ) -> T:
        """Send `size` bytes, with a permit. The time limit grows by one idle timeout per mebibyte."""
        await self.acquire(self.write_permits, operation, bucket, key)
        try:
            return await self.await_response(work(), -(-size // MiB))
        finally:
            self.write_permits.release()

    async def head(
        self,
        bucket: str,
        key: str,
        version_id: str | None = None,
        failed: FailedAttempt | None = None,
    ) -> ObjectInfo:
        """Return the object's metadata."""
        return await self.retry(
            "head",
            bucket,
            key,
            lambda: self.request("head", bucket, key, self.driver.head, bucket, key, version_id),
            failed=failed,
        )

    async def recognise_write(
        self, error: TroveError, bucket: str, key: str, write_id: str | None
    ) -> tuple[ObjectInfo] | None:
        """Return the stored object if an earlier attempt of this write has stored it, else None."""
        if write_id is None or not isinstance(error, _CAUSED_BY_OWN_WRITE):
            return None
        try:
            info = await self.head(bucket, key)
        except NotFoundError:
            return None
        return (info,) if info.write_id == write_id else None
