"""The layer `Mirrored`: conformance, reads, writes and what replicas miss."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.drivers.s3.test_conformance import SEAWEEDFS_REFUSED_KEYS
from tests.drivers.s3.test_conformance import driver_of as driver_of_server
from tests.fakes import Fake, Unordered, content, small_pool
from tests.layers.mirroring import (
    assert_nothing_held,
    contents,
    differences,
    driver_of,
    finish_replicas,
    of_kind,
    read_with,
    repair_all,
    replicated,
    store_with,
    write_to,
)
from tests.server_quirks import expect_failures
from tests.versioned_memory import VersionedMemory
from trove_async import BufferPool, Trove
from trove_async._concurrency import OwnedTask, task_group
from trove_async._resilience import upload
from trove_async.driver import Capabilities, DriverInUseError
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.errors import (
    BucketExistsError,
    BucketNotEmptyError,
    BucketNotFoundError,
    ClosedError,
    ConfigError,
    CursorError,
    InvalidNameError,
    NotSupportedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PermissionDeniedError,
    PoolTimeoutError,
    PreconditionFailedError,
    StorageFullError,
    TroveError,
    UnavailableError,
)
from trove_async.layers import Mapped, Mirrored
from trove_async.layers._copies.combined import common_capabilities
from trove_async.layers._copies.members import tag, untag
from trove_async.models import DeleteResult, KiB, MiB
from trove_async.options import DeleteOptions, ListOptions, Part, PresignOptions, PutOptions
from trove_async.testing import DriverSuite, DriverVersions, Faulty, StoreSuite, opened
from trove_async.testing._harness import keys, parts, read, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from trove_async.driver import AsyncDriver
    from trove_async.testing.servers import S3Server

BODY = content(2 * MiB + 300 * KiB, "new")  # three parts in a small pool


# -- conformance -------------------------------------------------------------------------------------


class TestMemoryAndMemory(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return Mirrored(MemoryDriver(), MemoryDriver())


class TestMemoryAndLocal(DriverSuite):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> AsyncDriver:
        return Mirrored(MemoryDriver(), LocalDriver(tmp_path, fsync=False))


class TestAcknowledgedByPrimary(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return Mirrored(MemoryDriver(), MemoryDriver(), MemoryDriver(), acknowledge="primary")


class TestUnorderedReplica(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return Mirrored(MemoryDriver(), Unordered(), acknowledge=1)


class TestNested(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        mapped = Mapped(MemoryDriver(), into="all", prefix="p")
        inner = Mirrored(MemoryDriver(), mapped, acknowledge=1)
        return Mapped(Mirrored(inner, MemoryDriver()), into="outer")


class TestVersions(DriverVersions):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        self.members = [VersionedMemory(), VersionedMemory()]
        return Mirrored(*self.members)

    async def keep_versions(self, backend: AsyncDriver, bucket: str) -> None:
        del backend
        for member in self.members:
            member.versioned_buckets.add(bucket)


class TestMinimalMembers(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        minimal = Capabilities()
        return Mirrored(
            Faulty(MemoryDriver(), capabilities=minimal),
            Faulty(MemoryDriver(), capabilities=minimal),
        )


@expect_failures({"test_key_of_max_key_bytes_is_kept": "SeaweedFS limits a segment to 255 bytes"})
class TestReplicaOnSeaweed(DriverSuite):
    refused_keys = SEAWEEDFS_REFUSED_KEYS

    @pytest.fixture
    def driver(self, tmp_path: Path, seaweed: S3Server) -> AsyncDriver:
        return Mirrored(LocalDriver(tmp_path, fsync=False), driver_of_server(seaweed))


@pytest.mark.soak  # the routed store is run always
class TestStore(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        mirror = Mirrored(MemoryDriver(), MemoryDriver())
        async with Trove(mirror, pool=BufferPool(4 * MiB, 1 * MiB, spill_after=0.05)) as store:
            yield store


class TestRoutedStore(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Trove]:  # type: ignore[override]  # a fixture
        mirror = Mirrored(MemoryDriver(), LocalDriver(tmp_path, fsync=False))
        async with Trove(
            MemoryDriver(),
            backends={"mirror": mirror},
            routes=[("[a-k]*", "mirror"), ("*/1", "mirror")],
            pool=small_pool(),
        ) as store:
            yield store


# -- settings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "acknowledge", "error", "message"),
    [
        (0, "all", ConfigError, "at least one replica"),
        (1, 0, ConfigError, "from 1 to 2, got 0"),
        (1, 3, ConfigError, "from 1 to 2, got 3"),
        (1, "some", TypeError, "got 'some'"),
        (1, True, TypeError, "got bool"),
        (1, 1.0, TypeError, "got float"),
    ],
)
def test_invalid_settings_are_rejected(
    arguments: int, acknowledge: Any, error: type[Exception], message: str
) -> None:
    replicas = [MemoryDriver() for _ in range(arguments)]
    with pytest.raises(error, match=message):
        Mirrored(MemoryDriver(), *replicas, acknowledge=acknowledge)


def test_members_must_be_different_drivers() -> None:
    driver: Any = MemoryDriver()
    with pytest.raises(ConfigError, match="a different one"):
        Mirrored(driver, driver)
    with pytest.raises(TypeError, match="must be a driver"):
        Mirrored(driver, object())  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        Mirrored(driver, "nonsense://")
    assert [inner.name for inner in Mirrored("mem://", "mem://").inner] == ["memory", "memory"]


async def test_layer_is_used_by_one_store() -> None:
    mirror = Mirrored(MemoryDriver(), MemoryDriver())
    with pytest.raises(ClosedError):
        await mirror.head("bucket", "key")
    async with opened(mirror):
        with pytest.raises(DriverInUseError):
            async with opened(mirror):
                pass
    async with opened(mirror):
        await mirror.create_bucket("bucket")


def test_common_capabilities_cover_every_field() -> None:
    claims: dict[str, Any] = {
        field.name: True
        for field in fields(Capabilities)
        if isinstance(getattr(Capabilities(), field.name), bool)
    }
    most = Capabilities(**claims, checksums=frozenset({"crc32c", "md5"}), max_reads=4)
    other = replace(
        most, ordered=False, checksums=frozenset({"md5"}), part_multiple=4, min_part=10, max_put=99
    )
    assert common_capabilities([most, most]) == most
    common = common_capabilities([replace(most, part_multiple=6, min_part=3, max_parts=7), other])
    assert common == replace(
        most,
        ordered=False,
        checksums=frozenset({"md5"}),
        part_multiple=12,
        min_part=10,
        max_put=99,
        max_parts=7,
    )
    # No part is a multiple of 12, at least 13 and at most 20 bytes long.
    assert not common_capabilities(
        [replace(most, part_multiple=12, min_part=13), replace(most, max_part=20)]
    ).upload


def test_capabilities_follow_the_primary_for_conditions() -> None:
    claims = Mirrored(Fake(put_if_match=False), Fake(put_if_none_match=False)).capabilities
    assert (claims.put_if_match, claims.put_if_none_match) == (False, True)
    assert claims.replicated
    assert (claims.presign, claims.settles_doubt) == (False, False)


def test_storage_classes_are_those_of_one_service(tmp_path: Path) -> None:
    one, other = Fake(storage_class=True), Fake(storage_class=True)
    assert Mirrored(one, other).capabilities.storage_class
    assert not Mirrored(one, LocalDriver(tmp_path)).capabilities.storage_class


@pytest.mark.parametrize(
    "value", ["etag", "", "trove-member-", "trove-member-x:1", "trove-member-1:a", "a:b", "²:1"]
)
def test_tagged_value_is_untagged(value: str) -> None:
    for member in (0, 1, 12):
        assert untag(tag(member, value)) == (member, value) or (
            # Only a value that no tag can have been put on is returned unchanged.
            member == 0 and not value.startswith("trove-member-")
        )
    assert tag(0, "etag") == "etag"


def test_malformed_tagged_value_belongs_to_the_primary() -> None:
    for value in ("trove-member-1", "trove-member-²:x", f"trove-member-{'9' * 5000}:x"):
        assert untag(value) == (0, value)


# -- writes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"body", BODY], ids=["empty", "small", "parts"])
async def test_all_members_have_the_same_object(body: bytes) -> None:
    one, two, three = Fake(), Fake(), Fake()
    options: dict[str, Any] = {
        "metadata": {"a": "1"},
        "tags": {"t": "2"},
        "content_type": "text/plain",
        "cache_control": "no-store",
    }
    async with store_with(Mirrored(one, two, three)) as (store, events):
        info = await store.put("bucket", "key", body, **options)
        primary = await one.head("bucket", "key")
        assert info.etag == primary.etag
        assert info.missed_replicas == ()
        for member in (one, two, three):
            stored = await member.head("bucket", "key")
            for name in (*options, "write_id", "size", "checksums"):
                assert getattr(stored, name) == getattr(primary, name)
            assert await read(member, "bucket", "key") == body
        assert primary.write_id is not None
        assert of_kind(events, "missed") == []
        assert await differences(store) == {}
        assert_nothing_held(store, one, two, three)


async def test_body_is_read_once() -> None:
    pulled: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        for number in range(5):
            pulled.append(number)
            yield content(MiB, str(number))

    members = [MemoryDriver(), MemoryDriver(), MemoryDriver()]
    async with store_with(Mirrored(*members)) as (store, _):
        await store.put("bucket", "key", body())
        assert pulled == [0, 1, 2, 3, 4]
        bodies = [await read(member, "bucket", "key") for member in members]
        assert bodies[0] == bodies[1] == bodies[2] == b"".join(content(MiB, str(n)) for n in pulled)


@pytest.mark.parametrize("body", [b"body", BODY], ids=["small", "parts"])
async def test_condition_of_the_primary_leaves_replicas_unchanged(body: bytes) -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, events):
        await store.put("bucket", "key", b"old")
        with pytest.raises(ObjectExistsError):
            await store.put("bucket", "key", body, if_none_match="*")
        with pytest.raises(PreconditionFailedError):
            await store.put("bucket", "key", body, if_match="other")
        with pytest.raises(PreconditionFailedError):
            await store.delete("bucket", "key", if_match="other")
        assert await contents(two) == {"key": b"old"}
        assert of_kind(events, "missed") == []
        assert_nothing_held(store, one, two)


@pytest.mark.parametrize("body", [b"body", BODY], ids=["small", "parts"])
async def test_condition_applies_to_the_primary_only(body: bytes) -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, _):
        await write_to(two, "key", b"stale")  # such as after a deletion that it missed
        info = await store.put("bucket", "key", body, if_none_match="*")
        await store.put("bucket", "key", body + b"!", if_match=info)
        assert await contents(two) == {"key": body + b"!"}


@pytest.mark.parametrize("step", ["put", "upload", "send", "commit"])
@pytest.mark.parametrize(
    "error", [UnavailableError("down"), StorageFullError("full"), BucketNotFoundError("none")]
)
async def test_failing_replica_that_is_not_needed_misses_the_object(
    step: str, error: Exception
) -> None:
    one, two, three = Fake(), Fake(), Fake()
    body = b"body" if step == "put" else BODY
    async with store_with(Mirrored(one, two, three, acknowledge=2)) as (store, events):
        two.fail(step, error)
        info = await store.put("bucket", "key", body)
        assert info.missed_replicas == ("replica 1 (memory)",)
        assert of_kind(events, "missed") == [("put", "key", "replica 1 (memory)")]
        assert await contents(two) == {}
        assert await contents(three) == {"key": body}
        assert_nothing_held(store, one, two, three)
        assert await differences(store, deep=False) == {"key": {"replica 1 (memory)": "missing"}}
        result = await replicated(store).repair("bucket", "key")
        assert (result.copied, result.deleted) == (["replica 1 (memory)"], [])
        assert result.size == len(body)
        assert await contents(two) == {"key": body}
        assert await differences(store) == {}
        assert_nothing_held(store, one, two, three)


async def test_put_that_a_needed_replica_misses_says_that_the_primary_has_it() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, events):
        two.fail("put", PermissionDeniedError("the key expired"))
        with pytest.raises(UnavailableError) as caught:
            await store.put("bucket", "key", b"body")
        assert caught.value.maybe_done
        assert isinstance(caught.value.__cause__, PermissionDeniedError)
        for words in ("replica 1 (memory): PermissionDeniedError: the key expired", "primary has"):
            assert words in str(caught.value)
        assert of_kind(events, "missed") == [("put", "key", "replica 1 (memory)")]
        assert await store.read("bucket", "key") == b"body"
        assert await repair_all(store) == 1
        assert await contents(two) == {"key": b"body"}


@pytest.mark.parametrize("step", ["upload", "send"])
async def test_upload_that_a_needed_replica_cannot_take_leaves_nothing_visible(step: str) -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, events):
        await store.put("bucket", "key", b"old")
        two.fail(step)
        with pytest.raises(UnavailableError, match="nothing was stored") as caught:
            await store.put("bucket", "key", BODY)
        assert not caught.value.maybe_done
        assert await contents(one) == await contents(two) == {"key": b"old"}
        assert of_kind(events, "missed") == []
        assert_nothing_held(store, one, two)


async def test_replicas_are_reported_if_the_primary_may_have_the_object() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, events):
        one.fail("put.done")  # the response is lost
        with pytest.raises(UnavailableError):
            await store.put("bucket", "key", b"body")
        assert of_kind(events, "missed") == [("put", "key", "replica 1 (memory)")]
        assert await repair_all(store) == 1
        one.fail("commit.done")
        with pytest.raises(UnavailableError):
            await store.put("bucket", "key", BODY)
        assert len(of_kind(events, "missed")) == 2
        assert await repair_all(store) == 1
        assert await contents(one) == await contents(two) == {"key": BODY}


async def test_refused_put_of_the_primary_reports_nothing() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, events):
        for step, body in (("put", b"body"), ("commit", BODY)):
            one.fail(step, PermissionDeniedError("no"))
            with pytest.raises(PermissionDeniedError):
                await store.put("bucket", "key", body)
        assert of_kind(events, "missed") == []
        assert await contents(one) == await contents(two) == {}
        assert_nothing_held(store, one, two)


async def test_concurrent_writes_of_one_key_end_with_equal_members() -> None:
    class Slow(Fake):
        """A member whose writes, and the responses to them, take longer the earlier they are."""

        started = 0

        async def step(self, name: str, call: Any = None) -> None:
            if name.removesuffix(".done") in {"put", "commit", "delete"}:
                self.started += 1
                for _ in range(max(0, 200 - 10 * self.started)):
                    await asyncio.sleep(0)
            await super().step(name, call)

    for acknowledge in (1, 2):
        one, two = Slow(), Slow()
        mirror = Mirrored(one, two, acknowledge=acknowledge)
        async with store_with(mirror, pool=BufferPool(128 * MiB, 1 * MiB)) as (store, events):
            async with task_group() as group:
                for number in range(6):
                    group.start_soon(store.put, "bucket", "key", b"%d" % number)
                    group.start_soon(store.put, "bucket", "key", BODY + b"%d" % number)
                    group.start_soon(store.delete, "bucket", "key")
            await finish_replicas(store)
            assert of_kind(events, "missed") == []
            assert await contents(one) == await contents(two)
            assert await differences(store) == {}
            assert_nothing_held(store, one, two)


def wait_first(fake: Fake, step: str) -> tuple[asyncio.Event, asyncio.Event]:
    """Let the first pass through a step wait. Return the event that it sets, and the one to release it."""
    reached, release = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        if not reached.is_set():
            reached.set()
            await release.wait()

    fake.before[step] = wait
    return reached, release


@pytest.mark.parametrize("first", [b"first", BODY], ids=["small", "parts"])
async def test_later_write_reaches_a_replica_after_an_earlier_one(first: bytes) -> None:
    one, two = Fake(), Fake()
    mirror = Mirrored(one, two, acknowledge="primary")
    async with store_with(mirror, pool=BufferPool(16 * MiB, 1 * MiB)) as (store, events):
        reached, release = wait_first(two, "put" if len(first) < MiB else "commit")
        await store.put("bucket", "key", first)
        await reached.wait()
        await store.put("bucket", "key", b"second")
        for _ in range(50):
            await asyncio.sleep(0)
        assert await contents(two) == {}
        release.set()
        await finish_replicas(store)
        assert await contents(one) == await contents(two) == {"key": b"second"}
        assert of_kind(events, "missed") == []


@pytest.mark.parametrize("first", [b"first", BODY], ids=["small", "parts"])
async def test_write_waits_for_an_earlier_one_of_its_key(first: bytes) -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two), pool=BufferPool(16 * MiB, 1 * MiB)) as (store, _):
        # The primary has stored the first object, and its response is on its way.
        reached, release = wait_first(one, "put.done" if len(first) < MiB else "commit.done")
        async with task_group() as group:
            group.start_soon(store.put, "bucket", "key", first)
            await reached.wait()
            group.start_soon(store.put, "bucket", "key", b"second")
            for _ in range(50):
                await asyncio.sleep(0)
            release.set()
        assert await contents(one) == await contents(two) == {"key": b"second"}
        assert_nothing_held(store, one, two)


# -- replicas that need not be waited for ------------------------------------------------------------


@pytest.mark.parametrize("body", [b"body", BODY], ids=["small", "parts"])
async def test_slow_replica_gets_the_object_after_the_put_has_returned(body: bytes) -> None:
    one, two = Fake(parallel_parts=1), Fake(parallel_parts=1)
    async with store_with(
        Mirrored(one, two, acknowledge="primary"), pool=BufferPool(8 * MiB, 1 * MiB)
    ) as (store, events):
        release = asyncio.Event()
        two.before["put"] = two.before["commit"] = release.wait
        data = bytearray(body)
        info = await store.put("bucket", "key", data)
        data[:] = bytes(len(data))  # the caller's memory is its own again
        assert info.missed_replicas == ()
        assert await contents(two) == {}
        assert await store.read("bucket", "key") == body
        release.set()
        await finish_replicas(store)
        assert await contents(two) == {"key": body}
        assert of_kind(events, "missed") == []
        for _ in range(5):
            await asyncio.sleep(0)
        assert_nothing_held(store, one, two)


@pytest.mark.parametrize("parallel", [1, 4])
async def test_hanging_replica_delays_no_part_and_holds_at_most_one_for_each_in_flight(
    parallel: int,
) -> None:
    one, two = Fake(parallel_parts=parallel), Fake(parallel_parts=parallel)
    mirror = Mirrored(one, two, acknowledge="primary")
    pool = BufferPool(32 * MiB, 1 * MiB)
    body = content(20 * MiB, "20 parts")
    async with store_with(mirror, pool=pool) as (store, events):
        reached = two.hang("send")
        held: list[int] = []

        async def measure() -> None:
            # The body is in the user's memory, so only the replica's parts are leased.
            held.append(pool.statistics().leased)

        one.before["send.done"] = measure
        info = await store.put("bucket", "key", body)
        assert reached.is_set()
        assert info.missed_replicas == ("replica 1 (memory)",)
        assert of_kind(events, "missed") == [("put", "key", "replica 1 (memory)")]
        assert len(held) == 20
        assert 0 < max(held) <= parallel * MiB
        assert pool.statistics().peak <= parallel * MiB
        two.before.clear()
        assert await store.read("bucket", "key") == body
        assert_nothing_held(store, one, two)
        assert await repair_all(store) == 1
        assert await contents(two) == {"key": body}


async def test_replica_without_free_memory_misses_the_object() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two, acknowledge="primary")) as (store, events):
        with await store.pool.lease(MiB), await store.pool.lease(MiB):
            info = await store.put("bucket", "key", b"body")
        assert info.missed_replicas == ("replica 1 (memory)",)
        assert of_kind(events, "missed") == [("put", "key", "replica 1 (memory)")]
        assert_nothing_held(store, one, two)


async def test_memory_of_a_slow_replica_is_revoked_for_a_put_that_waits() -> None:
    one, two = Fake(), Fake()
    mirror = Mirrored(one, two, acknowledge="primary")
    async with store_with(mirror, pool=BufferPool(2 * MiB, 1 * MiB)) as (store, events):
        two.hang("put")
        await store.put("bucket", "slow", b"body")
        assert store.pool.statistics().leased == MiB
        with await store.pool.lease(MiB), await store.pool.lease(MiB):
            pass  # without the revocation this would wait for the replica
        assert of_kind(events, "missed") == [("put", "slow", "replica 1 (memory)")]
        two.before.clear()
        await finish_replicas(store)
        assert_nothing_held(store, one, two)


async def test_one_of_two_slow_replicas_is_waited_for() -> None:
    one, two, three = Fake(), Fake(), Fake()
    mirror = Mirrored(one, two, three, acknowledge=2)
    async with store_with(mirror, pool=BufferPool(8 * MiB, 1 * MiB)) as (store, events):
        releases = [asyncio.Event(), asyncio.Event()]
        two.before["put"], three.before["put"] = releases[0].wait, releases[1].wait
        task = OwnedTask(store.put("bucket", "key", b"body"))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not task.done
        releases[1].set()
        assert (await task.result()).missed_replicas == ()
        assert (await contents(two), await contents(three)) == ({}, {"key": b"body"})
        releases[0].set()
        await finish_replicas(store)
        assert await contents(two) == {"key": b"body"}
        assert of_kind(events, "missed") == []


@pytest.mark.parametrize("acknowledge", ["all", "primary"])
async def test_cancelled_part_is_not_used_by_any_member_and_can_be_sent_again(
    acknowledge: Any,
) -> None:
    one, two = Fake(), Fake()
    mirror = Mirrored(one, two, acknowledge=acknowledge)
    async with store_with(mirror, pool=BufferPool(16 * MiB, 1 * MiB)) as (store, _):
        memory = bytearray(b"x" * 1000)
        part = Part(number=1, offset=0, size=1000, last=True)
        async with driver_of(store).upload("bucket", "key", PutOptions()) as running:
            one.hang("send")
            reached = two.hang("send")
            task = OwnedTask(running.send(part, [memoryview(memory)]))
            await reached.wait()
            await task.aclose()
            assert (one.calls_under_way, two.calls_under_way) == (0, 0)
            assert store.pool.statistics().leased == 0
            one.before.clear()
            two.before.clear()
            await running.send(part, [memoryview(memory)])
            await running.commit({})
        await finish_replicas(store)
        assert await contents(one) == await contents(two) == {"key": bytes(memory)}
        assert_nothing_held(store, one, two)


async def test_commit_waits_until_enough_replicas_have_all_parts() -> None:
    one, two, three = Fake(), Fake(), Fake()
    mirror = Mirrored(one, two, three, acknowledge=2)
    async with store_with(mirror, pool=BufferPool(16 * MiB, 1 * MiB)) as (store, _):
        release = asyncio.Event()

        def lose_part(fake: Fake, number: int) -> None:
            async def lose() -> None:
                if fake.count("send") == number:
                    await release.wait()
                    raise UnavailableError("the part is lost")

            fake.before["send"] = lose

        # Each part is acknowledged by one replica, but none has both.
        lose_part(two, 1)
        lose_part(three, 2)
        uploading = driver_of(store).upload("bucket", "key", PutOptions())
        with pytest.raises(UnavailableError, match="nothing was stored"):
            async with uploading as running:
                for part, piece in parts(b"x" * 2000, 1000):
                    await running.send(part, piece)
                commit = OwnedTask(running.commit({}))
                for _ in range(50):
                    await asyncio.sleep(0)
                assert one.count("commit") == 0
                release.set()
                await commit.result()
        assert await contents(one) == {}
        assert_nothing_held(store, one, two, three)


async def test_closing_the_store_ends_the_tasks_of_replicas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upload, "COMMIT_SECONDS", 0.02)
    one, two = Fake(), Fake()
    mirror = Mirrored(one, two, acknowledge="primary")
    before = asyncio.all_tasks()
    async with store_with(mirror, pool=BufferPool(8 * MiB, 1 * MiB)) as (store, events):
        two.hang("put")
        two.hang("commit")
        await store.put("bucket", "small", b"body")
        await store.put("bucket", "large", BODY)
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() - before == set()
    assert store.pool.statistics().leased == 0
    assert two.open_uploads == 0
    assert sorted(of_kind(events, "missed")) == [
        ("put", "large", "replica 1 (memory)"),
        ("put", "small", "replica 1 (memory)"),
    ]


async def test_replica_far_behind_misses_further_deletions() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two, acknowledge="primary")) as (store, events):
        two.hang("delete")
        for number in range(300):
            await store.delete("bucket", f"{number}")
        assert len(of_kind(events, "missed")) == 300 - 256


# -- reads ---------------------------------------------------------------------------------------------


READS: dict[str, tuple[str, Callable[[Trove], Awaitable[Any]]]] = {
    "head": ("head", lambda store: store.head("bucket", "key")),
    "read": ("get", lambda store: store.read("bucket", "key")),
    "list": ("list_page", lambda store: store.list("bucket").all()),
    "list_buckets": ("list_buckets", lambda store: store.list_buckets()),
    "head_bucket": ("head_bucket", lambda store: driver_of(store).head_bucket("bucket")),
}


@pytest.mark.parametrize("name", READS)
async def test_read_comes_from_the_first_available_member(name: str) -> None:
    step, call = READS[name]
    one, two, three = Fake(), Fake(), Fake()
    async with store_with(Mirrored(one, two, three)) as (store, events):
        await store.put("bucket", "key", b"body")
        expected = await call(store)
        events.clear()
        one.fail(step)
        two.fail(step)
        result = await call(store)
        if name == "head":
            assert (result.size, result.write_id) == (expected.size, expected.write_id)
            assert result.etag == tag(2, (await three.head("bucket", "key")).etag or "")
        elif name in {"read", "list_buckets"}:
            assert [*map(str, result)] == [*map(str, expected)] or name == "list_buckets"
        operation = {"read": "get"}.get(name, name)
        (fallback,) = [event for event in events if event.kind == "fallback"]
        assert (fallback.operation, fallback.member) == (operation, "replica 2 (memory)")
        assert isinstance(fallback.error, UnavailableError)
        assert three.count(step) > 0


@pytest.mark.parametrize("name", READS)
async def test_error_of_the_primary_is_raised_if_no_member_is_available(name: str) -> None:
    step, call = READS[name]
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, _):
        one.fail(step, UnavailableError("the first is down"))
        two.fail(step, UnavailableError("the second is down"))
        with pytest.raises(UnavailableError, match="the first is down") as caught:
            await call(store)
        assert caught.value.__notes__ == [
            "(replica 1 (memory): UnavailableError: the second is down)"
        ]


@pytest.mark.parametrize(
    "error",
    [PermissionDeniedError("no"), ObjectNotFoundError("no"), PoolTimeoutError("our own queue")],
)
async def test_other_errors_of_the_primary_are_results(error: Exception) -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, events):
        await store.put("bucket", "key", b"body")
        one.fail("head", error)
        with pytest.raises(type(error)):
            await driver_of(store).head("bucket", "key")
        assert two.count("head") == 0
        assert of_kind(events, "fallback") == []


async def test_pinned_read_goes_to_the_member_of_the_etag_alone() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, _):
        await store.put("bucket", "key", b"body")
        one.fail("head")
        from_replica = await store.head("bucket", "key")
        one.steps.clear()
        assert await read_with(store, "key", if_match=from_replica.etag) == b"body"
        assert one.count("get") == 0
        # Not available is never reported as changed.
        two.fail("get")
        with pytest.raises(UnavailableError):
            await read_with(store, "key", if_match=from_replica.etag)
        from_primary = await store.head("bucket", "key")
        one.fail("get")
        with pytest.raises(UnavailableError):
            await read_with(store, "key", if_match=from_primary.etag)
        await store.put("bucket", "key", b"new")
        for etag in (from_replica.etag, from_primary.etag):
            with pytest.raises(PreconditionFailedError):
                await read_with(store, "key", if_match=etag)


async def test_revalidation_fails_over_without_the_condition() -> None:
    one, two = Fake(), Fake()
    one._token = two._token  # equal etags, as on services whose etags are hashes of the body
    async with store_with(Mirrored(one, two)) as (store, _):
        etag = (await store.put("bucket", "key", b"body")).etag
        with pytest.raises(PreconditionFailedError):
            await read_with(store, "key", if_none_match=etag)
        one.fail("get")
        assert await read_with(store, "key", if_none_match=etag) == b"body"
        replica_etag = tag(1, (await two.head("bucket", "key")).etag or "")
        assert await read_with(store, "key", if_none_match=replica_etag) == b"body"
        one.fail("get")
        with pytest.raises(PreconditionFailedError):
            await read_with(store, "key", if_none_match=replica_etag)


async def test_ranged_and_resumed_reads_of_a_replica() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, _):
        await store.put("bucket", "key", BODY)
        one.fail("get", times=None)
        assert await store.read("bucket", "key", range=(5, 50)) == BODY[5:50]
        assert await store.read("bucket", "key") == BODY
        ranges = [(0, 10), (MiB, MiB + 9)]
        one.fail("head", times=None)
        assert await store.get_ranges("bucket", "key", ranges) == [BODY[0:10], BODY[MiB : MiB + 9]]


@pytest.mark.parametrize("delimiter", [None, "/"])
async def test_listing_continues_on_another_member_at_its_last_key(delimiter: str | None) -> None:
    names = ["a", "b/1", "b/2", "b/3", "c", "d/1", "e", "f"]
    for failing in range(8):
        one, two = Fake(), Fake()
        async with store_with(Mirrored(one, two)) as (store, _):
            for name in names:
                await store.put("bucket", name, b"")
            expected = await keys(one, "bucket", delimiter=delimiter)
            driver, token, listed, page_number = driver_of(store), None, list[str](), 0
            while True:
                if page_number == failing:
                    one.fail("list_page", times=None)
                options = ListOptions(limit=2, token=token, delimiter=delimiter)
                page = await driver.list_page("bucket", options)
                listed += [entry.key for entry in page.entries]
                token, page_number = page.token, page_number + 1
                if token is None:
                    break
            assert listed == expected


async def test_unordered_listing_does_not_change_its_member() -> None:
    one, two = Unordered(), MemoryDriver()
    async with opened(Mirrored(one, two)) as layer:
        await layer.create_bucket("bucket")
        for number in range(4):
            await write(layer, "bucket", f"{number}")
        page = await layer.list_page("bucket", ListOptions(limit=2))
        one.fail("list_page", UnavailableError("down"))
        with pytest.raises(UnavailableError):
            await layer.list_page("bucket", ListOptions(limit=2, token=page.token))


@pytest.mark.parametrize("token", ["", "x", "1", "1:", "1:9:a", "7:0:", "²:0:", "0:²:", ":0:"])
async def test_malformed_token_is_refused(token: str) -> None:
    async with opened(Mirrored(MemoryDriver(), MemoryDriver())) as layer:
        await layer.create_bucket("bucket")
        with pytest.raises(CursorError):
            await layer.list_page("bucket", ListOptions(token=token))


# -- conditions with the etag of a replica -------------------------------------------------------------


async def test_write_with_an_etag_of_a_replica_replaces_the_same_object_of_the_primary() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, _):
        await store.put("bucket", "key", b"old")
        info = await store.head("bucket", "key")
        for body in (b"new", BODY, b"newer"):
            one.fail("head")
            info = await store.head("bucket", "key")
            assert info.etag is not None
            assert info.etag.startswith("trove-member-1:")
            await store.put("bucket", "key", body, if_match=info)
            assert await contents(one) == await contents(two) == {"key": body}
        with pytest.raises(PreconditionFailedError):
            await store.put("bucket", "key", b"", if_match=info)
        one.fail("head")
        info = await store.head("bucket", "key")
        await store.delete("bucket", "key", if_match=info)
        with pytest.raises(PreconditionFailedError):
            await store.put("bucket", "key", b"", if_match=info)
        assert await contents(one) == await contents(two) == {}


async def test_write_with_an_etag_of_a_stale_replica_fails() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, _):
        await store.put("bucket", "key", b"old")
        await write_to(one, "key", b"NEW")  # the replica has missed this
        one.fail("head")
        stale = await store.head("bucket", "key")
        for call in (
            lambda: store.put("bucket", "key", b"x", if_match=stale),
            lambda: store.delete("bucket", "key", if_match=stale),
        ):
            with pytest.raises(PreconditionFailedError, match="replica"):
                await call()
            two.fail("head")
            with pytest.raises(UnavailableError):
                await call()
        assert await contents(one) == {"key": b"NEW"}


# -- deletes, copies, buckets --------------------------------------------------------------------------


async def test_deletion_that_a_replica_missed_shows_only_without_the_primary() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two, acknowledge="primary")) as (store, events):
        await store.put("bucket", "key", b"body")
        await finish_replicas(store)
        two.fail("delete")
        await store.delete("bucket", "key")
        await finish_replicas(store)
        assert of_kind(events, "missed") == [("delete", "key", "replica 1 (memory)")]
        assert not await store.exists("bucket", "key")
        one.fail("head")
        assert await store.exists("bucket", "key")
        assert await differences(store, deep=False) == {"key": {"replica 1 (memory)": "surplus"}}
        with pytest.raises(BucketNotEmptyError, match="repair"):
            await store.delete_bucket("bucket")
        result = await replicated(store).repair("bucket", "key")
        assert (result.copied, result.deleted) == ([], ["replica 1 (memory)"])
        await store.delete_bucket("bucket")


async def test_deletion_of_many_keys_reports_each_key_that_a_replica_missed() -> None:
    class Refusing(Fake):
        async def delete_many(self, bucket: str, keys: Any) -> Any:
            results = await super().delete_many(bucket, [key for key in keys if key != "b"])
            return [*results, DeleteResult(key="b", error=PermissionDeniedError("no"))]

    for acknowledge in (1, 2):
        one, two = Fake(), Refusing()
        async with store_with(Mirrored(one, two, acknowledge=acknowledge)) as (store, events):
            for key in "abc":
                await store.put("bucket", key, b"")
            await finish_replicas(store)
            deletion = await driver_of(store).delete_many("bucket", ["a", "b", "c", "none"])
            await finish_replicas(store)
            errors = {result.key: result.error for result in deletion}
            assert [key for key, error in errors.items() if error] == (
                ["b"] if acknowledge == 2 else []
            )
            assert of_kind(events, "missed") == [("delete", "b", "replica 1 (memory)")]
            assert (await contents(one), await contents(two)) == ({}, {"b": b""})
            two.fail("delete_many", UnavailableError("down"))
            await store.put("bucket", "a", b"")
            await finish_replicas(store)
            (result,) = await driver_of(store).delete_many("bucket", ["a"])
            assert (result.error is None) == (acknowledge == 1)
            await finish_replicas(store)
            assert_nothing_held(store, one)


async def test_copy_is_made_by_each_member_that_has_the_source() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, _):
        await store.put("bucket", "source", BODY, metadata={"a": "1"})
        for fake in (one, two):
            fake.steps.clear()
        await store.copy("bucket", "source", "bucket", "copy", metadata={"b": "2"})
        await store.copy("bucket", "copy", "bucket", "copy", metadata={"c": "3"})
        for fake in (one, two):
            assert fake.count("copy") == 2
            assert fake.count("get") == 0
            assert (await fake.head("bucket", "copy")).metadata == {"c": "3"}
        assert await differences(store) == {}


@pytest.mark.parametrize("stale", [None, b"other", BODY[::-1]])
async def test_replica_without_the_source_of_a_copy_gets_it_from_the_primary(
    stale: bytes | None,
) -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, _):
        await store.put("bucket", "source", BODY)
        await two.delete("bucket", "source", DeleteOptions())
        if stale is not None:
            await write_to(two, "source", stale)
        info = await store.copy("bucket", "source", "bucket", "copy", metadata={"b": "2"})
        assert info.missed_replicas == ()
        assert (await contents(two))["copy"] == BODY
        assert (await two.head("bucket", "copy")).metadata == {"b": "2"}
        assert list(await differences(store)) == ["source"]
        assert_nothing_held(store, one, two)


async def test_copy_that_a_replica_missed_is_reported() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two, acknowledge=1)) as (store, events):
        await store.put("bucket", "source", b"body")
        await finish_replicas(store)
        two.fail("copy")
        await store.copy("bucket", "source", "bucket", "copy")
        await finish_replicas(store)
        assert of_kind(events, "missed") == [("copy", "copy", "replica 1 (memory)")]
        assert await repair_all(store) == 1


async def test_copy_of_an_object_that_a_replica_has_described_passes_through_the_store() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, _):
        await store.put("bucket", "source", b"body")
        one.fail("head")
        await store.copy("bucket", "source", "bucket", "copy")
        assert (one.count("copy"), two.count("copy")) == (0, 0)
        assert await contents(one) == await contents(two)
        assert await differences(store) == {}


async def test_bucket_is_created_on_all_members() -> None:
    one, two, three = Fake(), Fake(), Fake()
    async with store_with(Mirrored(one, two, three)) as (store, _):
        await three.create_bucket("new")
        await store.create_bucket("new")
        for fake in (one, two, three):
            await fake.head_bucket("new")
        # A member that lacks an existing bucket gets it.
        await two.delete_bucket("new")
        with pytest.raises(BucketExistsError):
            await store.create_bucket("new")
        await two.head_bucket("new")
        await store.delete_bucket("new")
        for fake in (one, two, three):
            with pytest.raises(BucketNotFoundError):
                await fake.head_bucket("new")


async def test_bucket_that_the_primary_refuses_is_created_nowhere() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, _):
        one.fail("create_bucket", PermissionDeniedError("no"))
        with pytest.raises(PermissionDeniedError):
            await store.create_bucket("new")
        assert [info.name for info in await two.list_buckets()] == ["bucket"]


@pytest.mark.parametrize("error", [InvalidNameError("only lower case"), UnavailableError("down")])
async def test_bucket_that_a_needed_replica_refuses_is_created_nowhere(error: TroveError) -> None:
    one, two, three = Fake(), Fake(), Fake()
    async with store_with(Mirrored(one, two, three)) as (store, events):
        three.fail("create_bucket", error)
        with pytest.raises(type(error)) as caught:
            await store.create_bucket("new")
        assert "primary has done it" not in str(caught.value)
        for fake in (one, two, three):
            assert [info.name for info in await fake.list_buckets()] == ["bucket"]
        assert of_kind(events, "missed") == []


async def test_bucket_is_deleted_only_if_enough_members_are_available() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two)) as (store, _):
        two.fail("list_page")
        with pytest.raises(UnavailableError, match="nothing was stored"):
            await store.delete_bucket("bucket")
        await one.head_bucket("bucket")


async def test_put_into_a_bucket_that_a_replica_lacks_is_missed_and_repaired() -> None:
    one, two = Fake(), Fake()
    async with store_with(Mirrored(one, two, acknowledge=1), pool=BufferPool(8 * MiB, MiB)) as (
        store,
        events,
    ):
        await two.delete_bucket("bucket")
        await store.put("bucket", "key", b"body")
        await store.put("bucket", "large", BODY)
        await finish_replicas(store)
        assert sorted(of_kind(events, "missed")) == [
            ("put", "key", "replica 1 (memory)"),
            ("put", "large", "replica 1 (memory)"),
        ]
        assert await repair_all(store) == 2
        assert await contents(two) == {"key": b"body", "large": BODY}


class WithDirectories(Fake):
    """A service that, like one with directories, refuses keys with an empty segment."""

    async def step(self, name: str, call: Any = None) -> None:
        if call is not None and name in {"put", "upload", "copy"} and "//" in call.key:
            raise InvalidNameError("a segment must not be empty", key=call.key)
        await super().step(name, call)


@pytest.mark.parametrize("body", [b"body", BODY], ids=["small", "parts"])
async def test_key_that_a_needed_replica_cannot_store_is_refused_before_the_primary(
    body: bytes,
) -> None:
    one, two = Fake(), WithDirectories()
    async with store_with(Mirrored(one, two)) as (store, events):
        with pytest.raises(InvalidNameError) as caught:
            await store.put("bucket", "a//b", body)
        assert caught.value.__notes__ == ["(replica 1 (memory) cannot store this key)"]
        await store.put("bucket", "a", body)
        with pytest.raises(InvalidNameError):
            await store.copy("bucket", "a", "bucket", "a//b")
        assert await contents(one) == {"a": body}
        assert of_kind(events, "missed") == []
        one.steps.clear()
        two.steps.clear()
        await store.put("bucket", "b", b"")
        assert "upload" not in two.steps  # usual keys cost no request
        assert_nothing_held(store, one, two)


async def test_key_that_a_replica_cannot_store_is_missed_if_it_is_not_needed() -> None:
    one, two = Fake(), WithDirectories()
    async with store_with(Mirrored(one, two, acknowledge=1)) as (store, events):
        await store.put("bucket", "a//b", b"body")
        await finish_replicas(store)
        assert of_kind(events, "missed") == [("put", "a//b", "replica 1 (memory)")]


async def test_ping_needs_as_many_members_as_a_write() -> None:
    for acknowledge, ok in (("all", False), ("primary", True)):
        one, two = Fake(), Fake()
        async with store_with(Mirrored(one, two, acknowledge=acknowledge)) as (store, _):  # type: ignore[arg-type]
            two.fail("ping")
            health = await store.health()
            assert health["default"].ok is ok
            one.fail("ping")
            assert not (await store.health())["default"].ok


async def test_presigned_urls_are_refused() -> None:
    async with opened(Mirrored(MemoryDriver(), MemoryDriver())) as layer:
        assert isinstance(layer, Mirrored)
        with pytest.raises(NotSupportedError):
            await layer.presign("PUT", "bucket", "key", 60, PresignOptions())


async def test_place_is_that_of_the_primary() -> None:
    one = MemoryDriver()
    assert Mirrored(one, MemoryDriver()).place("b", "k") == one.place("b", "k")
    mirror = Mirrored(one, MemoryDriver())
    async with Trove(mirror, backends={"primary": one}) as store:
        await store.create_bucket("bucket")
        await store.put("bucket", "key", b"body")
        # The move is onto itself, so nothing is deleted.
        await store.backend("primary").move("bucket", "key", "bucket", "key")
        assert await store.read("bucket", "key") == b"body"


async def test_deleted_version_of_the_primary_is_followed_by_the_replicas() -> None:
    one, two = VersionedMemory(), VersionedMemory()
    async with opened(Mirrored(one, two)) as layer:
        await layer.create_bucket("bucket")
        for member in (one, two):
            member.versioned_buckets.add("bucket")
        await write(layer, "bucket", "key", b"old")
        new = await write(layer, "bucket", "key", b"new")
        await layer.delete("bucket", "key", DeleteOptions(version_id=new.version_id))
        assert await read(one, "bucket", "key") == b"old"
        assert await read(two, "bucket", "key") == b"old"


async def test_upload_tells_the_user_which_replica_missed_it_through_a_middleware_store() -> None:
    one, two = Fake(), Fake()
    mapped = Mapped(Mirrored(one, two, acknowledge=1), into="all")
    async with store_with(mapped, pool=BufferPool(8 * MiB, MiB)) as (store, _):
        two.fail("send")
        info = await store.put("bucket", "key", BODY)
        assert info.missed_replicas == ("replica 1 (memory)",)
        assert (info.bucket, info.key) == ("bucket", "key")
        assert await differences(store) == {"key": {"replica 1 (memory)": "missing"}}
        await replicated(store).repair("bucket", "key")
        assert await differences(store) == {}
        assert await read(two, "all", "bucket/key") == BODY
