"""Copies and moves, between backends and under two names of one object."""

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
PROPERTIES: dict[str, Any] = {
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

CopySetup = tuple[Trove, str, CallLog, CallLog]
"""A store, the key to copy to, and the drivers of the source and the target."""

TwoNames = tuple[Trove, tuple[str, str], tuple[str, str]]
"""A store, and a source and a target (bucket, key) that are the same object."""


@pytest.fixture(params=["server copy", "streamed", "between backends"])
async def setup(request: pytest.FixtureRequest) -> AsyncIterator[CopySetup]:
    """Copies on the server, streamed within one backend, and between two backends."""
    default = CallLog(server_copy=request.param == "server copy")
    cold = CallLog()
    pool = BufferPool(4 * MiB, part_size=MiB)
    async with single_attempt_store(
        default, backends={"cold": cold}, routes=ROUTES, pool=pool
    ) as store:
        await store.create_bucket("data", backends="all")
        if request.param == "between backends":
            yield store, "copy.cold", default, cold
        else:
            yield store, "copy", default, default


async def replace_object(driver: MemoryDriver, key: str, body: bytes = b"another") -> ObjectInfo:
    """Replace an object in memory, without passing a step of its `CallLog`."""
    return await MemoryDriver.put(driver, "data", key, [memoryview(body)], PutOptions())


@pytest.mark.parametrize("body", [b"", b"small", BODY], ids=["empty", "small", "in parts"])
async def test_copy_keeps_body_and_properties_and_reports_progress(
    setup: CopySetup, body: bytes
) -> None:
    store, key, _, target = setup
    reports: list[tuple[int, int | None]] = []
    original = await store.put("data", "key", body, **PROPERTIES)
    copied = await store.copy(
        "data", "key", "data", key, progress=lambda done, total: reports.append((done, total))
    )
    assert await store.read("data", key) == body
    assert await store.read("data", "key") == body
    assert copied == await store.head("data", key)
    assert {name: getattr(copied, name) for name in PROPERTIES} == PROPERTIES
    assert (copied.key, copied.checksums) == (key, original.checksums)
    assert copied.backend == ("cold" if key.endswith("cold") else "default")
    assert reports[-1] == (len(body), len(body))
    assert ("copy" in target.calls) is (target.capabilities.server_copy and key == "copy")


async def test_move_leaves_the_object_only_at_its_destination(setup: CopySetup) -> None:
    store, key, _, _ = setup
    await store.put("data", "key", BODY, **PROPERTIES)
    moved = await store.move("data", "key", "data", key)
    assert moved.metadata == PROPERTIES["metadata"]
    assert await store.read("data", key) == BODY
    assert not await store.exists("data", "key")


async def test_copy_overrides_the_metadata_and_storage_class_of_the_source(
    setup: CopySetup,
) -> None:
    store, key, _, _ = setup
    await store.put("data", "key", b"body", storage_class="HOT", **PROPERTIES)
    copied = await store.copy(
        "data", "key", "data", key, metadata={"Other": "1"}, storage_class="COLD"
    )
    assert (copied.metadata, copied.storage_class) == ({"other": "1"}, "COLD")
    assert copied.content_type == "text/plain"
    cleared = await store.copy("data", "key", "data", key, metadata={})
    assert (cleared.metadata, cleared.storage_class) == ({}, None)


async def test_conditions_apply_to_the_destination(setup: CopySetup) -> None:
    store, key, _, _ = setup
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


async def test_source_replaced_midway_leaves_the_target_untouched(setup: CopySetup) -> None:
    store, key, source, target = setup
    await store.put("data", "key", BODY)
    await store.put("data", key, b"old")

    async def replace_source() -> None:
        await replace_object(source, "key")

    source.before["get"] = replace_source
    if target is source:
        source.before["copy"] = replace_source
    with pytest.raises(ObjectChangedError) as caught:
        await store.move("data", "key", "data", key)
    assert (caught.value.bucket, caught.value.operation) == ("data", "move")
    source.before.clear()
    assert await store.read("data", key) == b"old"
    assert await store.read("data", "key") == b"another"


async def test_source_deleted_midway_is_not_copied(setup: CopySetup) -> None:
    store, key, source, _ = setup
    await store.put("data", "key", BODY)

    async def delete_source() -> None:
        await MemoryDriver.delete(source, "data", "key", DeleteOptions())

    source.before["get"] = delete_source
    if source.capabilities.server_copy:
        source.before["copy"] = delete_source
    with pytest.raises((ObjectChangedError, ObjectNotFoundError)):
        await store.copy("data", "key", "data", key)
    assert not await store.exists("data", key)


@pytest.mark.parametrize("conditional", [True, False])
async def test_move_deletes_only_the_version_it_copied(*, conditional: bool) -> None:
    default, cold = CallLog(delete_if_match=conditional), CallLog()
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"first")

        async def replace_source() -> None:
            await replace_object(default, "key", b"second")

        cold.before["put"] = replace_source
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

        async def delete_source() -> None:
            await MemoryDriver.delete(default, "data", "key", DeleteOptions())

        cold.before["put"] = delete_source
        await store.move("data", "key", "data", "to.cold")
        assert await store.read("data", "to.cold") == b"first"


