"""Reads of transformed objects: ranges, versions, conditions, and objects of other configurations."""

from __future__ import annotations

import io
import json
import random
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zstandard import ZstdCompressor

from tests.counting import Counting
from tests.fakes import CallLog, Fake, content, single_attempt_store
from tests.framed_middleware import Framed
from tests.transformed_objects import compressible, store_with, stored_form, stream
from tests.versioned_memory import VersionedMemory
from trove_async import (
    BufferPool,
    ByteRange,
    DecryptionError,
    IntegrityError,
    NotSupportedError,
    ObjectChangedError,
    ObjectNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    RangeError,
    Trove,
)
from trove_async._engine.index_cache import IndexCache, KnownObject
from trove_async._engine.verified import VerifiedBody
from trove_async.drivers import S3Driver
from trove_async.drivers.memory import MemoryDriver
from trove_async.layers import Mapped, Mirrored
from trove_async.middlewares import Compression, DataKey, Encryption, Keyring, TenantKeys
from trove_async.models import RECORDS, KiB, MiB
from trove_async.options import DeleteOptions, PutOptions
from trove_async.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from trove_async import ObjectInfo
    from trove_async.middleware import Middleware, ObjectContext
    from trove_async.testing.servers import S3Server

OLD_KEY, NEW_KEY = b"o" * 32, b"n" * 32
FRAME = 4 * KiB
SEGMENT = 4 * KiB
FIRST_TAIL = 16 * KiB
"""What is fetched to find the seek table of a body of unknown size."""


def compression(frame_size: int = FRAME) -> Compression:
    return Compression(frame_size=frame_size, min_size=0)


def encryption(segment_size: int = SEGMENT, **keys: bytes) -> Encryption:
    keyring = Keyring(dict(keys or {"old": OLD_KEY}), current=next(iter(keys or {"old": OLD_KEY})))
    return Encryption(keyring, segment_size=segment_size)


STACKS: dict[str, Callable[[], Sequence[Middleware]]] = {
    "zstd": lambda: [compression()],
    "aes": lambda: [encryption()],
    "zstd, aes": lambda: [compression(), encryption()],
    "aes, zstd": lambda: [encryption(), compression()],
}
EXTENDED: dict[str, Callable[[], Sequence[Middleware]]] = {
    **STACKS,
    "zstd of 1 KiB": lambda: [compression(KiB)],
    "zstd, zstd": lambda: [compression(KiB), compression(8 * KiB)],
    "zstd, aes, framed": lambda: [compression(), encryption(), Framed(lambda index: 1 + index)],
    "large blocks": lambda: [Compression(), encryption(MiB)],
}

RANGES = st.one_of(
    st.tuples(st.integers(0, 60_000), st.one_of(st.none(), st.integers(1, 70_000))).filter(
        lambda span: span[1] is None or span[0] < span[1]
    ),
    st.integers(1, 70_000).map(ByteRange.last),
)


def cut(body: bytes, range: ByteRange | tuple[int, int | None]) -> bytes:
    """Return the bytes of a range."""
    if isinstance(range, ByteRange):
        return body[range.start : range.end]
    return body[slice(*range)]


def rewrite(driver: MemoryDriver, key: str = "key", **changes: Any) -> None:
    """Change the stored info of an object, as somebody with access to the storage could."""
    stored = driver._buckets["data"].objects[key]
    driver._buckets["data"].objects[key] = stored._replace(info=replace(stored.info, **changes))


# -- ranges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXTENDED)
@settings(max_examples=25)
@given(size=st.integers(0, 60_000), ranges=st.lists(RANGES, max_size=8))
async def test_ranges_are_slices_of_the_body(
    name: str, size: int, ranges: list[ByteRange | tuple[int, int | None]]
) -> None:
    body = compressible(size)
    async with store_with(EXTENDED[name](), CallLog()) as store:
        await store.create_bucket("data")
        await store.put("data", "key", body)
        for part in ranges:
            if not cut(body, part):
                with pytest.raises(RangeError):
                    await store.read("data", "key", range=part)
                continue
            assert await store.read("data", "key", range=part) == cut(body, part)
            async with store.get("data", "key", range=part) as reader:
                start, end = reader.range
                assert body[start:end] == await reader.read()
                assert reader.info.size == size
        valid = [part for part in ranges if cut(body, part)]
        assert await store.get_ranges("data", "key", valid) == [cut(body, part) for part in valid]


@pytest.mark.parametrize("name", EXTENDED)
async def test_ranges_of_a_body_of_unknown_size_are_slices(name: str) -> None:
    body = compressible(2 * MiB + 100 * KiB)
    numbers = random.Random(name)
    async with store_with(EXTENDED[name](), CallLog()) as store:
        await store.create_bucket("data")
        await store.put("data", "key", stream(body))
        for _ in range(10):
            start = numbers.randrange(len(body))
            end = start + numbers.randrange(1, 20 * KiB)
            assert await store.read("data", "key", range=(start, end)) == body[start:end]
        assert await store.read("data", "key") == body


