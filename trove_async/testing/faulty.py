"""A driver that fails on demand, counts open readers and uploads, and checks its calls."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import TracebackType
from typing import Self, cast

from trove_async._concurrency import shielded
from trove_async.driver import (
    AsyncDriver,
    BulkDeleting,
    Capabilities,
    Copying,
    DriverContext,
    DriverReader,
    PartSource,
    Presigning,
    ReadsInto,
    Replicated,
    StreamedUpload,
    Upload,
    Uploading,
    Versioned,
    check_deletable,
    places_of,
)
from trove_async.errors import UnavailableError
from trove_async.models import BucketInfo, DeleteResult, ObjectInfo
from trove_async.options import (
    ComparedPage,
    CopyOptions,
    DeleteOptions,
    GetOptions,
    ListOptions,
    Page,
    Part,
    PresignOptions,
    PutOptions,
    Repaired,
    VersionPage,
)
from trove_async.testing._capability_checks import (
    check_copy,
    check_delete,
    check_get,
    check_part,
    check_put,
    check_streamed_part,
    check_upload,
)
from trove_async.testing.faults import Call, Faults


class Faulty(Faults):
    """Wraps a driver, and injects faults into its calls and bodies.

    Every call reaches the wrapped driver until a test adds a fault with `fail`, `hang`, `cut`,
    `short` or `flip`. If several faults of `fail` and `hang` apply to a call, the first one added is
    used. A call that requires an unclaimed capability raises AssertionError.

    `Faulty` is not a layer: a store applies its retries, permits and timeouts around it, so the
    faults exercise them.

    Example:
        >>> from trove_async.drivers.memory import MemoryDriver
        >>> faulty = Faulty(MemoryDriver())
        >>> faulty.fail("put", times=2)  # the third attempt succeeds

    Args:
        driver: The driver to wrap. It must not be open: it is opened and closed with this one.
        capabilities: Capabilities to claim instead of the driver's, to test a store without some of
            them. If `ordered` is removed, each page is in reverse order. None: those of the driver.

    Attributes:
        driver: The wrapped driver.
        open_readers: The number of gets whose context is open.
        open_uploads: The number of uploads whose context is open.
    """

    def __init__(self, driver: AsyncDriver, *, capabilities: Capabilities | None = None) -> None:
        super().__init__()
        self.driver = driver
        self.open_readers = 0
        self.open_uploads = 0
        self._claimed = capabilities

    @property
    def name(self) -> str:
        """The name of the wrapped driver."""
        return self.driver.name

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities passed to the constructor, or those of the wrapped driver."""
        capabilities = self._claimed or self.driver.capabilities
        if capabilities.own_timeouts:  # a fault may hang where they do not apply
            capabilities = replace(capabilities, own_timeouts=False)
        return capabilities

    def place(self, bucket: str, key: str) -> Hashable:
        """See `AsyncDriver.place`."""
        return self.driver.place(bucket, key)

    def places(self, bucket: str, key: str, *, written: bool = False) -> Sequence[Hashable]:
        """See `ManyPlaces.places`."""
        return places_of(self.driver, bucket, key, written=written)

    async def check_deletable(self, bucket: str, key: str) -> None:
        """See `RefusesDeletions.check_deletable`. No fault applies."""
        await check_deletable(self.driver, bucket, key)

    async def open(self, context: DriverContext) -> None:
        """Open the wrapped driver."""
        call = Call("open")
        await self.begin(call)
        await self.driver.open(context)
        await self.end(call)

    async def aclose(self) -> None:
        """Close the wrapped driver. No fault applies, so that a test can always close its store."""
        await self.driver.aclose()

    async def ping(self) -> None:
        """See `AsyncDriver.ping`."""
        call = Call("ping")
        await self.begin(call)
        await self.driver.ping()
        await self.end(call)

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """See `AsyncDriver.put`."""
        check_put(self.capabilities, options, views)
        call = Call("put", bucket, key)
        await self.begin(call)
        info = await self.driver.put(bucket, key, views, options)
        await self.end(call)
        return _without_unclaimed(self.capabilities, info)

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """See `AsyncDriver.get`."""
        check_get(self.capabilities, options)
        return _Get(self, Call("get", bucket, key), self.driver.get(bucket, key, options))

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """See `AsyncDriver.head`."""
        assert version_id is None or self.capabilities.versions, "versions are not claimed"
        call = Call("head", bucket, key)
        await self.begin(call)
        info = await self.driver.head(bucket, key, version_id)
        await self.end(call)
        return _without_unclaimed(self.capabilities, info)

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """See `AsyncDriver.delete`."""
        check_delete(self.capabilities, options)
        call = Call("delete", bucket, key)
        await self.begin(call)
        await self.driver.delete(bucket, key, options)
        await self.end(call)

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """See `AsyncDriver.list_page`."""
        call = Call("list_page", bucket)
        await self.begin(call)
        page = await self.driver.list_page(bucket, options)
        await self.end(call)
        entries = [
            _without_unclaimed(self.capabilities, entry) if isinstance(entry, ObjectInfo) else entry
            for entry in page.entries
        ]
        if self.driver.capabilities.ordered and not self.capabilities.ordered:
            entries.reverse()  # so that a store that relies on the order fails
        return replace(page, entries=entries)

    async def create_bucket(self, bucket: str) -> None:
        """See `AsyncDriver.create_bucket`."""
        call = Call("create_bucket", bucket)
        await self.begin(call)
        await self.driver.create_bucket(bucket)
        await self.end(call)

    async def delete_bucket(self, bucket: str) -> None:
        """See `AsyncDriver.delete_bucket`."""
        call = Call("delete_bucket", bucket)
        await self.begin(call)
        await self.driver.delete_bucket(bucket)
        await self.end(call)

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """See `AsyncDriver.head_bucket`."""
        call = Call("head_bucket", bucket)
        await self.begin(call)
        info = await self.driver.head_bucket(bucket)
        await self.end(call)
        return info

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """See `AsyncDriver.list_buckets`."""
        call = Call("list_buckets")
        await self.begin(call)
        buckets = await self.driver.list_buckets()
        await self.end(call)
        return buckets

    def upload(
        self, bucket: str, key: str, options: PutOptions
    ) -> AbstractAsyncContextManager[Upload]:
        """See `Uploading.upload`."""
        check_upload(self.capabilities, options)
        inner = cast("Uploading", self.driver).upload(bucket, key, options)
        return _Upload(self, Call("upload", bucket, key), inner)

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """See `Copying.copy`."""
        check_copy(self.capabilities, options)
        call = Call("copy", dst_bucket, dst_key)
        await self.begin(call)
        info = await cast("Copying", self.driver).copy(
            src_bucket, src_key, dst_bucket, dst_key, options
        )
        await self.end(call)
        return _without_unclaimed(self.capabilities, info)

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """See `BulkDeleting.delete_many`."""
        assert len(keys) <= self.capabilities.bulk_delete, (
            f"a bulk delete of {len(keys)} keys exceeds bulk_delete"
        )
        call = Call("delete_many", bucket)
        await self.begin(call)
        results = await cast("BulkDeleting", self.driver).delete_many(bucket, keys)
        await self.end(call)
        return results

    async def presign(
        self, method: str, bucket: str, key: str, expires: float, options: PresignOptions
    ) -> str:
        """See `Presigning.presign`."""
        assert self.capabilities.presign, "presigned URLs are not claimed"
        assert options.version_id is None or self.capabilities.versions, "versions are not claimed"
        call = Call("presign", bucket, key)
        await self.begin(call)
        presigning = cast("Presigning", self.driver)
        url = await presigning.presign(method, bucket, key, expires, options)
        await self.end(call)
        return url

    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        """See `Versioned.version_page`."""
        assert self.capabilities.versions, "versions are not claimed"
        assert options.delimiter is None, "a listing of versions must have no delimiter"
        call = Call("version_page", bucket)
        await self.begin(call)
        page = await cast("Versioned", self.driver).version_page(bucket, options)
        await self.end(call)
        if self.driver.capabilities.ordered and not self.capabilities.ordered:
            # The sort is stable: the versions of one key keep their order.
            entries = sorted(page.entries, key=lambda entry: entry.key, reverse=True)
            return replace(page, entries=entries)
        return page

    async def compare(
        self, bucket: str, options: ListOptions, *, deep: bool = False
    ) -> ComparedPage:
        """See `Replicated.compare`. No fault applies."""
        assert self.capabilities.replicated, "replicas are not claimed"
        return await cast("Replicated", self.driver).compare(bucket, options, deep=deep)

    async def repair(self, bucket: str, key: str) -> Repaired:
        """See `Replicated.repair`. No fault applies."""
        assert self.capabilities.replicated, "replicas are not claimed"
        return await cast("Replicated", self.driver).repair(bucket, key)


