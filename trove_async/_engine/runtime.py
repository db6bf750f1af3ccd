"""The state that all handles of one store share, and the code that runs around every operation."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import TypeVar

from trove_async._concurrency import CloseStack, Deadlines, shielded
from trove_async.driver import AsyncDriver
from trove_async.errors import BackendNotFoundError, ClosedError, TroveError
from trove_async.events import Event, Events
from trove_async.models import Timeout
from trove_async.pool import BufferPool
from trove_async.retry import RetryPolicy
from trove_async.router import Router

from .backends import Backends
from .buckets import CreateMissing
from .key_guard import KeyGuard
from .locations import add_operation
from .placement import Placement
from .transforms import Transforms

T = TypeVar("T")


class Runtime:
    """The drivers, router, memory and state of one store.

    Args:
        drivers: The drivers by backend name, the default first.
        router: The routes of the store.
        pool: The memory that all transfers share.
        retry: The retry policy of every driver that is not a layer.
        timeout: The timeouts of every operation.
        create_missing: Whether a put creates missing buckets. See `Trove`.
        transforms: The middlewares of the store.
        placement: The moves of a store that looks for objects on all backends, else None.

    Attributes:
        write_ids: Unique ids for writes. Ids of one store are ordered (`options.is_earlier`).
    """

    def __init__(
        self,
        drivers: Mapping[str, AsyncDriver],
        *,
        router: Router,
        pool: BufferPool,
        retry: RetryPolicy,
        timeout: Timeout,
        create_missing: CreateMissing,
        transforms: Transforms,
        placement: Placement | None = None,
    ) -> None:
        for name, driver in drivers.items():
            if isinstance(driver, type):
                raise TypeError(
                    f"backend {name!r} must be a driver, got a class: pass {driver.__name__}(…)"
                )
            if not isinstance(driver, AsyncDriver):
                raise TypeError(
                    f"backend {name!r} must be a driver or a URL, got {type(driver).__name__}"
                )
        self.names = tuple(drivers)
        self.router = router
        self.pool = pool
        self.events = Events()
        self.timeout = timeout
        self.create_missing = create_missing
        self.transforms = transforms
        self.placement = placement
        self.deadlines = Deadlines()
        self.key_guard = KeyGuard()
        self.backends = Backends(
            drivers,
            pool=pool,
            events=self.events,
            timeout=timeout,
            retry=retry,
            deadlines=self.deadlines,
        )
        self._resources = CloseStack()
        self.write_ids = _write_ids("")
        self._owner: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._closed = False

    async def open(self) -> None:
        """Open every driver, in this event loop and process.

        Raises:
            ClosedError: The store was opened or closed before, or was closed during this call.
            ConfigError: The settings of a driver or of the pool are not valid.
        """
        if self._owner is not None or self._closed:
            raise ClosedError("a store can be opened once: create a new Trove")
        self._owner = os.getpid(), asyncio.get_running_loop()
        self.write_ids = _write_ids(secrets.token_hex(8))
        for close in self.transforms.closers():
            self._resources.push(close)
        self._resources.push(self.backends.aclose)  # closed first: their tasks use the middlewares
        try:
            await self.pool.check_spill_dir()
            await self.backends.open()
        except BaseException:
            self._closed = True
            raise
        # A concurrent `aclose` did not close the drivers that were opened after it.
        if self._closed:
            with shielded():
                await self.backends.aclose()
            raise ClosedError("the store was closed while it was being opened")

    async def aclose(self) -> None:
        """Close every driver once, then the middlewares with connections.

        Idempotent. After a cancel, a second call continues.
        """
        if self._owner is not None:
            self._check_owner()  # before closing: in the wrong loop or process the store stays open
        self._closed = True
        if self._owner is not None:
            try:
                await self._resources.aclose()
            finally:
                self.deadlines.close()

    def check_backend(self, name: str) -> None:
        """Raise BackendNotFoundError if the store has no backend of this name."""
        if not isinstance(name, str):
            raise TypeError(f"a backend's name must be a str, got {type(name).__name__}")
        if name not in self.names:
            names = ", ".join(map(repr, self.names))
            raise BackendNotFoundError(f"no backend {name!r} in this store: there are {names}")

    def is_direct(self) -> bool:
        """Check that the store can be used. Return whether operations need not be run by `run`.

        They are then awaited directly, which takes less time: there are no listeners, and no total timeout.

        Raises:
            ClosedError: As `check_usable`.
        """
        owner = self._owner
        if (
            self._closed
            or owner is None
            or owner[0] != os.getpid()
            or owner[1] is not asyncio.get_running_loop()
        ):
            self.check_usable()
        return self.timeout.total is None and not self.events.listeners

    def check_usable(self) -> None:
        """Raise ClosedError if the store is not open, or is used in a different loop or process."""
        # Every read of a body runs through this function.
        owner = self._owner
        if self._closed:
            raise ClosedError("this store is closed: create a new Trove")
        if owner is None:
            raise ClosedError(
                "this store is not open yet: use it inside `async with Trove(…)`, or `await store.open()`"
            )
        if owner[0] != os.getpid() or owner[1] is not asyncio.get_running_loop():
            self._check_owner()

    def _check_owner(self) -> None:
        assert self._owner is not None  # noqa: S101 - called only after open
        if self._owner[0] != os.getpid():
            raise ClosedError("this store was opened before a fork: open a Trove in each process")
        if self._owner[1] is not asyncio.get_running_loop():
            raise ClosedError(
                "this store belongs to a different event loop: open a Trove in each loop that uses one"
            )

    async def run(
        self, operation: str, bucket: str | None, key: str | None, work: Callable[[], Awaitable[T]]
    ) -> T:
        """Run one public operation.

        Checks that the store is open, applies the deadline, emits an event, and adds the operation,
        bucket and key to errors.
        """
        self.check_usable()
        if not self.events:
            return await self._run_in_context(operation, bucket, key, work)
        started = asyncio.get_running_loop().time()
        outer = self.events.start(operation, bucket, key)
        failure: BaseException | None = None
        try:
            return await self._run_in_context(operation, bucket, key, work)
        except BaseException as error:
            failure = error
            raise
        finally:
            event = Event(
                kind="operation",
                operation=operation,
                bucket=bucket,
                key=key,
                duration=asyncio.get_running_loop().time() - started,
                error=failure,
            )
            self.events.end(event, outer)

    async def _run_in_context(
        self, operation: str, bucket: str | None, key: str | None, work: Callable[[], Awaitable[T]]
    ) -> T:
        try:
            if self.timeout.total is None:
                return await work()
            return await self.deadlines.within(
                self.timeout.total, f"{operation} did not finish", work()
            )
        except TroveError as error:
            add_operation(error, operation, bucket, key)
            raise

    def body_event_emitter(
        self, operation: str, bucket: str, key: str
    ) -> Callable[[str, int], None] | None:
        """Return a function that emits the event of a body that was read; None if there are no listeners.

        Call it once, with the backend's name and the number of bytes. The event belongs to the current
        operation, even if the body is read after the operation has returned.
        """
        if not self.events:
            return None
        clock = asyncio.get_running_loop().time
        started, event = clock(), Event(kind="body", operation=operation, bucket=bucket, key=key)

        def emit(backend: str, size: int) -> None:
            self.events.emit(replace(event, backend=backend, size=size, duration=clock() - started))

        return emit


def _write_ids(store: str) -> Iterator[str]:
    return map(f"{store}-{{:x}}".format, count())
