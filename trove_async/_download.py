"""The transfer engine, downwards: a body that survives a broken connection, parking and a cancel.

`Body` stands around one leaf driver's reader. It pins the version that it opened; whatever happens
to the connection after that, the bytes it hands out are that version's, in order, each once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self, TypeVar

import anyio

from ._concurrency import shielded
from ._pipeline import CRC32C, Crc32c
from .driver import DriverReader, ReadsInto
from .errors import (
    IntegrityError,
    NotFoundError,
    ObjectChangedError,
    PreconditionFailedError,
    TroveError,
    UnavailableError,
)
from .events import Event
from .models import ByteRange, GetOptions
from .pool import SLOT

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from ._concurrency import OwnedTask
    from ._leaf import Leaf
    from .models import ObjectInfo
    from .pool import Lease
    from .retry import Retries


B = TypeVar("B", bytes, memoryview)


class Body:
    """A DriverReader, and the context manager that `Leaf.get` returns.

    At any moment it is *open* (it has a connection and a permit), or *between* connections: because
    it was parked, because a read failed or was cancelled, or because the range has been read. The
    next read opens it again at `_position`.
    """

    __slots__ = (
        "_ahead",
        "_bucket",
        "_connection",
        "_end",
        "_info",
        "_key",
        "_leaf",
        "_lease",
        "_options",
        "_position",
        "_reader",
        "_start",
        "_streaming",
        "_unread",
    )

    def __init__(self, leaf: Leaf, bucket: str, key: str, options: GetOptions) -> None:
        self._leaf = leaf
        self._bucket = bucket
        self._key = key
        self._options = options
        self._connection: AbstractAsyncContextManager[DriverReader] | None = None
        self._reader: DriverReader | None = None
        self._info: ObjectInfo | None = None
        self._start = self._end = self._position = 0
        self._streaming = False
        # Read-ahead: the task that fills the lease, and what of the lease was not handed out yet.
        self._ahead: OwnedTask[memoryview] | None = None
        self._lease: Lease | None = None
        self._unread: memoryview | None = None

    async def __aenter__(self) -> Self:
        await self._leaf.retrying("get", self._bucket, self._key, self._first)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
        self._leaf.reads.busy(self)
        try:
            if self._ahead is not None or self._unread is not None:
                data = await self._read_ahead(size)
            else:
                data = await self._read_through(size)
            self._position += len(data)
            if self._position < self._end:
                self._start_ahead(size)
        finally:
            if self._connection is not None and self._leaf.capabilities.ranges:
                self._leaf.reads.idle(self)
        if self._position >= self._end:
            await self._disconnect()  # a consumer that lingers over the last bytes holds nothing
        return data

    async def _read_through(self, size: int) -> bytes:
        retries: Retries | None = None
        while True:
            try:
                reader = self._reader or await self._reconnect()
                data = self._arrived(
                    await self._leaf.progress(reader.read(size), "no bytes arrived")
                )
            except TroveError as error:
                await self._disconnect()
                retries = retries or self._leaf.retries()
                await self._pause_after(error, retries)
            except BaseException:
                # A cancelled read may go on later: at this offset, over a new connection.
                await self._disconnect()
                raise
            else:
                return data

    async def _read_ahead(self, size: int) -> bytes:
        if self._unread is None:
            assert self._ahead is not None  # noqa: S101 - one of the two is there
            try:
                self._unread = await self._ahead.result()
            except TroveError:
                await self._disconnect()  # let the plain read find out, and retry
            self._ahead = None
            if self._unread is None:
                return await self._read_through(size)
        data = bytes(self._unread[:size])
        self._unread = self._unread[len(data) :]
        if not self._unread:
            self._drop_ahead()
        return data

    def _start_ahead(self, size: int) -> None:
        """Fetch the next slot while the consumer works on these bytes, if memory is free."""
        streaming, self._streaming = self._streaming, size >= SLOT
        if not streaming or self._unread is not None or not isinstance(self._reader, ReadsInto):
            return
        self._lease = self._leaf.pool.try_lease(SLOT, revoke=self._revoke)
        if self._lease is None:
            return
        view = self._lease.views[0][: min(SLOT, self._end - self._position)]
        self._ahead = self._leaf.tasks.start(self._fill(self._reader, view))

    async def _fill(self, reader: ReadsInto, view: memoryview) -> memoryview:
        count = await self._leaf.progress(reader.readinto(view), "no bytes arrived")
        return self._arrived(view[:count])

    def _revoke(self) -> bool:
        """Give read-ahead memory up to somebody who waits: what it held is read again later."""
        if self._ahead is not None and not self._ahead.done:
            return False  # it is being filled: in a moment
        self._drop_ahead()
        self._reader = None  # its connection has gone on without us; closed before the next read
        return True

    def _drop_ahead(self) -> None:
        lease, self._lease = self._lease, None
        self._ahead = None
        self._unread = None
        if lease is not None:
            lease.release()

    # -- connections -----------------------------------------------------------------------------

    async def _first(self) -> None:
        reader = await self._connect(self._options)
        self._info = reader.info
        self._start, self._end = reader.range
        self._position = self._start
        if self._position >= self._end:
            await self._disconnect()

    async def _connect(self, options: GetOptions) -> DriverReader:
        reads = self._leaf.reads
        await reads.acquire(self._leaf.timeout.permit)
        connection = self._leaf.driver.get(self._bucket, self._key, options)
        try:
            reader = await self._leaf.answer(connection.__aenter__())
        except BaseException:
            reads.release()
            raise
        self._connection = connection
        self._reader = reader
        return reader

    async def _reconnect(self) -> DriverReader:
        """Open the rest of the range, of the very version that was opened first."""
        await self._disconnect()
        info = self.info
        pinned = self._leaf.capabilities.get_conditions
        options = GetOptions(
            range=ByteRange(self._position, self._end) if self._position or self._ranged else None,
            version_id=self._options.version_id,
            if_match=info.etag if pinned else None,
        )
        try:
            reader = await self._connect(options)
        except (PreconditionFailedError, NotFoundError) as error:
            raise self._changed() from error
        if reader.info.etag != info.etag:
            await self._disconnect()
            raise self._changed()
        return reader

    @property
    def _ranged(self) -> bool:
        return self._end != self.info.stored_size

    async def _disconnect(self) -> None:
        """Give back the connection, the permit and the read-ahead. Idempotent."""
        self._leaf.reads.busy(self)
        ahead, self._ahead = self._ahead, None
        connection, self._connection = self._connection, None
        self._reader = None
        try:
            if ahead is not None:
                await ahead.aclose()  # it writes to the lease until then
        finally:
            self._drop_ahead()
            if connection is not None:
                try:
                    with shielded():
                        await connection.__aexit__(None, None, None)
                finally:
                    self._leaf.reads.release()

    async def park(self) -> None:
        """Give the connection up because somebody else waits for one and nobody reads here."""
        if self._leaf.events:
            self._emit("park")
        await self._disconnect()

    # -- failures --------------------------------------------------------------------------------

    async def _pause_after(self, error: TroveError, retries: Retries) -> None:
        """Wait before the next try, or raise if there is to be none."""
        self._leaf.locate(error, "get", self._bucket, self._key)
        resumable = self._leaf.capabilities.ranges or self._position == 0
        pause = retries.after(error) if resumable else None
        if pause is None:
            raise error
        if self._leaf.events:
            self._emit("resume", error)
        await anyio.sleep(pause)

    def _arrived(self, data: B) -> B:
        if not data:
            missing = self._end - self._position
            raise UnavailableError(f"the body ended {missing} bytes early")
        return data

    def _changed(self) -> ObjectChangedError:
        return ObjectChangedError("the object was replaced or deleted while it was being read")

    def _emit(self, kind: Literal["park", "resume"], error: BaseException | None = None) -> None:
        self._leaf.events.emit(
            Event(
                kind=kind,
                operation="get",
                backend=self._leaf.backend,
                bucket=self._bucket,
                key=self._key,
                size=self._position - self._start,
                error=error,
            )
        )


class Verified:
    """A body whose last chunk is handed out only once all of it was right.

    The whole of an object is checked against its recorded CRC-32C, where there is one; every body
    against its length.

    Args:
        reader: An open body, from its start.
    """

    __slots__ = ("_crc", "_position", "_reader", "info", "range")

    def __init__(self, reader: DriverReader) -> None:
        self._reader = reader
        self.info = reader.info
        self.range = reader.range
        self._position = self.range[0]
        whole = self.range == (0, self.info.stored_size)
        self._crc = Crc32c() if whole and CRC32C in self.info.checksums else None

    @property
    def remaining(self) -> int:
        """Bytes not handed out yet."""
        return self.range[1] - self._position

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes, ``b""`` at the end.

        Raises:
            IntegrityError: The bytes are not those that were stored.
        """
        if not self.remaining:
            return b""
        data = await self._reader.read(min(size, self.remaining))
        if not 0 < len(data) <= size:
            raise self._broken(f"the body ended {self.remaining} bytes early")
        if self._crc is not None:
            self._crc.update(data)
            if len(data) == self.remaining and self._crc.digest() != self.info.checksums[CRC32C]:
                raise self._broken("the bytes do not have the recorded crc32c")
        self._position += len(data)
        return data

    def _broken(self, message: str) -> IntegrityError:
        info = self.info
        return IntegrityError(
            message, operation="get", backend=info.backend, bucket=info.bucket, key=info.key
        )
