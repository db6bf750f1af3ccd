"""Downloads: resuming after breaks and cancelled reads, verification, and changed versions."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from tests.fakes import Fake, assert_idle, content, store_of
from trove_async import (
    BufferPool,
    ClosedError,
    Event,
    IntegrityError,
    ObjectChangedError,
    ObjectReader,
    PermissionDeniedError,
    RangeError,
    RetryPolicy,
    UnavailableError,
)
from trove_async._concurrency import OwnedTask
from trove_async._engine.verified import VerifiedBody
from trove_async._resilience import download
from trove_async.models import MiB

pytestmark = pytest.mark.idle_time

BODY = content(5 * MiB + 123)


async def read_all(reader: ObjectReader, size: int = MiB) -> bytes:
    pieces = []
    while piece := await reader.read(size):
        pieces.append(piece)
    return b"".join(pieces)


# -- resuming ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cuts", "shorts"])
async def test_broken_body_is_resumed_at_its_offset(kind: str) -> None:
    fake = Fake()
    events: list[Event] = []
    async with store_of(fake, pool=BufferPool(16 * MiB)) as store:
        await store.put("bucket", "key", BODY)
        store.events.subscribe(events.append)
        flaws = [0, 1, MiB, MiB + 1, 3 * MiB - 1, 4 * MiB, len(BODY) - 1]
        getattr(fake, kind).extend(flaws)
        async with store.get("bucket", "key") as obj:
            assert await read_all(obj) == BODY
        assert not getattr(fake, kind)
        assert fake.count("get") == 1 + len(flaws)
        assert len([event for event in events if event.kind == "resume"]) == len(flaws)
        assert_idle(store, fake)


@pytest.mark.parametrize("bounds", [(0, 100), (5, MiB + 5), (MiB, None)])
async def test_broken_range_is_resumed_within_its_bounds(bounds: tuple[int, int | None]) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        fake.cuts = [bounds[0], bounds[0] + 50]
        assert await store.read("bucket", "key", range=bounds) == BODY[bounds[0] : bounds[1]]


@pytest.mark.parametrize("seed", range(10))
async def test_random_breaks_and_reads_return_the_exact_bytes(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SLOW_SECONDS_PER_BYTE", 0)
    monkeypatch.setattr(download, "TRIAL_BYTES", 0)
    rng = random.Random(seed)
    fake = Fake(readinto=rng.random() < 0.7, max_connections=4, parallel_reads=3)
    pool = BufferPool(rng.choice([2, 4, 16]) * MiB)
    async with store_of(fake, pool=pool) as store:
        await store.put("bucket", "key", BODY)

        async def download_body() -> bytes:
            pieces = []
            async with store.get("bucket", "key") as obj:
                while obj.remaining:
                    read = OwnedTask(obj.read(rng.choice([1, 10, MiB, MiB, 2 * MiB])))
                    if rng.random() < 0.3:  # cancelled at a random step, then continued
                        for _ in range(rng.randrange(12)):
                            await asyncio.sleep(0)
                        await read.aclose()
                    try:
                        pieces.append(await read.result())
                    except ClosedError:
                        fake.cuts.append(rng.randrange(len(BODY)))
                    if rng.random() < 0.1:
                        await asyncio.sleep(0.11)  # idle long enough to be parked or revoked
            return b"".join(pieces)

        readers = [OwnedTask(download_body()) for _ in range(4)]
        fake.cuts.extend(rng.randrange(len(BODY)) for _ in range(5))
        await asyncio.sleep(0)
        lease = await store.pool.lease(MiB)
        for reader in readers:
            assert await reader.result() == BODY
        lease.release()
        assert_idle(store, fake)


async def test_body_that_breaks_too_often_raises() -> None:
    fake = Fake()
    async with store_of(fake, retry=RetryPolicy(attempts=3, base_delay=0)) as store:
        await store.put("bucket", "key", BODY)
        fake.cuts = [MiB, MiB, MiB, MiB]
        async with store.get("bucket", "key") as obj:
            assert await obj.read(MiB) == BODY[:MiB]
            with pytest.raises(UnavailableError) as caught:
                await obj.read(MiB)
            assert caught.value.key == "key"
            assert fake.open_readers == 0
            # A later read resumes: no bytes were lost.
            fake.cuts.clear()
            assert await obj.read() == BODY[MiB:]
        assert_idle(store, fake)


async def test_permanent_failure_is_not_resumed() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            await obj.read(MiB)
            fake.fail("read", PermissionDeniedError("no"))
            with pytest.raises(PermissionDeniedError):
                await obj.read(MiB)
        assert fake.count("get") == 1
        assert_idle(store, fake)


@pytest.mark.parametrize("conditions", [True, False])
@pytest.mark.parametrize("change", ["replaced", "deleted", "shrunk"])
async def test_two_versions_are_never_mixed(change: str, *, conditions: bool) -> None:
    fake = Fake(get_conditions=conditions)
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            await obj.read(MiB)
            if change == "replaced":
                await store.put("bucket", "key", BODY)  # a different version with equal bytes
            elif change == "shrunk":
                await store.put("bucket", "key", b"short")
            else:
                await store.delete("bucket", "key")
            fake.cuts = [2 * MiB]
            await obj.read(MiB)
            with pytest.raises(ObjectChangedError):
                await obj.read(MiB)
        assert_idle(store, fake)


async def test_version_id_is_used_to_resume() -> None:
    class VersionedFake(Fake):
        requested: list[str | None]

        def get(self, bucket: str, key: str, options: Any) -> Any:
            self.requested.append(options.version_id)
            return super().get(bucket, key, replace(options, version_id=None, if_match=None))

    fake = VersionedFake(versions=True)
    fake.requested = []
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        stored = fake._buckets["bucket"].objects["key"]
        fake._buckets["bucket"].objects["key"] = stored._replace(
            info=replace(stored.info, version_id="v1")
        )
        fake.cuts = [MiB]
        assert await store.read("bucket", "key") == BODY
        assert fake.requested == [None, "v1"]


async def test_body_without_ranges_resumes_only_from_its_start() -> None:
    fake = Fake(ranges=False)
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        fake.cuts = [0]
        async with store.get("bucket", "key") as obj:
            assert await obj.read(MiB) == BODY[:MiB]  # broken before its first byte
            fake.cuts = [2 * MiB]
            await obj.read(MiB)
            with pytest.raises(UnavailableError):
                await obj.read(MiB)
            with pytest.raises(UnavailableError, match="cannot read ranges"):
                await obj.read(MiB)
        assert_idle(store, fake)


async def test_response_with_a_different_range_than_requested_raises() -> None:
    class RangeIgnoringFake(Fake):
        def get(self, bucket: str, key: str, options: Any) -> Any:
            return super().get(bucket, key, replace(options, range=None))

    fake = RangeIgnoringFake()
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        fake.cuts = [MiB]
        with pytest.raises(ObjectChangedError):
            await store.read("bucket", "key")
        assert_idle(store, fake)


# -- cancelled reads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel_reads", [1, 3])
async def test_read_cancelled_at_any_step_can_be_continued(
    parallel_reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SLOW_SECONDS_PER_BYTE", 0)
    monkeypatch.setattr(download, "TRIAL_BYTES", 0)
    fake = Fake(parallel_reads=parallel_reads)
    async with store_of(fake, pool=BufferPool(8 * MiB)) as store:
        await store.put("bucket", "key", BODY)
        for steps in range(30):
            pieces = []
            async with store.get("bucket", "key") as obj:
                while obj.remaining:
                    read = OwnedTask(obj.read(MiB))
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    await read.aclose()
                    try:
                        pieces.append(await read.result())
                    except ClosedError:
                        pieces.append(await obj.read(MiB))
            assert b"".join(pieces) == BODY
        assert_idle(store, fake)


async def test_cancelled_read_without_ranges_cannot_be_continued() -> None:
    fake = Fake(ranges=False)
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            await obj.read(MiB)
            reached = fake.hang("read")
            read = OwnedTask(obj.read(MiB))
            await reached.wait()
            await read.aclose()
            del fake.before["read"]
            with pytest.raises(UnavailableError, match="cannot read ranges"):
                await obj.read(MiB)
        assert_idle(store, fake)


async def test_last_read_cancelled_while_disconnecting_can_be_continued() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        async with store.get("bucket", "key") as obj:
            got = await obj.read(4 * MiB)
            while obj.remaining > MiB:
                got += await obj.read(MiB)
            exit_reached = fake.hang("get.exit")
            read = OwnedTask(obj.read(MiB))
            await exit_reached.wait()
            await read.aclose()
            del fake.before["get.exit"]
            got += await obj.read()
        assert got == BODY
        assert_idle(store, fake)


# -- integrity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("readinto", [False, True])
@pytest.mark.parametrize("position", [0, 1, MiB - 1, MiB, 3 * MiB + 7, len(BODY) - 1])
async def test_flipped_byte_raises_before_the_last_chunk(position: int, *, readinto: bool) -> None:
    fake = Fake(readinto=readinto)
    async with store_of(fake) as store:
        await store.put("bucket", "key", BODY)
        fake.flips = [position]
        received = 0
        with pytest.raises(IntegrityError) as caught:
            async with store.get("bucket", "key") as obj:
                async for chunk in obj:
                    received += len(chunk)
        assert 0 < len(BODY) - received <= MiB
        assert (caught.value.bucket, caught.value.key) == ("bucket", "key")
        with pytest.raises(IntegrityError):
            await store.read("bucket", "key")
        assert_idle(store, fake)


async def test_chunk_longer_than_requested_raises() -> None:
    class TooLongReader:
        info: Any
        range = (0, 4)

        async def read(self, size: int) -> bytes:
            return b"x" * (size + 1)

    fake = Fake()
    async with store_of(fake) as store:
        reader = TooLongReader()
        reader.info = await store.put("bucket", "key", b"body")
        with pytest.raises(IntegrityError):
            await VerifiedBody(reader).read(10)


async def test_range_is_not_verified_against_the_checksum() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        await store.put("bucket", "key", b"body")
        fake.flips = [1]
        assert await store.read("bucket", "key", range=(0, 2)) == b"b\x90"


@pytest.mark.parametrize("size", [0, 1, MiB])
async def test_body_is_read_completely_and_its_connection_released(size: int) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        body = content(size)
        await store.put("bucket", "key", body)
        async with store.get("bucket", "key") as obj:
            assert obj.range == (0, size)
            assert await obj.read() == body
            assert fake.open_readers == 0  # released at the end, before the reader is closed
            assert await obj.read(1) == b""
        if not size:
            with pytest.raises(RangeError):
                await store.read("bucket", "key", range=(0, None))
        assert_idle(store, fake)
