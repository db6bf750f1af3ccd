"""Drivers with one bug each: bugs that real drivers have had or could easily have."""

from __future__ import annotations

import asyncio
import unicodedata
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from trove_async.drivers.memory import MemoryDriver
from trove_async.errors import (
    BucketNotFoundError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
    RangeError,
)
from trove_async.models import ByteRange, ObjectInfo
from trove_async.options import DeleteOptions, GetOptions, ListOptions, Page
from trove_async.testing._harness import read_to_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from trove_async.driver import DriverReader, Upload
    from trove_async.options import CopyOptions, Part, PutOptions


class ForgetsToClamp(MemoryDriver):
    @asynccontextmanager
    async def get(self, bucket: str, key: str, options: GetOptions) -> AsyncIterator[DriverReader]:
        requested = options.range
        size = (await self.head(bucket, key)).size
        if requested is not None and requested.end is not None and requested.end > size:
            raise RangeError("416")
        async with super().get(bucket, key, options) as reader:
            yield reader


class ReturnsWholeObjectForBadRange(MemoryDriver):
    @asynccontextmanager
    async def get(self, bucket: str, key: str, options: GetOptions) -> AsyncIterator[DriverReader]:
        try:
            async with super().get(bucket, key, options) as reader:
                yield reader
        except RangeError:
            async with super().get(bucket, key, replace(options, range=None)) as reader:
                yield reader


class ListsBackwards(MemoryDriver):
    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        page = await super().list_page(bucket, options)
        return replace(page, entries=page.entries[::-1])


class SortsByUtf16(MemoryDriver):
    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        page = await super().list_page(bucket, replace(options, token=None, limit=10**6))
        entries = sorted(page.entries, key=lambda entry: entry.key.encode("utf-16-be"))
        start = int(options.token or 0)
        end = start + options.limit
        return Page(entries=entries[start:end], token=str(end) if end < len(entries) else None)


class ResumesByCount(MemoryDriver):
    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        page = await super().list_page(bucket, replace(options, token=None, limit=10**6))
        start = int(options.token or 0)
        end = start + options.limit
        token = str(end) if end < len(page.entries) else None
        return Page(entries=page.entries[start:end], token=token)


class RepeatsPrefixOnNextPage(MemoryDriver):
    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        page = await super().list_page(bucket, options)
        last = page.entries[-1] if page.entries else None
        if page.token is None or isinstance(last, ObjectInfo) or last is None:
            return page
        return replace(page, token=last.prefix + "\x01")


class DropsPageTokens(MemoryDriver):
    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        return replace(await super().list_page(bucket, options), token=None)


class IgnoresPrefixInsideSegment(MemoryDriver):
    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        folder = options.prefix[: options.prefix.rfind("/") + 1]
        return await super().list_page(bucket, replace(options, prefix=folder))


class IncludesStartAfter(MemoryDriver):
    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        start = options.token or options.start_after
        return await super().list_page(bucket, replace(options, token=start))


class IgnoresConditions(MemoryDriver):
    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        unconditional = replace(options, if_none_match=None, if_match=None)
        return await super().put(bucket, key, views, unconditional)


class ChecksThenActs(MemoryDriver):
    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        if options.if_none_match or options.if_match:
            try:
                current = await self.head(bucket, key)
            except ObjectNotFoundError:
                current = None
            if (current and current.etag) != options.if_match:
                return await super().put(bucket, key, views, options)
            await asyncio.sleep(0)
        unconditional = replace(options, if_none_match=None, if_match=None)
        return await super().put(bucket, key, views, unconditional)


class ChecksThenCommits(MemoryDriver):
    """SeaweedFS completes uploads like this."""

    @asynccontextmanager
    async def upload(self, bucket: str, key: str, options: PutOptions) -> AsyncIterator[Upload]:
        unconditional = replace(options, if_none_match=None, if_match=None)
        async with super().upload(bucket, key, unconditional) as upload:
            commit = upload.commit

            async def check_and_commit(checksums: Mapping[str, str]) -> ObjectInfo:
                try:
                    current = (await self.head(bucket, key)).etag
                except ObjectNotFoundError:
                    current = None
                if options.if_none_match and current:
                    raise ObjectExistsError("the key exists")
                if options.if_match and current != options.if_match:
                    raise PreconditionFailedError("the object has changed")
                await asyncio.sleep(0)
                return await commit(checksums)

            upload.commit = check_and_commit  # type: ignore[method-assign]  # one method is replaced
            yield upload


class TruncatesOnFailedPut(MemoryDriver):
    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        try:
            return await super().put(bucket, key, views, options)
        except PreconditionFailedError:
            await super().put(bucket, key, [], replace(options, if_match=None))
            raise


class PutsInTwoSteps(MemoryDriver):
    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        await super().put(bucket, key, [view[:100] for view in views[:1]], options)
        await asyncio.sleep(0)
        return await super().put(bucket, key, views, replace(options, if_none_match=None))


class CreatesMissingBuckets(MemoryDriver):
    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        try:
            await self.head_bucket(bucket)
        except BucketNotFoundError:
            await self.create_bucket(bucket)
        return await super().put(bucket, key, views, options)


