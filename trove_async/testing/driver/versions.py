"""Conformance tests of object versions.

Each version is listed once, newest first for each key, and can be read, copied and deleted by its
id. A delete without an id must keep all older versions, because users restore objects from them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import groupby
from operator import attrgetter

import pytest
import pytest_asyncio

from trove_async.driver import AsyncDriver
from trove_async.errors import BucketNotFoundError, ObjectNotFoundError
from trove_async.models import VersionInfo
from trove_async.options import CopyOptions, ListOptions, PutOptions
from trove_async.testing._harness import copying, delete, keys, read, versioned, versions, write
from trove_async.testing.driver._base import DriverTopic, needs

TREE = ("a", "a/b", "a-c", "b/1", "b/2", "\u00e9", "\U0001f4be")


class DriverVersions(DriverTopic):
    """`version_page`, and `get`, `head`, `copy` and `delete` by version id.

    The driver contract has no call that turns on versioning, so a test class must override
    `keep_versions`. Otherwise most of these tests are skipped.
    """

    async def keep_versions(self, backend: AsyncDriver, bucket: str) -> None:
        """Turn on versioning for a new bucket. Override this with calls of your service."""
        del backend, bucket
        pytest.skip("to test versions, override keep_versions to turn on versioning for the bucket")

    @pytest_asyncio.fixture
    async def versioned_bucket(self, backend: AsyncDriver) -> AsyncIterator[str]:
        """A new bucket that keeps versions, removed after the test."""
        needs(backend, "versions")
        name = self.bucket_name()
        await backend.create_bucket(name)
        try:
            await self.keep_versions(backend, name)
        except BaseException:
            await backend.delete_bucket(name)
            raise
        yield name
        # A bucket with versions cannot be deleted, even if all of them are delete markers.
        for version in await versions(backend, name):
            await delete(backend, name, version.key, version_id=version.version_id)
        await backend.delete_bucket(name)

    async def test_versions_are_listed_newest_first(
        self, backend: AsyncDriver, versioned_bucket: str
    ) -> None:
        written = [
            await write(backend, versioned_bucket, key, body)
            for key in ("b", "a")
            for body in (b"1", b"22", b"333")
        ]
        listed = await versions(backend, versioned_bucket)
        self._assert_grouped(backend, listed)
        for key, newest_first in (("a", written[:2:-1]), ("b", written[2::-1])):
            assert [
                (
                    version.bucket,
                    version.version_id,
                    version.size,
                    version.etag,
                    version.latest,
                    version.deleted,
                )
                for version in listed
                if version.key == key
            ] == [
                (versioned_bucket, info.version_id, info.size, info.etag, position == 0, False)
                for position, info in enumerate(newest_first)
            ]

    async def test_version_listing_and_head_agree(
        self, backend: AsyncDriver, versioned_bucket: str
    ) -> None:
        for body in (b"old", b"newer"):
            await write(backend, versioned_bucket, "dir/key", body)
        for version in await versions(backend, versioned_bucket):
            info = await backend.head(versioned_bucket, "dir/key", version.version_id)
            assert (version.version_id, version.size, version.etag, version.storage_class) == (
                info.version_id,
                info.size,
                info.etag,
                info.storage_class or version.storage_class,  # services may omit the default class
            )
            assert version.last_modified.replace(microsecond=0) == info.last_modified.replace(
                microsecond=0
            )

    async def test_version_can_be_read_by_id(
        self, backend: AsyncDriver, versioned_bucket: str
    ) -> None:
        for body in (b"1", b"2", b"3"):
            await write(backend, versioned_bucket, "key", body)
        listed = await versions(backend, versioned_bucket)
        assert [
            await read(backend, versioned_bucket, "key", version_id=version.version_id)
            for version in listed
        ] == [
            b"3",
            b"2",
            b"1",
        ]

    async def test_older_version_can_be_copied(
        self, backend: AsyncDriver, versioned_bucket: str
    ) -> None:
        needs(backend, "versions", "server_copy", "metadata")
        old = await write(backend, versioned_bucket, "key", b"old one")
        await write(backend, versioned_bucket, "key", b"new")
        options = CopyOptions(
            source=old, put=PutOptions(metadata={"a": "1"}), version_id=old.version_id
        )
        for key in ("copy", "key"):
            await copying(backend).copy(versioned_bucket, "key", versioned_bucket, key, options)
            assert await read(backend, versioned_bucket, key) == b"old one"
            assert (await backend.head(versioned_bucket, key)).metadata == {"a": "1"}
        bodies = [
            await read(backend, versioned_bucket, "key", version_id=version.version_id)
            for version in await versions(backend, versioned_bucket)
            if version.key == "key"
        ]
        assert bodies == [b"old one", b"new", b"old one"]

    async def test_delete_without_id_keeps_older_versions(
        self, backend: AsyncDriver, versioned_bucket: str
    ) -> None:
        for body in (b"1", b"2"):
            await write(backend, versioned_bucket, "key", body)
        await delete(backend, versioned_bucket, "key")
        with pytest.raises(ObjectNotFoundError):
            await backend.head(versioned_bucket, "key")
        assert await keys(backend, versioned_bucket) == []
        # S3 adds a delete marker as the newest version, and GCS adds nothing.
        listed = await versions(backend, versioned_bucket)
        markers = [version for version in listed if version.deleted]
        assert listed[: len(markers)] == markers
        assert [version.size for version in markers] == [0] * len(markers)
        assert [version for version in listed if version.latest] == markers
        assert [
            await read(backend, versioned_bucket, "key", version_id=version.version_id)
            for version in listed[len(markers) :]
        ] == [b"2", b"1"]

    async def test_put_after_a_delete_is_the_latest(
        self, backend: AsyncDriver, versioned_bucket: str
    ) -> None:
        old = await write(backend, versioned_bucket, "key", b"old")
        await delete(backend, versioned_bucket, "key")
        new = await write(backend, versioned_bucket, "key", b"new")
        listed = await versions(backend, versioned_bucket)
        assert [version.version_id for version in listed if not version.deleted] == [
            new.version_id,
            old.version_id,
        ]
        assert [version.version_id for version in listed if version.latest] == [new.version_id]

    async def test_delete_marker_keeps_its_position(
        self, backend: AsyncDriver, versioned_bucket: str
    ) -> None:
        await write(backend, versioned_bucket, "key", b"old")
        await delete(backend, versioned_bucket, "key")
        await write(backend, versioned_bucket, "key", b"new")
        listed = await versions(backend, versioned_bucket)
        # With the marker (S3) or without (GCS).
        assert [version.deleted for version in listed] in ([False, True, False], [False, False])

    async def test_delete_of_a_version_keeps_the_others(
        self, backend: AsyncDriver, versioned_bucket: str
    ) -> None:
        old, middle, new = [
            await write(backend, versioned_bucket, "key", body) for body in (b"1", b"2", b"3")
        ]
        await delete(backend, versioned_bucket, "key", version_id=middle.version_id)
        listed = await versions(backend, versioned_bucket)
        assert [version.version_id for version in listed] == [new.version_id, old.version_id]
        assert await read(backend, versioned_bucket, "key") == b"3"
        with pytest.raises(ObjectNotFoundError):
            await read(backend, versioned_bucket, "key", version_id=middle.version_id)

    async def test_bucket_whose_versions_are_all_deleted_is_empty(
        self, backend: AsyncDriver, versioned_bucket: str
    ) -> None:
        for key in ("a", "b"):
            for _ in range(2):
                await write(backend, versioned_bucket, key)
            await delete(backend, versioned_bucket, key)
        for version in await versions(backend, versioned_bucket):
            await delete(backend, versioned_bucket, version.key, version_id=version.version_id)
        page = await versioned(backend).version_page(versioned_bucket, ListOptions())
        assert (list(page.entries), page.token) == ([], None)

    @pytest.mark.parametrize("limit", [1, 2, 3, 7])
    async def test_versions_are_the_same_for_every_page_size(
        self, backend: AsyncDriver, versioned_bucket: str, limit: int
    ) -> None:
        await self._put_versions(backend, versioned_bucket)
        everything = await versions(backend, versioned_bucket)
        self._assert_grouped(backend, everything)
        listed = await versions(backend, versioned_bucket, limit=limit)
        self._assert_grouped(backend, listed)
        by_key = attrgetter("key")  # sorting is stable: the versions of one key keep their order
        assert sorted(listed, key=by_key) == sorted(everything, key=by_key)

    @pytest.mark.parametrize("limit", [1, 2, 5])
    async def test_versions_can_be_deleted_while_listing(
        self, backend: AsyncDriver, versioned_bucket: str, limit: int
    ) -> None:
        await self._put_versions(backend, versioned_bucket)
        existing = [
            (version.key, version.version_id)
            for version in await versions(backend, versioned_bucket)
        ]
        deleted: list[tuple[str, str]] = []
        token = None
        while True:
            request = ListOptions(limit=limit, token=token)
            page = await versioned(backend).version_page(versioned_bucket, request)
            # Users empty a versioned bucket this way, page by page.
            for version in page.entries:
                await delete(backend, versioned_bucket, version.key, version_id=version.version_id)
                deleted.append((version.key, version.version_id))
            token = page.token
            if token is None:
                break
        assert sorted(deleted) == sorted(existing)

    @pytest.mark.parametrize("limit", [1, 2, 1000])
    async def test_version_listing_applies_prefix(
        self, backend: AsyncDriver, versioned_bucket: str, limit: int
    ) -> None:
        await self._put_versions(backend, versioned_bucket)
        for prefix in ("", "a", "a/", "b/", "b/1", "none", "\u00e9"):
            listed = await versions(backend, versioned_bucket, prefix=prefix, limit=limit)
            self._assert_grouped(backend, listed)
            assert {version.key for version in listed} == {
                key for key in TREE if key.startswith(prefix)
            }

    @pytest.mark.parametrize("limit", [1, 2, 1000])
    async def test_version_listing_applies_start_after(
        self, backend: AsyncDriver, versioned_bucket: str, limit: int
    ) -> None:
        await self._put_versions(backend, versioned_bucket)
        for prefix, start in (("", "a"), ("", "b/1"), ("b/", "b/"), ("", "\U0001f4be")):
            listed = await versions(
                backend, versioned_bucket, prefix=prefix, start_after=start, limit=limit
            )
            assert {version.key for version in listed} == {
                key for key in TREE if key.startswith(prefix) and key > start
            }

    @pytest.mark.parametrize("limit", [1, 2, 3, 1000])
    async def test_start_after_excludes_all_versions_of_its_key(
        self, backend: AsyncDriver, versioned_bucket: str, limit: int
    ) -> None:
        for key in ("a", "b", "c"):
            for body in (b"1", b"22", b"333"):
                await write(backend, versioned_bucket, key, body)
            await delete(backend, versioned_bucket, key)
        for start, remaining in (("a", {"b", "c"}), ("b", {"c"}), ("c", set())):
            listed = await versions(backend, versioned_bucket, start_after=start, limit=limit)
            assert {version.key for version in listed} == remaining
            bodies = [version for version in listed if not version.deleted]
            assert len(bodies) == 3 * len(remaining)

    @pytest.mark.parametrize("limit", [1, 2, 4])
    async def test_versions_of_one_key_can_be_deleted_while_listing(
        self, backend: AsyncDriver, versioned_bucket: str, limit: int
    ) -> None:
        for body in (b"1", b"22", b"333", b"4444", b"55555"):
            await write(backend, versioned_bucket, "key", body)
        await delete(backend, versioned_bucket, "key")
        await write(backend, versioned_bucket, "later")
        existing = {
            (version.key, version.version_id)
            for version in await versions(backend, versioned_bucket)
        }
        deleted: list[tuple[str, str]] = []
        request = ListOptions(limit=limit)
        while True:
            page = await versioned(backend).version_page(versioned_bucket, request)
            for version in page.entries:
                await delete(backend, versioned_bucket, version.key, version_id=version.version_id)
            deleted += [(version.key, version.version_id) for version in page.entries]
            if page.token is None:
                break
            request = ListOptions(limit=limit, token=page.token)
        assert len(deleted) == len(existing)
        assert set(deleted) == existing
        assert await versions(backend, versioned_bucket) == []

    async def test_version_keys_are_unchanged(
        self, backend: AsyncDriver, versioned_bucket: str
    ) -> None:
        names = ["a b", "a+b", "a%20b", "a&amp;<b>", "a=b?c#d", "\u00e9", "e\u0301"]
        for key in names:
            await write(backend, versioned_bucket, key, key.encode())
            await delete(backend, versioned_bucket, key)
        assert {version.key for version in await versions(backend, versioned_bucket)} == set(names)

    async def test_version_keys_that_xml_cannot_encode_are_unchanged(
        self, backend: AsyncDriver, versioned_bucket: str
    ) -> None:
        infos = [await write(backend, versioned_bucket, key) for key in ("a\x01b", "\uffff")]
        try:
            listed = await versions(backend, versioned_bucket)
        finally:  # if the listing has wrong keys, the fixture could not delete these versions
            for info in infos:
                await delete(backend, versioned_bucket, info.key, version_id=info.version_id)
        assert {version.key for version in listed} == {info.key for info in infos}

    async def test_object_has_one_version_without_versioning(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "versions")
        for body in (b"old", b"new"):
            await write(backend, bucket, "key", body)
        (version,) = await versions(backend, bucket)
        assert (version.bucket, version.key, version.latest) == (bucket, "key", True)
        assert await read(backend, bucket, "key", version_id=version.version_id) == b"new"

    async def test_bucket_without_objects_has_no_versions(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "versions")
        for options in (ListOptions(), ListOptions(prefix="a", limit=1)):
            page = await versioned(backend).version_page(bucket, options)
            assert (list(page.entries), page.token) == ([], None)

    async def test_versions_of_missing_bucket_raise_not_found(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "versions")
        del bucket  # a backend that maps all buckets into one needs a bucket to exist
        missing = self.bucket_name()
        with pytest.raises(BucketNotFoundError):
            await versioned(backend).version_page(missing, ListOptions())

    async def _put_versions(self, backend: AsyncDriver, bucket: str) -> None:
        """Put one to three versions of each key, in reverse order of the keys."""
        # Every second key is also deleted after its first version.
        for number, key in enumerate(reversed(TREE)):
            await write(backend, bucket, key, b"1")
            if number % 2:
                await delete(backend, bucket, key)
            for body in [b"22", b"333"][: number % 3]:
                await write(backend, bucket, key, body)

    def _assert_grouped(self, backend: AsyncDriver, listed: Sequence[VersionInfo]) -> None:
        """Assert that versions are grouped by key, with the latest version first in its group.

        If the driver claims `ordered`, the keys must be in order.
        """
        names = [key for key, _ in groupby(listed, attrgetter("key"))]
        assert len(names) == len(set(names)), "the versions of a key are not adjacent"
        if backend.capabilities.ordered:
            assert names == sorted(names, key=str.encode)
        for _, group in groupby(listed, attrgetter("key")):
            assert not any(version.latest for version in list(group)[1:]), (
                "the latest version is not the first of its key"
            )
