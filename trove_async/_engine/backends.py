"""The backends of one store. Each distinct driver is opened once and closed once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio

from trove_async._concurrency import CloseStack, Deadlines, OwnedTasks, shielded
from trove_async._resilience.breaker import Breaker
from trove_async._resilience.calls import Calls
from trove_async._resilience.driver import ResilientDriver
from trove_async.driver import (
    AsyncDriver,
    Capabilities,
    DriverContext,
    DriverInUseError,
    HasStatistics,
    Layer,
    Redacting,
    fetch_of,
)
from trove_async.errors import TroveError
from trove_async.events import Events
from trove_async.layers._urls import driver_from_url
from trove_async.layers.read_only import ReadOnly
from trove_async.models import MiB, Timeout
from trove_async.pool import BufferPool
from trove_async.retry import RetryPolicy

from .refused_options import refused_options

_SMALL_PUT = 1 * MiB
"""Maximum size of a small body. CRC-32C takes 50 µs for it, a quarter of a hop to a thread."""

SPILL_PERMITS = 1
"""Maximum number of spilled parts and bodies sent concurrently to one backend: each is read into memory
outside the pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendInfo:
    """A description of one backend of a store.

    Attributes:
        name: The backend's name in the store.
        service: The driver's name for the service, such as ``"s3"`` or ``"local"``.
        capabilities: The features that the backend supports.
        statistics: The counters of the driver, such as `CacheStatistics`; None if it has none
            (`HasStatistics`).
    """

    name: str
    service: str
    capabilities: Capabilities
    statistics: object = None


class Backend:
    """One open backend: its name, its driver and the driver's capabilities.

    Attributes:
        fetch: `Fetching.fetch` of the driver; None if it has none.
        refused_options: The options of a put that the backend does not support, each with a description.
        small_put: The maximum size of a body in memory that is always put in one request, and is hashed
            on the event loop.
        breakers: The circuit breakers of the driver or, for a layer, of all drivers below it.
    """

    __slots__ = (
        "breakers",
        "capabilities",
        "driver",
        "fetch",
        "name",
        "refused_options",
        "small_put",
        "spill_permits",
        "tasks",
    )

    def __init__(
        self,
        name: str,
        driver: AsyncDriver,
        tasks: OwnedTasks,
        breakers: Sequence[Breaker] = (),
    ) -> None:
        self.name = name
        self.driver = driver
        self.breakers = breakers
        self.tasks = tasks
        self.capabilities: Capabilities = driver.capabilities
        self.spill_permits = anyio.Semaphore(SPILL_PERMITS)
        self.small_put = min(_SMALL_PUT, self.capabilities.max_part, self.capabilities.max_put)
        self.refused_options = refused_options(self.capabilities)
        self.fetch = fetch_of(driver)


class Backends:
    """All backends of a store, in the order in which the user named them, the default first.

    Args:
        drivers: The user's drivers by backend name.
        pool: Passed to every driver.
        events: Passed to every driver.
        timeout: Passed to every driver.
        retry: The retry policy of every driver that is not a layer.
        deadlines: Enforces the time limits of every driver that is not a layer.

    Attributes:
        by_name: The open backends.
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
        self._only_read = _only_read(drivers.values())
        self._opened = CloseStack()
        self.by_name: dict[str, Backend] = {}

    def __getitem__(self, name: str) -> Backend:
        return self.by_name[name]

    def driver(self, name: str) -> AsyncDriver:
        """Return the user's driver of a backend, which need not be open."""
        return self._drivers[name]

    def info(self, name: str) -> BackendInfo:
        """Return the public description of a backend. The backend need not be open."""
        backend = self.by_name.get(name)
        driver = self._drivers[name] if backend is None else backend.driver
        statistics = driver.statistics() if isinstance(driver, HasStatistics) else None
        return BackendInfo(
            name=name,
            service=driver.name,
            capabilities=driver.capabilities,
            statistics=statistics,
        )

    async def open(self) -> None:
        """Open every driver. If one fails to open, close the open ones and raise."""
        try:
            for name, driver in self._drivers.items():
                try:
                    attached = await self._attach(name, driver)
                except TroveError as error:
                    error.located(operation="open", backend=name)
                    raise
                breakers = list(self._breakers(driver))
                self.by_name[name] = Backend(name, attached, self._tasks, breakers)
        except BaseException:
            with shielded(), suppress(Exception):  # raise the error of opening instead
                await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close every distinct driver once, in reverse order of opening.

        Raises:
            ExceptionGroup: Several drivers failed to close. A single error is raised as it is.
        """
        await self._tasks.aclose()
        await self._opened.aclose()

    def _breakers(self, driver: AsyncDriver) -> Iterator[Breaker]:
        """Iterate over the circuit breakers of an open driver and the drivers below it."""
        if isinstance(driver, Layer):
            for inner in driver.inner:
                yield from self._breakers(inner)
        # A layer need not open all of its drivers.
        elif isinstance(attached := self._attached.get(id(driver)), ResilientDriver):
            yield attached.calls.breaker

    async def _attach(self, name: str, driver: AsyncDriver) -> AsyncDriver:
        # 1. Open each driver once, even if it has several names or several layers share it.
        attached = self._attached.get(id(driver))
        if attached is not None:
            return attached
        context = DriverContext(
            backend=name,
            pool=self._pool,
            events=self._events,
            timeout=self._timeout,
            attach=lambda inner: self._attach(name, inner),
            writable=id(driver) not in self._only_read,
        )
        try:
            await driver.open(context)
        except DriverInUseError:
            raise  # another store uses the driver: closing it would break that store
        except BaseException as error:
            if isinstance(error, TroveError) and isinstance(driver, Redacting):
                driver.redact(error)
            with shielded(), suppress(Exception):  # raise the error of opening instead
                await driver.aclose()
            raise
        # 2. Wrap a service's driver. A layer's inner drivers were wrapped when it attached them.
        if isinstance(driver, Layer):
            attached = driver
        else:
            calls = Calls(
                driver, context, self._retry, tasks=self._tasks, deadlines=self._deadlines
            )
            attached = ResilientDriver(calls)
        # 3. Inner drivers are opened before the layers around them, so closing in reverse is safe.
        self._opened.push(attached.aclose)
        self._attached[id(driver)] = attached
        return attached


def _only_read(drivers: Iterable[AsyncDriver]) -> set[int]:
    """Return the ids of the drivers that are reached only through `ReadOnly`.

    They must be known before the first driver is opened, because two backends may share a driver. The
    drivers of a layer that has several are not among them: a cache or a mirror is written by its layer.
    """
    only_read: dict[int, bool] = {}

    def visit(driver: AsyncDriver, *, below: bool) -> None:
        only_read[id(driver)] = only_read.get(id(driver), True) and below
        if isinstance(driver, Layer):
            for inner in driver.inner:
                is_below = (below or isinstance(driver, ReadOnly)) and len(driver.inner) == 1
                visit(inner, below=is_below)

    for driver in drivers:
        visit(driver, below=False)
    return {driver for driver, is_below in only_read.items() if is_below}


def driver_of(name: str, url: str) -> AsyncDriver:
    """Return a driver for a backend's URL.

    Raises:
        ConfigError: As in `driver_from_url`. The error names the backend.
    """
    try:
        return driver_from_url(url)
    except TroveError as error:
        error.located(backend=name)
        raise
