from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import CallLog, fill, single_attempt_store
from trove_async import (
    BucketNotFoundError,
    BufferPool,
    IntegrityError,
    InvalidNameError,
    NotSupportedError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectInfo,
    ObjectNotFoundError,
    PreconditionFailedError,
    Trove,
    UnavailableError,
)
from trove_async.drivers.memory import MemoryDriver
from trove_async.layers import Mapped
from trove_async.models import MiB
from trove_async.options import DeleteOptions, PutOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from trove_async.options import CopyOptions

BODY = hashlib.shake_128(b"body").digest(3 * MiB + 17)
FACTS: dict[str, Any] = {
    "content_type": "text/plain",
    "metadata": {"colour": "blue"},
    "tags": {"team": "a"},
    "cache_control": "no-store",
    "content_disposition": "attachment",
    "content_encoding": "identity",
    "content_language": "de",
    "expires": datetime(2030, 1, 1, 12, tzinfo=UTC),
}
ROUTES = [("*.cold", "cold")]

Stores = tuple[Trove, CallLog, CallLog]


@pytest.fixture(params=["server copy", "streamed", "across"])
async def places(
    request: pytest.FixtureRequest,
) -> AsyncIterator[tuple[Trove, str, CallLog, CallLog]]:
    """A store, the destination's key, and the drivers of source and destination."""
    default = CallLog(server_copy=request.param == "server copy")
    cold = CallLog()
    pool = BufferPool(4 * MiB, part_size=MiB)
    async with single_attempt_store(
        default, backends={"cold": cold}, routes=ROUTES, pool=pool
    ) as store:
        await store.create_bucket("data", backends="all")
        across = request.param == "across"
        yield store, "copy.cold" if across else "copy", default, cold if across else default


async def replaced(driver: MemoryDriver, key: str, body: bytes = b"another") -> ObjectInfo:
    return await MemoryDriver.put(driver, "data", key, [memoryview(body)], PutOptions())


@pytest.mark.parametrize("body", [b"", b"small", BODY], ids=["empty", "small", "in parts"])
async def test_copy_has_the_bytes_the_facts_and_the_progress(
    places: tuple[Trove, str, CallLog, CallLog], body: bytes
) -> None:
    store, key, _, end = places
    reports: list[tuple[int, int | None]] = []
    original = await store.put("data", "key", body, **FACTS)
    copied = await store.copy(
        "data", "key", "data", key, progress=lambda done, total: reports.append((done, total))
    )
    assert await store.read("data", key) == body
    assert await store.read("data", "key") == body
    assert copied == await store.head("data", key)
    assert {name: getattr(copied, name) for name in FACTS} == FACTS
    assert (copied.key, copied.checksums) == (key, original.checksums)
    assert copied.backend == ("cold" if key.endswith("cold") else "default")
    assert reports[-1] == (len(body), len(body))
    assert ("copy" in end.calls) is (end.capabilities.server_copy and key == "copy")


async def test_move_leaves_the_object_only_at_its_destination(
    places: tuple[Trove, str, CallLog, CallLog],
) -> None:
    store, key, _, _ = places
    await store.put("data", "key", BODY, **FACTS)
    moved = await store.move("data", "key", "data", key)
    assert moved.metadata == FACTS["metadata"]
    assert await store.read("data", key) == BODY
    assert not await store.exists("data", "key")


async def test_given_metadata_and_storage_class_replace_the_sources(
    places: tuple[Trove, str, CallLog, CallLog],
) -> None:
    store, key, _, _ = places
    await store.put("data", "key", b"body", storage_class="HOT", **FACTS)
    copied = await store.copy(
        "data", "key", "data", key, metadata={"Other": "1"}, storage_class="COLD"
    )
    assert (copied.metadata, copied.storage_class) == ({"other": "1"}, "COLD")
    assert copied.content_type == "text/plain"
    bare = await store.copy("data", "key", "data", key, metadata={})
    assert (bare.metadata, bare.storage_class) == ({}, None)