@pytest.fixture(params=["memory", "SeaweedFS"])
async def counting(request: pytest.FixtureRequest) -> Counting:
    if request.param == "memory":
        return Counting(MemoryDriver())
    server: S3Server = request.getfixturevalue("seaweed")
    return Counting(
        S3Driver(
            region=server.region,
            endpoint_url=server.endpoint_url,
            access_key_id=server.access_key_id,
            secret_access_key=server.secret_access_key,
        )
    )


@pytest.mark.parametrize("known", [True, False], ids=["known size", "unknown size"])
@pytest.mark.parametrize("name", STACKS)
async def test_range_costs_at_most_two_requests_more_and_few_bytes(
    counting: Counting, name: str, *, known: bool
) -> None:
    bucket = f"reads-{uuid4()}"
    # Large enough for two parts on S3, before which the size is not known.
    body = compressible((6 if isinstance(counting.driver, S3Driver) else 2) * MiB + 100 * KiB)
    frames = -(-len(body) // FRAME) + 2
    # A range outside the stored bytes costs the tail of the object, in which most tables are.
    table = max(17 + 8 * frames, FIRST_TAIL)
    middleware = STACKS[name]()
    part = 5 * MiB if isinstance(counting.driver, S3Driver) else MiB
    pool = BufferPool(4 * part, part_size=part)
    async with single_attempt_store(counting, middleware=middleware, pool=pool) as store:
        await store.create_bucket(bucket)
        await store.put(bucket, "key", body if known else stream(body))
        ranges: list[tuple[int, int | None]] = [
            (0, 1),
            (FRAME - 1, FRAME + 1),
            (1_000_000, 1_100_000),
            (len(body) - 1, None),
        ]
        if not known:
            ranges.append((len(body) - 10, len(body) + 10))
        for span in ranges:
            store._core.transforms.indexes = IndexCache()
            expected = cut(body, span)
            # 1. Nothing is known of the object: the index and the range need a request each.
            counting.reset()
            assert await store.read(bucket, "key", range=span) == expected
            assert counting.requests.count("get") <= 3
            assert counting.requests.count("head") + counting.requests.count("get") <= 4
            assert counting.received <= len(expected) + 2 * (FRAME + 64) + 4 * SEGMENT + table
            # 2. Its index is known.
            counting.reset()
            assert await store.read(bucket, "key", range=span) == expected
            assert counting.requests == ["get"]
            assert counting.received <= len(expected) + 2 * (FRAME + 64) + 2 * SEGMENT
        # 3. Several ranges.
        counting.reset()
        near, far = (10, 20), (1_500_000, 1_500_010)
        assert await store.get_ranges(bucket, "key", [near, far]) == [
            cut(body, near), cut(body, far),
        ]  # fmt: skip
        assert counting.requests == ["head", "get", "get"]


@pytest.mark.parametrize("required", [True, False])
async def test_plain_object_costs_one_request(counting: Counting, *, required: bool) -> None:
    bucket = f"reads-{uuid4()}"
    encrypted = Encryption(Keyring({"a": OLD_KEY}), require=required)
    middleware = [compression(), (encrypted, Scope.keys("secret"))]
    async with single_attempt_store(counting, middleware=middleware) as store:
        await store.create_bucket(bucket)
        await store.put(bucket, "key", content(10 * KiB))  # incompressible
        counting.reset()
        assert await store.read(bucket, "key") == content(10 * KiB)
        assert await store.read(bucket, "key", range=(5, 10)) == content(10 * KiB)[5:10]
        await store.head(bucket, "key")
        assert counting.requests == ["get", "get", "head"]
        counting.reset()
        await store.read(bucket, "key", range=ByteRange.last(3))
        assert (counting.requests, counting.received) == (["get"], 3)


async def test_range_beyond_the_stored_size_is_inside_the_body() -> None:
    driver = CallLog()
    async with store_with([Compression()], driver) as store:
        await store.create_bucket("data")
        info = await store.put("data", "key", b"a" * 100_000 + b"b" * 100_000)
        assert info.stored_size < 1000
        assert await store.read("data", "key", range=(199_998, None)) == b"bb"
        last = await store.read("data", "key", range=ByteRange.last(100_001))
        assert last == b"a" + b"b" * 100_000
        for start in (200_000, 300_000):
            with pytest.raises(RangeError):
                await store.read("data", "key", range=(start, None))


@pytest.mark.parametrize("name", [*STACKS, "none"])
@pytest.mark.parametrize("size", [0, 1, 20_000])
async def test_range_outside_the_body_raises_with_the_object(name: str, size: int) -> None:
    async with store_with(STACKS[name]() if name != "none" else []) as store:
        await store.create_bucket("data")
        await store.put("data", "key", compressible(size))
        info = await store.head("data", "key")
        for _ in range(2):  # the second time, the object may be remembered
            with pytest.raises(RangeError) as caught:
                await store.read("data", "key", range=(30_000, 30_001))
            assert (caught.value.info, caught.value.backend) == (info, "default")
        with pytest.raises(RangeError) as caught:
            await store.get_ranges("data", "key", [(30_000, 30_001)])
        assert (caught.value.info, caught.value.backend) == (info, "default")


# -- empty objects and limits ----------------------------------------------------------------------


@pytest.mark.parametrize("name", EXTENDED)
async def test_empty_object_is_read(name: str) -> None:
    async with store_with(EXTENDED[name]()) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"")
        assert await store.read("data", "key") == b""
        async with store.get("data", "key") as reader:
            assert (await reader.read(), reader.range, reader.remaining) == (b"", (0, 0), 0)
        async with store.get("data", "key") as reader:
            assert [chunk async for chunk in reader] == []
        with pytest.raises(RangeError):
            await store.read("data", "key", range=(0, 1))
        with pytest.raises(RangeError):
            await store.get_ranges("data", "key", [(0, 1)])


