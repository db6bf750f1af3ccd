"""How one request to a driver is made: a permit, a time limit, retries, events and located errors.

A retry holds no permit while it pauses, and no memory but the part that it is about to send again.
Permits are taken here and nowhere below, one for a call of the driver's: what a driver requests
within a call, and an abort, needs none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar, TypeVarTuple, Unpack

import anyio

from trove_async._concurrency import Deadlines, OwnedTasks, Permits
from trove_async._secrets import unredacted
from trove_async.driver import AsyncDriver, Capabilities, DriverContext, Redacting
from trove_async.errors import (
    AlreadyExistsError,
    NotFoundError,
    PreconditionFailedError,
    TroveError,
)
from trove_async.events import Event
from trove_async.models import MiB, ObjectInfo
from trove_async.retry import RetryPolicy

from .lost_responses import WriteAttempts
from .retries import Retries, RetryBudget

T = TypeVar("T")
Args = TypeVarTuple("Args")

_MAYBE_OURS = (PreconditionFailedError, AlreadyExistsError, NotFoundError)
"""How our own write may look to its second attempt, when the response to the first was lost."""


class Calls:
    """The calls of one open driver.

    Args:
        driver: The driver, open.
        context: What it was opened with.
        policy: How its failures are retried.
        tasks: The store's, for read-ahead.
        deadlines: The store's.
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
        # Services quote requests in their errors, and with them the driver's secrets.
        self.redact = driver.redact if isinstance(driver, Redacting) else unredacted
        self.tasks = tasks
        self.backend = context.backend
        self.pool = context.pool
        self.events = context.events
        self.timeout = context.timeout
        self.capabilities: Capabilities = driver.capabilities
        self.reads = Permits(self.capabilities.max_reads, "connection for reading")
        self.writes = Permits(self.capabilities.max_writes, "connection for writing")
        self.requests = Permits(self.capabilities.max_requests, "connection for other requests")
        self.clock = asyncio.get_running_loop().time
        self._policy = policy
        self._within = deadlines.within
        self._budget = RetryBudget(policy)

    async def retry(
        self,
        operation: str,
        bucket: str | None,
        key: str | None,
        attempt: Callable[[], Awaitable[T]],
        *,
        recognise: Callable[[TroveError], Awaitable[tuple[T] | None]] | None = None,
    ) -> T:
        """Return what `attempt` returns, trying again while that may help and is allowed.

        Args:
            operation: For events and errors.
            bucket: Likewise.
            key: Likewise.
            attempt: Makes one try.
            recognise: Asked what to make of the failure of a second try: returns the result, in a
                tuple, if it was our own first try that had done the work.
        """
        retries: Retries | None = None
        clock = asyncio.get_running_loop().time
        while True:
            started = clock()
            try:
                result = await attempt()
            except TroveError as error:
                self.locate(error, operation, bucket, key)
                retries = retries or self.retries()
                if self.events:
                    self._emit(
                        operation,
                        bucket,
                        key,
                        duration=clock() - started,
                        attempt=retries.attempt,
                        error=error,
                    )
                if retries.attempt > 1 and recognise is not None:
                    mine = await recognise(error)
                    if mine is not None:
                        return mine[0]
                pause = retries.after(error)
                if pause is None:
                    raise
            else:
                self._budget.earn()
                if self.events:
                    self._emit(
                        operation,
                        bucket,
                        key,
                        duration=clock() - started,
                        attempt=retries.attempt if retries else 1,
                    )
                return result
            await anyio.sleep(pause)

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

    def write_attempts(self) -> WriteAttempts:
        """Begin to watch the tries of one write."""
        return WriteAttempts(self.clock if self.capabilities.settles_doubt else None)

    def retries(self) -> Retries:
        """Begin to count the tries of one request."""
        return Retries(self._policy, self._budget)

    def locate(
        self, error: TroveError, operation: str, bucket: str | None, key: str | None
    ) -> None:
        """Add to the error what was tried, and where; remove the driver's secrets from it."""
        self.redact(error)
        error.located(operation=operation, backend=self.backend, bucket=bucket, key=key)

    def await_response(self, work: Awaitable[T], pace: int = 0) -> Awaitable[T]:
        """Bound the time until an answer begins: the first byte's, and `pace` idle times more."""
        if self.capabilities.embedded:
            return work
        seconds = self.timeout.first_byte + self.timeout.idle * pace
        return self._within(seconds, "no answer came", work)

    def await_progress(self, work: Awaitable[T], what: str) -> Awaitable[T]:
        """Bound the time between two chunks of a body."""
        if self.capabilities.embedded:
            return work
        return self._within(self.timeout.idle, what, work)

    async def acquire(
        self, permits: Permits, operation: str, bucket: str | None, key: str | None
    ) -> None:
        """Take a permit, and tell if it had to be waited for."""
        if permits.try_acquire():
            return
        clock = asyncio.get_running_loop().time
        started = clock()
        await permits.acquire(self.timeout.permit)
        if self.events:
            self._emit(operation, bucket, key, kind="wait", duration=clock() - started)

    async def request(
        self,
        operation: str,
        bucket: str | None,
        key: str | None,
        call: Callable[[Unpack[Args]], Awaitable[T]],
        *args: *Args,
        pace: int = 0,
    ) -> T:
        """Send a request that is neither a read nor a write: under a permit, its response bounded.

        Waiting for the permit counts against `Timeout.permit`, never as a response that is late.

        Args:
            operation: For events.
            bucket: Likewise.
            key: Likewise.
            call: The driver's method.
            *args: Its arguments.
            pace: Idle times that its response may take beyond the first byte's.
        """
        if not self.requests.try_acquire():
            await self.acquire(self.requests, operation, bucket, key)
        try:
            return await self.await_response(call(*args), pace)
        finally:
            self.requests.release()

    async def write(
        self, operation: str, bucket: str, key: str, size: int, work: Callable[[], Awaitable[T]]
    ) -> T:
        """Send filled memory, or a file: under a permit, at a mebibyte an idle time at the least."""
        await self.acquire(self.writes, operation, bucket, key)
        try:
            return await self.await_response(work(), -(-size // MiB))
        finally:
            self.writes.release()

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return what is known of the object."""
        return await self.retry(
            "head",
            bucket,
            key,
            lambda: self.request("head", bucket, key, self.driver.head, bucket, key, version_id),
        )

    async def own_write(
        self, error: TroveError, bucket: str, key: str, write_id: str | None
    ) -> tuple[ObjectInfo] | None:
        """Return what is stored if that is what an earlier try of this write has stored."""
        if write_id is None or not isinstance(error, _MAYBE_OURS):
            return None
        try:
            info = await self.head(bucket, key)
        except NotFoundError:
            return None
        return (info,) if info.write_id == write_id else None
