"""`Hedged`: sends a slow read a second time, and uses the response that begins first.

The method is the *hedged request* of J. Dean and L. A. Barroso, "The Tail at Scale" (Communications of
the ACM 56(2), 2013). There, a second request after the 95th percentile of the latency reduced the 99.9th
percentile of 1,000 reads from 1,800 ms to 74 ms, at the cost of 2 % more requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Any, Final, Generic, NamedTuple, TypeVar

from trove_async._concurrency import (
    OwnCancel,
    OwnedTask,
    OwnedTasks,
    run_shielded,
    speculative,
)
from trove_async._settings import check_numbers
from trove_async.driver import AsyncDriver, DriverContext, DriverReader
from trove_async.errors import ClosedError, ConfigError, TroveError, UnavailableError
from trove_async.events import Event
from trove_async.models import ObjectInfo
from trove_async.options import GetOptions

from ._forwarding import Forwarding
from ._latencies import Latencies
from ._urls import as_driver

T = TypeVar("T")

_MAX_AFTER: Final = 0.999

SLACK = 0.001
"""Seconds after the quantile at which a request counts as slow. The event loop may be late by as much, and
a service whose latencies are almost equal gains nothing from a second request."""

_MAX_TOKENS = 10.0
"""Number of second requests that quiet times can save up for a slow one. Without a limit, a service that
becomes slow after a million fast requests would get 100,000 additional ones."""


class Hedged(Forwarding):
    """A layer that sends a slow read a second time. The response that begins first is used.

    A get or a head counts as slow if its response has not begun after the `after` quantile of recent
    ones. The quantiles of gets and heads are measured separately, over the last 1,000 of each. No second
    request is sent before 50 were measured (more if `after` exceeds 0.98).

    The request that loses is cancelled, and its connection is released. Each body comes from one
    response, so versions never mix. An error that is a response, such as ObjectNotFoundError, is used like
    any other response. If one request raises UnavailableError, the other one is waited for.

    A second request is sent only once, without retries, and only if a connection is free that no other
    request waits for. Each one emits an event ``hedge``. The time between the response's beginning and its
    end is not hedged.

    Args:
        driver: The driver, or its URL. It may be a layer.
        after: The quantile, more than 0 and at most 0.999.
        budget: The maximum number of second requests, as a share of all gets and heads: from 0 (none)
            to 1. If the service becomes slow as a whole, this bounds the additional load.

    Raises:
        TypeError: `driver` is not a driver, or a value is not a number.
        ConfigError: A value is out of range, or the URL is not valid.

    Example:
        >>> from trove_async.drivers import S3Driver
        >>> driver = Hedged(S3Driver(region="us-east-1"), after=0.99, budget=0.02)
    """

    def __init__(
        self, driver: AsyncDriver | str, *, after: float = 0.95, budget: float = 0.1
    ) -> None:
        super().__init__("Hedged", as_driver(driver))
        check_numbers(after=after, budget=budget)
        if not 0 < after <= _MAX_AFTER:
            raise ConfigError(f"after must be more than 0 and at most {_MAX_AFTER}, got {after}")
        if not 0 <= budget <= 1:
            raise ConfigError(f"budget must be from 0 to 1, got {budget}")
        self._budget = _Budget(budget)
        self._latencies = {"get": Latencies(after), "head": Latencies(after)}
        self._tasks = OwnedTasks()
        self._context: DriverContext | None = None

    async def open(self, context: DriverContext) -> None:
        """Open the wrapped driver. See `AsyncDriver.open`.

        Raises:
            DriverInUseError: The layer is open, or being opened, in another store.
        """
        await super().open(context)
        self._context = context
        self._tasks = OwnedTasks()

    async def aclose(self) -> None:
        """Cancel the second requests, and detach from the wrapped driver. Idempotent."""
        await self._tasks.aclose()
        await super().aclose()

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open the object's body, with a second request if the first one is slow."""
        return _Get(self, bucket, key, options)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return the object's info, with a second request if the first one is slow."""
        driver = self._driver
        return await self._hedge("head", bucket, key, lambda: driver.head(bucket, key, version_id))

    async def _open(self, bucket: str, key: str, options: GetOptions) -> _Opened:
        driver = self._driver

        async def request() -> _Opened:
            context = driver.get(bucket, key, options)
            return _Opened(context, await context.__aenter__())

        return await self._hedge("get", bucket, key, request, _close)

    async def _hedge(
        self,
        operation: str,
        bucket: str,
        key: str,
        request: Callable[[], Coroutine[Any, Any, T]],
        release: Callable[[T], Coroutine[Any, Any, None]] | None = None,
    ) -> T:
        """Return the first response to a request, or to a copy of it.

        Args:
            operation: The operation: ``"get"`` or ``"head"``.
            bucket: The bucket, for the event.
            key: The key, for the event.
            request: Sends the request once.
            release: Releases a response that is not used.
        """
        self._budget.earn()
        latencies = self._latencies[operation]
        wait = latencies.threshold
        if wait is None or speculative.get():  # a second request is not sent a third time
            return await _measured(latencies, request())
        race = _Race(self, (operation, bucket, key), request, release)
        return await race.run(wait + SLACK)

    def _start(
        self, work: Callable[[], Coroutine[Any, Any, T]], operation: str, bucket: str, key: str
    ) -> OwnedTask[T] | None:
        """Start a second request and emit its event. Return None if the budget does not allow it."""
        if self._tasks.closed or not self._budget.spend():
            return None
        context = self._context
        if context is not None and context.events:
            context.events.emit(
                Event(
                    kind="hedge",
                    operation=operation,
                    backend=context.backend,
                    bucket=bucket,
                    key=key,
                )
            )
        return self._tasks.start(work())