async def test_object_truncated_to_nothing_is_not_an_empty_object() -> None:
    driver = CallLog()
    async with store_with([encryption()], driver) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"body")
        header = b"".join(driver._buckets["data"].objects["key"].chunks)[:40]
        driver.corrupt("data", "key", header + bytes(16))
        rewrite(driver, size=56, stored_size=56, checksums={})
        with pytest.raises(DecryptionError):
            await store.read("data", "key")
        with pytest.raises(DecryptionError):
            await store.put("data", "copy", store.get("data", "key"))
        with pytest.raises(DecryptionError):
            async with store.get("data", "key") as reader:
                await reader.read()
        other = Trove(driver, middleware=[encryption(new=NEW_KEY, old=OLD_KEY)])
        async with other:
            with pytest.raises(DecryptionError):
                await other.copy("data", "key", "data", "copy")
        assert driver.stored_keys("data") == ["key"]
        assert driver.open_readers == 0


async def test_limit_counts_decoded_bytes() -> None:
    async with store_with([Compression()]) as store:
        await store.create_bucket("data")
        info = await store.put("data", "key", bytes(100_000))
        assert info.stored_size < 1000
        with pytest.raises(RangeError, match="got 100000"):
            await store.read("data", "key", limit=99_999)
        assert len(await store.read("data", "key", limit=100_000)) == 100_000


async def test_progress_of_a_get_counts_decoded_bytes() -> None:
    reports: list[tuple[int, int | None]] = []
    async with store_with([compression(), encryption()]) as store:
        await store.create_bucket("data")
        body = compressible(2 * MiB)
        await store.put("data", "key", body)
        async with store.get(
            "data", "key", progress=lambda done, total: reports.append((done, total))
        ) as reader:
            assert await reader.read() == body
    assert reports[-1] == (len(body), len(body))


async def test_handles_share_the_middlewares() -> None:
    async with store_with([compression(), encryption()], backends={"b": CallLog()}) as store:
        await store.create_bucket("data", backends="all")
        body = compressible(100 * KiB)
        pinned = store.backend("b")
        await pinned.put("data", "key", body)
        info = await store.bucket("data").put("key", body)
        assert info.transforms == (await pinned.head("data", "key")).transforms
        assert info.transforms == ("zstd", "aes256-gcm-hkdf")
        assert await pinned.read("data", "key", range=(50_000, 50_010)) == body[50_000:50_010]
        bucket = pinned.bucket("data")
        assert await bucket.read("key") == await store.bucket("data").read("key") == body
        assert await bucket.get_ranges("key", [(5, 10)]) == [body[5:10]]


# -- versions and conditions -----------------------------------------------------------------------


async def test_versions_are_decoded_by_their_own_records() -> None:
    driver = VersionedMemory()
    bodies = [compressible(30_000), content(30_001), b"", compressible(50_000)]
    infos: list[ObjectInfo] = []
    async with store_with([compression(), encryption()], driver) as store:
        await store.create_bucket("data")
        driver.versioned_buckets.add("data")
        infos += [await store.put("data", "key", body) for body in bodies]
    async with store_with([], driver) as store:
        bodies.append(b"plain")
        infos.append(await store.put("data", "key", b"plain"))
    async with store_with([encryption(new=NEW_KEY, old=OLD_KEY)], driver) as store:
        assert await store.read("data", "key", range=(1, 3)) == b"la"
        for body, info in zip(bodies, infos, strict=True):
            version: dict[str, Any] = {"version_id": info.version_id}
            assert (await store.head("data", "key", **version)).size == len(body)
            assert await store.read("data", "key", **version) == body
            if body:
                assert await store.read("data", "key", range=(1, 4), **version) == body[1:4]
                last = await store.read("data", "key", range=ByteRange.last(2), **version)
                assert last == body[-2:]
        assert await store.read("data", "key", range=(1, 3)) == b"la"