def _without_unclaimed(claimed: Capabilities, info: ObjectInfo) -> ObjectInfo:
    """Return the info without the kinds of checksum that are not claimed."""
    if info.checksums.keys() <= claimed.checksums:
        return info
    checksums = {kind: value for kind, value in info.checksums.items() if kind in claimed.checksums}
    return replace(info, checksums=checksums)


class _Get:
    """A get that is counted while its context is open."""

    def __init__(
        self, faulty: Faulty, call: Call, inner: AbstractAsyncContextManager[DriverReader]
    ) -> None:
        self._faulty = faulty
        self._call = call
        self._inner = inner

    async def __aenter__(self) -> DriverReader:
        await self._faulty.begin(self._call)
        reader = await self._inner.__aenter__()
        try:
            await self._faulty.end(self._call)
        except BaseException as error:
            # Python does not call `_Get.__aexit__` if `__aenter__` raises.
            with shielded():
                await self._inner.__aexit__(type(error), error, None)
            raise
        self._faulty.open_readers += 1
        if isinstance(reader, ReadsInto):
            return _ReadIntoReader(self._faulty, reader, self._call)
        return _Reader(self._faulty, reader, self._call)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._faulty.open_readers -= 1
        return await self._inner.__aexit__(kind, error, traceback)


class _Reader:
    """The body of a get, with its flaws."""

    def __init__(self, faulty: Faulty, inner: DriverReader, call: Call) -> None:
        self._faulty = faulty
        self._inner = inner
        self._call = call._replace(operation="read")
        self._position = inner.range[0]
        self._ended = False
        self.info = _without_unclaimed(faulty.capabilities, inner.info)
        self.range = inner.range

    async def read(self, size: int) -> bytes:
        """See `DriverReader.read`."""
        await self._faulty.begin(self._call)
        limit = self._limit(size)
        piece = await self._inner.read(limit) if limit else b""
        await self._faulty.end(self._call)
        flips = self._take_flips(len(piece))
        if flips:
            damaged = bytearray(piece)
            for offset in flips:
                damaged[offset] ^= 0xFF
            return bytes(damaged)
        return piece

    def _limit(self, size: int) -> int:
        """Return how many of `size` bytes come before the next cut or early end. 0: the body ends here.

        Raises:
            UnavailableError: The body breaks here.
        """
        if self._ended:
            return 0
        for flaw in self._faulty.flaws(self._call):
            if flaw.kind == "flip" or not self._position <= flaw.at <= self.range[1]:
                continue
            # First return the bytes before the flaw. The next read then reaches it.
            if flaw.at > self._position:
                size = min(size, flaw.at - self._position)
            elif flaw.kind == "cut":
                flaw.count_use()
                raise UnavailableError(
                    f"the body breaks at byte {flaw.at} because the test added this fault",
                    bucket=self._call.bucket,
                    key=self._call.key,
                )
            else:
                flaw.count_use()
                self._ended = True
                return 0
        return size

    def _take_flips(self, count: int) -> list[int]:
        """Return the offsets to invert in the `count` bytes just read, and advance the position."""
        offsets = []
        for flaw in self._faulty.flaws(self._call):
            offset = flaw.at - self._position
            if flaw.kind == "flip" and 0 <= offset < count:
                flaw.count_use()
                offsets.append(offset)
        self._position += count
        return offsets