class _Budget:
    """A token bucket: each request adds a share of a token, and a second request takes one.

    Args:
        share: The share of a token.
    """

    __slots__ = ("_share", "_tokens")

    def __init__(self, share: float) -> None:
        self._share = share
        self._tokens = 0.0

    def earn(self) -> None:
        """Count a request."""
        self._tokens = min(self._tokens + self._share, _MAX_TOKENS)

    def spend(self) -> bool:
        """Take a token. Return False if there is none."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class _Race(Generic[T]):
    """A request in the caller's task and, if it is slow, a second one in its own task.

    The first one needs no task of its own, because most requests are fast. If the second one wins, it
    cancels the first one with an `OwnCancel`, as a time limit would.

    Args:
        layer: The layer.
        names: The operation, the bucket and the key.
        request: Sends the request once.
        release: Releases a response that is not used.
    """

    __slots__ = (
        "_cancel",
        "_is_decided",
        "_is_over",
        "_latencies",
        "_layer",
        "_names",
        "_release",
        "_request",
        "_second",
    )

    def __init__(
        self,
        layer: Hedged,
        names: tuple[str, str, str],
        request: Callable[[], Coroutine[Any, Any, T]],
        release: Callable[[T], Coroutine[Any, Any, None]] | None,
    ) -> None:
        self._layer = layer
        self._names = names
        self._latencies = layer._latencies[names[0]]  # noqa: SLF001 - same module
        self._request = request
        self._release = release
        self._cancel = OwnCancel()
        self._second: OwnedTask[T] | None = None
        self._is_decided = False  # whether the second request got a response
        self._is_over = False  # whether the first request has ended

    async def run(self, wait: float) -> T:
        """Return the first response. After a cancel, neither request is in flight.

        Args:
            wait: Seconds until the second request is sent.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        timer = loop.call_later(wait, self._start_second)
        failure: UnavailableError | None = None
        # 1. Send the first request. A timer sends the second one.
        try:
            result = await _measured(self._latencies, self._request())
        except asyncio.CancelledError:
            if not self._end(timer):
                await self._discard()
                raise  # the caller was cancelled
            # Its latency is unknown, but more than the quantile, and that is all a quantile needs.
            self._latencies.add(loop.time() - started)
        except UnavailableError as error:
            self._end(timer)
            failure = error
        except BaseException:
            self._end(timer)
            await self._discard_later()
            raise
        else:
            self._end(timer)
            try:
                await self._discard_later()
            except BaseException:
                if self._release is not None:
                    await run_shielded(self._release(result))
                raise
            return result
        # 2. The first request was cancelled by the second one, or failed: the second one decides.
        return await self._second_response(failure)

    async def _run_second(self) -> T:
        """Send the second request, in a task of its own."""
        speculative.set(True)
        try:
            result = await _measured(self._latencies, self._request())
        except UnavailableError:
            raise  # the first request decides
        except Exception:
            self._is_decided = True
            raise
        self._is_decided = True
        return result

    def _start_second(self) -> None:
        self._second = self._layer._start(self._run_second, *self._names)  # noqa: SLF001 - same module
        if self._second is not None:
            self._second.when_done(self._on_second_done)

    def _on_second_done(self) -> None:
        if self._is_decided and not self._is_over:
            self._cancel.request()

    def _end(self, timer: asyncio.TimerHandle) -> bool:
        """End the first request. Return whether only the second one has cancelled it."""
        self._is_over = True
        timer.cancel()
        return self._cancel.revoke()

    async def _second_response(self, failure: UnavailableError | None) -> T:
        """Return the response to the second request. If it fails as well, raise `failure`."""
        if self._second is None:
            assert failure is not None  # noqa: S101 - only the second request cancels the first one
            raise failure
        try:
            return await self._second.result()
        except asyncio.CancelledError:
            await self._discard()
            raise
        except (UnavailableError, ClosedError):
            if failure is None:
                raise
        raise failure

    async def _discard_later(self) -> None:
        """Cancel the second request, without waiting for its end."""
        if self._second is None:
            return
        tasks = self._layer._tasks  # noqa: SLF001 - same module
        if tasks.closed:
            await self._discard()
        else:
            tasks.start(self._discard())

    async def _discard(self) -> None:
        """Cancel the second request, and release its response if it has one."""
        if self._second is None:
            return
        try:
            await self._second.aclose()
        finally:
            response = self._second.outcome()
            if response is not None and self._release is not None:
                await run_shielded(self._release(response))


class _Opened(NamedTuple):
    """A body whose response has begun."""

    context: AbstractAsyncContextManager[DriverReader]
    reader: DriverReader


async def _close(opened: _Opened) -> None:
    with suppress(TroveError):  # no one reads the body
        await opened.context.__aexit__(None, None, None)


async def _measured(latencies: Latencies, request: Coroutine[Any, Any, T]) -> T:
    """Await a request, and add its latency if it gets a response."""
    clock = asyncio.get_running_loop().time
    started = clock()
    try:
        result = await request
    except UnavailableError:
        raise
    except TroveError:
        latencies.add(clock() - started)
        raise
    latencies.add(clock() - started)
    return result


class _Get:
    """The context manager of one get."""

    __slots__ = ("_bucket", "_context", "_key", "_layer", "_options")

    def __init__(self, layer: Hedged, bucket: str, key: str, options: GetOptions) -> None:
        self._layer = layer
        self._bucket = bucket
        self._key = key
        self._options = options

    async def __aenter__(self) -> DriverReader:
        opened = await self._layer._open(self._bucket, self._key, self._options)  # noqa: SLF001 - same module
        self._context = opened.context
        return opened.reader

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._context.__aexit__(kind, error, traceback)