@pytest.mark.parametrize("name", STACKS)
async def test_conditions_apply_to_transformed_objects(name: str) -> None:
    async with store_with(STACKS[name]()) as store:
        await store.create_bucket("data")
        body = compressible(100_000)
        info = await store.put("data", "key", body)
        for part in (None, (99_990, None), (10, 20)):
            expected = body if part is None else cut(body, part)
            assert await store.read("data", "key", range=part, if_match=info) == expected
            assert await store.read("data", "key", range=part, if_none_match="other") == expected
            with pytest.raises(PreconditionFailedError):
                await store.read("data", "key", range=part, if_match="other")
            with pytest.raises(PreconditionFailedError):
                await store.read("data", "key", range=part, if_none_match=info)


async def test_condition_holds_for_the_version_whose_range_is_read() -> None:
    # The range is outside the stored bytes, so the first get fails, and the second reads the index.
    driver = CallLog()
    async with store_with([Compression()], driver) as store:
        await store.create_bucket("data")
        first = await store.put("data", "key", b"a" * 100_000)

        def before_second_get(change: Callable[[], Awaitable[None]]) -> None:
            async def at_second() -> None:
                driver.before.clear()
                await change()

            async def at_first() -> None:
                driver.before["get"] = at_second

            driver.before["get"] = at_first

        async def replace_object() -> None:
            await store.put("data", "key", b"b" * 100_000)

        before_second_get(replace_object)
        with pytest.raises(PreconditionFailedError):
            await store.read("data", "key", range=(99_990, None), if_match=first)
        second = await store.head("data", "key")
        third = await store.put("data", "key", b"c" * 100_000)

        async def restore_object() -> None:
            rewrite(driver, etag=second.etag)

        before_second_get(restore_object)
        assert third.etag != second.etag
        with pytest.raises(PreconditionFailedError):
            await store.read("data", "key", range=(99_990, None), if_none_match=second)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
@pytest.mark.parametrize("get_conditions", [True, False])
@pytest.mark.parametrize("name", STACKS)
async def test_object_replaced_between_two_requests_is_never_mixed(
    name: str, at: int, *, get_conditions: bool
) -> None:
    first, second = compressible(2 * MiB + 50_000), compressible(2 * MiB + 60_000)[::-1]
    driver = CallLog(get_conditions=get_conditions)
    async with store_with(STACKS[name](), driver) as store:
        await store.create_bucket("data")
        await store.put("data", "key", stream(first))

        async def replace_object_before_a_get() -> None:
            nonlocal at
            at -= 1
            if at == 0:
                await store.put("data", "key", stream(second))

        driver.before["get"] = replace_object_before_a_get
        data = await store.read("data", "key", range=(1_000_000, 1_000_500))
        assert data in {first[1_000_000:1_000_500], second[1_000_000:1_000_500]}
        latest = second if at <= 0 else first
        driver.before.clear()
        assert await store.read("data", "key", range=(5, 10)) == latest[5:10]
        assert (await store.head("data", "key")).size == len(latest)


@pytest.mark.parametrize("operation", ["head", "list", "get_ranges"])
async def test_object_replaced_while_its_index_is_read_is_described_again(operation: str) -> None:
    driver = CallLog()
    first, second = compressible(2 * MiB + 50_000), compressible(2 * MiB + 60_000)
    async with store_with([compression()], driver) as store:
        await store.create_bucket("data")
        await store.put("data", "key", stream(first))

        async def replace_object() -> None:
            driver.before.clear()
            await store.put("data", "key", stream(second))

        driver.before["get"] = replace_object
        if operation == "head":
            assert (await store.head("data", "key")).size == len(second)
        elif operation == "list":
            (listed,) = await store.list("data", details=True).all()
            assert listed.size == len(second)
        else:
            with pytest.raises(ObjectChangedError) as caught:
                await store.get_ranges("data", "key", [(0, 1)])
            assert type(caught.value) is ObjectChangedError


async def test_object_deleted_while_it_is_listed_is_skipped() -> None:
    driver = CallLog()
    async with store_with([compression()], driver) as store:
        await store.create_bucket("data")
        await store.put("data", "key", stream(compressible(2 * MiB + 50_000)))

        async def delete_object() -> None:
            driver.before.clear()
            await MemoryDriver.delete(driver, "data", "key", DeleteOptions())

        driver.before["get"] = delete_object
        assert await store.list("data", details=True).all() == []
        await store.put("data", "key", stream(compressible(2 * MiB + 50_000)))
        driver.before["get"] = delete_object
        with pytest.raises(ObjectNotFoundError):
            await store.head("data", "key")


async def test_object_that_is_replaced_again_and_again_raises() -> None:
    driver = CallLog()
    async with store_with([compression()], driver) as store, store_with([], driver) as plain:
        await store.create_bucket("data")

        async def replace_object() -> None:
            driver.before.clear()
            body = stream(compressible(2 * MiB + 50_000))
            await store.put("data", "key", body)
            driver.before["get"] = replace_object

        await replace_object()
        with pytest.raises(ObjectChangedError) as caught:
            await store.read("data", "key", range=(0, 10))
        assert type(caught.value) is ObjectChangedError
        assert (caught.value.key, caught.value.backend) == ("key", "default")
        driver.before.clear()
        assert (await plain.head("data", "key")).transforms == ("zstd",)


