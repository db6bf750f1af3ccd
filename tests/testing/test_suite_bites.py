"""Drivers that are broken in one way each, and the test of the suite that says so."""

from __future__ import annotations

import asyncio
import inspect
import unicodedata
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from trove_async.drivers.memory import MemoryDriver
from trove_async.errors import (
    BucketNotFoundError,
    ObjectNotFoundError,
    PreconditionFailedError,
    RangeError,
)
from trove_async.models import ByteRange, DeleteOptions, GetOptions, ListOptions, ObjectInfo, Page
from trove_async.testing import DriverSuite, opened
from trove_async.testing._driving import rest
from trove_async.testing.driver.buckets import CALLS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from trove_async.driver import DriverReader, Upload
    from trove_async.models import CopyOptions, Part, PutOptions


class ForgetsToClamp(MemoryDriver):
    @asynccontextmanager
    async def get(self, bucket: str, key: str, options: GetOptions) -> AsyncIterator[DriverReader]:
        asked = options.range
        size = (await self.head(bucket, key)).size
        if asked is not None and asked.end is not None and asked.end > size:
            raise RangeError("416")
        async with super().get(bucket, key, options) as reader:
            yield reader


class ReturnsTheWholeForABadRange(MemoryDriver):
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


class SortsLikeJava(MemoryDriver):
    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        page = await super().list_page(bucket, replace(options, token=None, limit=10**6))
        entries = sorted(page.entries, key=lambda entry: entry.key.encode("utf-16-be"))
        at = int(options.token or 0)
        end = at + options.limit
        return Page(entries=entries[at:end], token=str(end) if end < len(entries) else None)


class ResumesByCount(MemoryDriver):
    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        page = await super().list_page(bucket, replace(options, token=None, limit=10**6))
        at = int(options.token or 0)
        end = at + options.limit
        token = str(end) if end < len(page.entries) else None
        return Page(entries=page.entries[at:end], token=token)


class ListsPrefixesOncePerPage(MemoryDriver):
    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        page = await super().list_page(bucket, options)
        last = page.entries[-1] if page.entries else None
        if page.token is None or isinstance(last, ObjectInfo) or last is None:
            return page
        return replace(page, token=last.prefix + "\x01")


class TellsThatFewerFollow(MemoryDriver):
    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        return replace(await super().list_page(bucket, options), token=None)


class IgnoresThePrefixInsideASegment(MemoryDriver):
    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        folder = options.prefix[: options.prefix.rfind("/") + 1]
        return await super().list_page(bucket, replace(options, prefix=folder))


class StartsAtTheKeyItself(MemoryDriver):
    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        start = options.token or options.start_after
        return await super().list_page(bucket, replace(options, token=start))


class IgnoresConditions(MemoryDriver):
    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        bare = replace(options, if_none_match=None, if_match=None)
        return await super().put(bucket, key, views, bare)


class ChecksThenActs(MemoryDriver):
    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        if options.if_none_match or options.if_match:
            try:
                held = await self.head(bucket, key)
            except ObjectNotFoundError:
                held = None
            if (held and held.etag) != options.if_match:
                return await super().put(bucket, key, views, options)
            await asyncio.sleep(0)
        bare = replace(options, if_none_match=None, if_match=None)
        return await super().put(bucket, key, views, bare)


class SpoilsOnAFailedPut(MemoryDriver):
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


class MakesBuckets(MemoryDriver):
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


class TakesTheSizeForAnEtag(MemoryDriver):
    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        info = await super().put(bucket, key, views, options)
        return replace(info, etag=str(info.size))


class BelievesChecksums(MemoryDriver):
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


class FoldsSlashes(MemoryDriver):
    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        return await super().put(bucket, key.replace("//", "/"), views, options)


class MissesWhatIsNotThere(MemoryDriver):
    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        await self.head(bucket, key)
        await super().delete(bucket, key, options)


class DeletesFolders(MemoryDriver):
    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        del options
        page = await self.list_page(bucket, ListOptions(prefix=key))
        for entry in page.entries:
            await super().delete(bucket, entry.key, DeleteOptions())


class TakesAMissingBucketForAMissingObject(MemoryDriver):
    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        try:
            return await super().head(bucket, key, version_id)
        except BucketNotFoundError:
            raise ObjectNotFoundError("404") from None


class CopiesWhateverIsThere(MemoryDriver):
    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        there = replace(options, source=await self.head(src_bucket, src_key))
        return await super().copy(src_bucket, src_key, dst_bucket, dst_key, there)


