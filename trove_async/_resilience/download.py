"""The transfer engine, downwards: a body that survives a broken connection, parking and a cancel.

`ResumingReader` wraps the reader of one driver. It pins the version that it opened; whatever happens
to the connection after that, the bytes it hands out are that version's, in order, each once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from time import thread_time
from types import TracebackType
from typing import Literal, Self

import anyio

from trove_async._concurrency import run_shielded
from trove_async._resilience.retries import Retries
from trove_async._version_identity import can_pin, can_prove, is_same
from trove_async._views import trimmed
from trove_async.driver import DriverReader
from trove_async.errors import (
    ClosedError,
    NotFoundError,
    ObjectChangedError,
    PreconditionFailedError,
    RangeError,
    TroveError,
    UnavailableError,
)
from trove_async.events import Event
from trove_async.models import ByteRange, KiB, ObjectInfo
from trove_async.options import GetOptions
from trove_async.pool import SLOT, Lease

from .calls import Calls
from .readahead import SLOW, TRIAL, Ahead

_LANDINGS = 8
"""Of how many parts of the pool one is for streams that are received by way of a slot."""

_STREAM = 256 * KiB
"""Bytes asked for at a time from which a body is a stream, and each piece worth waiting for: as they
come, over a connection that keeps up, they are a quarter of that."""


class _Connection:
    """One answered request, and the permit that it was sent under."""

    __slots__ = ("_calls", "_context", "reader")

    def __init__(
        self, calls: Calls, context: AbstractAsyncContextManager[DriverReader], reader: DriverReader
    ) -> None:
        self._calls = calls
        self._context = context
        self.reader = reader

    async def aclose(self) -> None:
        """Give both back. Called once."""
        try:
            await run_shielded(self._left())
        except TroveError:
            pass  # what became of the body, its reads have told
        finally:
            self._calls.reads.release()

    async def _left(self) -> None:
        await self._context.__aexit__(None, None, None)


class ResumingReader:
    """A DriverReader, and the context manager that `Calls.get` returns.

    At any moment it is *open* (it has a connection and a permit), or *between* connections: because
    it was parked, because a read failed or was cancelled, or because the range has been read. The
    next read opens it again at `_position`, which is where the bytes handed out end.
    """

    __slots__ = (
        "_ahead",
        "_arrived_bytes",
        "_bucket",
        "_calls",
        "_closed",
        "_connection",
        "_end",
        "_info",
        "_key",
        "_landed",
        "_landing",
        "_options",
        "_position",
        "_provable",
        "_slow",
        "_start",
        "_streaming",
        "_waited",
    )

    def __init__(self, calls: Calls, bucket: str, key: str, options: GetOptions) -> None:
        self._calls = calls
        self._bucket = bucket
        self._key = key
        self._options = options
        self._connection: _Connection | None = None
        self._ahead: Ahead | None = None
        self._info: ObjectInfo | None = None
        self._start = self._end = self._position = 0
        self._provable = True  # whether another response can be shown to be of the same version
        self._landing: Lease | None = None  # a slot that a stream is received into
        self._landed = True  # nobody is receiving into it
        self._streaming = False
        self._arrived_bytes = 0  # over one connection, in `_waited` idle seconds
        self._waited = 0.0
        self._slow = False  # the last time
        self._closed = False

    async def __aenter__(self) -> Self:
        await self._calls.retry("get", self._bucket, self._key, self._first)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed = True
        await self._disconnect()

    @property
    def info(self) -> ObjectInfo:
        """The object as of the first response."""
        assert self._info is not None  # noqa: S101 - entered, as the contract asks
        return self._info

    @property
    def range(self) -> tuple[int, int]:
        """What the body covers, absolute."""
        return self._start, self._end

    # -- reading ---------------------------------------------------------------------------------

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes, ``b""`` at the end of the range."""
        if self._position >= self._end:
            return b""
        self._calls.reads.busy(self)
        front = None if self._ahead is None else self._ahead.front
        try:
            if self._ahead is None or front is None:
                data = await self._read_through(size)
            elif front > self._position:
                data = await self._read_through(min(size, front - self._position))
            else:
                data = await self._read_ahead(self._ahead, size)
            if self._position + len(data) >= self._end:
                # A consumer that lingers over the last bytes holds nothing. The position moves
                # after the last await: whoever is cancelled in it has not had the bytes yet.
                await self._disconnect()
                self._position += len(data)
            else:
                self._position += len(data)
                self._start_ahead(size)
        finally:
            self._rest()
        return data

    async def _read_through(self, size: int, failure: TroveError | None = None) -> bytes:
        """Read from the connection, opening it anew after a failure, while that is allowed."""
        retries: Retries | None = None
        clock = self._calls.clock
        while True:
            if failure is not None:
                await self._disconnect()
                retries = retries or self._calls.retries()
                await self._pause_after(failure, retries)
                failure = None
            try:
                connection = self._connection or await self._reconnect()
                judged = size >= SLOT  # less says more of who asks than of the connection
                started, busy = (clock(), thread_time()) if judged else (0.0, 0.0)
                data = await self._receive(connection.reader, size)
                if judged:
                    waited = max(clock() - started - (thread_time() - busy), 0.0)
                    self._waited += waited
                    self._arrived_bytes += len(data)
                    self._slow = waited >= SLOW * len(data)
                return self._arrived(data)
            except TroveError as error:
                failure = error
            except BaseException:
                # A cancelled read may go on later: at this offset, over a new connection.
                await self._disconnect()
                raise

    async def _receive(self, reader: DriverReader, size: int) -> bytes:
        """Read once: a stream by way of a slot, if the driver can fill memory, and some is free."""
        readinto = getattr(reader, "readinto", None)
        if readinto is None or not self._streaming or size < _STREAM:
            return await self._calls.await_progress(reader.read(size), "no bytes arrived")
        if self._landing is None:
            # A user holds as large a piece as was received: many streams get by with small ones.
            self._landing = self._calls.pool.try_lease(
                SLOT, revoke=self._give_up_landing, share=_LANDINGS
            )
        if self._landing is None:
            return await self._calls.await_progress(reader.read(size), "no bytes arrived")
        slot = self._landing.views[0]
        self._landed = False
        try:
            count = await self._calls.await_progress(readinto(slot[:size]), "no bytes arrived")
            return bytes(slot[:count])
        finally:
            self._landed = True
            if self._closed:  # by another task, meanwhile
                self._give_up_landing()

    def _give_up_landing(self) -> bool:
        """Give the slot to somebody who waits for memory: a body can be read without."""
        if self._landing is None or not self._landed:
            return False
        self._landing.release()
        self._landing = None
        return True

    async def _read_ahead(self, ahead: Ahead, size: int) -> bytes:
        if self._connection is not None:  # it was read up to here, and the rest comes otherwise
            await self._close_connection()
        try:
            return await ahead.take(size)
        except TroveError as error:
            if ahead.closed:
                raise
            return await self._read_through(size, error)

    def _start_ahead(self, size: int) -> None:
        """Fetch what comes next while the consumer works on these bytes, where that helps."""
        calls, can = self._calls, self._calls.capabilities
        once, self._streaming = self._streaming, size >= _STREAM
        if not (once and size >= SLOT) or can.parallel_reads == 1 or not self._can_pin:
            return
        if self._ahead is not None and self._ahead.front is not None:
            self._ahead.go_on()
        elif (
            self._slow
            and self._arrived_bytes >= TRIAL
            and self._waited >= SLOW * self._arrived_bytes
        ):
            # On the whole, and still.
            self._give_up_landing()
            self._ahead = Ahead(calls, self._fetch, self._position, self._end)

    async def _fetch(self, start: int, end: int, views: Sequence[memoryview]) -> None:
        connection = await self._open(start, end, permitted=True)
        try:
            for view in trimmed(views, end - start):
                await self._fill(connection.reader, view)
        finally:
            await connection.aclose()

    async def _fill(self, reader: DriverReader, view: memoryview) -> None:
        readinto = getattr(reader, "readinto", None)  # where it has one: `ReadsInto`
        while view:
            if readinto is None:
                data = await self._calls.await_progress(reader.read(len(view)), "no bytes arrived")
                count = len(data)
                view[:count] = data
            else:
                count = await self._calls.await_progress(readinto(view), "no bytes arrived")
            if not count:
                raise UnavailableError(f"the body ended {len(view)} bytes early")
            view = view[count:]

    # -- connections -----------------------------------------------------------------------------

    async def _first(self) -> None:
        self._connection = await self._connect(self._options)
        reader = self._connection.reader
        self._info = reader.info
        self._provable = can_prove(reader.info)
        self._start, self._end = reader.range
        self._position = self._start
        if self._position >= self._end:
            await self._disconnect()
        else:
            self._rest()

    async def _connect(self, options: GetOptions, *, permitted: bool = False) -> _Connection:
        calls = self._calls
        if not permitted:
            await calls.acquire(calls.reads, "get", self._bucket, self._key)
        try:
            context = calls.driver.get(self._bucket, self._key, options)
            reader = await calls.await_response(context.__aenter__())
        except BaseException:
            calls.reads.release()
            raise
        connection = _Connection(calls, context, reader)
        if self._closed:  # by another task, meanwhile
            await connection.aclose()
            raise self._was_closed()
        return connection

    async def _reconnect(self) -> _Connection:
        """Open the rest of the range, of the very version that was opened first."""
        if self._closed or self._calls.tasks.closed:
            raise self._was_closed()
        if not self._provable:
            raise self._unproved()
        if not self._resumable:
            raise UnavailableError(
                f"the body cannot go on at byte {self._position}: the backend reads no ranges",
                retryable=False,
            )
        self._arrived_bytes, self._waited = 0, 0.0
        self._connection = await self._open(self._position, self._end)
        return self._connection

    async def _open(self, start: int, end: int, *, permitted: bool = False) -> _Connection:
        can, info = self._calls.capabilities, self.info
        options = GetOptions(
            range=None if (start, end) == (0, info.stored_size) else ByteRange(start, end),
            version_id=self._options.version_id or (info.version_id if can.versions else None),
            if_match=info.etag if can.get_conditions else None,
        )
        try:
            connection = await self._connect(options, permitted=permitted)
        except (PreconditionFailedError, NotFoundError, RangeError) as error:
            raise self._changed() from error
        if not is_same(info, connection.reader.info) or connection.reader.range != (start, end):
            await connection.aclose()
            raise self._changed()
        return connection

    @property
    def _can_pin(self) -> bool:
        can = self._calls.capabilities
        return can.ranges and can_pin(self.info, can)

    @property
    def _resumable(self) -> bool:
        return self._provable and (self._calls.capabilities.ranges or self._position == 0)

    def _rest(self) -> None:
        """Note that nobody reads for now: who waits for a connection may have this one."""
        if self._connection is not None and self._resumable:
            self._calls.reads.idle(self)

    async def _disconnect(self) -> None:
        """Give back the connection, the permit and the memory. Idempotent."""
        self._give_up_landing()
        if self._connection is not None or self._ahead is not None:
            await _close(*self._detached())

    async def _close_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    def _close_later(self) -> None:
        detached = self._detached()
        if not self._calls.tasks.closed:  # else the driver is being closed anyway
            self._calls.tasks.start(_close(*detached))

    def _detached(self) -> tuple[Ahead | None, _Connection | None]:
        """Take out what is to be closed, at once: who reads meanwhile opens anew."""
        self._give_up_landing()
        self._calls.reads.busy(self)
        ahead, self._ahead = self._ahead, None
        connection, self._connection = self._connection, None
        return ahead, connection

    def park(self) -> None:
        """Give the connection up because somebody else waits for one and nobody reads here."""
        self._close_later()
        if self._calls.events:
            self._emit("park")

    # -- failures --------------------------------------------------------------------------------

    async def _pause_after(self, error: TroveError, retries: Retries) -> None:
        """Wait before the next try, or raise if there is to be none."""
        if self._closed:
            raise self._was_closed() from error
        self._calls.locate(error, "get", self._bucket, self._key)
        pause = retries.after(error) if self._resumable else None
        if pause is None:
            if error.retryable and not self._provable:
                raise self._unproved() from error
            raise error
        if self._calls.events:
            self._emit("resume", error)
        await anyio.sleep(pause)

    def _arrived(self, data: bytes) -> bytes:
        if not data:
            missing = self._end - self._position
            raise UnavailableError(f"the body ended {missing} bytes early")
        return data

    def _changed(self) -> ObjectChangedError:
        return ObjectChangedError("the object was replaced or deleted while it was being read")

    def _unproved(self) -> ObjectChangedError:
        return ObjectChangedError(
            f"the download cannot go on at byte {self._position}: the service gives no strong"
            " validator (ETag), so nothing would prove that the rest is of the same version; read"
            " the object again from its start"
        )

    def _was_closed(self) -> ClosedError:
        return ClosedError("the reader, or its store, was closed while it was being read")

    def _emit(self, kind: Literal["park", "resume"], error: BaseException | None = None) -> None:
        self._calls.events.emit(
            Event(
                kind=kind,
                operation="get",
                backend=self._calls.backend,
                bucket=self._bucket,
                key=self._key,
                size=self._position - self._start,
                error=error,
            )
        )


async def _close(ahead: Ahead | None, connection: _Connection | None) -> None:
    try:
        if ahead is not None:
            await ahead.aclose()
    finally:
        if connection is not None:
            await connection.aclose()