# -- the cache of indexes --------------------------------------------------------------------------


async def test_index_is_forgotten_once_the_object_is_overwritten_or_deleted() -> None:
    driver = CallLog()
    async with store_with([compression(), encryption()], driver) as store:
        await store.create_bucket("data")
        one, two = compressible(100_000), compressible(90_000)[::-1]
        for body in (one, two, content(20_000), b""):
            await store.put("data", "key", body)
            if body:
                assert await store.read("data", "key", range=(10, 20)) == body[10:20]
                last = await store.read("data", "key", range=ByteRange.last(5))
                assert last == body[-5:]
        with pytest.raises(RangeError):
            await store.read("data", "key", range=(10, 20))
        await store.put("data", "key", one)
        await store.read("data", "key", range=(10, 20))
        await store.delete("data", "key")
        with pytest.raises(ObjectNotFoundError):
            await store.read("data", "key", range=(10, 20))
    async with store_with([], driver) as plain, store_with([encryption()], driver) as store:
        await store.put("data", "key", one)
        await store.read("data", "key", range=(10, 20))
        await plain.put("data", "key", two)
        assert await store.read("data", "key", range=(10, 20)) == two[10:20]


async def test_object_that_was_replaced_is_read_although_the_key_of_the_old_one_is_gone() -> None:
    keys = {"old": b"o" * 32, "new": b"n" * 32}
    current = ContextVar("current", default="old")
    tenants = TenantKeys(lambda _: current.get(), lambda name: Keyring({name: keys[name]}))
    async with store_with([Encryption(tenants)]) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"one")
        assert await store.read("data", "key", range=(1, 3)) == b"ne"
        current.set("new")
        await store.put("data", "key", b"two")
        assert await store.read("data", "key", range=(1, 3)) == b"wo"


async def test_changed_records_of_equal_bytes_are_noticed() -> None:
    """An etag may be a checksum of the stored bytes, which is equal for an object without records."""
    driver = CallLog()
    body = compressible(100_000)
    async with store_with([compression()], driver) as store:
        await store.create_bucket("data")
        await store.put("data", "key", body)
        stored = await stored_form(driver)
        assert await store.read("data", "key", range=(10, 20)) == body[10:20]
        objects = driver._buckets["data"].objects
        plain = replace(objects["key"].info, records=None)
        objects["key"] = objects["key"]._replace(info=plain)
        assert await store.read("data", "key", range=(10, 20)) == stored[10:20]


async def test_key_of_a_remembered_version_is_not_needed_for_the_current_one() -> None:
    driver = CallLog()
    revoked: list[str] = []

    class Revocable(Keyring):
        async def for_read(self, context: ObjectContext, key_id: str, wrapped: Any) -> DataKey:
            if key_id in revoked:
                raise DecryptionError(f"the key {key_id!r} was revoked")
            return await super().for_read(context, key_id, wrapped)

    keys = Revocable({"old": OLD_KEY, "new": NEW_KEY}, current="old")
    body = content(20_000)
    async with (
        store_with([Encryption(keys)], driver) as store,
        store_with([encryption(new=NEW_KEY)], driver) as rotating,
    ):
        await store.create_bucket("data")
        await store.put("data", "key", body)
        assert await store.read("data", "key", range=(10, 20)) == body[10:20]
        await rotating.put("data", "key", body[::-1])
        revoked.append("old")
        assert await store.read("data", "key", range=(10, 20)) == body[::-1][10:20]
        revoked.append("new")
        with pytest.raises(DecryptionError, match="'new'"):
            await store.read("data", "key", range=(10, 20))


@pytest.mark.parametrize("operation", ["head", "read", "range", "get_ranges"])
async def test_streamed_object_costs_no_second_request_for_its_index(operation: str) -> None:
    counting = Counting(MemoryDriver())
    body = compressible(3 * MiB)
    pool = BufferPool(4 * MiB, part_size=MiB)  # a part is sent before the size is known
    stack = [compression(), encryption()]
    async with single_attempt_store(counting, middleware=stack, pool=pool) as store:
        await store.create_bucket("data")
        await store.put("data", "key", stream(body))
        assert (await store.head("data", "key")).size == len(body)
        counting.requests.clear()
        if operation == "head":
            assert (await store.head("data", "key")).size == len(body)
        elif operation == "read":
            assert await store.read("data", "key") == body
        elif operation == "range":
            assert await store.read("data", "key", range=(100_000, 100_010)) == body[100_000:][:10]
        else:
            assert await store.get_ranges("data", "key", [(5, 9)]) == [body[5:9]]
        assert len(counting.requests) == (2 if operation == "get_ranges" else 1)