async def test_conditions_apply_to_the_destination(
    places: tuple[Trove, str, CallLog, CallLog],
) -> None:
    store, key, _, _ = places
    await store.put("data", "key", b"new")
    existing = await store.copy("data", "key", "data", key, if_none_match="*")
    with pytest.raises(ObjectExistsError) as caught:
        await store.move("data", "key", "data", key, if_none_match="*")
    assert (caught.value.operation, caught.value.key) == ("move", key)
    with pytest.raises(PreconditionFailedError) as failed:
        await store.copy("data", "key", "data", key, if_match="another")
    assert not isinstance(failed.value, ObjectChangedError)
    assert failed.value.key == key
    assert await store.exists("data", "key")
    assert (await store.copy("data", "key", "data", key, if_match=existing)).etag != existing.etag


async def test_source_replaced_midway_leaves_the_target_untouched(
    places: tuple[Trove, str, CallLog, CallLog],
) -> None:
    store, key, start, end = places
    await store.put("data", "key", BODY)
    await store.put("data", key, b"old")

    async def replace_it() -> None:
        await replaced(start, "key")

    start.before["get"] = replace_it
    if end is start:
        start.before["copy"] = replace_it
    with pytest.raises(ObjectChangedError) as caught:
        await store.move("data", "key", "data", key)
    assert (caught.value.bucket, caught.value.operation) == ("data", "move")
    start.before.clear()
    assert await store.read("data", key) == b"old"
    assert await store.read("data", "key") == b"another"


async def test_source_deleted_midway_raises_object_changed(
    places: tuple[Trove, str, CallLog, CallLog],
) -> None:
    store, key, start, _ = places
    await store.put("data", "key", BODY)

    async def delete_it() -> None:
        await MemoryDriver.delete(start, "data", "key", DeleteOptions())

    start.before["get"] = delete_it
    if start.capabilities.server_copy:
        start.before["copy"] = delete_it
    with pytest.raises((ObjectChangedError, ObjectNotFoundError)):
        await store.copy("data", "key", "data", key)
    assert not await store.exists("data", key)


@pytest.mark.parametrize("conditional", [True, False])
async def test_move_deletes_only_the_version_that_it_copied(*, conditional: bool) -> None:
    default, cold = CallLog(delete_if_match=conditional), CallLog()
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"first")

        async def replace_it() -> None:
            await replaced(default, "key", b"second")

        cold.before["put"] = replace_it
        with pytest.raises(ObjectChangedError, match="the copy is at the destination"):
            await store.move("data", "key", "data", "to.cold")
        assert await store.read("data", "key") == b"second"
        assert await store.read("data", "to.cold") == b"first"


@pytest.mark.parametrize("conditional", [True, False])
async def test_source_deleted_after_the_copy_counts_as_moved(*, conditional: bool) -> None:
    default, cold = CallLog(delete_if_match=conditional), CallLog()
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"first")

        async def delete_it() -> None:
            await MemoryDriver.delete(default, "data", "key", DeleteOptions())

        cold.before["put"] = delete_it
        await store.move("data", "key", "data", "to.cold")
        assert await store.read("data", "to.cold") == b"first"


# -- integrity -------------------------------------------------------------------------------------


class Corrupting(CallLog):
    """Stores a corrupted body, and reports its checksum or not."""

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        corrupt = [memoryview(b"corrupt"), *views]
        return await super().put(bucket, key, corrupt, replace(options, checksums={}))

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        info = await super().copy(src_bucket, src_key, dst_bucket, dst_key, options)
        return await self.put(info.bucket, info.key, (), options.put)


async def test_corrupting_destination_stores_nothing_and_keeps_the_source() -> None:
    default, cold = CallLog(), Corrupting()
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"correct")
        with pytest.raises(IntegrityError) as caught:
            await store.move("data", "key", "data", "to.cold")
        assert (caught.value.backend, caught.value.key) == ("cold", "to.cold")
        assert await store.read("data", "key") == b"correct"
        assert not await store.exists("data", "to.cold")


