"""Downloads: a body that survives a broken connection, parking and cancelled reads.

Parking an idle reader closes its connection, because a different request waits for one.

`ResumingReader` wraps the reader of a driver and pins the version that was opened first. Whatever
happens to the connection later, its reads return the bytes of this version, in order and each once, or
raise.

While the circuit breaker is open, a new body fails at once, but one that has begun waits for the next
probe before each of its attempts to resume (`Breaker.wait`). So a download does not fail sooner than
without a breaker, and its attempts cost the backend one request together with all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import thread_time
from types import TracebackType
from typing import Literal, Self, cast

import anyio

from trove_async._concurrency import Entered, run_shielded
from trove_async._version_identity import can_pin, can_prove, is_same
from trove_async._views import take
from trove_async.driver import DriverReader, FileSpan, OpenReader, file_span_of
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
from .readahead import SLOW_SECONDS_PER_BYTE, TRIAL_BYTES, ReadAhead
from .retries import FailedAttempt, Retries

_RECEIVE_SHARE = 8
"""Slots that streams receive into use at most ``1 / _RECEIVE_SHARE`` of the pool."""

_STREAM_READ = 256 * KiB
"""Minimum size of a read that makes a body count as a stream. A read into a slot may wait
briefly for more bytes. Without this wait, chunks have about a quarter of this size, even over a fast
connection."""


class _Connection:
    """One response that has begun, and the permit of its request.

    Attributes:
        reader: The driver's reader of the body.
        successes: `Breaker.successes` including the success of this response.
    """

    __slots__ = ("_calls", "_context", "reader", "successes")

    def __init__(self, calls: Calls, context: Entered, reader: DriverReader) -> None:
        self._calls = calls
        self._context = context
        self.reader = reader
        self.successes = calls.breaker.successes + 1  # the caller records it next

    async def aclose(self) -> None:
        """Close the response and release the permit. Called once."""
        try:
            await run_shielded(self._exit())
        except TroveError:
            pass  # failures of the body were raised by its reads
        finally:
            self._calls.read_permits.release()

    async def _exit(self) -> None:
        await self._context.__aexit__(None, None, None)


class ResumingReader:
    """A DriverReader that reconnects. It is also the context manager of `ResilientDriver.get`.

    At any moment the reader is *connected*, with a connection and a permit, or *disconnected*: it was
    parked or closed, a read failed or was cancelled, its read-ahead has taken over, or the range has been
    read completely. A later read that needs a connection opens one at `_position`, the end of the bytes
    returned so far.
    """

    __slots__ = (
        "_bucket",
        "_calls",
        "_closed",
        "_connection",
        "_end",
        "_info",
        "_into",
        "_key",
        "_last_read_slow",
        "_options",
        "_position",
        "_provable",
        "_readahead",
        "_receive_lease",
        "_received_bytes",
        "_receiving",
        "_start",
        "_streaming",
        "_waited_seconds",
    )

    def __init__(self, calls: Calls, bucket: str, key: str, options: GetOptions) -> None:
        self._calls = calls
        self._bucket = bucket
        self._key = key
        self._options = options
        self._connection: _Connection | None = None
        self._readahead: ReadAhead | None = None
        self._info: ObjectInfo | None = None
        self._into: memoryview | None = None  # the buffer of `readinto`, while it is called
        self._start = self._end = self._position = 0
        self._provable = True  # whether a later response can be proved to be of the same version
        self._receive_lease: Lease | None = None  # a slot that a stream is received into
        self._receiving = False  # whether a read is using that slot
        self._streaming = False  # whether the last read requested at least _STREAM_READ
        self._received_bytes = 0  # over the current connection, by measured reads
        self._waited_seconds = 0.0  # for these bytes
        self._last_read_slow = False
        self._closed = False

    async def open(self, failed: FailedAttempt | None = None) -> None:
        """Open the body. `failed` is the first attempt, if it was made already."""
        await self._calls.retry("get", self._bucket, self._key, self._open_first, failed=failed)

    async def adopt(self, reader: OpenReader) -> None:
        """Continue with an open body and its permit. Its success has been recorded."""
        connection = _Connection(self._calls, reader, reader)
        connection.successes = self._calls.breaker.successes
        await self._start_reading(connection)

    async def __aenter__(self) -> Self:
        await self.open()
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
        """The object as described by the first response."""
        assert self._info is not None  # noqa: S101 - set on entering
        return self._info

    @property
    def range(self) -> tuple[int, int]:
        """The absolute ``(start, end)`` that the body covers."""
        return self._start, self._end

    # -- reading ---------------------------------------------------------------------------------

    whole: None = None
    """See `OpenReader`: the body is read."""

    @property
    def reads_into(self) -> bool:
        """Whether `readinto` saves a copy, because the driver receives into the buffer."""
        return self._connection is not None and hasattr(self._connection.reader, "readinto")

    async def readinto(self, buffer: memoryview) -> int:
        """Read the next bytes into `buffer`. Return their number, 0 at the end of the range.

        If the driver can do so, they are received into the buffer. See `ReadsInto`.
        """
        # An attribute and not an argument of `read`, which most bodies are read with.
        self._into = buffer
        try:
            data = await self.read(len(buffer))
        finally:
            self._into = None
        if isinstance(data, bytes):  # otherwise it is the start of the buffer
            buffer[: len(data)] = data
        return len(data)

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes, or ``b""`` at the end of the range."""
        if self._position >= self._end:
            return b""
        self._calls.read_permits.mark_busy(self)
        readahead_position = None if self._readahead is None else self._readahead.position
        try:
            # 1. Read from the connection up to the first piece of the read-ahead, then from the pieces.
            if self._readahead is None or readahead_position is None:
                data = await self._read_connection(size)
            elif readahead_position > self._position:
                data = await self._read_connection(min(size, readahead_position - self._position))
            else:
                data = await self._read_piece(self._readahead, size)
            # 2. Advance, and disconnect at the end or else continue the read-ahead.
            if self._position + len(data) >= self._end:
                # A slow consumer of the last bytes holds no connection. The position advances after
                # the last await, because a read cancelled there has not returned its bytes.
                await self._disconnect()
                self._position += len(data)
            else:
                self._position += len(data)
                self._continue_read_ahead(size)
        finally:
            self._mark_idle()
        return data

    async def file_span(self, size: int, crc32c: int | None) -> FileSpan | None:
        """Return the next bytes as a range of a file, if the driver can. See `SpansFile`.

        After a failure this returns None. The next read then resumes at the same position, or raises.
        """
        if self._readahead is not None or not self._resumable:
            return None
        self._calls.read_permits.mark_busy(self)
        try:
            connection = self._connection or await self._reconnect()
            span = await self._calls.await_progress(
                file_span_of(connection.reader, size, crc32c), "no bytes arrived"
            )
        except TroveError:
            await self._disconnect()
            return None
        except BaseException:
            await self._disconnect()
            raise
        finally:
            self._mark_idle()
        if span is not None:
            self._position += span.size
        return span

    async def _read_connection(self, size: int, failure: TroveError | None = None) -> bytes:
        """Read from the connection. Reconnect after a failure, as the retry policy allows."""
        retries: Retries | None = None
        clock = self._calls.clock
        while True:
            # 1. After a failure, disconnect and pause, or raise it.
            if failure is not None:
                await self._disconnect()
                retries = retries or self._calls.retries(in_progress=True)
                await self._pause_after(failure, retries)
                failure = None
            # 2. Read once, over a new connection if there is none.
            connection = self._connection
            try:
                connection = connection or await self._reconnect()
                measured = size >= SLOT  # the speed of small reads depends on the consumer
                started, cpu_started = (clock(), thread_time()) if measured else (0.0, 0.0)
                data = await self._receive(connection.reader, size)
                # 3. Measure how long the connection kept the consumer waiting.
                if measured:
                    waited = max(clock() - started - (thread_time() - cpu_started), 0.0)
                    self._waited_seconds += waited
                    self._received_bytes += len(data)
                    self._last_read_slow = waited >= SLOW_SECONDS_PER_BYTE * len(data)
                return self._check_not_ended(data)
            except TroveError as error:
                failure = error
                if connection is not None:  # `_reconnect` has recorded its own failures
                    self._record(error, connection)
            except BaseException:
                # The next read after a cancelled one reconnects at this offset.
                await self._disconnect()
                raise

    async def _receive(self, reader: DriverReader, size: int) -> bytes:
        """Read once. A stream is received into a slot, if the driver can do so and memory is free."""
        readinto = getattr(reader, "readinto", None)
        if readinto is not None and self._into is not None:
            buffer = self._into[:size]
            count = await self._calls.await_progress(readinto(buffer), "no bytes arrived")
            return cast("bytes", buffer[:count])  # only `readinto` sees it
        if readinto is None or not self._streaming or size < _STREAM_READ:
            return await self._calls.await_progress(reader.read(size), "no bytes arrived")
        if self._receive_lease is None:
            # The user holds a chunk as large as one read from the connection. Streams that get no
            # slot receive small chunks, so that many streams together hold less memory.
            self._receive_lease = self._calls.pool.try_lease(
                SLOT, revoke=self._release_receive_lease, share=_RECEIVE_SHARE
            )
        if self._receive_lease is None:
            return await self._calls.await_progress(reader.read(size), "no bytes arrived")
        slot = self._receive_lease.views[0]
        self._receiving = True
        try:
            count = await self._calls.await_progress(readinto(slot[:size]), "no bytes arrived")
            return bytes(slot[:count])
        finally:
            self._receiving = False
            if self._closed:  # by another task during the read
                self._release_receive_lease()

    def _release_receive_lease(self) -> bool:
        """Release the slot that the stream is received into, unless a read is using it."""
        if self._receive_lease is None or self._receiving:
            return False
        self._receive_lease.release()
        self._receive_lease = None
        return True

    async def _read_piece(self, readahead: ReadAhead, size: int) -> bytes:
        if self._connection is not None:  # it has been read up to the first piece
            await self._close_connection()
        try:
            return await readahead.read(size)
        except TroveError as error:
            if readahead.closed:
                raise
            return await self._read_connection(size, error)

    def _continue_read_ahead(self, size: int) -> None:
        """Fetch the next pieces while the consumer processes these bytes, if the connection is slow."""
        calls = self._calls
        was_streaming, self._streaming = self._streaming, size >= _STREAM_READ
        # A first large read may be the only one, so read-ahead begins with the second.
        if (
            not (was_streaming and size >= SLOT)
            or calls.capabilities.parallel_reads == 1
            or not self._can_pin
        ):
            return
        if self._readahead is not None and self._readahead.position is not None:
            self._readahead.start_more()
        elif (  # slow at the last read, and on average
            self._last_read_slow
            and self._received_bytes >= TRIAL_BYTES
            and self._waited_seconds >= SLOW_SECONDS_PER_BYTE * self._received_bytes
        ):
            self._release_receive_lease()
            self._readahead = ReadAhead(calls, self._fetch, self._position, self._end)

    async def _fetch(self, start: int, end: int, views: Sequence[memoryview]) -> None:
        breaker = self._calls.breaker
        connection = await breaker.record(lambda: self._open(start, end, has_permit=True))
        try:
            for view in take(views, end - start):
                await self._fill(connection.reader, view)
        except TroveError as error:
            self._record(error, connection)
            raise
        finally:
            await connection.aclose()

    async def _fill(self, reader: DriverReader, view: memoryview) -> None:
        readinto = getattr(reader, "readinto", None)  # optional, see `ReadsInto`
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

    async def _open_first(self) -> None:
        await self._start_reading(await self._connect(self._options))

    async def _start_reading(self, connection: _Connection) -> None:
        self._connection = connection
        reader = connection.reader
        self._info = reader.info
        self._provable = can_prove(reader.info)
        self._start, self._end = reader.range
        self._position = self._start
        if self._position >= self._end:
            await self._disconnect()
        else:
            self._mark_idle()

    async def _connect(self, options: GetOptions, *, has_permit: bool = False) -> _Connection:
        calls = self._calls
        if not has_permit:
            await calls.acquire(calls.read_permits, "get", self._bucket, self._key)
        try:
            context = calls.driver.get(self._bucket, self._key, options)
            reader = await calls.await_response(context.__aenter__())
        except BaseException:
            calls.read_permits.release()
            raise
        connection = _Connection(calls, context, reader)
        if self._closed:  # by another task during the request
            await connection.aclose()
            raise self._closed_error()
        return connection

    async def _reconnect(self) -> _Connection:
        """Open the remaining range of the version that was opened first."""
        if self._closed or self._calls.tasks.closed:
            raise self._closed_error()
        if not self._provable:
            raise self._unprovable_error()
        if not self._resumable:
            raise UnavailableError(
                f"the body cannot resume at byte {self._position}: the backend cannot read ranges",
                retryable=False,
            )
        self._received_bytes, self._waited_seconds = 0, 0.0
        self._connection = await self._calls.breaker.guard(
            lambda: self._open(self._position, self._end), wait=True
        )
        return self._connection

    async def _open(self, start: int, end: int, *, has_permit: bool = False) -> _Connection:
        capabilities, info = self._calls.capabilities, self.info
        options = GetOptions(
            range=None if (start, end) == (0, info.stored_size) else ByteRange(start, end),
            version_id=self._options.version_id
            or (info.version_id if capabilities.versions else None),
            if_match=info.etag if capabilities.get_conditions else None,
        )
        try:
            connection = await self._connect(options, has_permit=has_permit)
        except (PreconditionFailedError, NotFoundError, RangeError) as error:
            raise self._changed_error() from error
        if not is_same(info, connection.reader.info) or connection.reader.range != (start, end):
            await connection.aclose()
            raise self._changed_error()
        return connection

    @property
    def _can_pin(self) -> bool:
        capabilities = self._calls.capabilities
        return capabilities.ranges and can_pin(
            self.info,
            get_conditions=capabilities.get_conditions,
            versions=capabilities.versions,
        )

    @property
    def _resumable(self) -> bool:
        return self._provable and (self._calls.capabilities.ranges or self._position == 0)

    def _mark_idle(self) -> None:
        """Let the connection be parked if a request waits for one before the next read."""
        if self._connection is not None and self._resumable:
            self._calls.read_permits.mark_idle(self)

    async def _disconnect(self) -> None:
        """Release the connection, the permit and the memory. Idempotent."""
        self._release_receive_lease()
        if self._connection is not None or self._readahead is not None:
            await _close(*self._detach())

    async def _close_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    def _close_later(self) -> None:
        detached = self._detach()
        if not self._calls.tasks.closed:  # otherwise the driver is being closed anyway
            self._calls.tasks.start(_close(*detached))

    def _detach(self) -> tuple[ReadAhead | None, _Connection | None]:
        """Detach the read-ahead and the connection, without an await. A concurrent read reconnects."""
        self._release_receive_lease()
        self._calls.read_permits.mark_busy(self)
        readahead, self._readahead = self._readahead, None
        connection, self._connection = self._connection, None
        return readahead, connection

    def park(self) -> None:
        """Release the connection of an idle reader, because a request waits for one."""
        self._close_later()
        if self._calls.events:
            self._emit("park")

    # -- failures --------------------------------------------------------------------------------

    async def _pause_after(self, error: TroveError, retries: Retries) -> None:
        """Pause before the next attempt, or raise the error if there is none."""
        if self._closed:
            raise self._closed_error() from error
        self._calls.locate(error, "get", self._bucket, self._key)
        pause = retries.after(error) if self._resumable else None
        if pause is None:
            if error.retryable and not self._provable:
                raise self._unprovable_error() from error
            retries.raise_earlier(error)
            raise error
        if self._calls.events:
            self._emit("resume", error)
        await anyio.sleep(pause)

    def _record(self, error: TroveError, connection: _Connection) -> None:
        """Record in the circuit breaker that a body broke."""
        calls = self._calls
        if isinstance(error, UnavailableError):
            calls.breaker.failed(error, successes=connection.successes, started=calls.clock())

    def _check_not_ended(self, data: bytes) -> bytes:
        if not data:
            missing = self._end - self._position
            raise UnavailableError(f"the body ended {missing} bytes early")
        return data

    def _changed_error(self) -> ObjectChangedError:
        return ObjectChangedError("the object was replaced or deleted while it was being read")

    def _unprovable_error(self) -> ObjectChangedError:
        return ObjectChangedError(
            f"the download cannot resume at byte {self._position}: the service sent no strong"
            " validator (ETag), so nothing proves that the remaining bytes belong to the same"
            " version; read the object again from its start"
        )

    def _closed_error(self) -> ClosedError:
        return ClosedError("the reader or its store was closed while the body was being read")

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


async def _close(readahead: ReadAhead | None, connection: _Connection | None) -> None:
    try:
        if readahead is not None:
            await readahead.aclose()
    finally:
        if connection is not None:
            await connection.aclose()
