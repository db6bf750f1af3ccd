"""Uploads: parts, declared sizes, limits, and the state after a failure."""

from __future__ import annotations

import asyncio
import threading
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
    _checksums,
)
from trove_async._checksums import running_crc32c
from trove_async._concurrency import OwnedTask, in_thread
from trove_async._engine.sources import source_of
from trove_async._engine.upload import Put
from trove_async._resilience import upload as upload_module
from trove_async.models import KiB, MiB
from trove_async.options import PutOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

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
    ("size", "difference"),
    [
        (size, difference)
        for size in (0, 10, MiB, 2 * MiB + 10)
        for difference in (-MiB, -1, 1, MiB, 3 * MiB)
        if size + difference >= 0  # a declared size is not negative
    ],
)
async def test_body_whose_size_is_not_the_declared_one_is_not_stored(
    size: int, difference: int, *, upload: bool
) -> None:
    fake = Fake(upload=upload)
    async with store_of(fake) as store:
        await store.put("bucket", "key", OLD)
        data = content(size)
        bodies: list[Any] = [data, stream(data), stream(data, 1 + size // 10), [data], iter([data])]
        for body in bodies:
            with pytest.raises(IntegrityError):
                await store.put("bucket", "key", body, size=size + difference)
        assert await store.read("bucket", "key") == OLD
        assert_idle(store, fake)


async def test_empty_body_of_declared_size_zero_is_stored() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        bodies: list[Any] = [b"", stream(b""), []]
        for body in bodies:
            assert (await store.put("bucket", "key", body, size=0)).size == 0


async def test_body_is_read_at_most_one_chunk_beyond_its_declared_size() -> None:
    chunk_count = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal chunk_count
        while True:
            chunk_count += 1
            yield bytes(MiB)

    fake = Fake()
    async with store_of(fake) as store:
        with pytest.raises(IntegrityError):
            await store.put("bucket", "key", endless(), size=2 * MiB)
        assert chunk_count <= 3


async def test_body_that_fails_leaves_the_old_object() -> None:
    async def failing(chunk_count: int) -> AsyncIterator[bytes]:
        for _ in range(chunk_count):
            yield bytes(512 * KiB)
        raise KeyError("the user's")

    for upload in (True, False):
        fake = Fake(upload=upload)
        async with store_of(fake) as store:
            await store.put("bucket", "key", OLD)
            for chunk_count in range(8):
                with pytest.raises(KeyError, match="the user's"):
                    await store.put("bucket", "key", failing(chunk_count))
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


async def test_body_is_read_once_despite_retries() -> None:
    chunk_count = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal chunk_count
        for at in range(0, len(BODY), 256 * KiB):
            chunk_count += 1
            yield BODY[at : at + 256 * KiB]

    for upload in (True, False):
        fake = Fake(upload=upload)
        async with store_of(fake) as store:
            for step in ("put", "upload", "send", "send.done", "commit", "commit.done"):
                fake.fail(step)
            chunk_count = 0
            await store.put("bucket", "key", body())
            assert chunk_count == -(-len(BODY) // (256 * KiB))
            assert await store.read("bucket", "key") == BODY
            assert_idle(store, fake)


# -- integrity ---------------------------------------------------------------------------------------


def wrong_checksum(info: ObjectInfo) -> ObjectInfo:
    return replace(info, checksums={"crc32c": "AAAAAA=="})


def wrong_size(info: ObjectInfo) -> ObjectInfo:
    return replace(info, size=info.size, stored_size=info.size + 1)


@pytest.mark.parametrize("corrupt", [wrong_checksum, wrong_size])
@pytest.mark.parametrize("data", [b"body", BODY], ids=["put", "commit"])
@pytest.mark.parametrize("conditional", [True, False])
async def test_corrupt_object_is_reported_and_deleted_if_deletes_can_be_conditional(
    corrupt: Any, data: bytes, *, conditional: bool
) -> None:
    fake = Fake(delete_if_match=conditional)
    async with store_of(fake) as store:
        fake.change_info = corrupt
        for body in (data, stream(data)):
            with pytest.raises(IntegrityError) as caught:
                await store.put("bucket", "key", body)
            assert (caught.value.backend, caught.value.key) == ("default", "key")
        assert await store.exists("bucket", "key") is not conditional
        fake.fail("delete", *[UnavailableError("no") for _ in range(5)])
        with pytest.raises(IntegrityError):  # not the error of the deletion
            await store.put("bucket", "key", data)
        assert_idle(store, fake)


async def test_backend_that_reports_no_checksum_is_trusted() -> None:
    fake = Fake(checksums=frozenset())
    async with store_of(fake) as store:
        fake.change_info = lambda info: replace(info, checksums={})
        await store.put("bucket", "key", stream(BODY))
        assert await store.read("bucket", "key") == BODY


async def test_large_body_in_memory_is_hashed_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def record_thread(views: Sequence[memoryview], value: int = 0) -> int:
        threads.append(threading.current_thread())
        return running_crc32c(views, value)

    fake = Fake(upload=False)
    async with store_of(fake) as store:
        body = content(5 * MiB)
        with monkeypatch.context() as patched:
            patched.setattr(_checksums, "running_crc32c", record_thread)
            await store.put("bucket", "key", body)
        assert threads
        assert threading.main_thread() not in threads
        assert await store.read("bucket", "key") == body


@pytest.mark.parametrize("body", [b"body", BODY], ids=["put", "commit"])
async def test_body_that_differs_from_its_declared_checksum_is_not_stored(body: bytes) -> None:
    fake = Fake()
    async with store_of(fake) as store:

        async def create_no_bucket(error: BucketNotFoundError) -> None:
            raise error

        put = Put(
            store._core.backends["default"],
            "bucket",
            "key",
            PutOptions(checksums={"crc32c": "AAAAAA=="}),
            pool=store.pool,
            events=store.events,
            progress=None,
            create_bucket=create_no_bucket,
        )
        with pytest.raises(IntegrityError, match="declared checksum"):
            await put.run(source_of(body))
        assert fake.count("put") == fake.count("commit") == 0
        assert_idle(store, fake)


async def test_source_that_differs_from_its_checksum_is_not_copied() -> None:
    source, target = Fake(), Fake()
    async with store_of(source, target) as store:
        for body in (b"body", BODY):
            await store.put("bucket", "key", body)
            stored = source._buckets["bucket"].objects["key"]
            wrong_info = replace(stored.info, checksums={"crc32c": "AAAAAA=="})
            source._buckets["bucket"].objects["key"] = stored._replace(info=wrong_info)
            with pytest.raises(IntegrityError):
                await store.copy("bucket", "key", "bucket", "b/key")
            assert not await store.exists("bucket", "b/key")
        assert_idle(store, source, target)


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
        assert [event.size for event in events if event.kind == "spill"] == [len(BODY)]
        assert store.pool.statistics().peak <= MiB
        assert_idle(store, fake)


async def test_backend_without_uploads_rejects_a_stream_beyond_the_spill_budget() -> None:
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
        chunk_count = 0

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal chunk_count
            for at in range(0, 200 * KiB, 10 * KiB):
                chunk_count += 1
                yield BODY[at : at + 10 * KiB]

        await store.put("bucket", "small", BODY[: 100 * KiB])
        await store.put("bucket", "small", stream(BODY[: 100 * KiB]))
        if upload:
            await store.put("bucket", "key", chunks())
            assert await store.read("bucket", "key") == BODY[: 200 * KiB]
            await store.put("bucket", "key", BODY[: 200 * KiB])
        else:
            with pytest.raises(NotSupportedError, match="at most 102400 bytes"):
                await store.put("bucket", "key", chunks(), size=200 * KiB)
            assert chunk_count == 0
            for body in (BODY[: 200 * KiB], chunks(), stream(BODY)):
                with pytest.raises(NotSupportedError, match="at most 102400 bytes"):
                    await store.put("bucket", "key", body)
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
        spilled = [event.size for event in events if event.kind == "spill"]
        assert spilled == [MiB, MiB, MiB, MiB, 123, 5]
        assert len([event for event in events if event.kind == "wait"]) == 6
        assert store.pool.statistics().spilled_total == sum(spilled)
        assert_idle(store, fake)


async def test_part_without_memory_or_a_spill_file_times_out() -> None:
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


@pytest.mark.parametrize("data", [b"body", BODY], ids=["put", "parts"])
async def test_progress_is_monotonic_and_complete(data: bytes) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        for body, known_total in ((data, len(data)), (stream(data), None)):
            reports: list[tuple[int, int | None]] = []
            await store.put(
                "bucket", "key", body, progress=lambda *report, log=reports: log.append(report)
            )
            assert [done for done, _ in reports] == sorted({done for done, _ in reports})
            assert reports[-1][0] == len(data)
            assert {total for _, total in reports} <= {known_total, len(data)}


async def test_progress_that_raises_aborts_the_upload() -> None:
    def progress(*_: int | None) -> None:
        raise KeyError("enough")

    fake = Fake()
    async with store_of(fake) as store:
        with pytest.raises(KeyError, match="enough"):
            await store.put("bucket", "key", BODY, progress=progress)
        assert not await store.exists("bucket", "key")
        assert_idle(store, fake)


async def test_every_part_emits_an_event() -> None:
    fake = Fake()
    events: list[Event] = []
    async with store_of(fake) as store:
        store.events.subscribe(events.append)
        await store.put("bucket", "key", BODY)
        parts = [event for event in events if event.kind == "part"]
        assert sum(event.size for event in parts) == len(BODY)
        assert {(event.operation, event.backend, event.bucket, event.key) for event in parts} == {
            ("put", "default", "bucket", "key")
        }


# -- missing buckets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size_known", [True, False])
@pytest.mark.parametrize("size", [0, 10, 3 * MiB])
async def test_missing_bucket_is_created_and_the_body_read_once(
    size: int, *, size_known: bool
) -> None:
    default, second = Fake(), Fake()
    async with store_of(default, second) as store:
        await store.backend("b").delete_bucket("bucket")
        data = content(size)
        for body in (data, stream(data)):
            await store.put("bucket", "b/key", body, size=size if size_known else None)
            assert await store.read("bucket", "b/key") == data
            await store.delete("bucket", "b/key")
            await store.backend("b").delete_bucket("bucket")
        assert_idle(store, default, second)


async def test_missing_bucket_is_detected_before_a_body_of_declared_size_is_read() -> None:
    chunk_count = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal chunk_count
        chunk_count += 1
        yield bytes(3 * MiB)

    fake = Fake()
    async with store_of(fake) as store:
        with pytest.raises(BucketNotFoundError):
            await store.put("missing", "key", body(), size=3 * MiB)
        assert chunk_count == 0
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
async def test_store_closed_during_an_upload_aborts_it(
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
        put = OwnedTask(store.put("bucket", "key", content(3 * MiB)))
        await reached.wait()
        await store.aclose()
        assert fake.open_uploads == 0
        with pytest.raises(ClosedError, match="closed during the operation"):
            await put.result()
        assert_idle(store)


async def test_upload_cancelled_while_its_store_closes_raises_the_cancel() -> None:
    fake = Fake()
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.Event().wait()

    fake.before["send"] = hang
    async with store_of(fake, pool=small_pool()) as store:
        put = asyncio.get_running_loop().create_task(store.put("bucket", "key", content(3 * MiB)))
        await reached.wait()
        put.cancel()
        await store.aclose()
        with pytest.raises(asyncio.CancelledError):
            await put