async def test_corrupting_server_copy_stores_nothing_and_keeps_the_source() -> None:
    default = Corrupting()
    async with single_attempt_store(default) as store:
        await fill(default, "data")
        await MemoryDriver.put(default, "data", "key", [memoryview(b"correct")], PutOptions())
        with pytest.raises(IntegrityError) as caught:
            await store.move("data", "key", "data", "copy")
        assert caught.value.key == "copy"
        assert await store.read("data", "key") == b"correct"
        assert not await store.exists("data", "copy")


async def test_corrupted_source_is_not_copied() -> None:
    default, cold = CallLog(), CallLog()
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"correct")
        default.spoil("data", "key", b"corrupt")
        with pytest.raises(IntegrityError) as caught:
            await store.move("data", "key", "data", "to.cold")
        assert caught.value.key == "key"
        assert not await store.exists("data", "to.cold")
        assert await store.exists("data", "key")


# -- one place under two names ---------------------------------------------------------------------


async def store_of_one_place(how: str) -> tuple[Trove, CallLog, tuple[str, str], tuple[str, str]]:
    driver = CallLog(server_copy=how != "without server copy")
    if how in {"same name", "without server copy"}:
        return single_attempt_store(driver), driver, ("data", "x"), ("data", "x")
    if how == "two backends":
        return (
            single_attempt_store(driver, backends={"too": driver}, route_functions=[to_too]),
            driver,
            ("data", "x"),
            ("data", "x"),
        )
    layer = Mapped(driver, buckets={"alias": "data"})
    return (
        single_attempt_store(driver, backends={"too": layer}, route_functions=[to_too]),
        driver,
        ("data", "x"),
        ("alias", "x"),
    )


def to_too(bucket: str, _key: str) -> str:
    return "too" if bucket == "alias" else ""


@pytest.fixture(params=["same name", "without server copy", "two backends", "layer"])
async def one_place(
    request: pytest.FixtureRequest,
) -> AsyncIterator[tuple[Trove, tuple[str, str], tuple[str, str]]]:
    store, driver, start, end = await store_of_one_place(request.param)
    await fill(driver, "data")
    async with store:
        await store.put("data", "x", b"body", storage_class="WARM", **FACTS)
        yield store, start, end


async def test_move_onto_itself_loses_nothing(
    one_place: tuple[Trove, tuple[str, str], tuple[str, str]],
) -> None:
    store, start, end = one_place
    before = await store.head(*start)
    moved = await store.move(*start, *end)
    assert (moved.etag, moved.bucket) == (before.etag, end[0])
    assert await store.read(*start) == b"body"


async def test_copy_onto_itself_changes_the_metadata_and_nothing_else(
    one_place: tuple[Trove, tuple[str, str], tuple[str, str]],
) -> None:
    store, start, end = one_place
    await store.copy(*start, *end, metadata={"new": "1"})
    info = await store.head(*start)
    assert (info.metadata, info.storage_class, info.tags) == (
        {"new": "1"}, "WARM", FACTS["tags"],
    )  # fmt: skip
    assert await store.read(*start) == b"body"
    await store.move(*start, *end, storage_class="COLD")
    assert (await store.head(*end)).storage_class == "COLD"
    assert await store.read(*start) == b"body"


async def test_conditions_hold_for_an_object_onto_itself(
    one_place: tuple[Trove, tuple[str, str], tuple[str, str]],
) -> None:
    store, start, end = one_place
    with pytest.raises(ObjectExistsError):
        await store.move(*start, *end, if_none_match="*")
    with pytest.raises(PreconditionFailedError):
        await store.move(*start, *end, if_match="another")
    await store.move(*start, *end, if_match=await store.head(*start))
    assert await store.read(*start) == b"body"