class HoldsAScopeAroundTheBody(MemoryDriver):
    @asynccontextmanager
    async def get(self, bucket: str, key: str, options: GetOptions) -> AsyncIterator[DriverReader]:
        with anyio.fail_after(60):
            async with super().get(bucket, key, options) as reader:
                yield reader


class _LooksUpEachTime:
    def __init__(self, driver: MemoryDriver, info: ObjectInfo, end: int) -> None:
        self.info = info
        self.range = (0, end)
        self._driver = driver
        self._at = 0

    async def read(self, size: int) -> bytes:
        if self._at >= self.range[1]:
            return b""
        asked = GetOptions(range=ByteRange(self._at, self._at + size))
        async with MemoryDriver.get(self._driver, self.info.bucket, self.info.key, asked) as reader:
            piece = await rest(reader)
        self._at += len(piece)
        return piece


class MixesVersions(MemoryDriver):
    @asynccontextmanager
    async def get(self, bucket: str, key: str, options: GetOptions) -> AsyncIterator[DriverReader]:
        del options
        info = await self.head(bucket, key)
        yield _LooksUpEachTime(self, info, info.size)


class EndsOneByteEarly(MemoryDriver):
    @asynccontextmanager
    async def get(self, bucket: str, key: str, options: GetOptions) -> AsyncIterator[DriverReader]:
        del options
        info = await self.head(bucket, key)
        yield _LooksUpEachTime(self, info, max(0, info.size - 1))


class CommitsOnLeaving(MemoryDriver):
    @asynccontextmanager
    async def upload(self, bucket: str, key: str, options: PutOptions) -> AsyncIterator[Upload]:
        async with super().upload(bucket, key, options) as one:
            try:
                yield one
            finally:
                await one.commit({})


class _InOrderOfArrival:
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


class JoinsPartsAsTheyArrive(MemoryDriver):
    @asynccontextmanager
    async def upload(self, bucket: str, key: str, options: PutOptions) -> AsyncIterator[Upload]:
        async with super().upload(bucket, key, options) as one:
            yield _InOrderOfArrival(one)


class _Late:
    def __init__(self, driver: MemoryDriver, bucket: str, key: str, options: PutOptions) -> None:
        self._opening = (driver, bucket, key, options)

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        driver, bucket, key, options = self._opening
        async with MemoryDriver.upload(driver, bucket, key, options) as one:
            await one.send(part, views)

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        driver, bucket, key, _ = self._opening
        del checksums
        return await driver.head(bucket, key)


class LooksForTheBucketLate(MemoryDriver):
    @asynccontextmanager
    async def upload(self, bucket: str, key: str, options: PutOptions) -> AsyncIterator[Upload]:
        yield _Late(self, bucket, key, options)


class DropsMetadataOfUploads(MemoryDriver):
    @asynccontextmanager
    async def upload(self, bucket: str, key: str, options: PutOptions) -> AsyncIterator[Upload]:
        async with super().upload(bucket, key, replace(options, metadata={})) as one:
            yield one