async def test_damaged_index_is_forgotten() -> None:
    body = compressible(3 * MiB)
    async with single_attempt_store(
        MemoryDriver(), middleware=[compression()], pool=BufferPool(4 * MiB, part_size=MiB)
    ) as store:
        await store.create_bucket("data")
        await store.put("data", "key", stream(body))
        await store.head("data", "key")
        indexes = store._core.transforms.indexes
        known = indexes.get(("default", "data", "key"))
        assert known is not None
        damaged = known._replace(indexes=[[bytes(len(piece))] for (piece,) in known.indexes])
        for read in (store.read("data", "key"), store.get_ranges("data", "key", [(5, 9)])):
            indexes.put(("default", "data", "key"), damaged)
            with pytest.raises(IntegrityError, match="seek table"):
                await read
            assert await store.read("data", "key") == body


async def test_cache_of_indexes_is_bounded() -> None:
    async with store_with([compression()]) as store:
        await store.create_bucket("data")
        info = await store.put("data", "key", compressible(20_000))
    cache = IndexCache(max_bytes=10 * KiB)
    for number in range(100):
        cache.put(("default", "data", str(number)), KnownObject(info, [[bytes(KiB)]], 1))
    assert cache.get(("default", "data", "0")) is None
    assert [number for number in range(100) if cache.get(("default", "data", str(number)))] == [
        97, 98, 99,
    ]  # fmt: skip
    cache.get(("default", "data", "97"))
    cache.put(("default", "data", "100"), KnownObject(info, [], 1))
    assert cache.get(("default", "data", "97")) is not None
    cache.put(("default", "data", "huge"), KnownObject(info, [[bytes(MiB)]], 1))
    assert cache.get(("default", "data", "huge")) is None
    assert cache.get(("default", "data", "100")) is not None  # it displaces no other entry
    cache.put(("default", "data", "1"), KnownObject(info, [], 1))
    assert cache.get(("default", "data", "1")) is not None


# -- other configurations --------------------------------------------------------------------------


OTHER_STACKS: dict[str, Sequence[Any]] = {
    "none": [],
    "different sizes": [compression(KiB), encryption(8 * KiB)],
    "different order": [encryption(), compression()],
    "different scope": [
        (compression(), Scope.keys("other")),
        (encryption(), ~Scope.everything()),
    ],
    "new key": [encryption(new=NEW_KEY, old=OLD_KEY)],
    "two keyrings": [
        (encryption(new=NEW_KEY), Scope.keys("new/**")),
        (encryption(), Scope.keys("old/**")),
    ],
}


@pytest.mark.parametrize("written", [*STACKS, "none"])
@pytest.mark.parametrize("read", OTHER_STACKS)
async def test_object_is_read_as_it_was_written(written: str, read: str) -> None:
    driver = CallLog()
    body = compressible(50_000)
    async with store_with([] if written == "none" else STACKS[written](), driver) as store:
        await store.create_bucket("data")
        put = await store.put("data", "key", body)
    async with store_with(OTHER_STACKS[read], driver) as store:
        assert await store.head("data", "key") == put
        assert await store.list("data").all() == [put]
        if read == "none" and "aes" in written:
            for part in (None, (40_000, 40_010)):
                with pytest.raises(DecryptionError, match="'old'"):
                    await store.read("data", "key", range=part)
            with pytest.raises(DecryptionError, match="'old'"):
                await store.get_ranges("data", "key", [(40_000, 40_010)])
            return
        assert await store.read("data", "key") == body
        assert await store.read("data", "key", range=(40_000, 40_010)) == body[40_000:40_010]


async def test_unknown_key_is_named() -> None:
    driver = CallLog()
    async with store_with([encryption()], driver) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"body")
    async with store_with([encryption(new=NEW_KEY)], driver) as store:
        with pytest.raises(DecryptionError, match="'old'") as caught:
            await store.read("data", "key")
        error = caught.value
        assert (error.operation, error.backend, error.bucket, error.key) == (
            "read", "default", "data", "key",
        )  # fmt: skip
        assert (await store.head("data", "key")).size == 4
    assert driver.open_readers == 0


async def test_wrong_key_with_the_id_of_the_right_one_is_an_error() -> None:
    driver = CallLog()
    async with store_with([encryption()], driver) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"body")
    async with store_with([encryption(old=NEW_KEY)], driver) as store:
        with pytest.raises(DecryptionError, match="'old'"):
            await store.read("data", "key")


async def test_object_that_was_encrypted_twice_under_one_key_id_is_read() -> None:
    stack = [encryption(key=OLD_KEY), compression(), encryption(key=NEW_KEY)]
    body = compressible(20_000)
    async with store_with(stack) as store:
        await store.create_bucket("data")
        await store.put("data", "key", body)
        assert await store.read("data", "key") == body
        assert await store.read("data", "key", range=(10_000, 10_010)) == body[10_000:10_010]
        assert await store.get_ranges("data", "key", [(10_000, 10_010)]) == [body[10_000:10_010]]


