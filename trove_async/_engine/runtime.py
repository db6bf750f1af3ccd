"""What all handles of one store share, and what every operation begins and ends with."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from itertools import count
from typing import TypeVar

from trove_async._concurrency import Deadlines
from trove_async.driver import AsyncDriver
from trove_async.errors import BackendNotFoundError, ClosedError, TroveError
from trove_async.events import Event, Events
from trove_async.models import Timeout
from trove_async.pool import BufferPool
from trove_async.retry import RetryPolicy
from trove_async.router import Router

from .backends import Backends
from .buckets import CreateMissing

T = TypeVar("T")


class Runtime:
    """One store's drivers, rules, memory and state.

    Args:
        drivers: By their backends' names, the default first.
        router: The rules of the routed handle.
        pool: The memory.
        retry: For every leaf driver.
        timeout: For every operation.
        create_missing: See `Trove`.
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
    ) -> None:
        for name, driver in drivers.items():
            if isinstance(driver, type):
                raise TypeError(f"backend {name!r} is a class: make one, {driver.__name__}(…)")
            if not isinstance(driver, AsyncDriver):
                raise TypeError(
                    f"backend {name!r} is a driver or a URL, not {type(driver).__name__}"
                )
        self.names = tuple(drivers)
        self.router = router
        self.pool = pool
        self.events = Events()
        self.timeout = timeout
        self.create_missing = create_missing
        self.deadlines = Deadlines()
        self.backends = Backends(
            drivers,
            pool=pool,
            events=self.events,
            timeout=timeout,
            retry=retry,
            deadlines=self.deadlines,
        )
        self._writes = count()
        self._writer = ""
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._closed = False

    async def open(self) -> None:
        """Open every driver, in this event loop and process.

        Raises:
            ClosedError: The store was opened before: make a new one.
            ConfigError: A driver's settings, or the pool's, cannot work.
        """
        if self._home is not None or self._closed:
            raise ClosedError("a store is opened once: make a new Trove")
        self._home = os.getpid(), asyncio.get_running_loop()
        self._writer = secrets.token_hex(8)
        try:
            await self.pool.check_spill_dir()
            await self.backends.open()
        except BaseException:
            self._closed = True
            raise

    async def aclose(self) -> None:
        """Close every driver once. Idempotent; after a cancel, a second call goes on."""
        if self._home is not None:
            self._check_home()  # first: whoever may not close it leaves it open for its owner
        self._closed = True
        if self._home is not None:
            try:
                await self.backends.aclose()
            finally:
                self.deadlines.close()

    def new_write_id(self) -> str:
        """Return an id that no other write has, of this store or another (`models.is_earlier`)."""
        return f"{self._writer}-{next(self._writes):x}"

    def check_backend(self, name: str) -> None:
        """Raise BackendNotFoundError if there is no backend of this name."""
        if name not in self.names:
            known = ", ".join(map(repr, self.names))
            raise BackendNotFoundError(f"no backend {name!r} in this store: there are {known}")

    def check_usable(self) -> None:
        """Raise ClosedError, with what to do, if the store may not be used here and now."""
        if self._closed:
            raise ClosedError("this store is closed: make a new Trove")
        if self._home is None:
            raise ClosedError(
                "this store is not open yet: use it inside `async with Trove(…)`, or `await store.open()`"
            )
        self._check_home()

    def _check_home(self) -> None:
        assert self._home is not None  # noqa: S101 - asked only once it was opened
        if self._home[0] != os.getpid():
            raise ClosedError("this store was opened before a fork: open a Trove in each process")
        if self._home[1] is not asyncio.get_running_loop():
            raise ClosedError(
                "this store belongs to another event loop: open a Trove in each loop that uses one"
            )

    async def run(
        self, operation: str, bucket: str | None, key: str | None, work: Callable[[], Awaitable[T]]
    ) -> T:
        """Do one operation of a user's: usable, within the deadline, told, its errors located."""
        self.check_usable()
        if not self.events:
            return await self._located(operation, bucket, key, work)
        started = asyncio.get_running_loop().time()
        outer = self.events.start(operation, bucket, key)
        failure: BaseException | None = None
        try:
            return await self._located(operation, bucket, key, work)
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

    async def _located(
        self, operation: str, bucket: str | None, key: str | None, work: Callable[[], Awaitable[T]]
    ) -> T:
        try:
            if self.timeout.total is None:
                return await work()
            return await self.deadlines.within(
                self.timeout.total, f"{operation} was not done", work()
            )
        except TroveError as error:
            error.operation = operation
            error.located(bucket=bucket, key=key)
            raise

    def body_event_emitter(
        self, operation: str, bucket: str, key: str
    ) -> Callable[[str, int], None] | None:
        """Return what tells, once, that a body was read: its backend, and how many bytes.

        It belongs to the operation under way now, wherever it ends. None: nobody listens.
        """
        if not self.events:
            return None
        clock = asyncio.get_running_loop().time
        started, here = clock(), Event(kind="body", operation=operation, bucket=bucket, key=key)

        def told(backend: str, size: int) -> None:
            self.events.emit(replace(here, backend=backend, size=size, duration=clock() - started))

        return told