CAUGHT: list[tuple[type[MemoryDriver], str, dict[str, Any]]] = [
    (
        ForgetsToClamp,
        "test_range_selects",
        {"asked": ByteRange(0, 11), "span": (0, 10)},
    ),
    (
        ReturnsTheWholeForABadRange,
        "test_range_beyond_the_end_raises",
        {"asked": ByteRange(10)},
    ),
    (
        ReturnsTheWholeForABadRange,
        "test_range_of_an_empty_object_raises",
        {"asked": ByteRange.last(1)},
    ),
    (ListsBackwards, "test_listing_selects_what_is_asked_for", {}),
    (SortsLikeJava, "test_listing_is_the_same_for_every_page_size", {}),
    (ResumesByCount, "test_listing_goes_on_after_deletions", {"limit": 3}),
    (ResumesByCount, "test_listing_shows_no_key_twice_while_others_are_put", {}),
    (ListsPrefixesOncePerPage, "test_listing_is_the_same_for_every_page_size", {}),
    (TellsThatFewerFollow, "test_listing_is_the_same_for_every_page_size", {}),
    (IgnoresThePrefixInsideASegment, "test_listing_selects_what_is_asked_for", {}),
    (StartsAtTheKeyItself, "test_listing_selects_what_is_asked_for", {}),
    (IgnoresConditions, "test_create_only_leaves_what_is_there", {}),
    (IgnoresConditions, "test_replacing_a_version_needs_that_version", {}),
    (ChecksThenActs, "test_create_only_has_one_winner", {}),
    (ChecksThenActs, "test_replacing_a_version_has_one_winner", {}),
    (SpoilsOnAFailedPut, "test_replacing_a_version_needs_that_version", {}),
    (PutsInTwoSteps, "test_put_cancelled_anywhere_leaves_the_old_or_the_new", {}),
    (PutsInTwoSteps, "test_put_cancelled_anywhere_makes_all_or_nothing", {}),
    (MakesBuckets, "test_missing_bucket_is_not_found", {"call": "put"}),
    (KeepsOnlyTheLastView, "test_put_concatenates_its_views", {"size": 7}),
    (TakesTheSizeForAnEtag, "test_put_head_and_get_tell_the_same_facts", {}),
    (TakesTheSizeForAnEtag, "test_etag_differs_for_every_content_of_one_size", {}),
    (BelievesChecksums, "test_body_that_is_not_what_was_announced_is_refused", {"way": "put"}),
    (KeepsOldMetadata, "test_nothing_of_the_old_object_stays_with_the_new", {}),
    (NormalisesKeys, "test_odd_key_is_kept_as_it_is", {"key": "cafe\u0301"}),
    (NormalisesKeys, "test_odd_keys_are_kept_apart", {}),
    (FoldsSlashes, "test_odd_key_is_kept_as_it_is", {"key": "a//b"}),
    (MissesWhatIsNotThere, "test_delete_of_a_missing_object_is_no_error", {}),
    (DeletesFolders, "test_delete_leaves_nothing_but_the_others", {}),
    (TakesAMissingBucketForAMissingObject, "test_missing_bucket_is_not_found", {"call": "head"}),
    (CopiesWhateverIsThere, "test_copy_of_a_version_that_was_replaced_makes_nothing", {}),
    (HoldsAScopeAroundTheBody, "test_reader_may_be_used_and_left_in_other_tasks", {}),
    (MixesVersions, "test_reader_never_mixes_two_versions", {"change": "replaced"}),
    (EndsOneByteEarly, "test_put_then_get_returns_the_same_bytes", {"size": 1}),
    (
        CommitsOnLeaving,
        "test_upload_left_without_a_commit_leaves_nothing",
        {"way": "by an error"},
    ),
    (CommitsOnLeaving, "test_upload_cancelled_anywhere_leaves_the_old_or_the_new", {}),
    (JoinsPartsAsTheyArrive, "test_parts_may_come_backwards", {}),
    (JoinsPartsAsTheyArrive, "test_part_may_come_again", {}),
    (LooksForTheBucketLate, "test_upload_into_a_missing_bucket_raises_on_entering", {}),
    (DropsMetadataOfUploads, "test_metadata_is_kept", {"way": "upload"}),
]


async def _run(driver: MemoryDriver, name: str, arguments: dict[str, Any]) -> None:
    """Run one test of the suite as pytest would."""
    test = getattr(DriverSuite(), name)
    async with opened(driver) as backend:
        given: dict[str, Any] = {"backend": backend, "bucket": "b", "other_bucket": "c"}
        for bucket in ("b", "c"):
            await backend.create_bucket(bucket)
        wanted = inspect.signature(test).parameters
        await test(**{key: given[key] for key in given.keys() & wanted.keys()}, **arguments)


def _arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    if "call" not in arguments:
        return arguments
    return {"call": dict(CALLS)[arguments["call"]]}


IDS = [f"{broken.__name__}-{name}" for broken, name, _ in CAUGHT]


@pytest.mark.parametrize(("broken", "name", "arguments"), CAUGHT, ids=IDS)
async def test_broken_driver_is_caught(
    broken: type[MemoryDriver], name: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        await _run(broken(), name, _arguments(arguments))
    assert not isinstance(caught.value, TypeError)
    assert "Timeout" not in str(caught.value)


@pytest.mark.parametrize(("broken", "name", "arguments"), CAUGHT, ids=IDS)
async def test_sound_driver_passes_the_same(
    broken: type[MemoryDriver], name: str, arguments: dict[str, Any]
) -> None:
    del broken
    await _run(MemoryDriver(), name, _arguments(arguments))


def test_no_topic_hides_a_test_of_another() -> None:
    seen: dict[str, str] = {}
    for topic in DriverSuite.__mro__:
        for name in vars(topic):
            if name.startswith("test_"):
                assert name not in seen, f"{name} is in {seen[name]} and {topic.__name__}"
                seen[name] = topic.__name__
    assert len(seen) > 80


async def test_suite_that_is_not_bound_says_how() -> None:
    fixture = inspect.unwrap(DriverSuite.driver)
    with pytest.raises(NotImplementedError, match="bind the suite"):
        fixture(DriverSuite())