class _ReadIntoReader(_Reader):
    """A `_Reader` for a driver whose readers have `readinto`."""

    async def readinto(self, buffer: memoryview) -> int:
        """See `ReadsInto.readinto`."""
        await self._faulty.begin(self._call)
        limit = self._limit(len(buffer))
        count = await cast("ReadsInto", self._inner).readinto(buffer[:limit]) if limit else 0
        await self._faulty.end(self._call)
        for offset in self._take_flips(count):
            buffer[offset] ^= 0xFF
        return count


class _Upload:
    """An upload that is counted while its context is open."""

    def __init__(
        self, faulty: Faulty, call: Call, inner: AbstractAsyncContextManager[Upload]
    ) -> None:
        self._faulty = faulty
        self._call = call
        self._inner = inner

    async def __aenter__(self) -> Self:
        await self._faulty.begin(self._call)
        self._upload = await self._inner.__aenter__()
        try:
            await self._faulty.end(self._call)
        except BaseException as error:
            # As in `_Get`.
            with shielded():
                await self._inner.__aexit__(type(error), error, None)
            raise
        self._faulty.open_uploads += 1
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._faulty.open_uploads -= 1
        return await self._inner.__aexit__(kind, error, traceback)

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """See `Upload.send`."""
        check_part(self._faulty.capabilities, part, views)
        call = self._call._replace(operation="send")
        await self._faulty.begin(call)
        await self._upload.send(part, views)
        await self._faulty.end(call)

    async def send_stream(self, part: Part, source: PartSource) -> None:
        """See `StreamedUpload.send_stream`."""
        check_streamed_part(self._faulty.capabilities, part, source)
        call = self._call._replace(operation="send")
        await self._faulty.begin(call)
        await cast("StreamedUpload", self._upload).send_stream(part, source)
        await self._faulty.end(call)

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        """See `Upload.commit`."""
        call = self._call._replace(operation="commit")
        await self._faulty.begin(call)
        info = await self._upload.commit(checksums)
        await self._faulty.end(call)
        return _without_unclaimed(self._faulty.capabilities, info)
