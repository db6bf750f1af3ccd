"""The backends of one store: each distinct driver opened once, closed once, whoever shares it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import anyio

from trove_async._concurrency import Deadlines, OwnedTasks, shielded
from trove_async._resilience.driver import ResilientDriver
from trove_async.driver import AsyncDriver, Capabilities, DriverContext, Layer, Redacting
from trove_async.errors import ClosedError, TroveError
from trove_async.events import Events
from trove_async.models import Timeout
from trove_async.pool import BufferPool
from trove_async.retry import RetryPolicy

SPILL_LANES = 1
"""Spilled parts that one backend sends at once: while sent they are resident, outside the pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendInfo:
    """What is known of one backend of a store.

    Attributes:
        name: Its name in the store.
        service: The driver's name for the service: ``"s3"``, ``"gcs"``, ``"local"``, ``"memory"``.
        capabilities: What it can honour.
    """

    name: str
    service: str
    capabilities: Capabilities


class Backend:
    """One named backend, open: the driver as the engine uses it."""

    __slots__ = ("capabilities", "driver", "name", "spill_lanes", "tasks")

    def __init__(self, name: str, driver: AsyncDriver, tasks: OwnedTasks) -> None:
        self.name = name
        self.driver = driver
        self.tasks = tasks
        self.capabilities: Capabilities = driver.capabilities
        self.spill_lanes = anyio.Semaphore(SPILL_LANES)


class Backends:
    """All backends of a store, in the order in which they were named; the default comes first.

    Args:
        drivers: The drivers by their backends' names, as the user gave them.
        pool: Handed down to the drivers.
        events: Likewise.
        timeout: Likewise.
        retry: For the leaves.
        deadlines: Likewise.
    """

    def __init__(
        self,
        drivers: Mapping[str, AsyncDriver],
        *,
        pool: BufferPool,
        events: Events,
        timeout: Timeout,
        retry: RetryPolicy,
        deadlines: Deadlines,
    ) -> None:
        self._drivers = drivers
        self._pool = pool
        self._events = events
        self._timeout = timeout
        self._retry = retry
        self._deadlines = deadlines
        self._tasks = OwnedTasks()
        self._attached: dict[int, AsyncDriver] = {}
        self._opened: list[AsyncDriver] = []
        self._backends: dict[str, Backend] = {}

    def __getitem__(self, name: str) -> Backend:
        return self._backends[name]

    def info(self, name: str) -> BackendInfo:
        """Return what users are shown of a backend, open or not."""
        backend = self._backends.get(name)
        driver = self._drivers[name] if backend is None else backend.driver
        return BackendInfo(name=name, service=driver.name, capabilities=driver.capabilities)

    async def open(self) -> None:
        """Open every driver; if one cannot be, close those that were and raise."""
        try:
            for name, driver in self._drivers.items():
                try:
                    attached = await self._attach(name, driver)
                except TroveError as error:
                    error.located(operation="open", backend=name)
                    raise
                self._backends[name] = Backend(name, attached, self._tasks)
        except BaseException:
            with shielded(), suppress(Exception):  # why it could not be opened is what matters
                await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close each distinct driver once, all of them, the last opened first.

        Raises:
            ExceptionGroup: Of every failure, if there were several; a single one comes as itself.
        """
        await self._tasks.aclose()
        failures: list[Exception] = []
        while self._opened:
            driver = self._opened[-1]
            try:
                await driver.aclose()
            except Exception as error:  # noqa: BLE001 - every driver is closed, every failure told
                failures.append(error)
            # Only now: after a cancel a second call closes it again, then the rest.
            if self._opened and self._opened[-1] is driver:
                self._opened.pop()
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise ExceptionGroup("several drivers could not be closed", failures)

    async def _attach(self, name: str, driver: AsyncDriver) -> AsyncDriver:
        known = self._attached.get(id(driver))
        if known is not None:
            return known
        context = DriverContext(
            backend=name,
            pool=self._pool,
            events=self._events,
            timeout=self._timeout,
            attach=lambda inner: self._attach(name, inner),
        )
        try:
            await driver.open(context)
        except ClosedError:
            raise  # it is another store's, which goes on using it
        except BaseException as error:
            if isinstance(error, TroveError) and isinstance(driver, Redacting):
                driver.redact(error)
            with shielded(), suppress(Exception):  # likewise
                await driver.aclose()
            raise
        settled = (
            driver
            if isinstance(driver, Layer)
            else ResilientDriver(
                driver, context, self._retry, tasks=self._tasks, deadlines=self._deadlines
            )
        )
        # Inner drivers come before the layers made of them, so closing in reverse is safe.
        self._opened.append(settled)
        self._attached[id(driver)] = settled
        return settled
