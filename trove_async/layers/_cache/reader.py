"""The body of one get of `ReadThrough`: from blocks in the cache, from fills, or from the origin itself."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final

from trove_async._checksums import running_crc32c
from trove_async._concurrency import Turns
from trove_async.driver import DriverReader
from trove_async.errors import (
    ClosedError,
    IntegrityError,
    NotFoundError,
    ObjectChangedError,
    PreconditionFailedError,
    RangeError,
    UnavailableError,
)
from trove_async.models import ByteRange, KiB, ObjectInfo
from trove_async.options import GetOptions

from .block_store import PIECE
from .blocks import Block
from .core import ReadCore
from .counters import BlockSource, counted
from .fills import Fill, FilledBlock
from .received_block import RevokedError
from .responses import Response, fresh, recorded_crc32c, replaced_error
from .versions import Version

_ATTEMPTS: Final = 5
"""Maximum number of versions that a get tries to open, if the object is replaced again and again."""

_FIRST_PIECE: Final = 256 * KiB
"""Bytes of a large body that are read when it is opened. They prove that the version can be read."""


class CachedGet:
    """The context manager of one get, and its reader unless the body is passed through.

    Entering it reads the first bytes. If the known version turns out to be replaced, nothing was handed out
    yet, and the new version is opened instead.
    """

    __slots__ = (
        "_block",
        "_body_crc",
        "_closed",
        "_core",
        "_counted",
        "_counted_sources",
        "_direct",
        "_direct_position",
        "_fill",
        "_is_bypass",
        "_name",
        "_options",
        "_passed",
        "_pending",
        "_piece_crc",
        "_piece_end",
        "_recorded_crc",
        "_turns",
        "_version",
        "end",
        "position",
        "range",
    )

    def __init__(self, core: ReadCore, bucket: str, key: str, options: GetOptions) -> None:
        self._core = core
        self._name = bucket, key
        self._options = options
        self._version: Version | None = None
        self._passed: AbstractAsyncContextManager[DriverReader] | None = None
        self._pending = b""
        self._block: FilledBlock | None = None  # attached
        self._fill: Fill | None = None  # that knows this reader
        self._direct: Response | None = None
        self._direct_position = 0
        self._counted = -1  # the number of the last block in the statistics
        self._counted_sources: tuple[BlockSource, ...] = ()  # of this block
        self._is_bypass = False
        self._piece_end, self._piece_crc = -1, 0  # of the block that is read from its start
        self._body_crc = 0  # of a whole body so far
        self._recorded_crc: int | None = None
        self._closed = False
        self._turns: Turns | None = None
        self.position = -1
        self.end: int | None = None
        self.range = (0, 0)

    @property
    def info(self) -> ObjectInfo:
        """The version that the body belongs to."""
        assert self._version is not None  # noqa: S101 - set on entering
        return self._version.info

    @property
    def requested_end(self) -> int | None:
        """The end of the range as far as it was requested. See `FillReader.requested_end`."""
        byte_range = self._options.range
        return None if byte_range is None else byte_range.end

    # -- opening ---------------------------------------------------------------------------------

    async def __aenter__(self) -> DriverReader:
        try:
            return await self._open()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise

    async def _open(self) -> DriverReader:
        core, options = self._core, self._options
        is_plain = options.version_id is options.if_match is options.if_none_match is None
        if not (is_plain and core.origin.capabilities.ranges):
            return await self._pass_through(is_plain=is_plain)
        for _ in range(_ATTEMPTS):
            # 1. Find the current version.
            version = core.current(self._name, whole=options.range is None)
            if version is None:
                if not core.can_look_up(self._name):
                    return await self._pass_through(is_plain=True)
                version = await core.look_up(self._name, self, *self._needed_blocks())
            if not version.is_cacheable:
                await self._leave()
                return await self._pass_through(is_plain=True)
            # 2. Read its first bytes.
            self._version = version
            size = version.info.stored_size
            self.range = (0, size) if options.range is None else options.range.resolve(size)
            self.position, self.end = self.range
            if self.range == (0, size):
                self._body_crc, self._recorded_crc = 0, recorded_crc32c(version.info)
            length = self.end - self.position
            try:
                if length:
                    self._pending = await self._next(length if length <= PIECE else _FIRST_PIECE)
            except ObjectChangedError:
                core.versions.forget_version(self._name, version)
                await self._leave()
            else:
                return self
        raise ObjectChangedError(
            f"the object was replaced {_ATTEMPTS} times while it was being opened: retry"
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if self._passed is not None:
            return await self._passed.__aexit__(kind, error, traceback)
        self._closed = True
        self._pending = b""
        await self._leave()
        return None

    async def _pass_through(self, *, is_plain: bool) -> DriverReader:
        """Return the origin's own reader, and remember the version if the request was a plain one."""
        core = self._core
        self._count_bypass()
        requested_at = core.clock()
        observation = core.versions.observe(self._name) if is_plain else None
        context = core.origin.get(*self._name, self._options)
        version = None
        try:
            reader = await context.__aenter__()
            self._passed = context
            if is_plain:
                is_whole = reader.range == (0, reader.info.stored_size)
                version = core.version_of(self._name, reader.info, requested_at, is_whole=is_whole)
        finally:
            if observation is not None:
                core.versions.end(self._name, observation, version)
        return counted(reader, core.counters)

    def _needed_blocks(self) -> tuple[int | None, int | None]:
        """Return the first block of the range and the number after the last, as far as they are known."""
        byte_range, block_size = self._options.range, self._core.block_size
        if byte_range is None:
            return 0, None
        if byte_range.suffix is not None:
            return None, None
        end = None if byte_range.end is None else -(-byte_range.end // block_size)
        return byte_range.start // block_size, end

    # -- reading ---------------------------------------------------------------------------------

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes, or ``b""`` at the end of the range.

        Raises:
            ObjectChangedError: The version was replaced, and the cache does not have the rest of it.
        """
        if self._closed:
            raise ClosedError("the reader is closed")
        if self._pending:
            data, self._pending = self._pending[:size], self._pending[size:]
            return data
        if self._turns is None:
            self._turns = Turns()
        elif self._turns.is_due:
            await self._turns.give()
        try:
            return await self._next(size)
        except ObjectChangedError:
            if self._version is not None:
                self._core.versions.forget_version(self._name, self._version)
            raise

    async def _next(self, size: int) -> bytes:
        """Return the next bytes, from the first source that has them."""
        assert self._version is not None and self.end is not None  # noqa: S101, PT018 - set on entering
        core, version = self._core, self._version
        core.check_open()
        requests = 0
        while self.position < self.end:
            number = self.position // core.block_size
            # 1. The origin's response for this reader alone.
            if self._direct is not None:
                data: bytes | None = await self._read_direct(size)
            # 2. A block that is being filled.
            elif block := self._block or core.find_filling(version, number):
                data = await self._read_filled(block, number, size)
            # 3. A block in the cache.
            elif found := core.store.find(version, number):
                data = await self._read_cached(found, number, size)
            # 4. A request to the origin: of a fill that needs this block next, a new one, or for this reader.
            else:
                data = None
                requests += 1
                await self._request(version, number, may_fill=requests <= _ATTEMPTS)
            if data:
                return data
        return b""

    async def _read_filled(self, block: FilledBlock, number: int, size: int) -> bytes | None:
        """Take bytes of a block that is being filled, or wait for them. None: look again."""
        assert self.end is not None  # noqa: S101 - set on entering
        if block.number != number or block.is_dropped:
            self._detach()
            if block.error is not None and block.number == number:
                _check_failure(block.error)
            return None
        self._attach(block)
        data = block.take(self.position, min(size, self.end - self.position))
        if data:
            return self._advance(data)
        await block.wait()
        return None

    async def _read_cached(self, block: Block, number: int, size: int) -> bytes | None:
        """Read from a block in the cache. None: the cache does not have it after all."""
        assert self.end is not None  # noqa: S101 - set on entering
        core = self._core
        if block.size != self._block_bytes(number):
            await core.store.discard(block)
            return None
        offset = self.position - number * core.block_size
        end = min(offset + min(size, PIECE), offset + self.end - self.position, block.size)
        data = core.store.read_now(block, offset, end)
        if data is None:
            data = await core.store.read(block, offset, end)
        if data is None:
            return None
        if not self._is_checked(block, offset, data):
            self._discard_blocks()
            raise IntegrityError(
                "a block in the cache was damaged while it was read: read it again"
            )
        core.counters.bytes_from_cache += len(data)
        self._count(number, BlockSource.CACHE)
        return self._advance(data)

    def _is_checked(self, block: Block, offset: int, data: bytes) -> bool:
        """Return False if the whole block was read in pieces, of which this is the last, and is damaged."""
        if not offset:
            self._piece_end, self._piece_crc = 0, 0
        if offset != self._piece_end:
            return True  # the read began within the block
        self._piece_end += len(data)
        self._piece_crc = running_crc32c([data], self._piece_crc)
        return self._piece_end < block.size or self._piece_crc == block.crc32c

    async def _request(self, version: Version, number: int, *, may_fill: bool) -> None:
        """Wait for a fill that needs this block next, start one, or open a response for this reader."""
        core = self._core
        fill = core.find_fill(version, number) if may_fill else None
        if fill is not None:
            self._want(fill)
            await fill.wait()
        elif may_fill and core.store.accepts(self._block_bytes(number)) and core.can_lease():
            await self._start_fill(number)
        else:
            await self._open_direct()

    def _block_bytes(self, number: int) -> int:
        size = self.info.stored_size
        return min(self._core.block_size, size - number * self._core.block_size)

    async def _start_fill(self, number: int) -> None:
        """Start a fill for the missing blocks from here, and wait until its response has begun."""
        core, version = self._core, self._version
        assert version is not None and self.end is not None  # noqa: S101, PT018 - set on entering
        core.check_open()
        last = (self.end - 1) // core.block_size
        end = number + 1
        while end <= last and not core.has_block(version, end):
            end += 1
        fill = Fill(core, self._name, number, end, self, version)
        core.start(fill)
        await fill.wait()
        if fill.opened.done() and (error := fill.opened.exception()) is not None:
            _check_failure(error)

    def _attach(self, block: FilledBlock) -> None:
        if self._block is block:
            return
        self._detach()
        self._block = block
        block.attach()
        is_own = block.fill.starter is self
        self._count(block.number, BlockSource.OWN_FILL if is_own else BlockSource.OTHER_FILL)
        self._want(block.fill)

    def _detach(self) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.detach()

    def _want(self, fill: Fill) -> None:
        """Let a fill know this reader, and no other one."""
        if self._fill is not fill:
            self._leave_fill()
            self._fill = fill
        fill.want(self)

    def _leave_fill(self) -> None:
        fill, self._fill = self._fill, None
        if fill is not None:
            fill.leave(self)

    def _advance(self, data: bytes) -> bytes:
        core, position = self._core, self.position
        self.position += len(data)
        if self._recorded_crc is not None:
            self._body_crc = running_crc32c([data], self._body_crc)
            if self.position == self.end and self._body_crc != self._recorded_crc:
                self._discard_blocks()
        if self.position // core.block_size != position // core.block_size:
            self._detach()
            if self._fill is not None:
                self._fill.notify()
        if self.position == self.end:
            self._detach()
            self._leave_fill()
        return data

    def _discard_blocks(self) -> None:
        """Discard all blocks of the version, because some are wrong. The next read gets them from the origin."""
        core, version = self._core, self._version
        assert version is not None  # noqa: S101 - set on entering
        core.versions.forget_version(self._name, version)
        core.store.discard_version(version, range(-(-version.info.stored_size // core.block_size)))

    def _count(self, number: int, source: BlockSource) -> None:
        """Count a block, once for each source."""
        if number != self._counted:
            self._counted, self._counted_sources = number, ()
        if source not in self._counted_sources:
            self._counted_sources += (source,)
            self._core.counters.count_block(source)

    def _count_bypass(self) -> None:
        """Count this get as a bypass, once."""
        if not self._is_bypass:
            self._is_bypass = True
            self._core.counters.bypasses += 1

    # -- the origin ------------------------------------------------------------------------------

    def join(self, fill: Fill) -> None:
        """Record the fill that knows this reader. See `FillReader.join`."""
        self._leave_fill()
        self._fill = fill

    def take_over(self, response: Response, position: int) -> None:
        """Read from the response of a fill that has no memory. See `FillReader.take_over`."""
        self._count_bypass()
        self._direct = response
        self._direct_position = position

    async def _open_direct(self) -> None:
        """Request the rest of the range for this reader alone."""
        core, version = self._core, self._version
        assert version is not None and self.end is not None  # noqa: S101, PT018 - set on entering
        core.check_open()
        self._count_bypass()
        self._leave_fill()
        is_whole = (self.position, self.end) == (0, version.info.stored_size)
        condition = version.info.etag if core.origin.capabilities.get_conditions else None
        options = GetOptions(
            range=None if is_whole else ByteRange(self.position, self.end), if_match=condition
        )
        context = core.origin.get(*self._name, options)
        try:
            reader = await context.__aenter__()
        except (PreconditionFailedError, NotFoundError, RangeError) as error:
            raise replaced_error() from error
        response = Response(context, reader)
        if (
            reader.info.etag != version.info.etag
            or reader.range != (self.position, self.end)
            or self._closed
        ):
            await response.aclose()
            raise replaced_error()
        self._direct = response
        self._direct_position = self.position

    async def _read_direct(self, size: int) -> bytes:
        """Read from the origin's response. Return ``b""`` if the bytes are not there, or not yet."""
        assert self._direct is not None and self.end is not None  # noqa: S101, PT018 - called only then
        reader = self._direct.reader
        end = min(reader.range[1], self.end)
        data = b""
        if self._direct_position < end:
            skipped = self.position - self._direct_position  # a fill's response begins with a block
            remaining = skipped or end - self._direct_position
            data = await reader.read(min(PIECE if skipped else size, remaining))
            if not data:
                raise UnavailableError(f"the body ended {end - self._direct_position} bytes early")
            self._core.counters.bytes_from_origin += len(data)
            self._direct_position += len(data)
            if skipped:
                return b""
        if self._direct_position >= end:
            await self._close_direct()
        return self._advance(data) if data else b""

    async def _close_direct(self) -> None:
        response, self._direct = self._direct, None
        if response is not None:
            await response.aclose()

    async def _leave(self) -> None:
        """Leave fills and blocks, and close the response of the origin. Idempotent."""
        self._detach()
        self._leave_fill()
        await self._close_direct()


def _check_failure(error: BaseException) -> None:
    """Raise the error of a fill, unless a reader can go on without the fill."""
    if not isinstance(error, RevokedError):
        raise fresh(error)