async def test_same_names_on_two_backends_are_two_places() -> None:
    default, cold = CallLog(), CallLog()
    routed_to: list[str] = []

    def by_turn(_bucket: str, _key: str) -> str:
        return routed_to.pop(0) if routed_to else ""

    async with single_attempt_store(
        default, backends={"cold": cold}, route_functions=[by_turn]
    ) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "x", b"body")
        routed_to += ["default", "cold"]
        moved = await store.move("data", "x", "data", "x")
    assert moved.backend == "cold"
    assert default.holds("data") == []
    assert cold.holds("data") == ["x"]


# -- refusals and buckets --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "options"),
    [
        ("metadata", {"metadata": {"a": "b"}}),
        ("storage_class", {"storage_class": "COLD"}),
        ("put_if_none_match", {"if_none_match": "*"}),
        ("put_if_match", {"if_match": "etag"}),
    ],
)
async def test_option_unsupported_by_the_target_is_refused_before_any_call(
    capability: str, options: dict[str, Any]
) -> None:
    default, cold = CallLog(), CallLog(**{capability: False})
    await fill(default, "data", "key")
    await fill(cold, "data")
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        default.calls.clear()
        cold.calls.clear()
        with pytest.raises(NotSupportedError) as caught:
            await store.move("data", "key", "data", "to.cold", **options)
        assert (caught.value.backend, caught.value.key) == ("cold", "to.cold")
        assert default.calls == cold.calls == []


@pytest.mark.parametrize("capability", ["metadata", "tags", "headers", "expires"])
async def test_facts_unsupported_by_the_target_are_refused_before_any_write(
    capability: str,
) -> None:
    default, cold = CallLog(), CallLog(**{capability: False})
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"", **FACTS)
        cold.calls.clear()
        with pytest.raises(NotSupportedError):
            await store.copy("data", "key", "data", "to.cold")
        assert cold.calls == []


ODD: list[tuple[dict[str, Any], str]] = [
    ({"metadata": {"My Key": "v"}}, "'My Key'"),
    ({"metadata": {"größe": "v"}}, "'größe'"),
    ({"metadata": {"a:b": "v"}}, "'a:b'"),
    ({"metadata": {"": "v"}}, "''"),
    ({"metadata": {"Abc": "1", "abc": "2"}}, "'Abc' and 'abc'"),
    ({"metadata": {"a\r\nb": "v"}}, "'a\\\\r\\\\nb'"),
    ({"metadata": {"a": "v\r\nx-amz-acl: public-read"}}, "'a'"),
    ({"metadata": {"a": "v\0"}}, "'a'"),
    ({"metadata": {"a": "\udcff"}}, "'a'"),
    ({"metadata": {"Trove-Note": "v"}}, "'Trove-Note'"),
    ({"content_type": "text/plain;\n charset=x"}, "content_type"),
    ({"content_disposition": "attachment;\n filename=x"}, "content_disposition"),
    ({"content_language": "de\r\n"}, "content_language"),
    ({"cache_control": "\udcff"}, "cache_control"),
    ({"content_encoding": "\0"}, "content_encoding"),
    ({"tags": {"a\n": "v"}}, "tag"),
]
"""Facts that another tool has stored with an object, and the text expected in the error."""


def store_facts(driver: MemoryDriver, key: str, facts: dict[str, Any]) -> None:
    """Replace the stored facts of an object, bypassing all checks."""
    objects = driver._buckets["data"].objects
    objects[key] = objects[key]._replace(info=replace(objects[key].info, **facts))