# -- integrity -------------------------------------------------------------------------------------


class CorruptingDriver(CallLog):
    """Stores a corrupt body, and reports the checksum of the corrupt body."""

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
    default, cold = CallLog(), CorruptingDriver()
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"correct")
        with pytest.raises(IntegrityError) as caught:
            await store.move("data", "key", "data", "to.cold")
        assert (caught.value.backend, caught.value.key) == ("cold", "to.cold")
        assert await store.read("data", "key") == b"correct"
        assert not await store.exists("data", "to.cold")


async def test_corrupting_server_copy_stores_nothing_and_keeps_the_source() -> None:
    default = CorruptingDriver()
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
        default.corrupt("data", "key", b"corrupt")
        with pytest.raises(IntegrityError) as caught:
            await store.move("data", "key", "data", "to.cold")
        assert caught.value.key == "key"
        assert not await store.exists("data", "to.cold")
        assert await store.exists("data", "key")


# -- one object under two names --------------------------------------------------------------------


async def store_of_one_object(
    case: str,
) -> tuple[Trove, CallLog, tuple[str, str], tuple[str, str]]:
    """Return a store, its driver, and two names of one object."""
    driver = CallLog(server_copy=case != "without server copy")
    if case in {"same name", "without server copy"}:
        return single_attempt_store(driver), driver, ("data", "x"), ("data", "x")
    if case == "two backends":
        return (
            single_attempt_store(driver, backends={"second": driver}, route_functions=[to_second]),
            driver,
            ("data", "x"),
            ("data", "x"),
        )
    layer = Mapped(driver, buckets={"alias": "data"})
    return (
        single_attempt_store(driver, backends={"second": layer}, route_functions=[to_second]),
        driver,
        ("data", "x"),
        ("alias", "x"),
    )


def to_second(bucket: str, _key: str) -> str:
    return "second" if bucket == "alias" else ""


@pytest.fixture(params=["same name", "without server copy", "two backends", "layer"])
async def one_object(request: pytest.FixtureRequest) -> AsyncIterator[TwoNames]:
    store, driver, source, target = await store_of_one_object(request.param)
    await fill(driver, "data")
    async with store:
        await store.put("data", "x", b"body", storage_class="WARM", **PROPERTIES)
        yield store, source, target


async def test_move_onto_itself_loses_nothing(one_object: TwoNames) -> None:
    store, source, target = one_object
    before = await store.head(*source)
    moved = await store.move(*source, *target)
    assert (moved.etag, moved.bucket) == (before.etag, target[0])
    assert await store.read(*source) == b"body"