async def test_required_encryption_refuses_an_object_in_scope_that_is_not_encrypted() -> None:
    driver = CallLog()
    async with store_with([], driver) as store:
        await store.create_bucket("data")
        await store.put("data", "secret", b"body")
        await store.put("data", "public", b"body")
    required = Encryption(Keyring({"old": OLD_KEY}), require=True)
    async with store_with([compression(), (required, Scope.keys("secret"))], driver) as store:
        for part in (None, (0, 1)):
            with pytest.raises(DecryptionError, match="requires it"):
                await store.read("data", "secret", range=part)
            await store.read("data", "public", range=part)
        with pytest.raises(DecryptionError):
            await store.get_ranges("data", "secret", [(0, 1)])
        with pytest.raises(DecryptionError):
            await store.copy("data", "secret", "data", "public")
        assert (await store.head("data", "secret")).size == 4
        await store.put("data", "secret", b"body")
        assert await store.read("data", "secret") == b"body"
    assert driver.open_readers == 0


async def test_required_encryption_refuses_the_key_of_a_different_scope() -> None:
    driver = CallLog()
    middleware = [
        (Encryption(Keyring({name: name.encode() * 32}), require=True), Scope.buckets(name))
        for name in "ab"
    ]
    async with store_with(middleware, driver) as store:
        for bucket in "ab":
            await store.create_bucket(bucket)
        await store.put("b", "key", b"body")
        # Somebody with access to the backend, but to no key, copies the object.
        driver._buckets["a"].objects["key"] = driver._buckets["b"].objects["key"]
        await store.put("a", "own", b"body")
        objects = driver._buckets["a"].objects
        foreign = replace(objects["key"].info, bucket="a")
        objects["key"] = objects["key"]._replace(info=foreign)
        for part in (None, (0, 1)):
            with pytest.raises(DecryptionError, match="'b'"):
                await store.read("a", "key", range=part)
        with pytest.raises(DecryptionError, match="'b'"):
            await store.copy("a", "key", "a", "copy")
        assert await store.read("a", "own") == b"body"


async def test_object_whose_key_must_not_be_used_can_be_described() -> None:
    class DeniedKeys(Keyring):
        __slots__ = ()

        async def for_read(self, *_: object) -> NoReturn:
            raise PermissionDeniedError("the credentials do not permit this request")

    driver = CallLog()
    stack = [compression(), Encryption(DeniedKeys({"old": OLD_KEY}))]
    async with store_with(stack, driver) as store:
        await store.create_bucket("data")
        info = await store.put("data", "key", stream(compressible(4 * MiB)))
        described = await store.head("data", "key")
        assert (described.size, described.complete) == (info.stored_size, False)
        assert len(await store.list("data", details=True).all()) == 1
        with pytest.raises(PermissionDeniedError):
            await store.read("data", "key")


async def test_required_encryption_by_content_type_applies_on_a_backend_without_headers() -> None:
    driver = CallLog(headers=False, expires=False)
    async with store_with([], driver) as store:
        await store.create_bucket("data")
        await store.put("data", "a.txt", b"body")
        await store.put("data", "a.png", b"body")
    required = Encryption(Keyring({"old": OLD_KEY}), require=True)
    async with store_with([(required, Scope.content_types("text/*"))], driver) as store:
        with pytest.raises(DecryptionError, match="requires it"):
            await store.read("data", "a.txt")
        assert await store.read("data", "a.png") == b"body"
        await store.put("data", "a.txt", b"body")
        assert await store.read("data", "a.txt") == b"body"


async def test_zst_file_of_a_user_is_returned_byte_for_byte() -> None:
    body = ZstdCompressor().compress(compressible(100_000))
    async with store_with([compression()]) as store:
        await store.create_bucket("data")
        info = await store.put("data", "file.zst", body, metadata={"x": "1"})
        assert info.transforms == ()
        assert await store.read("data", "file.zst") == body


# -- forged records --------------------------------------------------------------------------------


def forged(**changes: str) -> str:
    """Return the records of an encrypted object, with some parameters replaced."""
    record = {"segment_size": SEGMENT, "key_id": "old", "salt": "A" * 52, **changes}
    return json.dumps([["aes256-gcm-hkdf", record]])


FORGED: dict[str, str] = {
    "empty": "",
    "not JSON": "{",
    "null": "null",
    "number": "5",
    "object": '{"zs": {}}',
    "list of numbers": "[1, 2]",
    "short pair": '[["zstd"]]',
    "long pair": '[["zstd", {}, {}]]',
    "name is a number": "[[5, {}]]",
    "record is a number": '[["zstd", 5]]',
    "value is a list": '[["zstd", {"frame_size": []}]]',
    "value is a float": '[["zstd", {"frame_size": 4096.0}]]',
    "not a number": '[["zstd", {"frame_size": NaN}]]',
    "empty record": '[["zstd", {}]]',
    "unknown parameter": '[["zstd", {"frame_size": 4096, "dictionary": 1}]]',
    "huge size": '[["zstd", {"frame_size": 4096, "size": 9223372036854775808}]]',
    "size does not fit": '[["zstd", {"frame_size": 4096, "size": 99999999}]]',
    "negative size": '[["zstd", {"frame_size": 4096, "size": -1}]]',
    "true": '[["zstd", {"frame_size": true}]]',
    "no table": '[["zstd", {"frame_size": 4096}]]',
    "bad salt": forged(salt="%%"),
    "bad key id": forged(key_id="\n"),
    "huge number": f'[["zstd", {{"frame_size": {"9" * 5000}}}]]',
    "deeply nested": "[" * 100_000,
    "nested record": '[["zstd", ' + '{"a":' * 100_000,
    "surrogate": '[["zstd", {"a": "\\ud800"}]]',
    "one more than an object has": json.dumps([["zstd", {"frame_size": 4096}]] * 17),
    "many": json.dumps([["zstd", {"frame_size": 4096}]] * 200),
    "valid, but wrong": forged(),
    "unknown name": '[["rot13", {"x": 1}]]',
    "unknown among known": '[["rot13", {}], ["zstd", {"frame_size": 4096}]]',
    "secret name": '[["__class__", {}]]',
}