@pytest.mark.parametrize(("facts", "named"), ODD)
@pytest.mark.parametrize("server_copy", [True, False])
async def test_source_facts_that_are_no_valid_headers_are_refused_before_any_byte(
    facts: dict[str, Any], named: str, *, server_copy: bool
) -> None:
    default, cold = CallLog(server_copy=server_copy), CallLog()
    await fill(default, "data", "key")
    await fill(cold, "data", "to.cold")
    store_facts(default, "key", facts)
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        cold.calls.clear()
        for call in (store.copy, store.move):
            with pytest.raises(InvalidNameError, match=named) as caught:
                await call("data", "key", "data", "to.cold")
            assert "data/key on backend 'default'" in str(caught.value)
            assert (caught.value.backend, caught.value.key) == ("cold", "to.cold")
        assert cold.calls == []
        assert await store.read("data", "to.cold") == b"to.cold"
        assert await store.read("data", "key") == b"key"


@pytest.mark.parametrize("facts", [facts for facts, _ in ODD])
async def test_server_copy_keeps_metadata_that_a_put_would_refuse(
    facts: dict[str, Any],
) -> None:
    driver = CallLog()
    await fill(driver, "data", "key")
    store_facts(driver, "key", facts)
    async with single_attempt_store(driver) as store:
        copied = await store.copy("data", "key", "data", "copy")
        assert {name: getattr(copied, name) for name in facts} == facts
        await store.move("data", "copy", "data", "copy")
        await store.move("data", "copy", "data", "moved")
        moved = await store.head("data", "moved")
        assert {name: getattr(moved, name) for name in facts} == facts


async def test_given_metadata_replaces_invalid_source_metadata() -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data", "key")
    await fill(cold, "data")
    store_facts(default, "key", {"metadata": {"My Key": "v"}})
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        copied = await store.copy("data", "key", "data", "to.cold", metadata={"my-key": "v"})
    assert copied.metadata == {"my-key": "v"}


@pytest.mark.parametrize(
    "metadata", [{"a": "größe"}, {"a": " v "}, {"a": "=?UTF-8?B?w4Q=?="}, {"A-b": "v\t"}]
)
async def test_encodable_facts_are_copied(metadata: dict[str, str]) -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data", "key")
    await fill(cold, "data")
    store_facts(default, "key", {"metadata": metadata})
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        copied = await store.copy("data", "key", "data", "to.cold")
    assert copied.metadata == {name.lower(): value for name, value in metadata.items()}


async def test_metadata_larger_than_a_put_allows_is_copied_on_the_server() -> None:
    driver = CallLog(max_metadata_bytes=10)
    await fill(driver, "data", "key")
    store_facts(driver, "key", {"metadata": {"a": "v" * 100}})
    async with single_attempt_store(driver) as store:
        assert (await store.copy("data", "key", "data", "to")).metadata == {"a": "v" * 100}


@pytest.mark.parametrize("operation", ["copy", "move"])
async def test_missing_source_is_named(operation: str) -> None:
    default, cold = CallLog(), CallLog()
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data")
        for key in ("nothing", "nothing.cold"):
            with pytest.raises(ObjectNotFoundError) as caught:
                await getattr(store, operation)("data", key, "data", "to")
            error = caught.value
            assert (error.operation, error.bucket, error.key) == (operation, "data", key)
        with pytest.raises(BucketNotFoundError) as missing:
            await getattr(store, operation)("nowhere", "x", "data", "to")
        assert missing.value.bucket == "nowhere"


@pytest.mark.parametrize("target", ["to", "to.cold"])
async def test_missing_target_bucket_is_created_or_reported(target: str) -> None:
    default, cold = CallLog(), CallLog(private_namespace=False)
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"body")
        with pytest.raises(BucketNotFoundError, match="create") as caught:
            await store.move("data", "key", "other", target)
        assert (caught.value.bucket, caught.value.key) == ("other", target)
        with pytest.raises(BucketNotFoundError, match="create_missing_buckets=True"):
            await store.move("data", "key", "data", "to.cold")
        assert await store.exists("data", "key")
    async with single_attempt_store(
        default, backends={"cold": cold}, routes=ROUTES, create_missing_buckets=True
    ) as store:
        assert (await store.move("data", "key", "data", "to.cold")).backend == "cold"


