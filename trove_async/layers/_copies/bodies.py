"""The body of one get, from the first available member. If that fails in the middle, another one continues.

Another member continues only if its object is proved to have the same bytes: both come from one put (they have
the same write_id), or have the same checksum. A CRC-32C proves nothing about an attacker who can write to both.
The info stays that of the first member.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType

from trove_async._concurrency import run_cleanup
from trove_async._version_identity import have_different_bytes, have_same_bytes, is_same
from trove_async.driver import AsyncDriver, DriverReader, ReadsInto, saves_copy
from trove_async.errors import ClosedError, TroveError
from trove_async.models import ByteRange, ObjectInfo
from trove_async.options import GetOptions

from .members import Members, is_unavailable


class MemberGet:
    """The context manager of one get.

    Args:
        members: The members.
        bucket: The bucket.
        key: The key.
        options: The options, with values of the layer.
        on_missing: Whether to ask the next member also if one lacks the object.

    Attributes:
        reader: The reader of the member in use.
    """

    __slots__ = (
        "_bucket",
        "_closed",
        "_context",
        "_failed",
        "_key",
        "_member",
        "_members",
        "_on_missing",
        "_options",
        "reader",
    )

    def __init__(
        self, members: Members, bucket: str, key: str, options: GetOptions, *, on_missing: bool
    ) -> None:
        self._members = members
        self._bucket = bucket
        self._key = key
        self._options = options
        self._on_missing = on_missing
        self._failed: set[int] = set()
        self._closed = False

    async def __aenter__(self) -> DriverReader:
        async def enter(member: int, driver: AsyncDriver) -> DriverReader:
            options = self._members.get_options(member, self._options)
            context = driver.get(self._bucket, self._key, options)
            reader = await context.__aenter__()
            self._use(member, context, reader)
            return reader

        reader = await self._members.read(
            "get",
            self._bucket,
            self._key,
            enter,
            only=self._members.owner(self._options.if_match, self._options.version_id),
            on_missing=self._on_missing,
        )
        kind = _ReadIntoReader if isinstance(reader, ReadsInto) else _Reader
        return kind(self, self._members.info(self._member, reader.info), reader.range)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._closed = True
        return await self._context.__aexit__(kind, error, traceback)

    def _use(
        self,
        member: int,
        context: AbstractAsyncContextManager[DriverReader],
        reader: DriverReader,
    ) -> None:
        self._member, self._context, self.reader = member, context, reader

    async def fail_over(self, error: TroveError, info: ObjectInfo, start: int, end: int) -> None:
        """Continue on another member after an error of the one in use.

        Args:
            error: The error.
            info: The object that is read.
            start: The position of the next byte.
            end: The end of the range.

        Raises:
            TroveError: `error`, if it does not mean that the member is not available, or no other member can
                continue. Its notes say why they cannot.
            ClosedError: The reader was closed meanwhile.
        """
        names = self._members.names
        self._members.name(self._member, error)
        if not is_unavailable(error) or start >= end or self._closed:
            raise error
        self._failed.add(self._member)
        reasons: list[str] = []
        for member, driver in enumerate(self._members.drivers):
            if member in self._failed:
                if member != self._member:
                    reasons.append(f"({names[member]}: it failed before)")
                continue
            try:
                found = await self._open_rest(driver, info, start, end)
            except TroveError as failure:
                reasons.append(f"({names[member]}: {type(failure).__name__}: {failure.message})")
                continue
            if found is None:
                reasons.append(f"({names[member]}: it is not proved to have the same bytes)")
                continue
            if self._closed:  # by another task
                await run_cleanup(found[0].__aexit__(None, None, None))
                raise ClosedError("the reader is closed")
            broken = self._context
            self._use(member, *found)
            with suppress(TroveError):
                await broken.__aexit__(None, None, None)
            self._members.emit(
                "fallback", "get", self._bucket, self._key, member=member, error=error
            )
            return
        for reason in reasons:
            error.add_note(reason)
        raise error

    async def _open_rest(
        self, driver: AsyncDriver, info: ObjectInfo, start: int, end: int
    ) -> tuple[AbstractAsyncContextManager[DriverReader], DriverReader] | None:
        """Open the rest of the body on another member. None: the member has other bytes, as far as is known."""
        # The response to a get of a range need not have a checksum.
        other = await driver.head(self._bucket, self._key)
        if not _is_copy(info, other):
            return None
        if_match = other.etag if driver.capabilities.get_conditions else None
        options = GetOptions(range=ByteRange(start, end), if_match=if_match)
        context = driver.get(self._bucket, self._key, options)
        reader = await context.__aenter__()
        if is_same(other, reader.info) and reader.range == (start, end):
            return context, reader
        with suppress(TroveError):
            await context.__aexit__(None, None, None)
        return None


def _is_copy(info: ObjectInfo, other: ObjectInfo) -> bool:
    """Return whether two members have the same bytes.

    A tool that changes an object and keeps its metadata keeps the write_id as well. So an equal write_id is no
    proof if anything else differs.
    """
    if info.write_id is not None and info.write_id == other.write_id:
        return not have_different_bytes(info, other)
    return have_same_bytes(info, other)


class _Reader:
    """The reader of one get, with the values of the layer."""

    __slots__ = ("_get", "_position", "info", "range")

    def __init__(self, get: MemberGet, info: ObjectInfo, covered: tuple[int, int]) -> None:
        self._get = get
        self._position = covered[0]
        self.info = info
        self.range = covered

    async def read(self, size: int) -> bytes:
        """Return the next bytes. See `DriverReader.read`."""
        while True:
            try:
                piece = await self._get.reader.read(size)
            except TroveError as error:
                await self._get.fail_over(error, self.info, self._position, self.range[1])
            else:
                self._position += len(piece)
                return piece


class _ReadIntoReader(_Reader):
    """A reader that supports `readinto`."""

    __slots__ = ()

    @property
    def reads_into(self) -> bool:
        """Whether `readinto` saves a copy. See `saves_copy`."""
        return saves_copy(self._get.reader)

    async def readinto(self, buffer: memoryview) -> int:
        """Read the next bytes into the buffer. See `ReadsInto.readinto`."""
        while True:
            try:
                count = await _receive(self._get.reader, buffer)
            except TroveError as error:
                await self._get.fail_over(error, self.info, self._position, self.range[1])
            else:
                self._position += count
                return count


async def _receive(reader: DriverReader, buffer: memoryview) -> int:
    """Read into the buffer. The member that continues a body may have no `readinto`."""
    if isinstance(reader, ReadsInto):
        return await reader.readinto(buffer)
    piece = await reader.read(len(buffer))
    buffer[: len(piece)] = piece
    return len(piece)
