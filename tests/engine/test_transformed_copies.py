"""Copies and moves of transformed objects: when the stored bytes are kept, and when they are encoded again."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests import transformed_objects
from tests.fakes import CallLog, content, single_attempt_store
from tests.framed_middleware import Framed
from tests.transformed_objects import compressible, stored_form, stream
from tests.versioned_memory import VersionedMemory
from trove_async import (
    DecryptionError,
    IntegrityError,
    NotSupportedError,
    ObjectChangedError,
    ObjectExistsError,
    PreconditionFailedError,
    Trove,
)
from trove_async.drivers import GCSDriver, LocalDriver, S3Driver
from trove_async.drivers.memory import MemoryDriver
from trove_async.middlewares import Compression, Encryption, Keyring, TenantKeys
from trove_async.models import RECORDS, KiB, MiB
from trove_async.options import PutOptions
from trove_async.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from trove_async.driver import AsyncDriver
    from trove_async.testing.servers import GCSServer, S3Server

KEYS = {"old": b"o" * 32, "new": b"n" * 32}
BODY = compressible(100 * KiB)
PROPERTIES: dict[str, Any] = {
    "content_type": "text/plain",
    "metadata": {"colour": "blue"},
    "tags": {"team": "a"},
    "cache_control": "no-store",
    "content_disposition": "attachment",
    "content_language": "de",
}


def encryption(current: str = "old", **settings: Any) -> Encryption:
    return Encryption(Keyring(KEYS, current=current), **settings)


def compression() -> Compression:
    return Compression(frame_size=4 * KiB)


def store_with(middleware: Sequence[Any], driver: MemoryDriver, **backends: MemoryDriver) -> Trove:
    """Return a store, not yet open. Keys ``b/*`` go to the backend ``b``."""
    routes = [("b/*", "b")] if backends else []
    return transformed_objects.store_with(middleware, driver, backends=backends, routes=routes)


async def written(driver: MemoryDriver, *middleware: Any, **options: Any) -> None:
    """Put ``data/key`` with these middlewares."""
    async with store_with(middleware, driver) as store:
        await store.create_bucket("data", exist_ok=True)
        await store.put("data", "key", BODY, **options)


# -- within one backend ----------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["known size", "unknown size"])
async def test_object_of_the_same_stack_is_copied_on_the_server(*, known: bool) -> None:
    driver = CallLog()
    body = compressible(3 * MiB)
    async with store_with([compression(), encryption()], driver) as store:
        await store.create_bucket("data")
        put = await store.put("data", "key", body if known else stream(body), **PROPERTIES)
        driver.calls.clear()
        copied = await store.copy("data", "key", "data", "copy")
        assert driver.calls == ["head", "copy"]
        assert copied.transforms == ("zstd", "aes256-gcm-hkdf")
        assert copied.stored_size == put.stored_size
        assert copied.checksums == {}
        if known:
            assert copied.size == len(body)
            assert copied == await store.head("data", "copy")
        assert await stored_form(driver, "copy") == await stored_form(driver, "key")
        driver.calls.clear()
        await store.move("data", "copy", "data", "moved")
        assert "get" not in driver.calls
        assert await store.read("data", "moved") == body
        assert await store.read("data", "moved", range=(MiB, MiB + 5)) == body[MiB : MiB + 5]
        assert not await store.exists("data", "copy")


@pytest.mark.parametrize("operation", ["copy", "move"])
@pytest.mark.parametrize("before", ["head", "range", "read"])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["on the server", "through the client"])
async def test_copy_of_a_streamed_object_has_the_size_that_the_store_knows(
    operation: str, before: str, *, elsewhere: bool
) -> None:
    source, target = CallLog(), CallLog()
    body = compressible(3 * MiB)
    async with store_with([compression(), encryption()], source, b=target) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", stream(body))
        if before == "head":
            await store.head("data", "key")
        elif before == "range":
            await store.read("data", "key", range=(5, 10))
        else:
            await store.read("data", "key")
        source.calls.clear()
        copy = store.copy if operation == "copy" else store.move
        copied = await copy("data", "key", "data", "b/copy" if elsewhere else "copy")
        requests = ["head", "get" if elsewhere else "copy"]
        assert source.calls[:2] == requests
        assert source.calls.count("get") == elsewhere
        assert "get" not in target.calls
        assert (copied.size, copied.complete) == (len(body), True)


async def test_copy_of_a_streamed_object_that_was_replaced_has_no_wrong_size() -> None:
    driver = CallLog()
    async with store_with([compression()], driver) as store:
        await store.create_bucket("data")
        await store.put("data", "key", stream(compressible(3 * MiB)))
        await store.head("data", "key")
        async with store_with([compression()], driver) as other:
            await other.put("data", "key", stream(compressible(2 * MiB)))
        copied = await store.copy("data", "key", "data", "copy")
        assert (copied.size, copied.complete) == (copied.stored_size, False)
        assert (await store.head("data", "copy")).size == 2 * MiB


@pytest.mark.parametrize("operation", ["copy", "move"])
async def test_plain_object_is_encoded_for_its_destination(operation: str) -> None:
    driver = CallLog()
    middleware = [compression(), (encryption(), Scope.keys("secret/*"))]
    await written(driver, **PROPERTIES)
    async with store_with(middleware, driver) as store:
        copied = await getattr(store, operation)("data", "key", "data", "secret/key")
        assert copied.transforms == ("zstd", "aes256-gcm-hkdf")
        assert (copied.size, copied.checksums) == (len(BODY), {})
        assert copied == await store.head("data", "secret/key")
        assert {name: getattr(copied, name) for name in PROPERTIES} == PROPERTIES
        assert await store.read("data", "secret/key") == BODY
        assert await store.exists("data", "key") is (operation == "copy")
        assert driver.open_readers == 0


@pytest.mark.parametrize("operation", ["copy", "move"])
async def test_encrypted_object_is_decoded_for_a_destination_out_of_scope(operation: str) -> None:
    driver = CallLog()
    async with store_with([(encryption(), Scope.keys("secret/*"))], driver) as store:
        await store.create_bucket("data")
        await store.put("data", "secret/key", BODY, **PROPERTIES)
        copied = await getattr(store, operation)("data", "secret/key", "data", "public")
        assert (copied.transforms, copied.records) == ((), None)
        assert copied == await store.head("data", "public")
        assert copied.checksums
        assert {name: getattr(copied, name) for name in PROPERTIES} == PROPERTIES
        assert await stored_form(driver, "public") == BODY
        assert await store.exists("data", "secret/key") is (operation == "copy")


@pytest.mark.parametrize("size", [0, 1, 3 * MiB])
async def test_rotated_key_is_applied_by_a_copy(size: int) -> None:
    driver, body = CallLog(), compressible(size)
    async with store_with([compression(), encryption("old")], driver) as store:
        await store.create_bucket("data")
        await store.put("data", "key", stream(body), **PROPERTIES)
    async with store_with([compression(), encryption("new")], driver) as store:
        driver.calls.clear()
        await store.copy("data", "key", "data", "copy")
        assert "copy" not in driver.calls
        onto_itself = await store.copy("data", "key", "data", "key")
        assert onto_itself == await store.head("data", "key")
        assert {name: getattr(onto_itself, name) for name in PROPERTIES} == PROPERTIES
        driver.calls.clear()
        await store.copy("data", "key", "data", "key")
        await store.move("data", "key", "data", "key")
        assert driver.calls == ["head", "head"]  # it is current: nothing to do
    only_new = Encryption(Keyring({"new": KEYS["new"]}))
    async with store_with([only_new], driver) as store:
        assert await store.read("data", "key") == await store.read("data", "copy") == body


@pytest.mark.parametrize("operation", ["copy", "move"])
async def test_copy_onto_itself_encodes_an_object_that_is_not_current(operation: str) -> None:
    driver = CallLog()
    await written(driver)
    steps: list[tuple[Sequence[Any], tuple[str, ...]]] = [
        ([compression()], ("zstd",)),
        ([compression(), encryption()], ("zstd", "aes256-gcm-hkdf")),
        ([compression(), encryption(segment_size=4 * KiB)], ("zstd", "aes256-gcm-hkdf")),
        ([encryption(), compression()], ("aes256-gcm-hkdf",)),
        ([Framed(), encryption()], ("framed", "aes256-gcm-hkdf")),
        ([(Framed(), Scope.keys("no")), (encryption(), Scope.keys("no"))], ()),
    ]
    for middleware, transforms in steps:
        async with store_with(middleware, driver) as store:
            before = await store.head("data", "key")
            driver.calls.clear()
            info = await getattr(store, operation)("data", "key", "data", "key")
            assert info.transforms == transforms
            assert info.etag != before.etag
            assert await store.read("data", "key") == BODY
            assert await store.read("data", "key", range=(50_000, 50_005)) == BODY[50_000:50_005]
            driver.calls.clear()
            assert (await store.move("data", "key", "data", "key")).etag == info.etag
            assert driver.calls == ["head"]
    assert driver.open_readers == 0


async def test_copy_onto_itself_replaces_only_the_version_that_was_read() -> None:
    driver = CallLog()
    await written(driver)
    async with store_with([encryption()], driver) as store:

        async def replace_source() -> None:
            driver.before.clear()
            await MemoryDriver.put(driver, "data", "key", [memoryview(b"other")], PutOptions())

        driver.before["put"] = replace_source
        with pytest.raises(ObjectChangedError):
            await store.copy("data", "key", "data", "key")
        assert await store.read("data", "key") == b"other"


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("get_conditions", [True, False])
async def test_source_replaced_while_it_is_encoded_again_is_not_copied(
    at: int, *, get_conditions: bool
) -> None:
    driver = CallLog(get_conditions=get_conditions)
    body = compressible(3 * MiB)
    async with (
        store_with([compression()], driver) as writer,
        store_with([compression(), encryption()], driver) as store,
    ):
        await writer.create_bucket("data")
        await writer.put("data", "key", stream(body))

        async def replace_source_before_a_get() -> None:
            nonlocal at
            at -= 1
            if at == 0:
                await writer.put("data", "key", stream(body[::-1]))

        driver.before["get"] = replace_source_before_a_get
        with pytest.raises(ObjectChangedError) as caught:
            await store.copy("data", "key", "data", "copy")
        assert type(caught.value) is ObjectChangedError
        assert driver.stored_keys("data") == ["key"]
        assert driver.open_readers == 0


async def test_incompressible_object_is_current() -> None:
    driver = CallLog()
    async with store_with([compression()], driver) as store:
        await store.create_bucket("data")
        await store.put("data", "key", content(100 * KiB))
        await store.put("data", "small", b"body")
        driver.calls.clear()
        for key in ("key", "small"):
            await store.move("data", key, "data", key)
            await store.copy("data", key, "data", f"{key} copy")
        assert driver.calls == ["head", "head", "copy", "head", "head", "copy"]
        assert await store.read("data", "key copy") == content(100 * KiB)


async def test_conditions_apply_to_a_copy_that_is_encoded_again() -> None:
    driver = CallLog()
    await written(driver)
    async with store_with([encryption()], driver) as store:
        existing = await store.put("data", "to", b"existing")
        for key in ("to", "key"):
            with pytest.raises(ObjectExistsError):
                await store.copy("data", "key", "data", key, if_none_match="*")
            with pytest.raises(PreconditionFailedError):
                await store.move("data", "key", "data", key, if_match="other")
        assert await store.read("data", "to") == b"existing"
        copied = await store.copy("data", "key", "data", "to", if_match=existing)
        assert copied.etag != existing.etag
        await store.copy("data", "key", "data", "new", if_none_match="*")
        current = await store.head("data", "key")
        await store.copy("data", "key", "data", "key", if_match=current)
        assert await store.read("data", "key") == await store.read("data", "to") == BODY


async def test_overrides_apply_to_a_copy_that_is_encoded_again() -> None:
    driver = CallLog()
    await written(driver, **PROPERTIES)
    middleware = [(encryption(), Scope.content_types("application/*"))]
    async with store_with(middleware, driver) as store:
        copied = await store.copy(
            "data", "key", "data", "copy", content_type="application/json", metadata={}, tags={}
        )
        assert (copied.content_type, copied.metadata, copied.tags) == ("application/json", {}, {})
        assert copied.transforms == ("aes256-gcm-hkdf",)
        # The new content type is in scope, or is not any more.
        again = await store.copy("data", "copy", "data", "copy", content_type="text/csv")
        assert (again.content_type, again.transforms) == ("text/csv", ())
        assert await store.read("data", "copy") == BODY


async def test_progress_of_a_copy_ends_with_the_stored_size() -> None:
    driver = CallLog()
    await written(driver)
    async with store_with([encryption()], driver) as store:
        for _ in range(2):  # encoded again, then copied on the server
            reports: list[tuple[int, int | None]] = []

            def report(done: int, total: int | None) -> None:
                reports.append((done, total))  # noqa: B023 - called in this iteration

            copied = await store.copy("data", "key", "data", "key2", progress=report)
            assert reports[-1] == (copied.stored_size, copied.stored_size)
            await store.copy("data", "key", "data", "key")


async def test_older_version_is_copied_by_its_own_records() -> None:
    driver = VersionedMemory()
    async with store_with([], driver) as store:
        await store.create_bucket("data")
        driver.versioned_buckets.add("data")
        plain = await store.put("data", "key", BODY)
    async with store_with([encryption("old")], driver) as store:
        old = await store.put("data", "key", BODY[::-1])
        await store.put("data", "key", b"latest")
    async with store_with([encryption("new")], driver) as store:
        for version, body in ((plain, BODY), (old, BODY[::-1])):
            version_id = version.version_id
            copied = await store.copy("data", "key", "data", "copy", source_version_id=version_id)
            assert copied.transforms == ("aes256-gcm-hkdf",)
            assert await store.read("data", "copy") == body
            restored = await store.copy("data", "key", "data", "key", source_version_id=version_id)
            assert restored.version_id not in {plain.version_id, old.version_id}
            assert await store.read("data", "key") == body
            assert await store.read("data", "key", version_id=plain.version_id) == BODY


async def test_move_keeps_the_source_if_the_encoded_copy_is_corrupt() -> None:
    class Corrupting(CallLog):
        async def put(
            self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
        ) -> Any:
            views = [memoryview(b"corrupt"), *views]
            return await super().put(bucket, key, views, PutOptions(metadata=options.metadata))

    driver, target = CallLog(), Corrupting()
    async with store_with([(encryption(), Scope.backends("b"))], driver, b=target) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", BODY)
        with pytest.raises(IntegrityError):
            await store.move("data", "key", "data", "b/key")
        assert await store.read("data", "key") == BODY
        assert target.stored_keys("data") == []


@pytest.mark.parametrize("operation", ["copy", "move"])
async def test_source_that_was_altered_is_not_copied(operation: str) -> None:
    driver = CallLog()
    await written(driver, encryption("old"))
    form = await stored_form(driver)
    driver.corrupt("data", "key", form[:-1] + bytes([form[-1] ^ 1]))
    async with store_with([encryption("new")], driver) as store:
        with pytest.raises(IntegrityError):
            await getattr(store, operation)("data", "key", "data", "copy")
        assert driver.stored_keys("data") == ["key"]
        assert driver.open_readers == 0


# -- bound to a name -------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["copy", "move"])
async def test_bound_object_is_encoded_again_for_its_new_name(operation: str) -> None:
    driver = CallLog()
    async with store_with([encryption(bind=True)], driver) as store:
        for bucket in ("data", "other"):
            await store.create_bucket(bucket)
        await store.put("data", "key", BODY)
        driver.calls.clear()
        await getattr(store, operation)("data", "key", "data", "copy")
        assert "copy" not in driver.calls
        assert await store.read("data", "copy") == BODY
        await getattr(store, operation)("data", "copy", "other", "copy")
        assert "copy" not in driver.calls
        assert await store.read("other", "copy") == BODY
        assert "copy" not in driver.calls
        driver.calls.clear()
        await store.copy("data" if operation == "copy" else "other", "copy", "other", "copy")
        # Bytes that are copied by other means are bound to the old name.
        stored = driver._buckets["other"].objects["copy"]
        info = stored.info.located(bucket="data", key="stolen")
        driver._buckets["data"].add("stolen", stored._replace(info=info))
        with pytest.raises(DecryptionError, match="another name"):
            await store.read("data", "stolen")


async def test_bound_object_is_moved_between_backends_under_one_name_without_a_key() -> None:
    driver, target = CallLog(), CallLog()
    await written(driver, encryption(bind=True))
    async with single_attempt_store(driver, backends={"b": target}) as store:
        await store.create_bucket("data", exist_ok=True, backends="all")
        await store.backend("b").copy("data", "key", "data", "key", source_backend="default")
        with pytest.raises(DecryptionError, match="'old'"):
            await store.copy("data", "key", "data", "renamed")
    assert await stored_form(target) == await stored_form(driver)
    async with store_with([encryption(bind=True)], target) as store:
        assert await store.read("data", "key") == BODY


# -- between backends ------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["copy", "move"])
@pytest.mark.parametrize("has_keys", [True, False])
async def test_stored_bytes_move_between_backends_as_they_are(
    operation: str, *, has_keys: bool
) -> None:
    driver, target = CallLog(), CallLog()
    middleware = [compression(), encryption()]
    await written(driver, *middleware, **PROPERTIES)
    form = await stored_form(driver)
    async with store_with(middleware if has_keys else [], driver, b=target) as store:
        await store.create_bucket("data", exist_ok=True, backends="all")
        copied = await getattr(store, operation)("data", "key", "data", "b/key")
        assert (copied.size, copied.stored_size) == (len(BODY), len(form))
        assert {name: getattr(copied, name) for name in PROPERTIES} == PROPERTIES
        assert copied == await store.head("data", "b/key")
    assert await stored_form(target, "b/key") == form
    async with store_with(middleware, target) as store:
        assert await store.read("data", "b/key") == BODY


async def test_object_is_encrypted_when_it_leaves_and_decrypted_when_it_returns() -> None:
    driver, target = CallLog(), CallLog()
    async with store_with([(encryption(), ~Scope.backends("default"))], driver, b=target) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", BODY, **PROPERTIES)
        assert (await store.move("data", "key", "data", "b/key")).transforms == (
            "aes256-gcm-hkdf",
        )  # fmt: skip
        assert await stored_form(target, "b/key") != BODY
        back = await store.move("data", "b/key", "data", "key")
        assert (back.transforms, back.size) == ((), len(BODY))
        assert {name: getattr(back, name) for name in PROPERTIES} == PROPERTIES
        assert await stored_form(driver) == BODY
        assert target.stored_keys("data") == []


async def test_transform_of_an_unknown_name_is_copied_only_under_its_own_name() -> None:
    driver, target = CallLog(), CallLog()
    await written(driver, Framed(name="theirs"))
    form = await stored_form(driver)
    async with single_attempt_store(driver, backends={"b": target}) as store:
        await store.create_bucket("data", exist_ok=True, backends="all")
        pinned = store.backend("b")
        copied = await pinned.copy("data", "key", "data", "key", source_backend="default")
        assert (copied.transforms, copied.stored_size) == (("theirs",), len(form))
        assert await stored_form(target) == form
        with pytest.raises(NotSupportedError, match="'theirs'"):
            await store.copy("data", "key", "data", "renamed")
        await store.copy("data", "key", "data", "key", metadata={"a": "b"})
    async with store_with([Framed(name="theirs")], driver) as store:
        assert (await store.head("data", "key")).metadata == {"a": "b"}
        assert await store.read("data", "key") == BODY


@pytest.mark.parametrize("has_keys", [True, False])
async def test_backend_without_metadata_gets_no_transformed_object(*, has_keys: bool) -> None:
    driver, target = CallLog(), CallLog(metadata=False)
    await written(driver, encryption())
    async with store_with([encryption()] if has_keys else [], driver, b=target) as store:
        await store.create_bucket("data", exist_ok=True, backends="all")
        with pytest.raises(NotSupportedError, match="metadata"):
            await store.move("data", "key", "data", "b/key")
        assert (target.stored_keys("data"), driver.stored_keys("data")) == ([], ["key"])


async def test_backend_without_headers_keeps_an_object_that_is_current() -> None:
    driver = CallLog(headers=False, expires=False)
    async with store_with([(compression(), Scope.content_types("text/*"))], driver) as store:
        await store.create_bucket("data")
        info = await store.put("data", "key.txt", BODY)
        assert (info.content_type, info.transforms) == (None, ("zstd",))
        driver.calls.clear()
        await store.copy("data", "key.txt", "data", "key.txt")
        assert driver.calls == ["head"]
        assert (await store.copy("data", "key.txt", "data", "b.txt")).transforms == ("zstd",)
        assert (await store.copy("data", "key.txt", "data", "b.png")).transforms == ()


# -- required encryption, and tenants --------------------------------------------------------------


async def test_required_encryption_refuses_to_copy_a_plain_object_in_scope() -> None:
    driver = CallLog()
    await written(driver)
    async with store_with([encryption(require=True)], driver) as store:
        for key in ("copy", "key"):
            with pytest.raises(DecryptionError, match="requires it"):
                await store.copy("data", "key", "data", key)
    async with store_with([encryption()], driver) as store:  # how plain objects are adopted
        await store.copy("data", "key", "data", "key")
    async with store_with([encryption(require=True)], driver) as store:
        assert await store.read("data", "key") == BODY
        await store.copy("data", "key", "data", "copy")
        assert await store.read("data", "copy") == BODY


tenant = ContextVar[str]("tenant")


def tenant_keys() -> TenantKeys:
    def load(name: str) -> Keyring:
        return Keyring({"1": name.encode().ljust(32, b"-")})

    return TenantKeys(lambda _: tenant.get(), load)


async def test_tenants_never_share_a_key() -> None:
    driver = CallLog()
    middleware = [compression(), Encryption(tenant_keys(), segment_size=4 * KiB)]
    async with store_with(middleware, driver) as store:
        await store.create_bucket("data")
        both_have_put = asyncio.Barrier(2)

        async def work(name: str, other: str) -> None:
            tenant.set(name)
            body = name.encode() * 20_000
            for key in ("small", "streamed"):
                large = body * 20
                await store.put("data", f"{name}/{key}", stream(large) if key != "small" else body)
                # Read a range, so that the other tenant finds the index in the cache.
                await store.read("data", f"{name}/{key}", range=(1, 5))
                await both_have_put.wait()
                assert await store.read("data", f"{name}/{key}", range=(0, 5)) == body[:5]
                for part in (None, (1, 5)):
                    with pytest.raises(DecryptionError, match=f"'{other}/1'"):
                        await store.read("data", f"{other}/{key}", range=part)
                with pytest.raises(DecryptionError, match=f"'{other}/1'"):
                    await store.get_ranges("data", f"{other}/{key}", [(1, 5)])
                with pytest.raises(DecryptionError, match=f"'{other}/1'"):
                    await store.copy("data", f"{other}/{key}", "data", f"{name}/stolen")
                assert not await store.exists("data", f"{name}/stolen")
                await both_have_put.wait()

        async with asyncio.TaskGroup() as group:
            group.create_task(work("acme", "zeta"))
            group.create_task(work("zeta", "acme"))
    assert driver.open_readers == 0


async def test_copy_to_a_different_tenant_is_encrypted_with_its_key() -> None:
    driver = CallLog()
    keys = TenantKeys(
        lambda context: context.bucket, lambda name: Keyring({"1": name.encode().ljust(32, b"-")})
    )
    async with store_with([Encryption(keys)], driver) as store:
        for bucket in ("acme", "zeta"):
            await store.create_bucket(bucket)
        await store.put("acme", "key", BODY)
        driver.calls.clear()
        await store.copy("acme", "key", "acme", "copy")
        assert driver.calls == ["head", "copy"]
        driver.calls.clear()
        copied = await store.copy("acme", "key", "zeta", "key")
        assert "copy" not in driver.calls
        assert copied.records is not None
        assert "zeta/1" in copied.records
        assert await store.read("zeta", "key") == BODY


@pytest.mark.parametrize("operation", ["copy", "move"])
async def test_copy_to_a_scope_with_another_key_of_the_same_id_is_encrypted_again(
    operation: str,
) -> None:
    scopes = [
        (Encryption(Keyring({"1": key})), Scope.buckets(bucket))
        for bucket, key in (("acme", b"a" * 32), ("zeta", b"z" * 32))
    ]
    driver = CallLog()
    async with store_with(scopes, driver) as store:
        for bucket in ("acme", "zeta"):
            await store.create_bucket(bucket)
        await store.put("acme", "key", BODY)
        await getattr(store, operation)("acme", "key", "zeta", "key")
        assert await store.read("zeta", "key") == BODY
        driver.calls.clear()
        await store.copy("zeta", "key", "zeta", "copy")
        assert driver.calls == ["head", "copy"]
        assert await store.read("zeta", "copy") == BODY


async def test_middlewares_are_chosen_in_the_task_of_each_put() -> None:
    encrypts = ContextVar("encrypts", default=False)

    async def is_in_scope(_bucket: str, _key: str) -> bool:
        await asyncio.sleep(0)
        return encrypts.get()

    async with store_with([(encryption(), Scope.when(is_in_scope))], CallLog()) as store:
        await store.create_bucket("data")

        async def put(key: str, *, encrypted: bool) -> None:
            encrypts.set(encrypted)
            for _ in range(10):
                info = await store.put("data", key, b"body")
                assert bool(info.transforms) is encrypted
                assert await store.read("data", key) == b"body"

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(put(f"{number}", encrypted=bool(number % 2)))


# -- every driver ----------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "local", "moto", "SeaweedFS", "GCS"])
def new_driver(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], AsyncDriver]:
    """Return a function that returns a driver for one place."""
    match request.param:
        case "memory":
            memory = MemoryDriver()
            return lambda: memory
        case "local":
            return lambda: LocalDriver(tmp_path / "objects", fsync=False)
        case "GCS":
            gcs: GCSServer = request.getfixturevalue("fake_gcs")
            return lambda: GCSDriver(endpoint_url=gcs.endpoint_url, project=gcs.project)
    s3: S3Server = request.getfixturevalue("moto_server" if request.param == "moto" else "seaweed")
    return lambda: S3Driver(
        region=s3.region,
        endpoint_url=s3.endpoint_url,
        access_key_id=s3.access_key_id,
        secret_access_key=s3.secret_access_key,
    )


async def test_transformed_object_stays_readable_on_every_driver(
    new_driver: Callable[[], AsyncDriver],
) -> None:
    bucket, body = f"copies-{uuid4()}", compressible(100 * KiB)
    large = compressible(11 * MiB)
    # With retries: fake-gcs-server closes the connection after a range outside the stored bytes.
    async with Trove(new_driver(), middleware=[compression(), encryption()]) as store:
        await store.create_bucket(bucket)
        # 1. Put, in one request and in parts, with non-ASCII metadata beside the records.
        metadata = {"colour": "grün"}
        put = await store.put(bucket, "key", body, metadata=metadata, content_type="text/csv")
        assert (put.size, put.transforms) == (len(body), ("zstd", "aes256-gcm-hkdf"))
        assert put == await store.head(bucket, "key")
        streamed = await store.put(bucket, "large", stream(large), metadata=metadata)
        head = await store.head(bucket, "large")
        assert (head.size, head.stored_size) == (len(large), streamed.stored_size)
        assert (
            await store.read(bucket, "large", range=(7 * MiB, 7 * MiB + 9))
            == (large[7 * MiB : 7 * MiB + 9])
        )
        assert await store.read(bucket, "large") == large
        details = await store.list(bucket, details=True).all()
        assert [(info.key, info.size, info.metadata) for info in details] == [
            ("key", len(body), metadata), ("large", len(large), metadata),
        ]  # fmt: skip
        # 2. Change its metadata.
        for key, size in (("key", len(body)), ("large", len(large))):
            await store.copy(bucket, key, bucket, key, metadata={"new": "1"})
            info = await store.head(bucket, key)
            assert (info.metadata, info.size) == ({"new": "1"}, size)
            assert info.transforms == ("zstd", "aes256-gcm-hkdf")
            await store.copy(bucket, key, bucket, key, content_type="text/html", metadata={})
            info = await store.head(bucket, key)
            assert (info.metadata, info.content_type) == ({}, "text/html")
        assert await store.read(bucket, "key") == body
        assert await store.read(bucket, "large", range=(5, 10)) == large[5:10]
        # 3. Copy and move.
        await store.copy(bucket, "key", bucket, "copy", metadata=metadata)
        moved = await store.move(bucket, "copy", bucket, "moved")
        assert (moved.metadata, moved.size) == (metadata, len(body))
        assert not await store.exists(bucket, "copy")
        assert await store.read(bucket, "moved") == body
        assert await store.get_ranges(bucket, "moved", [(50_000, 50_005)]) == [body[50_000:50_005]]
    # 4. Rotate the key.
    async with Trove(new_driver(), middleware=[compression(), encryption("new")]) as store:
        for key, expected in (("moved", body), ("large", large)):
            copied = await store.copy(bucket, key, bucket, key)
            assert copied.records is not None
            assert '"new"' in copied.records
            assert await store.read(bucket, key) == expected
        assert (await store.head(bucket, "moved")).metadata == metadata
        await store.copy(bucket, "moved", bucket, "moved", metadata={"x": "y"})
        assert await store.read(bucket, "moved") == body
    # 5. Without keys, the object can still be described, copied and deleted.
    async with Trove(new_driver()) as store:
        await store.copy(bucket, "moved", bucket, "kept", metadata={"z": "1"})
        info = await store.head(bucket, "kept")
        assert (info.metadata, info.transforms) == ({"z": "1"}, ("zstd", "aes256-gcm-hkdf"))
        assert RECORDS not in info.metadata
        with pytest.raises(DecryptionError, match="'new'"):
            await store.read(bucket, "kept")
        await store.delete(bucket, "kept")