async def test_server_copy_creates_the_missing_bucket_under_a_second_name() -> None:
    driver = CallLog()
    await fill(driver, "data", "key")

    def route(bucket: str, _key: str) -> str:
        return "too" if bucket == "other" else ""

    inside = Mapped(driver, buckets={"other": "inner", "data": "data"})
    async with single_attempt_store(
        CallLog(), backends={"too": inside, "raw": driver}, route_functions=[route]
    ) as store:
        await store.create_bucket("other")  # on the default backend only
        await store.backend("too").copy("data", "key", "data", "copy")
        with pytest.raises(BucketNotFoundError):
            await store.backend("too").copy("data", "key", "other", "key")
        await store.put("other", "key", b"made")
        assert await store.read("other", "key") == b"made"


async def test_failing_server_copy_does_not_touch_the_source() -> None:
    driver = CallLog()
    await fill(driver, "data", "key")
    driver.fail("copy", UnavailableError("broken"))
    async with single_attempt_store(driver) as store:
        with pytest.raises(UnavailableError) as caught:
            await store.move("data", "key", "data", "to")
        assert (caught.value.operation, caught.value.key) == ("move", "to")
        assert await store.read("data", "key") == b"key"


async def test_cancelled_move_leaves_a_complete_object() -> None:
    steps = 0
    while True:
        default, cold = CallLog(), CallLog()
        async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
            await store.create_bucket("data", backends="all")
            await store.put("data", "key", b"body")
            task = asyncio.get_running_loop().create_task(
                store.move("data", "key", "data", "to.cold")
            )
            for _ in range(steps):
                await asyncio.sleep(0)
            finished = task.done()
            task.cancel()
            await asyncio.wait([task])
            bodies = [
                await store.read("data", key)
                for key in ("key", "to.cold")
                if await store.exists("data", key)
            ]
            assert set(bodies) == {b"body"}
            assert store.pool.statistics().leased == 0
        if finished:
            assert len(bodies) == 1
            return
        steps += 1


async def test_server_copy_creates_the_bucket_that_only_its_backend_lacks() -> None:
    default, cold = CallLog(), CallLog()
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        await store.create_bucket("other")
        await store.put("data", "a.cold", b"body")
        copied = await store.copy("data", "a.cold", "other", "b.cold")
        assert copied.backend == "cold"
        assert cold.calls.count("copy") == 2
        assert await store.read("other", "b.cold") == b"body"


async def test_server_copy_from_a_deleted_bucket_creates_no_bucket() -> None:
    driver = CallLog()
    await fill(driver, "data", "key")
    await fill(driver, "other")

    async def vanish() -> None:
        await MemoryDriver.delete(driver, "data", "key", DeleteOptions())
        await MemoryDriver.delete_bucket(driver, "data")

    async with single_attempt_store(driver) as store:
        driver.before["copy"] = vanish
        with pytest.raises(ObjectChangedError):
            await store.copy("data", "key", "other", "key")
        assert [info.name for info in await store.list_buckets()] == ["other"]


async def test_source_without_conditions_is_compared_with_the_opened_version() -> None:
    default, cold = CallLog(get_conditions=False, delete_if_match=False), CallLog()
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"first")

        async def replace_it() -> None:
            default.before.clear()
            await replaced(default, "key", b"second")

        default.before["get"] = replace_it
        with pytest.raises(ObjectChangedError, match="nothing was stored"):
            await store.move("data", "key", "data", "to.cold")
        assert cold.holds("data") == []
        await store.move("data", "key", "data", "to.cold")
        assert default.holds("data") == []
        assert await store.read("data", "to.cold") == b"second"


async def test_source_opened_as_another_version_is_not_copied() -> None:
    default, cold = CallLog(), CallLog()
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"first")

        async def replace_it() -> None:
            default.before.clear()
            await replaced(default, "key", b"second")

        default.before["get"] = replace_it
        with pytest.raises(ObjectChangedError):
            await store.copy("data", "key", "data", "to.cold")
        assert cold.holds("data") == []