async def test_copy_onto_itself_changes_only_what_is_overridden(one_object: TwoNames) -> None:
    store, source, target = one_object
    await store.copy(*source, *target, metadata={"new": "1"})
    info = await store.head(*source)
    assert (info.metadata, info.storage_class, info.tags) == (
        {"new": "1"}, "WARM", PROPERTIES["tags"],
    )  # fmt: skip
    assert await store.read(*source) == b"body"
    await store.move(*source, *target, storage_class="COLD")
    assert (await store.head(*target)).storage_class == "COLD"
    assert await store.read(*source) == b"body"


async def test_conditions_apply_to_a_copy_onto_itself(one_object: TwoNames) -> None:
    store, source, target = one_object
    with pytest.raises(ObjectExistsError):
        await store.move(*source, *target, if_none_match="*")
    with pytest.raises(PreconditionFailedError):
        await store.move(*source, *target, if_match="another")
    await store.move(*source, *target, if_match=await store.head(*source))
    assert await store.read(*source) == b"body"


async def test_same_name_on_two_backends_is_two_objects() -> None:
    default, cold = CallLog(), CallLog()
    routed_to: list[str] = []

    def route_in_turn(_bucket: str, _key: str) -> str:
        return routed_to.pop(0) if routed_to else ""

    async with single_attempt_store(
        default, backends={"cold": cold}, route_functions=[route_in_turn]
    ) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "x", b"body")
        routed_to += ["default", "cold"]
        moved = await store.move("data", "x", "data", "x")
    assert moved.backend == "cold"
    assert default.stored_keys("data") == []
    assert cold.stored_keys("data") == ["x"]


# -- unsupported options and missing buckets -------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "options"),
    [
        ("metadata", {"metadata": {"a": "b"}}),
        ("storage_class", {"storage_class": "COLD"}),
        ("put_if_none_match", {"if_none_match": "*"}),
        ("put_if_match", {"if_match": "etag"}),
    ],
)
async def test_option_unsupported_by_the_target_is_rejected_before_any_call(
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
async def test_property_unsupported_by_the_target_is_rejected_before_any_write(
    capability: str,
) -> None:
    default, cold = CallLog(), CallLog(**{capability: False})
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"", **PROPERTIES)
        cold.calls.clear()
        with pytest.raises(NotSupportedError):
            await store.copy("data", "key", "data", "to.cold")
        assert cold.calls == []