class KeepsOnlyTheLastView(MemoryDriver):
    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        return await super().put(bucket, key, views[-1:], options)


class UsesSizeAsEtag(MemoryDriver):
    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        info = await super().put(bucket, key, views, options)
        return replace(info, etag=str(info.size))


class IgnoresChecksums(MemoryDriver):
    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        return await super().put(bucket, key, views, replace(options, checksums={}))


class KeepsOldMetadata(MemoryDriver):
    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        try:
            old: Mapping[str, str] = (await self.head(bucket, key)).metadata
        except ObjectNotFoundError:
            old = {}
        merged = replace(options, metadata={**old, **options.metadata})
        return await super().put(bucket, key, views, merged)


class NormalisesKeys(MemoryDriver):
    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        return await super().put(bucket, unicodedata.normalize("NFC", key), views, options)


class CollapsesSlashes(MemoryDriver):
    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        return await super().put(bucket, key.replace("//", "/"), views, options)


class RaisesOnDeleteOfMissingObject(MemoryDriver):
    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        await self.head(bucket, key)
        await super().delete(bucket, key, options)


class DeletesByPrefix(MemoryDriver):
    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        del options
        page = await self.list_page(bucket, ListOptions(prefix=key))
        for entry in page.entries:
            await super().delete(bucket, entry.key, DeleteOptions())


class ReportsMissingBucketAsMissingObject(MemoryDriver):
    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        try:
            return await super().head(bucket, key, version_id)
        except BucketNotFoundError:
            raise ObjectNotFoundError("404") from None


class IgnoresCopiedVersion(MemoryDriver):
    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        current = replace(options, source=await self.head(src_bucket, src_key))
        return await super().copy(src_bucket, src_key, dst_bucket, dst_key, current)


class HoldsCancelScopeAroundBody(MemoryDriver):
    @asynccontextmanager
    async def get(self, bucket: str, key: str, options: GetOptions) -> AsyncIterator[DriverReader]:
        with anyio.fail_after(60):
            async with super().get(bucket, key, options) as reader:
                yield reader


class _ReaderOfLatestVersion:
    def __init__(self, driver: MemoryDriver, info: ObjectInfo, end: int) -> None:
        self.info = info
        self.range = (0, end)
        self._driver = driver
        self._position = 0

    async def read(self, size: int) -> bytes:
        if self._position >= self.range[1]:
            return b""
        options = GetOptions(range=ByteRange(self._position, self._position + size))
        async with MemoryDriver.get(
            self._driver, self.info.bucket, self.info.key, options
        ) as reader:
            piece = await read_to_end(reader)
        self._position += len(piece)
        return piece


class MixesVersions(MemoryDriver):
    @asynccontextmanager
    async def get(self, bucket: str, key: str, options: GetOptions) -> AsyncIterator[DriverReader]:
        del options
        info = await self.head(bucket, key)
        yield _ReaderOfLatestVersion(self, info, info.size)


class EndsOneByteEarly(MemoryDriver):
    @asynccontextmanager
    async def get(self, bucket: str, key: str, options: GetOptions) -> AsyncIterator[DriverReader]:
        del options
        info = await self.head(bucket, key)
        yield _ReaderOfLatestVersion(self, info, max(0, info.size - 1))


class CommitsOnExit(MemoryDriver):
    @asynccontextmanager
    async def upload(self, bucket: str, key: str, options: PutOptions) -> AsyncIterator[Upload]:
        async with super().upload(bucket, key, options) as upload:
            try:
                yield upload
            finally:
                await upload.commit({})


class _ArrivalOrderUpload:
    def __init__(self, inner: Upload) -> None:
        self._inner = inner
        self._number = 0
        self._offset = 0

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        self._number += 1
        await self._inner.send(replace(part, number=self._number, offset=self._offset), views)
        self._offset += part.size

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        return await self._inner.commit(checksums)


class JoinsPartsInOrderOfArrival(MemoryDriver):
    @asynccontextmanager
    async def upload(self, bucket: str, key: str, options: PutOptions) -> AsyncIterator[Upload]:
        async with super().upload(bucket, key, options) as upload:
            yield _ArrivalOrderUpload(upload)


class _LateUpload:
    def __init__(self, driver: MemoryDriver, bucket: str, key: str, options: PutOptions) -> None:
        self._arguments = (driver, bucket, key, options)

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        driver, bucket, key, options = self._arguments
        async with MemoryDriver.upload(driver, bucket, key, options) as upload:
            await upload.send(part, views)

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        driver, bucket, key, _ = self._arguments
        del checksums
        return await driver.head(bucket, key)


class ChecksBucketLate(MemoryDriver):
    @asynccontextmanager
    async def upload(self, bucket: str, key: str, options: PutOptions) -> AsyncIterator[Upload]:
        yield _LateUpload(self, bucket, key, options)


class DropsMetadataOfUploads(MemoryDriver):
    @asynccontextmanager
    async def upload(self, bucket: str, key: str, options: PutOptions) -> AsyncIterator[Upload]:
        async with super().upload(bucket, key, replace(options, metadata={})) as upload:
            yield upload
