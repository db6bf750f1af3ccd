"""The layer `Fallback`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.fakes import NO_RETRIES, Fake, Unordered, content, fill, small_pool
from tests.layers.mirroring import contents, driver_of, of_kind, store_with, write_to
from tests.versioned_memory import VersionedMemory
from trove_async import Trove
from trove_async._concurrency import task_group
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.errors import (
    BucketNotEmptyError,
    BucketNotFoundError,
    ConfigError,
    InvalidNameError,
    NotSupportedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PermissionDeniedError,
    PoolTimeoutError,
    PreconditionFailedError,
    TimedOutError,
    UnavailableError,
)
from trove_async.layers import Fallback, Hedged, Mapped, Mirrored, ReadOnly
from trove_async.layers._copies.members import tag
from trove_async.models import DeleteResult, KiB, MiB, ObjectInfo
from trove_async.options import DeleteOptions, ListOptions, PresignOptions, PutOptions
from trove_async.testing import DriverSuite, Faulty, StoreSuite, opened
from trove_async.testing._harness import list_all, read, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from trove_async.driver import AsyncDriver


class TestMemoryAndMemory(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return Fallback(MemoryDriver(), MemoryDriver())


class TestOnMissing(DriverSuite):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> AsyncDriver:
        return Fallback(MemoryDriver(), LocalDriver(tmp_path, fsync=False), on_missing=True)


class TestOnMissingUnordered(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return Fallback(MemoryDriver(), Unordered(), on_missing=True)


class TestNested(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        old = Mapped(Fallback(MemoryDriver(), MemoryDriver(), on_missing=True), into="all")
        mirror = Mirrored(Fallback(MemoryDriver(), MemoryDriver()), MemoryDriver())
        return Mapped(Fallback(mirror, old, on_missing=True), into="outer", prefix="p")


class TestStore(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        layer = Fallback(MemoryDriver(), MemoryDriver(), on_missing=True)
        async with Trove(layer, pool=small_pool()) as store:
            yield store


class TestRoutedStore(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Trove]:  # type: ignore[override]  # a fixture
        layer = Fallback(LocalDriver(tmp_path, fsync=False), MemoryDriver())
        async with Trove(
            MemoryDriver(),
            backends={"fallback": layer},
            routes=[("[a-k]*", "fallback"), ("*/1", "fallback")],
            pool=small_pool(),
        ) as store:
            yield store


# -- behaviour -----------------------------------------------------------------------------------------

BODY = content(2 * MiB + 300 * KiB, "new")


def pair(*, on_missing: bool, **capabilities: Any) -> tuple[Fallback, Fake, Fake]:
    new, old = Fake(**capabilities), Fake()
    return Fallback(new, old, on_missing=on_missing), new, old


@asynccontextmanager
async def migration(**capabilities: Any) -> AsyncIterator[tuple[Trove, Fake, Fake]]:
    """Open a store of a Fallback with `on_missing`, with the bucket on both members."""
    layer, new, old = pair(on_missing=True, **capabilities)
    async with store_with(layer) as (store, _):
        await old.create_bucket("bucket")
        yield store, new, old


@pytest.mark.parametrize("on_missing", ["no", 1, object()])
def test_switch_must_be_a_bool(on_missing: Any) -> None:
    with pytest.raises(TypeError, match="on_missing must be a bool"):
        Fallback(MemoryDriver(), MemoryDriver(), on_missing=on_missing)


def test_invalid_members_are_rejected() -> None:
    driver: Any = MemoryDriver()
    with pytest.raises(ConfigError, match="at least one member"):
        Fallback(driver)
    with pytest.raises(ConfigError, match="a different one"):
        Fallback(driver, driver)
    with pytest.raises(TypeError):
        Fallback(driver, object())  # type: ignore[arg-type]
    assert [inner.name for inner in Fallback("mem://", "mem://").inner] == ["memory", "memory"]


def test_writes_claim_what_the_primary_supports() -> None:
    new = Fake(tags=False, max_put=10)
    old = Fake(metadata=False, ordered=False, upload=False, get_conditions=False, bulk_delete=3)
    claims = Fallback(new, old).capabilities
    assert (claims.tags, claims.metadata, claims.upload, claims.max_put) == (False, True, True, 10)
    assert (claims.ordered, claims.get_conditions) == (False, False)
    assert claims.bulk_delete == new.capabilities.bulk_delete
    assert Fallback(new, old, on_missing=True).capabilities.bulk_delete == 3


# -- without on_missing --------------------------------------------------------------------------------


async def test_read_falls_back_only_if_a_member_is_not_available() -> None:
    layer, new, old = pair(on_missing=False)
    async with store_with(layer) as (store, events):
        await old.create_bucket("bucket")
        await write_to(old, "key", b"old")
        with pytest.raises(ObjectNotFoundError):
            await store.read("bucket", "key")
        assert old.count("get") == 0
        new.fail("get")
        assert await store.read("bucket", "key") == b"old"
        new.fail("head", TimedOutError("slow"))
        info = await store.head("bucket", "key")
        new.fail("list_page")
        assert [one.key for one in await store.list("bucket").all()] == ["key"]
        assert of_kind(events, "fallback") == [
            ("get", "key", "member 1 (memory)"),
            ("head", "key", "member 1 (memory)"),
            ("list", None, "member 1 (memory)"),
        ]
        for error in (PermissionDeniedError("no"), PoolTimeoutError("our own queue")):
            new.fail("get", error)
            with pytest.raises(type(error)):
                await store.read("bucket", "key")
        assert info.etag == tag(1, (await old.head("bucket", "key")).etag or "")


async def test_error_of_the_primary_is_raised_if_all_fail() -> None:
    for on_missing in (False, True):
        layer, new, old = pair(on_missing=on_missing)
        async with store_with(layer) as (store, _):
            new.fail("get", UnavailableError("the first is down"))
            old.fail("get", UnavailableError("the second is down"))
            with pytest.raises(UnavailableError, match="the first is down") as caught:
                await store.read("bucket", "key")
            notes = ["(member 1 (memory): UnavailableError: the second is down)"]
            assert caught.value.__notes__ == notes


async def test_writes_go_to_the_primary_alone() -> None:
    layer, new, old = pair(on_missing=False)
    async with store_with(layer) as (store, _):
        await old.create_bucket("bucket")
        await write_to(old, "key", b"old")
        await store.put("bucket", "key", BODY, if_none_match="*")
        await store.copy("bucket", "key", "bucket", "copy")
        await store.delete("bucket", "key")
        await store.delete_many("bucket", ["key"])
        await store.create_bucket("other")
        await store.delete_bucket("other")
        assert await contents(new) == {"copy": BODY}
        assert await contents(old) == {"key": b"old"}
        new.fail("put")
        with pytest.raises(UnavailableError):
            await store.put("bucket", "key", b"body")


async def test_condition_with_the_etag_of_another_member_never_matches_the_primary() -> None:
    layer, new, old = pair(on_missing=False)
    async with store_with(layer) as (store, _):
        await old.create_bucket("bucket")
        await store.put("bucket", "key", b"new")
        await write_to(old, "key", b"old")
        new.fail("head")
        info = await store.head("bucket", "key")
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: store.put("bucket", "key", b"x", if_match=info),
            lambda: store.put("bucket", "key", BODY, if_match=info),
            lambda: store.delete("bucket", "key", if_match=info),
        ]
        for call in calls:
            with pytest.raises(PreconditionFailedError, match="another member"):
                await call()
            new.fail("head")
            with pytest.raises(UnavailableError):
                await call()
        assert await store.read("bucket", "key", if_match=info) == b"old"
        old.fail("get")
        with pytest.raises(UnavailableError):
            await store.read("bucket", "key", if_match=info)
        assert await contents(new) == {"key": b"new"}


async def test_version_of_another_member_is_read_there_and_not_deleted() -> None:
    new, old = VersionedMemory(), VersionedMemory()
    async with opened(Fallback(Faulty(new), old)) as layer:
        for member in (new, old):
            await member.create_bucket("bucket")
            member.versioned_buckets.add("bucket")
        await write(old, "bucket", "key", b"old")
        faulty = layer.inner[0]  # type: ignore[attr-defined]  # a layer
        faulty.fail("head", UnavailableError("down"))
        info = await layer.head("bucket", "key")
        assert info.version_id is not None
        assert await read(layer, "bucket", "key", version_id=info.version_id) == b"old"
        with pytest.raises(NotSupportedError, match="only versions of the primary"):
            await layer.delete("bucket", "key", DeleteOptions(version_id=info.version_id))


# -- with on_missing -----------------------------------------------------------------------------------


async def test_object_is_read_from_the_first_member_that_has_it() -> None:
    async with migration() as (store, new, old):
        await write_to(old, "old", b"old")
        await write_to(old, "both", b"old")
        await store.put("bucket", "both", b"new")
        assert await store.read("bucket", "old") == b"old"
        assert await store.read("bucket", "both") == b"new"
        assert (await store.head("bucket", "old")).size == 3
        assert await store.get_ranges("bucket", "old", [(0, 1), (1, 3)]) == [b"o", b"ld"]
        assert not await store.exists("bucket", "none")
        # Another member's lack of it does not prove that an object does not exist.
        for fake, step in ((new, "head"), (old, "head")):
            fake.fail(step)
            with pytest.raises(UnavailableError):
                await store.head("bucket", "none")
        new.fail("get")
        assert await store.read("bucket", "both") == b"old"


async def test_bucket_that_only_another_member_has_is_readable() -> None:
    layer, new, old = pair(on_missing=True)
    async with store_with(layer) as (store, _):
        await old.create_bucket("older")
        await old.put("older", "key", [memoryview(b"old")], PutOptions())
        assert await store.read("older", "key") == b"old"
        assert [info.key for info in await store.list("older").all()] == ["key"]
        assert [info.name for info in await store.list_buckets()] == ["bucket", "older"]
        await driver_of(store).head_bucket("older")
        with pytest.raises(BucketNotFoundError):
            await store.put("older", "key", b"new")
        with pytest.raises(ObjectNotFoundError):
            await store.read("older", "none")
        with pytest.raises(BucketNotFoundError):
            await store.read("none", "none")
        with pytest.raises(BucketNotFoundError):
            await store.list("none").all()
        await store.create_bucket("older")
        await store.put("older", "key", b"new")
        assert await store.read("older", "key") == b"new"
        await store.delete("older", "key")
        assert await store.list("older").all() == []
        await store.delete_bucket("older")
        for fake in (new, old):
            assert "older" not in [info.name for info in await fake.list_buckets()]


async def test_deletion_leaves_no_older_object() -> None:
    async with migration() as (store, new, old):
        for key in "abcd":
            await write_to(old, key, b"old")
            await store.put("bucket", key, b"new")
        await store.delete("bucket", "a")
        await driver_of(store).delete_many("bucket", ["b", "none"])
        await store.delete("bucket", "c", if_match=await store.head("bucket", "c"))
        assert (await contents(new), await contents(old)) == ({"d": b"new"}, {"d": b"old"})
        assert [info.key for info in await store.list("bucket").all()] == ["d"]
        # A deletion that fails midway never uncovers the older object.
        for fake in (new, old):
            fake.fail("delete")
            with pytest.raises(UnavailableError):
                await store.delete("bucket", "d")
            assert await store.read("bucket", "d") == b"new"
            await write_to(old, "d", b"old")
        for fake in (new, old):
            fake.fail("delete_many")
            with pytest.raises(UnavailableError):
                await driver_of(store).delete_many("bucket", ["d"])
            assert await store.read("bucket", "d") == b"new"


async def test_key_that_another_member_keeps_is_not_deleted_on_the_primary() -> None:
    class Refusing(Fake):
        async def delete_many(self, bucket: str, keys: Any) -> Any:
            await super().delete_many(bucket, [key for key in keys if key != "b"])
            error = PermissionDeniedError("no")
            return [DeleteResult(key=key, error=error if key == "b" else None) for key in keys]

    new, old = Fake(), Refusing()
    async with store_with(Fallback(new, old, on_missing=True)) as (store, _):
        await old.create_bucket("bucket")
        for key in "ab":
            await write_to(old, key, b"old")
            await store.put("bucket", key, b"new")
        results = await driver_of(store).delete_many("bucket", ["a", "b"])
        assert [(result.key, result.error is None) for result in results] == [
            ("a", True),
            ("b", False),
        ]
        assert await contents(new) == {"b": b"new"}


@pytest.mark.parametrize("body", [b"body", BODY], ids=["small", "parts"])
async def test_if_none_match_sees_the_objects_of_all_members(body: bytes) -> None:
    async with migration() as (store, new, old):
        await write_to(old, "key", b"old")
        with pytest.raises(ObjectExistsError, match="member 1"):
            await store.put("bucket", "key", body, if_none_match="*")
        with pytest.raises(ObjectExistsError):
            await store.copy("bucket", "key", "bucket", "key", if_none_match="*")
        assert await contents(new) == {}
        await store.put("bucket", "other", body, if_none_match="*")
        old.fail("head")
        with pytest.raises(UnavailableError):
            await store.put("bucket", "third", body, if_none_match="*")
        assert await contents(new) == {"other": body}


async def test_upload_checks_other_members_again_before_its_commit() -> None:
    async with migration() as (store, new, old):

        async def appear() -> None:
            await write_to(old, "key", b"old")

        new.before["send"] = appear
        with pytest.raises(ObjectExistsError):
            await store.put("bucket", "key", BODY, if_none_match="*")
        assert await contents(new) == {}
        assert new.open_uploads == 0


@pytest.mark.parametrize("body", [b"body", BODY], ids=["small", "parts"])
async def test_if_match_replaces_the_object_of_another_member(body: bytes) -> None:
    async with migration() as (store, new, old):
        await write_to(old, "key", b"old")
        info = await store.head("bucket", "key")
        await write_to(old, "key", b"older")
        with pytest.raises(PreconditionFailedError):
            await store.put("bucket", "key", body, if_match=info)
        info = await store.head("bucket", "key")
        await store.put("bucket", "key", body, if_match=info)
        assert await store.read("bucket", "key") == body
        # The primary has an object now, so the etag of the other member is not the current one.
        with pytest.raises(PreconditionFailedError):
            await store.put("bucket", "key", b"x", if_match=info)
        with pytest.raises(PreconditionFailedError):
            await store.delete("bucket", "key", if_match=info)
        assert await contents(new) == {"key": body}
        with pytest.raises(PreconditionFailedError):
            await store.put("bucket", "none", b"x", if_match=info)
        with pytest.raises(BucketNotFoundError):
            await store.put("none", "none", b"x", if_match=info)


@pytest.mark.parametrize("step", ["put", "commit"])
async def test_object_that_appears_on_the_primary_is_not_replaced(step: str) -> None:
    async with migration() as (store, new, old):
        await write_to(old, "key", b"old")
        info = await store.head("bucket", "key")
        appeared = False

        async def appear() -> None:
            nonlocal appeared
            if not appeared:
                appeared = True
                await write_to(new, "key", b"newer")

        new.before[step] = appear
        with pytest.raises(PreconditionFailedError) as caught:
            await store.put("bucket", "key", b"x" if step == "put" else BODY, if_match=info)
        assert not isinstance(caught.value, ObjectExistsError)
        assert await store.read("bucket", "key") == b"newer"


async def test_delete_if_match_on_another_member_deletes_only_what_it_matches() -> None:
    async with migration() as (store, new, old):
        await write_to(old, "key", b"old")
        info = await store.head("bucket", "key")

        async def appear() -> None:
            await write_to(new, "key", b"newer")

        old.before["delete"] = appear
        await store.delete("bucket", "key", if_match=info)
        assert await contents(old) == {}
        assert await contents(new) == {"key": b"newer"}


async def test_copy_of_an_older_object_passes_through_the_store() -> None:
    async with migration() as (store, new, old):
        await write_to(old, "key", BODY, metadata={"a": "1"})
        await store.copy("bucket", "key", "bucket", "copy")
        assert (new.count("copy"), old.count("copy")) == (0, 0)
        await store.copy("bucket", "copy", "bucket", "again")
        assert new.count("copy") == 1
        # Onto itself it is a change of metadata, which also migrates the object.
        await store.copy("bucket", "key", "bucket", "key", metadata={"b": "2"})
        assert (await new.head("bucket", "key")).metadata == {"b": "2"}
        await store.move("bucket", "key", "bucket", "moved")
        assert sorted(await contents(new)) == ["again", "copy", "moved"]
        assert not await store.exists("bucket", "key")


async def test_move_of_an_older_object_deletes_it() -> None:
    async with migration() as (store, new, old):
        await write_to(old, "key", BODY)
        await store.move("bucket", "key", "bucket", "moved")
        assert await contents(new) == {"moved": BODY}
        assert await contents(old) == {}


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
@pytest.mark.parametrize("delimiter", [None, "/"])
@pytest.mark.parametrize("kinds", ["ordered", "unordered old", "unordered new"])
async def test_listing_merges_the_members(kinds: str, delimiter: str | None, limit: int) -> None:
    new: Any = Unordered() if kinds == "unordered new" else Fake()
    old: Any = Unordered() if kinds == "unordered old" else Fake()
    async with store_with(Fallback(new, old, on_missing=True)) as (store, _):
        await old.create_bucket("bucket")
        for key in ("a", "b/1", "b/2", "c", "e/1", "é"):
            await write_to(new, key, b"new")
        for key in ("a", "a/1", "b/2", "b/3", "d", "e/1", "z/1", "z/2"):
            await write_to(old, key, b"older")
        if delimiter is None:
            expected = ["a", "a/1", "b/1", "b/2", "b/3", "c", "d", "e/1", "z/1", "z/2", "é"]
        else:
            expected = ["a", "a/", "b/", "c", "d", "e/", "z/", "é"]
        entries = await list_all(driver_of(store), "bucket", delimiter=delimiter, limit=limit)
        listed = [entry.key for entry in entries]
        assert sorted(listed) == expected
        assert listed == expected or kinds != "ordered"
        new_keys = await contents(new)
        for entry in entries:
            if isinstance(entry, ObjectInfo):
                assert entry.size == (3 if entry.key in new_keys else 5)
                assert (await store.head("bucket", entry.key)).etag == entry.etag


async def test_listing_raises_if_a_member_is_not_available() -> None:
    async with migration() as (store, _, old):
        old.fail("list_page")
        with pytest.raises(UnavailableError):
            await store.list("bucket").all()


async def test_bucket_with_an_older_object_is_not_deleted() -> None:
    async with migration() as (store, new, old):
        await write_to(old, "key", b"old")
        with pytest.raises(BucketNotEmptyError):
            await store.delete_bucket("bucket")
        await new.head_bucket("bucket")
        with pytest.raises(BucketNotFoundError):
            await store.delete_bucket("none")


async def test_key_that_another_member_cannot_store_is_missing_there() -> None:
    class Picky(Fake):
        def _check(self, key: str) -> None:
            if key == "odd":
                raise InvalidNameError("no such key can be stored", key=key)

        async def begin(self, call: Any) -> None:
            if call.key is not None:
                self._check(call.key)
            await super().begin(call)

        async def delete_many(self, bucket: str, keys: Any) -> Any:
            for key in keys:
                self._check(key)
            return await super().delete_many(bucket, keys)

    new, old = Fake(), Picky()
    async with store_with(Fallback(new, old, on_missing=True)) as (store, _):
        await old.create_bucket("bucket")
        assert not await store.exists("bucket", "odd")
        await store.put("bucket", "odd", b"body", if_none_match="*")
        await store.delete("bucket", "odd")
        await write_to(old, "key", b"old")
        await store.put("bucket", "odd", b"body")
        await driver_of(store).delete_many("bucket", ["odd", "key"])
        assert await contents(new) == await contents(old) == {}


async def test_bucket_whose_name_another_member_cannot_have_is_missing_there() -> None:
    class Lowercase(Fake):
        async def begin(self, call: Any) -> None:
            if call.bucket == "UPPER":
                raise InvalidNameError("only lower case", bucket=call.bucket)
            await super().begin(call)

    for old in (Lowercase(), Lowercase(ordered=False)):
        async with store_with(Fallback(Fake(), old, on_missing=True)) as (store, _):
            with pytest.raises(BucketNotFoundError):
                await store.delete("UPPER", "key")
            await store.create_bucket("UPPER")
            await store.put("UPPER", "key", b"body", if_none_match="*")
            assert [info.key for info in await store.list("UPPER").all()] == ["key"]
            assert not await store.exists("UPPER", "none")
            await store.delete("UPPER", "key")
            await store.delete_bucket("UPPER")
            with pytest.raises(BucketNotFoundError):
                await store.delete_bucket("UPPER")


async def test_versions_and_presigned_urls_are_refused_with_on_missing() -> None:
    layer = Fallback(VersionedMemory(), VersionedMemory(), on_missing=True)
    async with opened(layer):
        assert (layer.capabilities.versions, layer.capabilities.presign) == (False, False)
        with pytest.raises(NotSupportedError):
            await layer.version_page("bucket", ListOptions())
        with pytest.raises(NotSupportedError):
            await layer.presign("GET", "bucket", "key", 60, PresignOptions())


async def test_presigned_url_is_that_of_the_primary() -> None:
    class Signing(Fake):
        async def presign(self, method: str, bucket: str, key: str, *_: Any) -> str:
            return f"{method} {bucket}/{key}"

    layer = Fallback(Signing(presign=True), MemoryDriver())
    async with opened(layer):
        assert layer.capabilities.presign
        assert await layer.presign("PUT", "b", "k", 60, PresignOptions()) == "PUT b/k"


async def test_ping_and_place_are_those_of_the_primary() -> None:
    layer, new, old = pair(on_missing=True)
    assert layer.place("b", "k") == new.place("b", "k")
    async with store_with(layer) as (store, _):
        old.fail("ping")
        assert (await store.health())["default"].ok
        new.fail("ping")
        assert not (await store.health())["default"].ok


async def test_migration_loses_nothing_while_objects_move() -> None:
    async with migration() as (store, _, old):
        bodies = {f"{number}": b"%d" % number * 100 for number in range(30)}
        for key, body in bodies.items():
            await write_to(old, key, body)

        async def migrate() -> None:
            for key in bodies:
                await store.copy("bucket", key, "bucket", key)

        async def read_all() -> None:
            for _ in range(5):
                for key, body in bodies.items():
                    assert await store.read("bucket", key) == body

        async def list_keys() -> None:
            for _ in range(10):
                assert len(await store.list("bucket").all()) == len(bodies)

        async with task_group() as group:
            for work in (migrate, read_all, list_keys):
                group.start_soon(work)
        assert await contents(old) == bodies
        assert [info.key for info in await store.list("bucket").all()] == sorted(bodies)


# -- a read-only member ----------------------------------------------------------------------------------


@asynccontextmanager
async def read_only_migration(wrap: Any = None) -> AsyncIterator[tuple[Trove, Fake, Fake]]:
    """Open a store of a Fallback whose second member is read-only and has the object ``old``."""
    new, old = Fake(), Fake()
    layer = Fallback(new, ReadOnly(old), on_missing=True)
    await fill(old, "bucket", "old")
    async with Trove(layer if wrap is None else wrap(layer), retry=NO_RETRIES) as store:
        await store.create_bucket("bucket")
        await store.put("bucket", "new", b"new")
        yield store, new, old


def _mapped(layer: AsyncDriver) -> AsyncDriver:
    return Hedged(Mapped(layer, buckets={"bucket": "bucket"}))


@pytest.mark.parametrize("wrap", [None, _mapped])
async def test_what_a_read_only_member_lacks_is_deleted_and_moved(wrap: Any) -> None:
    async with read_only_migration(wrap) as (store, new, _):
        await store.move("bucket", "new", "bucket", "moved")
        assert new.stored_keys("bucket") == ["moved"]
        await store.delete("bucket", "moved")
        await store.delete("bucket", "missing")
        await store.put("bucket", "one", b"1")
        info = await store.put("bucket", "two", b"2")
        await store.delete("bucket", "two", if_match=info)
        await store.delete_many("bucket", ["one", "missing"])
        assert new.stored_keys("bucket") == []


@pytest.mark.parametrize("wrap", [None, _mapped])
async def test_what_a_read_only_member_has_is_refused_before_anything_is_done(wrap: Any) -> None:
    async with read_only_migration(wrap) as (store, new, old):
        await store.put("bucket", "old", b"newer")
        with pytest.raises(NotSupportedError, match="is read-only and has the object"):
            await store.delete("bucket", "old")
        with pytest.raises(NotSupportedError, match="is read-only and has the object"):
            await store.move("bucket", "old", "bucket", "moved")
        assert new.stored_keys("bucket") == ["new", "old"]
        results = await driver_of(store).delete_many("bucket", ["old", "new", "missing"])
        assert [(one.key, type(one.error)) for one in results] == [
            ("old", NotSupportedError),
            ("new", type(None)),
            ("missing", type(None)),
        ]
        assert new.stored_keys("bucket") == ["old"]
        assert old.stored_keys("bucket") == ["old"]
        with pytest.raises((NotSupportedError, BucketNotEmptyError)):
            await store.delete_bucket("bucket")


async def test_bucket_that_a_read_only_member_lacks_is_deleted() -> None:
    new, old = Fake(), Fake()
    async with Trove(Fallback(new, ReadOnly(old), on_missing=True)) as store:
        await store.create_bucket("bucket")
        await store.put("bucket", "key", b"1")
        await store.delete("bucket", "key")
        await store.delete_bucket("bucket")
        with pytest.raises(BucketNotFoundError):
            await store.delete("bucket", "key")
        await store.create_bucket("bucket")
        await old.create_bucket("bucket")
        with pytest.raises(NotSupportedError, match="has the bucket"):
            await store.delete_bucket("bucket")


async def test_deletion_on_all_backends_is_refused_before_any_is_made() -> None:
    new, old, other = Fake(), Fake(), Fake()
    layer = Fallback(new, ReadOnly(old), on_missing=True)
    await fill(old, "bucket", "key")
    async with Trove(layer, backends={"other": other}, locate="anywhere") as store:
        await store.create_bucket("bucket", backends="all", exist_ok=True)
        await store.backend("other").put("bucket", "key", b"hidden")
        with pytest.raises(NotSupportedError, match="is read-only and has the object"):
            await store.delete("bucket", "key")
        assert other.stored_keys("bucket") == ["key"]
