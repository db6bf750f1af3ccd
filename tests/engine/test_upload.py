"""Uploads: parts, declared sizes, limits, and the state after a failure."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, assert_idle, content, small_pool, store_of
from trove_async import (
    BucketNotFoundError,
    ClosedError,
    Event,
    IntegrityError,
    NotSupportedError,
    PoolTimeoutError,
    Trove,
    UnavailableError,
)
from trove_async._concurrency import OwnedTask, in_thread
from trove_async._engine.sources import source_of
from trove_async._engine.upload import Put
from trove_async._resilience import upload as upload_module
from trove_async.models import KiB, MiB
from trove_async.options import PutOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trove_async.models import ObjectInfo

BODY = content(4 * MiB + 123)
OLD = b"old"


async def stream(body: bytes, chunk: int = 256 * KiB) -> AsyncIterator[bytes]:
    for at in range(0, len(body), chunk):
        await asyncio.sleep(0)
        yield body[at : at + chunk]


# -- declared sizes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("upload", [True, False])
@pytest.mark.parametrize(
    ("size", "off"),
    [
        (size, off)
        for size in (0, 10, MiB, 2 * MiB + 10)
        for off in (-MiB, -1, 1, MiB, 3 * MiB)
        if size + off >= 0  # a declared size is not negative
    ],
)
async def test_body_of_another_size_than_declared_is_not_stored(
    size: int, off: int, *, upload: bool
) -> None:
    fake = Fake(upload=upload)
    async with store_of(fake) as store:
        await store.put("bucket", "key", OLD)
        body = content(size)
        bodies: list[Any] = [body, stream(body), stream(body, 1 + size // 10), [body], iter([body])]
        for one in bodies:
            with pytest.raises(IntegrityError):
                await store.put("bucket", "key", one, size=size + off)
        assert await store.read("bucket", "key") == OLD
        assert_idle(store, fake)


async def test_empty_body_of_declared_size_zero_is_stored() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        bodies: list[Any] = [b"", stream(b""), []]
        for body in bodies:
            assert (await store.put("bucket", "key", body, size=0)).size == 0


async def test_body_is_pulled_no_further_than_its_declared_size() -> None:
    pulled = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal pulled
        while True:
            pulled += 1
            yield bytes(MiB)

    fake = Fake()
    async with store_of(fake) as store:
        with pytest.raises(IntegrityError):
            await store.put("bucket", "key", endless(), size=2 * MiB)
        assert pulled <= 3


async def test_body_that_fails_leaves_the_old_object() -> None:
    async def failing(after: int) -> AsyncIterator[bytes]:
        for _ in range(after):
            yield bytes(512 * KiB)
        raise KeyError("the user's")

    for upload in (True, False):
        fake = Fake(upload=upload)
        async with store_of(fake) as store:
            await store.put("bucket", "key", OLD)
            for after in range(8):
                with pytest.raises(KeyError, match="the user's"):
                    await store.put("bucket", "key", failing(after))
                assert await store.read("bucket", "key") == OLD
                assert_idle(store, fake)


async def test_exception_group_of_a_body_is_raised_unchanged() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield bytes(3 * MiB)
        raise ExceptionGroup("the user's", [KeyError(), ValueError()])

    async with store_of(Fake()) as store:
        with pytest.raises(ExceptionGroup, match="the user's"):
            await store.put("bucket", "key", failing(), size=4 * MiB)


# -- retries -----------------------------------------------------------------------------------------


async def test_body_is_pulled_once_despite_retries() -> None:
    pulled = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal pulled
        for at in range(0, len(BODY), 256 * KiB):
            pulled += 1
            yield BODY[at : at + 256 * KiB]

    for upload in (True, False):
        fake = Fake(upload=upload)
        async with store_of(fake) as store:
            for step in ("put", "upload", "send", "send.done", "commit", "commit.done"):
                fake.fail(step)
            pulled = 0
            await store.put("bucket", "key", body())
            assert pulled == -(-len(BODY) // (256 * KiB))
            assert await store.read("bucket", "key") == BODY
            assert_idle(store, fake)


# -- integrity ---------------------------------------------------------------------------------------


def wrong_checksum(info: ObjectInfo) -> ObjectInfo:
    return replace(info, checksums={"crc32c": "AAAAAA=="})


def wrong_size(info: ObjectInfo) -> ObjectInfo:
    return replace(info, size=info.size, stored_size=info.size + 1)


@pytest.mark.parametrize("corrupt", [wrong_checksum, wrong_size])
@pytest.mark.parametrize("body", [b"body", BODY], ids=["put", "commit"])
@pytest.mark.parametrize("removable", [True, False])
async def test_corrupt_object_is_reported_and_deleted(
    corrupt: Any, body: bytes, *, removable: bool
) -> None:
    fake = Fake(delete_if_match=removable)
    async with store_of(fake) as store:
        fake.change_info = corrupt
        for one in (body, stream(body)):
            with pytest.raises(IntegrityError) as caught:
                await store.put("bucket", "key", one)
            assert (caught.value.backend, caught.value.key) == ("default", "key")
        assert await store.exists("bucket", "key") is not removable
        fake.fail("delete", *[UnavailableError("no") for _ in range(5)])
        with pytest.raises(IntegrityError):  # and not the error of the deletion
            await store.put("bucket", "key", body)
        assert_idle(store, fake)


async def test_backend_that_reports_no_checksum_is_trusted() -> None:
    fake = Fake(checksums=frozenset())
    async with store_of(fake) as store:
        fake.change_info = lambda info: replace(info, checksums={})
        await store.put("bucket", "key", stream(BODY))
        assert await store.read("bucket", "key") == BODY


async def test_large_body_in_memory_is_hashed_in_a_thread() -> None:
    fake = Fake(upload=False)
    async with store_of(fake) as store:
        body = content(5 * MiB)
        await store.put("bucket", "key", body)
        assert await store.read("bucket", "key") == body


@pytest.mark.parametrize("body", [b"body", BODY], ids=["put", "commit"])
async def test_body_that_differs_from_its_declared_checksum_is_not_stored(body: bytes) -> None:
    fake = Fake()
    async with store_of(fake) as store:

        async def refuse(error: BucketNotFoundError) -> None:
            raise error

        put = Put(
            store._core.backends["default"],
            "bucket",
            "key",
            PutOptions(checksums={"crc32c": "AAAAAA=="}),
            pool=store.pool,
            events=store.events,
            progress=None,
            create_bucket=refuse,
        )
        with pytest.raises(IntegrityError, match="declared checksum"):
            await put.run(source_of(body))
        assert fake.count("put") == fake.count("commit") == 0
        assert_idle(store, fake)


async def test_source_that_differs_from_its_checksum_is_not_copied() -> None:
    fake, other = Fake(), Fake()
    async with store_of(fake, other) as store:
        for body in (b"body", BODY):
            await store.put("bucket", "key", body)
            stored = fake._buckets["bucket"].objects["key"]
            wrong_info = replace(stored.info, checksums={"crc32c": "AAAAAA=="})
            fake._buckets["bucket"].objects["key"] = stored._replace(info=wrong_info)
            with pytest.raises(IntegrityError):
                await store.copy("bucket", "key", "bucket", "b/key")
            assert not await store.exists("bucket", "b/key")
        assert_idle(store, fake, other)


# -- backends without multipart uploads --------------------------------------------------------------


@pytest.mark.parametrize("size_known", [True, False])
async def test_backend_without_uploads_gets_large_bodies_from_a_spill_file(
    *, size_known: bool
) -> None:
    fake = Fake(upload=False)
    events: list[Event] = []
    async with store_of(fake) as store:
        store.events.subscribe(events.append)
        await store.put("bucket", "key", stream(BODY), size=len(BODY) if size_known else None)
        assert await store.read("bucket", "key") == BODY
        assert [one.size for one in events if one.kind == "spill"] == [len(BODY)]
        assert store.pool.statistics().peak <= MiB
        assert_idle(store, fake)


async def test_backend_without_uploads_and_spill_budget_raises_with_advice() -> None:
    fake = Fake(upload=False)
    for limit in (0, MiB, 2 * MiB):
        async with store_of(fake, pool=small_pool(spill_max_bytes=limit)) as store:
            with pytest.raises(NotSupportedError, match="spill_max_bytes"):
                await store.put("bucket", "key", stream(BODY))
            assert not await store.exists("bucket", "key")
            assert_idle(store, fake)


@pytest.mark.parametrize("upload", [True, False])
async def test_max_put_is_respected(*, upload: bool) -> None:
    fake = Fake(upload=upload, max_put=100 * KiB)
    async with store_of(fake) as store:
        pulled = 0

        async def body() -> AsyncIterator[bytes]:
            nonlocal pulled
            for at in range(0, 200 * KiB, 10 * KiB):
                pulled += 1
                yield BODY[at : at + 10 * KiB]

        await store.put("bucket", "small", BODY[: 100 * KiB])
        await store.put("bucket", "small", stream(BODY[: 100 * KiB]))
        if upload:
            await store.put("bucket", "key", body())
            assert await store.read("bucket", "key") == BODY[: 200 * KiB]
            await store.put("bucket", "key", BODY[: 200 * KiB])
        else:
            with pytest.raises(NotSupportedError, match="at most 102400 bytes"):
                await store.put("bucket", "key", body(), size=200 * KiB)
            assert pulled == 0
            for one in (BODY[: 200 * KiB], body(), stream(BODY)):
                with pytest.raises(NotSupportedError, match="at most 102400 bytes"):
                    await store.put("bucket", "key", one)
        assert fake.count("put") == 2
        assert_idle(store, fake)


# -- spilled parts -----------------------------------------------------------------------------------


async def test_part_without_memory_is_spilled() -> None:
    fake = Fake(parallel_parts=2)
    events: list[Event] = []
    async with store_of(fake) as store:
        store.events.subscribe(events.append)
        with await store.pool.lease(2 * MiB):
            await store.put("bucket", "key", stream(BODY))
            await store.put("bucket", "small", stream(b"small"))
        assert await store.read("bucket", "key") == BODY
        assert await store.read("bucket", "small") == b"small"
        spilled = [one.size for one in events if one.kind == "spill"]
        assert spilled == [MiB, MiB, MiB, MiB, 123, 5]
        assert len([one for one in events if one.kind == "wait"]) == 6
        assert store.pool.statistics().spilled_total == sum(spilled)
        assert_idle(store, fake)


async def test_part_without_memory_and_spill_file_times_out() -> None:
    fake = Fake()
    pool = small_pool(spill_max_bytes=0, deadline=0.02)
    async with store_of(fake, pool=pool) as store:
        with await store.pool.lease(2 * MiB), pytest.raises(PoolTimeoutError):
            await store.put("bucket", "key", stream(BODY))
        assert_idle(store, fake)


@pytest.mark.parametrize("upload", [True, False])
async def test_failing_disk_raises_and_leaves_nothing(*, upload: bool, tmp_path: Any) -> None:
    fake = Fake(upload=upload)
    await in_thread((tmp_path / "files").mkdir)
    async with store_of(fake, pool=small_pool(spill_dir=tmp_path / "files")) as store:
        await in_thread((tmp_path / "files").rmdir)  # simulates a failing disk
        lease = await store.pool.lease(2 * MiB if upload else MiB)
        with lease, pytest.raises(FileNotFoundError):
            await store.put("bucket", "key", stream(BODY))
        assert not await store.exists("bucket", "key")
        assert_idle(store, fake)


# -- progress ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"body", BODY], ids=["put", "parts"])
async def test_progress_is_monotonic_and_complete(body: bytes) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        for one, total in ((body, len(body)), (stream(body), None)):
            reports: list[tuple[int, int | None]] = []
            await store.put(
                "bucket", "key", one, progress=lambda *figures, to=reports: to.append(figures)
            )
            assert [done for done, _ in reports] == sorted({done for done, _ in reports})
            assert reports[-1][0] == len(body)
            assert {figure for _, figure in reports} <= {total, len(body)}


async def test_progress_that_raises_aborts_the_upload() -> None:
    def stop(done: int, total: int | None) -> None:  # noqa: ARG001 - as it is called
        raise KeyError("enough")

    fake = Fake()
    async with store_of(fake) as store:
        with pytest.raises(KeyError, match="enough"):
            await store.put("bucket", "key", BODY, progress=stop)
        assert not await store.exists("bucket", "key")
        assert_idle(store, fake)


async def test_every_part_emits_an_event() -> None:
    fake = Fake()
    events: list[Event] = []
    async with store_of(fake) as store:
        store.events.subscribe(events.append)
        await store.put("bucket", "key", BODY)
        parts = [one for one in events if one.kind == "part"]
        assert sum(one.size for one in parts) == len(BODY)
        assert {(one.operation, one.backend, one.bucket, one.key) for one in parts} == {
            ("put", "default", "bucket", "key")
        }


# -- missing buckets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size_known", [True, False])
@pytest.mark.parametrize("size", [0, 10, 3 * MiB])
async def test_missing_bucket_is_created_and_the_body_pulled_once(
    size: int, *, size_known: bool
) -> None:
    fake, other = Fake(), Fake()
    async with store_of(fake, other) as store:
        await store.backend("b").delete_bucket("bucket")
        body = content(size)
        for one in (body, stream(body)):
            await store.put("bucket", "b/key", one, size=size if size_known else None)
            assert await store.read("bucket", "b/key") == body
            await store.delete("bucket", "b/key")
            await store.backend("b").delete_bucket("bucket")
        assert_idle(store, fake, other)


async def test_missing_bucket_is_detected_before_a_body_of_declared_size_is_pulled() -> None:
    pulled = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal pulled
        pulled += 1
        yield bytes(3 * MiB)

    fake = Fake()
    async with store_of(fake) as store:
        with pytest.raises(BucketNotFoundError):
            await store.put("missing", "key", body(), size=3 * MiB)
        assert pulled == 0
        with pytest.raises(BucketNotFoundError):
            await store.put("missing", "key", body())
        assert_idle(store, fake)


async def test_bucket_that_must_not_be_created_is_reported() -> None:
    async with Trove(Fake(), backends={"b": Fake()}, routes=[("b/*", "b")],
                     create_missing_buckets=False) as store:  # fmt: skip
        await store.create_bucket("bucket")
        for body in (b"body", BODY, stream(BODY)):
            with pytest.raises(BucketNotFoundError):
                await store.put("bucket", "b/key", body)


@pytest.mark.parametrize("step", ["upload", "send", "commit"])
async def test_store_closed_in_an_upload_aborts_it_first(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "COMMIT_SECONDS", 0.01)
    fake = Fake()
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.Event().wait()

    fake.before[step] = hang
    async with store_of(fake, pool=small_pool()) as store:
        putting = OwnedTask(store.put("bucket", "key", content(3 * MiB)))
        await reached.wait()
        await store.aclose()
        assert fake.open_uploads == 0
        with pytest.raises(ClosedError, match="closed during the operation"):
            await putting.result()
        assert_idle(store)


async def test_upload_cancelled_while_its_store_closes_raises_the_cancel() -> None:
    fake = Fake()
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.Event().wait()

    fake.before["send"] = hang
    async with store_of(fake, pool=small_pool()) as store:
        putting = asyncio.get_running_loop().create_task(
            store.put("bucket", "key", content(3 * MiB))
        )
        await reached.wait()
        putting.cancel()
        await store.aclose()
        with pytest.raises(asyncio.CancelledError):
            await putting
