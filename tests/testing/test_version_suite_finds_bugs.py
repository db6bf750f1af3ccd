"""`DriverVersions` finds bugs: each driver with a bug fails the named test."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.versioned_memory import VersionedMemory
from trove_async.testing import DriverVersions, opened

if TYPE_CHECKING:
    from trove_async.options import ListOptions, VersionPage


class OldestFirst(VersionedMemory):
    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        page = await super().version_page(bucket, options)
        entries = sorted(
            page.entries, key=lambda version: (version.key, int(version.version_id[1:]))
        )
        return replace(page, entries=entries)


class HidesDeletedKeys(VersionedMemory):
    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        page = await super().version_page(bucket, options)
        objects = self._bucket(bucket).objects
        return replace(page, entries=[entry for entry in page.entries if entry.key in objects])


class ReportsMarkersAsVersions(VersionedMemory):
    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        page = await super().version_page(bucket, options)
        return replace(page, entries=[replace(entry, deleted=False) for entry in page.entries])


class MarksAllAsLatest(VersionedMemory):
    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        page = await super().version_page(bucket, options)
        return replace(page, entries=[replace(entry, latest=True) for entry in page.entries])


class ResumesAfterKey(VersionedMemory):
    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        if options.token is not None:
            options = replace(options, token=None, start_after=options.token.rpartition("\0")[0])
        return await super().version_page(bucket, options)


class IgnoresPrefix(VersionedMemory):
    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        return await super().version_page(bucket, replace(options, prefix=""))


class IncludesStartAfter(VersionedMemory):
    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        if options.start_after is not None:
            options = replace(options, start_after=options.start_after[:-1] or None)
        return await super().version_page(bucket, options)


class SortsBackwards(VersionedMemory):
    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        page = await super().version_page(bucket, options)
        entries = sorted(page.entries, key=lambda entry: entry.key, reverse=True)
        return replace(page, entries=entries)


class IgnoresVersionId(VersionedMemory):
    def _version(self, bucket: str, key: str, version_id: str) -> Any:
        del version_id
        return self._object(bucket, key)


CAUGHT: list[tuple[type[VersionedMemory], str, dict[str, Any]]] = [
    (OldestFirst, "test_versions_are_listed_newest_first", {}),
    (OldestFirst, "test_version_can_be_read_by_id", {}),
    (HidesDeletedKeys, "test_delete_without_id_keeps_older_versions", {}),
    (ReportsMarkersAsVersions, "test_delete_without_id_keeps_older_versions", {}),
    (MarksAllAsLatest, "test_versions_are_listed_newest_first", {}),
    (MarksAllAsLatest, "test_put_after_a_delete_is_the_latest", {}),
    (ResumesAfterKey, "test_versions_are_the_same_for_every_page_size", {"limit": 2}),
    (ResumesAfterKey, "test_versions_can_be_deleted_while_listing", {"limit": 1}),
    (IgnoresPrefix, "test_version_listing_applies_prefix", {"limit": 1000}),
    (IncludesStartAfter, "test_version_listing_applies_start_after", {"limit": 2}),
    (SortsBackwards, "test_versions_are_listed_newest_first", {}),
    (IgnoresVersionId, "test_version_can_be_read_by_id", {}),
    (IgnoresVersionId, "test_version_listing_and_head_agree", {}),
]
IDS = [f"{driver.__name__}-{name}" for driver, name, _ in CAUGHT]


async def _run(driver: VersionedMemory, name: str, arguments: dict[str, Any]) -> None:
    async with opened(driver) as backend:
        await backend.create_bucket("data")
        driver.versioned_buckets.add("data")
        await getattr(DriverVersions(), name)(backend=backend, versioned_bucket="data", **arguments)


@pytest.mark.parametrize(("driver", "name", "arguments"), CAUGHT, ids=IDS)
async def test_broken_driver_is_caught(
    driver: type[VersionedMemory], name: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(AssertionError):
        await _run(driver(), name, arguments)
    await _run(VersionedMemory(), name, arguments)


async def test_tests_are_skipped_without_keep_versions() -> None:
    with pytest.raises(pytest.skip.Exception, match="override keep_versions"):
        await DriverVersions().keep_versions(VersionedMemory(), "data")