@pytest.mark.parametrize("case", FORGED)
async def test_forged_records_raise_typed_errors_and_can_be_listed(case: str) -> None:
    driver = CallLog()
    async with store_with([compression(), encryption()], driver) as store:
        await store.create_bucket("data")
        await MemoryDriver.put(
            driver,
            "data",
            "key",
            [memoryview(content(5000))],
            PutOptions(metadata={RECORDS: FORGED[case], "a": "b"}),
        )
        errors = (IntegrityError, NotSupportedError)
        range_errors = (*errors, RangeError)  # the size in a record may be forged as well
        for part in (None, (0, 10), ByteRange.last(1)):
            with pytest.raises(errors):
                await store.read("data", "key", range=part)
        with pytest.raises(range_errors):
            await store.read("data", "key", range=(6000, None))
        with pytest.raises(errors):
            await store.get_ranges("data", "key", [(0, 10)])
        with pytest.raises(errors):
            await store.copy("data", "key", "data", "copy")
        info = await store.head("data", "key")
        assert (info.metadata, info.stored_size, info.checksums) == ({"a": "b"}, 5000, {})
        if case != "valid, but wrong":
            assert (info.size, info.complete) == (5000, False)
        (listed,) = await store.list("data", details=True).all()
        assert listed == info
        await store.list("data").all()
        await store.delete("data", "key")
        assert driver.stored_keys("data") == []
        assert driver.open_readers == 0


async def test_names_without_records_are_ignored() -> None:
    driver = CallLog()
    async with store_with([], driver) as store:
        await store.create_bucket("data")
        await MemoryDriver.put(
            driver,
            "data",
            "key",
            [memoryview(b"body")],
            PutOptions(metadata={RECORDS: '[["rot13", null], ["zstd", null]]'}),
        )
        info = await store.head("data", "key")
        assert (info.size, info.transforms, info.complete) == (4, (), True)
        assert await store.read("data", "key") == b"body"
        assert await store.read("data", "key", range=(1, 2)) == b"o"


# -- corruption ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STACKS)
async def test_flipped_byte_is_never_returned(name: str) -> None:
    driver = Fake()
    body = compressible(20_000)
    async with store_with(STACKS[name](), driver) as store:
        await store.create_bucket("data")
        info = await store.put("data", "key", body)
        rewrite(driver, checksums={})
        for at in range(0, info.stored_size, 97):
            driver.flips = [at]
            received = io.BytesIO()
            with pytest.raises(IntegrityError):
                async with store.get("data", "key") as reader:
                    async for chunk in reader:
                        received.write(chunk)
            assert body.startswith(received.getvalue())
            assert received.tell() < len(body)


async def test_reader_that_failed_raises_the_same_error_again() -> None:
    driver = Fake()
    body = compressible(20_000)
    async with store_with([encryption()], driver) as store:
        await store.create_bucket("data")
        await store.put("data", "key", body)
        rewrite(driver, checksums={})
        driver.flips = [9_000]
        async with store.get("data", "key") as reader:
            for _ in range(2):
                with pytest.raises(DecryptionError):
                    await reader.read()


@pytest.mark.parametrize("readinto", [False, True])
@pytest.mark.parametrize("layer", ["none", "mapped", "mirrored"])
async def test_blocks_are_received_into_memory_also_through_a_layer(
    layer: str,
    readinto: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    received = 0
    receive = VerifiedBody.readinto

    async def count(body: VerifiedBody, buffer: memoryview) -> int:
        nonlocal received
        size = await receive(body, buffer)
        received += size
        return size

    monkeypatch.setattr(VerifiedBody, "readinto", count)
    driver = Fake(readinto=readinto)
    layers: dict[str, Any] = {
        "none": driver,
        "mapped": Mapped(driver, into="m"),
        "mirrored": Mirrored(driver, Fake()),
    }
    body = content(4 * MiB, "body")
    async with Trove(layers[layer], middleware=[encryption(MiB)]) as store:
        await store.create_bucket("bucket")
        await store.put("bucket", "key", body)
        assert await store.read("bucket", "key") == body
    assert received >= (3 * MiB if readinto else 0)  # all blocks but the last
    assert readinto or not received
