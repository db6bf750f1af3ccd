"""Comparing and repairing the replicas of `Mirrored`."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.fakes import Fake, Sparse, Unordered, content, small_pool
from tests.layers.mirroring import (
    assert_nothing_held,
    contents,
    differences,
    driver_of,
    repair_all,
    replicated,
    store_with,
    write_to,
)
from trove_async._concurrency import task_group
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.errors import (
    BucketNotFoundError,
    CursorError,
    IntegrityError,
    NotSupportedError,
    ObjectChangedError,
    PermissionDeniedError,
    UnavailableError,
)
from trove_async.layers import Fallback, Mapped, Mirrored
from trove_async.layers._copies.transfer import buffer_size, is_copy
from trove_async.models import KiB, MiB, ObjectInfo
from trove_async.options import ListOptions
from trove_async.testing import Faulty, opened
from trove_async.testing._harness import read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trove_async.driver import Capabilities, Replicated

BODY = content(2 * MiB + 300 * KiB, "new")

MEMBERS: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "ordered": lambda: (Fake(), Fake(), Fake()),
    "sparse": lambda: (Sparse(), Sparse(), Sparse()),
    "unordered replica": lambda: (Fake(), Unordered(), Fake()),
    "unordered primary": lambda: (Unordered(), Fake(), Fake()),
}


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("kind", MEMBERS)
async def test_every_difference_is_found_once(kind: str, *, deep: bool, limit: int) -> None:
    one, two, three = MEMBERS[kind]()
    async with store_with(Mirrored(one, two, three)) as (store, _):
        for key in ("a", "d/x", "d/y", "z"):
            await store.put("bucket", key, b"same")
        await write_to(one, "b", b"1")
        await write_to(two, "c", b"22")
        await write_to(three, "c", b"22")
        await write_to(one, "d/x", b"other size")
        await write_to(three, "zz", b"")
        missing, surplus, different = (
            {"replica 1 (memory)": kind, "replica 2 (memory)": kind}
            for kind in ("missing", "surplus", "different")
        )
        found = await differences(store, deep=deep, limit=limit)
        if kind.startswith("unordered"):
            assert found.pop("zz") == {"replica 2 (memory)": "surplus"}
            assert found == {"b": missing, "c": surplus, "d/x": different}
        else:
            assert found == {
                "b": missing,
                "c": surplus,
                "d/x": different,
                "zz": {"replica 2 (memory)": "surplus"},
            }
        assert await repair_all(store) == 4
        assert await contents(one) == await contents(two) == await contents(three)
        assert_nothing_held(store, one, two, three)


async def test_page_of_a_comparison_has_prefix_start_and_counts() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, _):
        for key in ("a/1", "a/2", "a/3", "b/1"):
            await write_to(one, key, b"123")
        driver = replicated(store)
        options = ListOptions(prefix="a/", start_after="a/1", limit=1, delimiter="/")
        page = await driver.compare("bucket", options)
        assert ([one.key for one in page.differences], page.keys) == (["a/2"], 1)
        assert page.differences[0].size == 3
        page = await driver.compare("bucket", replace(options, token=page.token))
        assert [one.key for one in page.differences] == ["a/3"]
        while page.token is not None:
            page = await driver.compare("bucket", replace(options, token=page.token))
            assert page.differences == []


async def test_only_a_deep_comparison_sees_other_contents_of_one_size() -> None:
    one, two = Sparse(), Sparse()
    async with store_with(Mirrored(one, two)) as (store, _):
        await store.put("bucket", "key", b"aaaa")
        await write_to(one, "key", b"bbbb")
        assert await differences(store, deep=False) == {}
        assert await differences(store, deep=True) == {"key": {"replica 1 (memory)": "different"}}


async def test_comparison_needs_all_members() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, _):
        two.fail("list_page")
        with pytest.raises(UnavailableError):
            await differences(store)
        with pytest.raises(BucketNotFoundError):
            await differences(store, bucket="none")
        with pytest.raises(BucketNotFoundError):
            await replicated(store).repair("none", "key")


@pytest.mark.parametrize("token", ["x", "9:", ":", "²:"])
async def test_malformed_token_of_an_unordered_comparison_is_refused(token: str) -> None:
    async with store_with(Mirrored(Fake(), Unordered())) as (store, _):
        with pytest.raises(CursorError):
            await replicated(store).compare("bucket", ListOptions(token=token))


async def test_bucket_that_a_replica_lacks_is_repaired() -> None:
    for replica in (Fake(), Unordered()):
        one = Fake()
        async with store_with(Mirrored(one, replica)) as (store, _):
            await write_to(one, "key", BODY)
            await replica.delete_bucket("bucket")
            assert await differences(store) == {"key": {"replica 1 (memory)": "missing"}}
            await repair_all(store)
            assert await contents(replica) == {"key": BODY}


@pytest.mark.parametrize("body", [b"", b"body", BODY], ids=["empty", "small", "parts"])
async def test_repaired_copy_has_all_attributes(tmp_path: Path, body: bytes) -> None:
    one, two = Fake(), LocalDriver(tmp_path, fsync=False)
    async with store_with(Mirrored(one, two)) as (store, _):
        await write_to(
            one,
            "key",
            body,
            write_id="w-1",
            content_type="text/plain",
            metadata={"a": "ä", "trove-transforms": "[]"},
            tags={"t": "1"},
            cache_control="no-store",
            content_disposition="inline",
            content_encoding="br",
            content_language="de",
            expires=datetime(2030, 1, 1, tzinfo=UTC),
        )
        assert await repair_all(store) == 1
        original, copy = await one.head("bucket", "key"), await two.head("bucket", "key")
        for name in (
            "write_id",
            "content_type",
            "metadata",
            "records",
            "tags",
            "cache_control",
            "content_disposition",
            "content_encoding",
            "content_language",
            "expires",
            "checksums",
            "size",
        ):
            assert getattr(copy, name) == getattr(original, name), name
        assert await read(two, "bucket", "key") == body
        steps = len(one.steps)
        result = await replicated(store).repair("bucket", "key")
        assert (result.copied, result.deleted, result.size) == ([], [], len(body))
        assert "get" not in one.steps[steps:]


async def test_large_object_is_repaired_in_bounded_memory() -> None:
    one, two = Fake(), Fake()
    body = content(20 * MiB, "large")
    async with store_with(Mirrored(one, two), pool=small_pool()) as (store, _):
        await write_to(one, "key", body)
        await repair_all(store)
        assert await read(two, "bucket", "key") == body
        assert store.pool.statistics().peak == MiB
        assert two.count("send") == 20


async def test_repair_of_an_object_that_is_damaged_stores_nothing() -> None:
    for body in (b"body", BODY):
        one, two = Fake(), Fake()
        async with store_with(Mirrored(one, two)) as (store, _):
            await write_to(one, "key", body)
            await write_to(two, "key", b"old")
            one.flips.append(2)
            with pytest.raises(IntegrityError):
                await replicated(store).repair("bucket", "key")
            assert await contents(two) == {"key": b"old"}
            assert_nothing_held(store, one, two)


async def test_other_kinds_of_checksum_are_verified() -> None:
    class Md5(Fake):
        """A service that reports MD5 only."""

        def _with_md5(self, info: ObjectInfo) -> ObjectInfo:
            body = b"".join(self._buckets[info.bucket].objects[info.key].chunks)
            digest = hashlib.md5(body, usedforsecurity=False).digest()
            return replace(info, checksums={"md5": b64encode(digest).decode()})

        async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
            return self._with_md5(await super().head(bucket, key, version_id))

    for flips in ([], [5]):
        one, two = Md5(checksums=frozenset({"md5"})), Fake()
        async with store_with(Mirrored(one, two)) as (store, _):
            await write_to(one, "key", BODY)
            one.flips += flips
            if flips:
                with pytest.raises(IntegrityError, match="md5"):
                    await replicated(store).repair("bucket", "key")
                assert await contents(two) == {}
            else:
                await replicated(store).repair("bucket", "key")
                assert await contents(two) == {"key": BODY}


async def test_object_that_another_process_replaces_is_repaired_again() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, _):
        await write_to(one, "key", b"first")
        bodies = [b"second", b"third, which needs more memory" * MiB.bit_length()]

        async def replace_primary() -> None:
            if bodies:
                await write_to(one, "key", bodies.pop(0))

        one.before["get.done"] = two.before["put"] = replace_primary
        await replicated(store).repair("bucket", "key")
        assert not bodies
        assert await contents(one) == await contents(two)
        assert_nothing_held(store, one, two)


async def test_object_that_changes_all_the_time_is_reported() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, _):
        await write_to(one, "key", b"first")

        async def replace_primary() -> None:
            await write_to(one, "key", b"again %d" % len(one.steps))

        two.before["put"] = replace_primary
        with pytest.raises(ObjectChangedError):
            await replicated(store).repair("bucket", "key")
        assert_nothing_held(store, one, two)


async def test_one_failing_replica_does_not_keep_the_others_from_being_repaired() -> None:
    one, two, three = Fake(), Fake(), Fake()
    async with store_with(Mirrored(one, two, three)) as (store, _):
        await write_to(one, "key", b"body")
        two.fail("put", PermissionDeniedError("no"))
        with pytest.raises(PermissionDeniedError) as caught:
            await replicated(store).repair("bucket", "key")
        assert caught.value.__notes__ == ["(replica 1 (memory) was not repaired)"]
        assert (await contents(two), await contents(three)) == ({}, {"key": b"body"})


async def test_many_repairs_and_puts_share_a_small_pool() -> None:
    # A put holds its part while it waits for the lock, and a repair its buffer before it.
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two), pool=small_pool(deadline=20.0)) as (store, _):
        for key in "abc":
            await write_to(one, key, BODY)

        async def chunks() -> Any:
            yield BODY

        async with task_group() as group:
            for _ in range(4):
                for key in "abc":
                    group.start_soon(replicated(store).repair, "bucket", key)
                    group.start_soon(store.put, "bucket", key, chunks())
        assert await differences(store) == {}
        assert_nothing_held(store, one, two)


async def test_repair_is_reached_through_layers() -> None:
    one, two = Fake(), Fake()
    layer = Fallback(Mapped(Mirrored(one, two), into="all", prefix="p"), MemoryDriver())
    async with store_with(layer) as (store, _):
        assert driver_of(store).capabilities.replicated
        await store.put("bucket", "key", b"body")
        await MemoryDriver.delete_many(two, "all", ["p/bucket/key"])
        assert await differences(store) == {"key": {"replica 1 (memory)": "missing"}}
        await replicated(store).repair("bucket", "key")
        assert await differences(store) == {}
    async with opened(Faulty(MemoryDriver())) as plain_faulty:
        with pytest.raises(AssertionError):
            await cast("Replicated", plain_faulty).repair("bucket", "key")
    async with opened(Mapped(MemoryDriver(), into="all")) as plain:
        await plain.create_bucket("bucket")
        driver = cast("Replicated", plain)
        with pytest.raises(NotSupportedError):
            await driver.compare("bucket", ListOptions())
        with pytest.raises(NotSupportedError):
            await driver.repair("bucket", "key")


# -- what counts as a copy, and how much memory it takes --------------------------------------------


def info(**attributes: Any) -> ObjectInfo:
    values: dict[str, Any] = {
        "bucket": "b",
        "key": "k",
        "size": 1,
        "etag": "e",
        "last_modified": datetime(2030, 1, 1, tzinfo=UTC),
        **attributes,
    }
    return ObjectInfo(**values)


@pytest.mark.parametrize(
    ("original", "copy", "expected"),
    [
        ({}, {}, True),
        ({}, {"etag": "other"}, True),
        ({}, {"size": 2}, False),
        ({"write_id": "1"}, {"write_id": "1", "content_type": "x/y"}, True),
        ({"write_id": "1"}, {"write_id": "2"}, False),
        ({"write_id": "1"}, {}, False),
        ({"write_id": "1", "complete": False}, {}, True),
        ({"write_id": "1", "checksums": {"crc32c": "x"}}, {"checksums": {"crc32c": "x"}}, True),
        ({"write_id": "1", "checksums": {"md5": "x"}}, {"checksums": {"crc32c": "x"}}, False),
        ({"checksums": {"crc32c": "x"}}, {"checksums": {"crc32c": "y"}}, False),
        ({"content_type": "application/octet-stream"}, {}, True),
        ({"content_type": "text/plain"}, {}, False),
        ({"metadata": {"a": "1"}}, {"metadata": {"a": "1"}}, True),
        ({"metadata": {"a": "1"}}, {}, False),
        ({"tags": {"a": "1"}}, {}, False),
        ({"tags": {"a": "1"}}, {"complete": False}, True),
    ],
)
def test_copy_is_told_from_another_object(
    original: dict[str, Any], copy: dict[str, Any], *, expected: bool
) -> None:
    assert is_copy(info(**original), info(**copy), records_ids=True) is expected
    assert is_copy(info(**copy), info(**original), records_ids=True) is expected


def test_service_without_metadata_has_no_write_ids_to_compare() -> None:
    assert is_copy(info(write_id="1"), info(), records_ids=False)


@pytest.mark.parametrize(
    ("size", "claims", "limit", "expected"),
    [
        (0, {}, 10, 0),
        (10, {}, 10, 10),
        (11, {}, 10, 10),
        (11, {"max_put": 5}, 20, 20),
        (100, {"part_multiple": 4}, 10, 8),
        (100, {"max_part": 7}, 10, 7),
        (100, {"min_part": 10, "part_multiple": 5}, 10, 10),
        (100, {"max_parts": 10}, 10, 10),
        (100, {"max_parts": 9}, 10, None),
        (100, {"min_part": 11}, 10, None),
        (100, {"min_part": 9, "part_multiple": 6}, 10, None),
        (11, {"upload": False}, 10, None),
    ],
)
def test_buffer_of_a_copy_fits_the_target(
    size: int, claims: dict[str, Any], limit: int, expected: int | None
) -> None:
    target: Capabilities = replace(MemoryDriver().capabilities, **claims)
    if expected is None:
        with pytest.raises(NotSupportedError):
            buffer_size(size, target, limit)
    else:
        assert buffer_size(size, target, limit) == expected