INVALID: list[tuple[dict[str, Any], str]] = [
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
"""Properties that another tool has stored with an object, and the text expected in the error."""


def store_properties(driver: MemoryDriver, key: str, properties: dict[str, Any]) -> None:
    """Replace the stored properties of an object, bypassing all checks."""
    objects = driver._buckets["data"].objects
    objects[key] = objects[key]._replace(info=replace(objects[key].info, **properties))


@pytest.mark.parametrize(("properties", "message"), INVALID)
@pytest.mark.parametrize("server_copy", [True, False])
async def test_source_property_invalid_in_a_header_is_rejected_before_any_write(
    properties: dict[str, Any], message: str, *, server_copy: bool
) -> None:
    default, cold = CallLog(server_copy=server_copy), CallLog()
    await fill(default, "data", "key")
    await fill(cold, "data", "to.cold")
    store_properties(default, "key", properties)
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        cold.calls.clear()
        for call in (store.copy, store.move):
            with pytest.raises(InvalidNameError, match=message) as caught:
                await call("data", "key", "data", "to.cold")
            assert "data/key on backend 'default'" in str(caught.value)
            assert (caught.value.backend, caught.value.key) == ("cold", "to.cold")
        assert cold.calls == []
        assert await store.read("data", "to.cold") == b"to.cold"
        assert await store.read("data", "key") == b"key"


@pytest.mark.parametrize("properties", [properties for properties, _ in INVALID])
async def test_server_copy_keeps_properties_that_a_put_would_reject(
    properties: dict[str, Any],
) -> None:
    driver = CallLog()
    await fill(driver, "data", "key")
    store_properties(driver, "key", properties)
    async with single_attempt_store(driver) as store:
        copied = await store.copy("data", "key", "data", "copy")
        assert {name: getattr(copied, name) for name in properties} == properties
        await store.move("data", "copy", "data", "copy")
        await store.move("data", "copy", "data", "moved")
        moved = await store.head("data", "moved")
        assert {name: getattr(moved, name) for name in properties} == properties


async def test_metadata_override_replaces_invalid_source_metadata() -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data", "key")
    await fill(cold, "data")
    store_properties(default, "key", {"metadata": {"My Key": "v"}})
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        copied = await store.copy("data", "key", "data", "to.cold", metadata={"my-key": "v"})
    assert copied.metadata == {"my-key": "v"}


@pytest.mark.parametrize(
    "metadata", [{"a": "größe"}, {"a": " v "}, {"a": "=?UTF-8?B?w4Q=?="}, {"A-b": "v\t"}]
)
async def test_encodable_metadata_is_copied(metadata: dict[str, str]) -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data", "key")
    await fill(cold, "data")
    store_properties(default, "key", {"metadata": metadata})
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        copied = await store.copy("data", "key", "data", "to.cold")
    assert copied.metadata == {name.lower(): value for name, value in metadata.items()}


async def test_metadata_larger_than_a_put_allows_is_copied_on_the_server() -> None:
    driver = CallLog(max_metadata_bytes=10)
    await fill(driver, "data", "key")
    store_properties(driver, "key", {"metadata": {"a": "v" * 100}})
    async with single_attempt_store(driver) as store:
        assert (await store.copy("data", "key", "data", "to")).metadata == {"a": "v" * 100}


@pytest.mark.parametrize("operation", ["copy", "move"])
async def test_error_names_the_missing_source(operation: str) -> None:
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


async def test_missing_mapped_bucket_is_created_by_a_put_but_not_by_a_pinned_copy() -> None:
    driver = CallLog()
    await fill(driver, "data", "key")

    def route(bucket: str, _key: str) -> str:
        return "mapped" if bucket == "other" else ""

    mapped = Mapped(driver, buckets={"other": "inner", "data": "data"})
    async with single_attempt_store(
        CallLog(), backends={"mapped": mapped}, route_functions=[route]
    ) as store:
        await store.create_bucket("other")  # on the default backend only
        await store.backend("mapped").copy("data", "key", "data", "copy")
        with pytest.raises(BucketNotFoundError):
            await store.backend("mapped").copy("data", "key", "other", "key")
        await store.put("other", "key", b"body")
        assert await store.read("other", "key") == b"body"


async def test_failed_server_copy_leaves_the_source() -> None:
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


async def test_server_copy_creates_a_bucket_missing_only_on_its_backend() -> None:
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

    async def delete_source_and_bucket() -> None:
        await MemoryDriver.delete(driver, "data", "key", DeleteOptions())
        await MemoryDriver.delete_bucket(driver, "data")

    async with single_attempt_store(driver) as store:
        driver.before["copy"] = delete_source_and_bucket
        with pytest.raises(ObjectChangedError):
            await store.copy("data", "key", "other", "key")
        assert [info.name for info in await store.list_buckets()] == ["other"]


async def test_without_get_conditions_the_opened_version_is_checked() -> None:
    default, cold = CallLog(get_conditions=False, delete_if_match=False), CallLog()
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"first")

        async def replace_source() -> None:
            default.before.clear()
            await replace_object(default, "key", b"second")

        default.before["get"] = replace_source
        with pytest.raises(ObjectChangedError, match="nothing was stored"):
            await store.move("data", "key", "data", "to.cold")
        assert cold.stored_keys("data") == []
        await store.move("data", "key", "data", "to.cold")
        assert default.stored_keys("data") == []
        assert await store.read("data", "to.cold") == b"second"


async def test_source_replaced_before_it_is_opened_is_not_copied() -> None:
    default, cold = CallLog(), CallLog()
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"first")

        async def replace_source() -> None:
            default.before.clear()
            await replace_object(default, "key", b"second")

        default.before["get"] = replace_source
        with pytest.raises(ObjectChangedError):
            await store.copy("data", "key", "data", "to.cold")
        assert cold.stored_keys("data") == []
