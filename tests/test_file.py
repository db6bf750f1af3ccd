"""Objects as files: seeking and reading one version, and writing that commits at the close."""

from __future__ import annotations

import asyncio
import gc
import io
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import (
    CallLog,
    Fake,
    WithoutEtags,
    assert_idle,
    content,
    single_attempt_store,
    store_of,
)
from tests.versioned_memory import VersionedMemory
from tests.xor_middleware import Xor
from trove_async import (
    BucketNotFoundError,
    ClosedError,
    InvalidNameError,
    NotSupportedError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
    Trove,
    UnavailableError,
)
from trove_async._concurrency import task_group
from trove_async.drivers import MemoryDriver, S3Driver
from trove_async.middlewares import Compression, Encryption, Keyring
from trove_async.models import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trove_async.middleware import Middleware
    from trove_async.options import GetOptions
    from trove_async.testing.servers import S3Server

SIZE = 20 * MiB
BODY = content(SIZE)


class RangeLog(Fake):
    """A driver that logs the range of every get of a range, and counts heads."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.requests: list[tuple[int, int | None]] = []
        self.heads = 0

    def get(self, bucket: str, key: str, options: GetOptions) -> Any:
        if options.range is not None:
            self.requests.append((options.range.start, options.range.end))
        return super().get(bucket, key, options)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> Any:
        self.heads += 1
        return await super().head(bucket, key, version_id)


@pytest.fixture
def log() -> RangeLog:
    return RangeLog()


@pytest.fixture
async def store(log: RangeLog) -> AsyncIterator[Trove]:
    async with store_of(log) as store:
        await store.put("bucket", "key", BODY)
        log.requests.clear()
        yield store
        assert_idle(store, log)


# -- reading -----------------------------------------------------------------------------------------


async def test_opening_sends_one_request_that_also_serves_the_first_reads(
    store: Trove, log: RangeLog
) -> None:
    async with store.open_file("bucket", "key") as file:
        assert (file.size, file.info.size, file.info.key) == (SIZE, SIZE, "key")
        assert await file.read(100) == BODY[:100]
        await file.seek(60_000)
        assert await file.read(1000) == BODY[60_000:61_000]
        assert await file.tell() == 61_000
    assert (log.requests, log.heads) == ([(0, 64 * KiB)], 0)


async def test_small_object_is_read_by_the_request_that_opens_it(
    store: Trove, log: RangeLog
) -> None:
    await store.put("bucket", "small", b"0123456789")
    async with store.open_file("bucket", "small") as file:
        assert await file.read() == b"0123456789"
        assert await file.read() == b""
    assert log.requests == [(0, 64 * KiB)]


async def test_known_version_is_opened_without_a_request(store: Trove, log: RangeLog) -> None:
    info = await store.head("bucket", "key")
    log.requests.clear()
    async with store.open_file("bucket", "key", if_match=info) as file:
        assert log.requests == []
        await file.seek(-8, os.SEEK_END)
        assert await file.read() == BODY[-8:]
    assert log.requests == [(SIZE - 8, SIZE)]


async def test_info_of_another_object_is_only_a_condition(store: Trove) -> None:
    info = await store.put("bucket", "other", b"other")
    with pytest.raises(PreconditionFailedError):
        await store.open_file("bucket", "key", if_match=info)


async def test_random_reads_request_exactly_their_bytes(store: Trove, log: RangeLog) -> None:
    async with store.open_file("bucket", "key") as file:
        for position in (5 * MiB, 1 * MiB, 3 * MiB, 10 * MiB):
            assert await file.seek(position) == position
            assert await file.read(4096) == BODY[position : position + 4096]
    assert log.requests[1:] == [
        (position, position + 4096) for position in (5 * MiB, 1 * MiB, 3 * MiB, 10 * MiB)
    ]


async def test_reads_in_a_row_share_requests_of_growing_ranges(store: Trove, log: RangeLog) -> None:
    async with store.open_file("bucket", "key") as file:
        received = [piece async for piece in pieces_of(file, 10_000)]
    assert b"".join(received) == BODY
    sizes = [(end or 0) - start for start, end in log.requests]
    assert sizes[:4] == sorted(sizes[:4])
    assert len(sizes) <= 6
    assert log.requests[-1][1] == SIZE


async def test_run_of_reads_after_a_seek_becomes_a_stream_again(
    store: Trove, log: RangeLog
) -> None:
    async with store.open_file("bucket", "key") as file:
        await file.seek(2 * MiB)
        for start in range(2 * MiB, 3 * MiB, 16 * KiB):
            assert await file.read(16 * KiB) == BODY[start : start + 16 * KiB]
    assert log.requests[1] == (2 * MiB, 2 * MiB + 16 * KiB)
    assert len(log.requests) == 4


async def test_short_seek_forwards_reads_on(store: Trove, log: RangeLog) -> None:
    async with store.open_file("bucket", "key") as file:
        await file.seek(1 * MiB)
        await file.read(1000)
        await file.read(1000)
        requests = len(log.requests)
        await file.seek(50_000, os.SEEK_CUR)
        assert await file.read(1000) == BODY[1 * MiB + 52_000 : 1 * MiB + 53_000]
        assert len(log.requests) == requests
        await file.seek(-2000, os.SEEK_CUR)
        assert await file.read(10) == BODY[1 * MiB + 51_000 : 1 * MiB + 51_010]
        assert len(log.requests) == requests + 1


async def test_readinto_fills_the_buffer(store: Trove) -> None:
    buffer = bytearray(300_000)
    async with store.open_file("bucket", "key") as file:
        assert await file.readinto(buffer) == 300_000
        assert buffer == BODY[:300_000]
        await file.seek(-3, os.SEEK_END)
        assert await file.readinto(memoryview(buffer)[:10]) == 3
        assert bytes(buffer[:3]) == BODY[-3:]
        with pytest.raises(TypeError, match="read-only"):
            await file.readinto(b"read-only")  # type: ignore[arg-type]  # tested at run time


async def test_empty_object_has_no_bytes(store: Trove) -> None:
    await store.put("bucket", "empty", b"")
    async with store.open_file("bucket", "empty") as file:
        assert file.size == 0
        assert await file.read() == b""
        assert await file.seek(10) == 10
        assert await file.read(5) == b""


async def test_seek_past_the_end_reads_nothing(store: Trove, log: RangeLog) -> None:
    async with store.open_file("bucket", "key") as file:
        await file.seek(5, os.SEEK_END)
        assert await file.read(1) == b""
    assert len(log.requests) == 1


@pytest.mark.parametrize(("offset", "whence"), [(-1, os.SEEK_SET), (-1, os.SEEK_CUR), (0, 7)])
async def test_impossible_position_is_refused(store: Trove, offset: int, whence: int) -> None:
    async with store.open_file("bucket", "key") as file:
        with pytest.raises(ValueError, match="must"):
            await file.seek(offset, whence)
        assert await file.tell() == 0


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END]),
            st.integers(-300_000, 300_000),
            st.integers(0, 200_000),
        ),
        max_size=20,
    )
)
@pytest.mark.parametrize("middleware", [(), (Xor(),)])
def test_reads_are_those_of_a_file_in_memory(
    steps: list[tuple[int, int, int]], middleware: tuple[Any, ...]
) -> None:
    body = BODY[: 700 * KiB]

    async def play() -> None:
        async with store_of(MemoryDriver(), middleware=middleware) as store:
            await store.put("bucket", "key", body)
            expected = io.BytesIO(body)
            async with store.open_file("bucket", "key") as file:
                for whence, offset, size in steps:
                    origin = {0: 0, 1: expected.tell(), 2: len(body)}[whence]
                    if origin + offset >= 0:
                        assert await file.seek(offset, whence) == expected.seek(offset, whence)
                    assert await file.read(size) == expected.read(size)
                    assert await file.tell() == expected.tell()

    asyncio.run(play())


async def test_transformed_object_takes_one_request_for_each_random_read() -> None:
    log = RangeLog()
    async with store_of(log, middleware=[Xor()]) as store:
        await store.put("bucket", "key", BODY)
        async with store.open_file("bucket", "key") as file:
            log.requests.clear()
            for position in (5 * MiB, 1 * MiB):
                await file.seek(position)
                assert await file.read(4096) == BODY[position : position + 4096]
            assert len(log.requests) == 2


async def test_replaced_object_is_never_mixed(store: Trove) -> None:
    async with store.open_file("bucket", "key") as file:
        assert await file.read(10) == BODY[:10]
        await store.put("bucket", "key", b"new" * MiB)
        await file.seek(1 * MiB)
        with pytest.raises(ObjectChangedError, match="open it again") as caught:
            await file.read(10)
        assert (caught.value.bucket, caught.value.key) == ("bucket", "key")
        assert await file.tell() == 1 * MiB


async def test_deleted_object_is_reported_as_changed(store: Trove) -> None:
    async with store.open_file("bucket", "key") as file:
        await store.delete("bucket", "key")
        await file.seek(1 * MiB)
        with pytest.raises(ObjectChangedError):
            await file.read(10)


async def test_version_without_proof_is_never_mixed() -> None:
    async with store_of(WithoutEtags()) as store:
        await store.put("bucket", "key", BODY)
        async with store.open_file("bucket", "key") as file:
            await file.seek(1 * MiB)
            try:
                assert await file.read(10) == BODY[1 * MiB : 1 * MiB + 10]
            except ObjectChangedError as error:
                assert "proof" in str(error)  # noqa: PT017 - the date may or may not prove it


async def test_old_version_is_read_by_its_id() -> None:
    driver = VersionedMemory()
    driver.versioned_buckets.add("bucket")
    async with store_of(driver) as store:
        old = await store.put("bucket", "key", BODY)
        await store.put("bucket", "key", b"new")
        async with store.open_file("bucket", "key", version_id=old.version_id) as file:
            await file.seek(1 * MiB)
            assert await file.read(10) == BODY[1 * MiB : 1 * MiB + 10]


async def test_missing_object_or_bucket_is_reported_by_opening(store: Trove) -> None:
    with pytest.raises(ObjectNotFoundError):
        await store.open_file("bucket", "missing")
    with pytest.raises(BucketNotFoundError):
        async with store.open_file("missing", "key"):
            pass


async def test_failed_read_keeps_the_position_and_can_be_repeated() -> None:
    log = RangeLog()
    store = single_attempt_store(log)
    async with store:
        await store.create_bucket("bucket")
        await store.put("bucket", "key", BODY)
        async with store.open_file("bucket", "key") as file:
            await file.seek(1 * MiB)
            log.fail("get", UnavailableError("down"))
            with pytest.raises(UnavailableError):
                await file.read(2 * MiB)
            assert await file.tell() == 1 * MiB
            assert await file.read(2 * MiB) == BODY[1 * MiB : 3 * MiB]


async def test_read_cancelled_at_any_step_loses_no_bytes(store: Trove) -> None:
    async with store.open_file("bucket", "key") as file:
        await file.seek(1 * MiB)
        await file.read(1000)
        for steps in range(1, 60):
            position = await file.tell()
            reading = asyncio.create_task(file.read(300_000))  # noqa: TID251 - to be cancelled
            for _ in range(steps):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            if reading.cancelled():
                assert await file.tell() == position
            else:
                assert reading.result() == BODY[position : position + 300_000]
        position = await file.tell()
        assert await file.read(100) == BODY[position : position + 100]


async def test_closed_file_refuses_reads_and_seeks(store: Trove) -> None:
    file = await store.open_file("bucket", "key")
    await file.aclose()
    await file.aclose()
    assert file.closed
    for call in (file.read, lambda: file.seek(0)):
        with pytest.raises(ClosedError, match="open it again"):
            await call()


async def test_file_reader_is_a_body_of_a_put(store: Trove) -> None:
    async with store.open_file("bucket", "key") as file:
        await file.seek(-100_000, os.SEEK_END)
        await store.put("bucket", "copy", file)
    assert await store.read("bucket", "copy") == BODY[-100_000:]


async def test_backend_without_ranges_is_refused() -> None:
    async with store_of(Fake(ranges=False)) as store:
        await store.put("bucket", "key", BODY)
        with pytest.raises(NotSupportedError, match="range"):
            await store.open_file("bucket", "key")


async def pieces_of(file: Any, size: int) -> AsyncIterator[bytes]:
    while piece := await file.read(size):
        yield piece


# -- writing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, 100_000, 3 * MiB])
async def test_written_file_is_the_object(store: Trove, size: int) -> None:
    async with store.open_file("bucket", "new", "wb", content_type="a/b", metadata={"m": "n"}) as f:
        for start in range(0, 5 * MiB, size):
            chunk = BODY[start : min(start + size, 5 * MiB)]
            assert await f.write(chunk) == len(chunk)
        assert await f.tell() == 5 * MiB
        assert f.info is None
        assert not await store.exists("bucket", "new")
    assert await store.read("bucket", "new") == BODY[: 5 * MiB]
    info = await store.head("bucket", "new")
    assert (info.content_type, info.metadata) == ("a/b", {"m": "n"})
    assert f.info is not None
    assert f.info.etag == info.etag


async def test_file_without_a_write_is_an_empty_object(store: Trove) -> None:
    async with store.open_file("bucket", "key", "wb"):
        pass
    assert await store.read("bucket", "key") == b""


async def test_written_buffer_may_be_reused(store: Trove) -> None:
    buffer = bytearray(b"abc")
    async with store.open_file("bucket", "new", "wb") as file:
        await file.write(buffer)
        buffer[:] = b"xyz"
        await file.write(memoryview(buffer)[1:])
        assert await file.write(b"") == 0
    assert await store.read("bucket", "new") == b"abcyz"


async def test_exception_inside_the_block_leaves_the_old_object(store: Trove) -> None:
    with pytest.raises(LookupError):
        async with store.open_file("bucket", "key", "wb") as file:
            await file.write(b"new" * MiB)
            raise LookupError
    assert await store.read("bucket", "key") == BODY
    assert file.closed


async def test_aborted_file_leaves_the_old_object(store: Trove) -> None:
    file = await store.open_file("bucket", "key", "wb")
    await file.write(b"new")
    await file.abort()
    await file.aclose()
    assert await store.read("bucket", "key") == BODY
    with pytest.raises(ClosedError):
        await file.write(b"more")


async def test_cancel_at_any_step_leaves_the_old_object_or_the_whole_new_one(
    store: Trove, log: RangeLog
) -> None:
    new = BODY[: 3 * MiB]

    async def write() -> None:
        async with store.open_file("bucket", "key", "wb") as file:
            for start in range(0, len(new), 500_000):
                await file.write(new[start : start + 500_000])

    for steps in range(1000):
        await store.put("bucket", "key", b"old")
        writing = asyncio.create_task(write())  # noqa: TID251 - to be cancelled from outside
        for _ in range(steps):
            await asyncio.sleep(0)
        finished = writing.done()
        writing.cancel()
        await asyncio.wait([writing])
        assert await store.read("bucket", "key") in {b"old", new}
        assert_idle(store, log)
        if finished:
            writing.result()
            break
        if writing.cancelled() and steps < 3:
            assert await store.read("bucket", "key") == b"old"
    else:
        pytest.fail("the write never finished")


async def test_exclusive_creation_never_replaces_an_object(store: Trove) -> None:
    async with store.open_file("bucket", "new", "xb") as file:
        await file.write(b"first")
    with pytest.raises(ObjectExistsError):
        async with store.open_file("bucket", "new", "xb") as file:
            await file.write(b"second")
    assert await store.read("bucket", "new") == b"first"


async def test_condition_replaces_only_that_version(store: Trove) -> None:
    info = await store.put("bucket", "new", b"first")
    async with store.open_file("bucket", "new", "wb", if_match=info) as file:
        await file.write(b"second")
    with pytest.raises(PreconditionFailedError):
        async with store.open_file("bucket", "new", "wb", if_match=info) as file:
            await file.write(b"third")
    assert await store.read("bucket", "new") == b"second"


async def test_error_of_the_put_is_raised_by_the_next_write_and_by_the_close() -> None:
    driver = CallLog()
    driver.fail("put", UnavailableError("down"))
    driver.fail("upload", UnavailableError("down"))
    async with single_attempt_store(driver) as store:
        await store.create_bucket("bucket")
        file = await store.open_file("bucket", "key", "wb")
        with pytest.raises(UnavailableError):
            for _ in range(100):
                await file.write(bytes(MiB))
        with pytest.raises(UnavailableError):
            await file.write(b"more")
        with pytest.raises(UnavailableError):
            await file.aclose()
        await file.aclose()
        assert not await store.exists("bucket", "key")


async def test_write_waits_while_the_put_is_slower(store: Trove, log: RangeLog) -> None:
    may_send = asyncio.Event()
    for step in ("upload", "put", "send"):
        log.before[step] = may_send.wait
    async with store.open_file("bucket", "new", "wb") as file:
        written = 0

        async def write() -> None:
            nonlocal written
            for start in range(0, SIZE, MiB):
                written += await file.write(BODY[start : start + MiB])

        async with task_group() as group:
            group.start_soon(write)
            while log.calls_under_way == 0:
                await asyncio.sleep(0)
            for _ in range(1000):
                await asyncio.sleep(0)
            assert written < 8 * MiB
            may_send.set()
    assert await store.read("bucket", "new") == BODY


@pytest.mark.parametrize(
    ("open_file", "error"),
    [
        (lambda store: store.open_file("bucket", "a/../b", "wb"), InvalidNameError),
        (lambda store: store.open_file("bucket", "", "rb"), InvalidNameError),
        (lambda store: store.open_file("bucket", "key", "r"), ValueError),
        (lambda store: store.open_file("bucket", "key", "ab"), ValueError),
        (lambda store: store.open_file("bucket", "key", "rb", content_type="a/b"), TypeError),
        (lambda store: store.open_file("bucket", "key", "wb", version_id="v"), TypeError),
        (lambda store: store.open_file("bucket", "key", "wb", metadata={"a b": ""}), ValueError),
        (lambda store: store.open_file("bucket", "key", "wb", unknown=1), TypeError),
        (lambda store: store.open_file("bucket", "key", "rb", if_match="*"), ValueError),
    ],
)
async def test_wrong_argument_is_refused_before_any_request(
    store: Trove, log: RangeLog, open_file: Callable[[Trove], Any], error: type[Exception]
) -> None:
    log.steps.clear()
    with pytest.raises(error):
        await open_file(store)
    assert log.steps == []


async def test_file_that_is_dropped_warns_and_stores_nothing(store: Trove) -> None:
    file = await store.open_file("bucket", "new", "wb")
    await file.write(b"lost")
    with pytest.warns(ResourceWarning, match="never closed"):  # noqa: PT031 - both drop it
        del file
        gc.collect()
    for _ in range(50):
        await asyncio.sleep(0)
    assert not await store.exists("bucket", "new")


async def test_file_that_is_never_opened_warns(store: Trove) -> None:
    with pytest.warns(ResourceWarning, match="never opened"):  # noqa: PT031 - both drop it
        store.open_file("bucket", "key")
        gc.collect()


async def test_file_of_a_closed_store_stores_nothing() -> None:
    driver = MemoryDriver()
    async with single_attempt_store(driver) as store:
        await store.create_bucket("bucket")
        file = await store.open_file("bucket", "key", "wb")
        await file.write(b"half")
    with pytest.raises(ClosedError):
        await file.write(b"more")
    with pytest.raises(ClosedError):
        await file.aclose()
    async with single_attempt_store(driver) as store:
        assert not await store.exists("bucket", "key")


async def test_file_of_a_bucket_is_that_of_its_store(store: Trove) -> None:
    bucket = store.bucket("bucket")
    async with bucket.open_file("new", "xb", cache_control="no-store") as file:
        await file.write(b"body")
    async with bucket.open_file("new") as reader:
        assert await reader.read() == b"body"
        assert reader.info.cache_control == "no-store"


# -- a real server -----------------------------------------------------------------------------------


@pytest.mark.parametrize("transformed", [False, True])
async def test_file_on_a_server_is_read_written_and_aborted(
    seaweed: S3Server, *, transformed: bool
) -> None:
    driver = S3Driver(
        endpoint_url=seaweed.endpoint_url,
        region=seaweed.region,
        access_key_id=seaweed.access_key_id,
        secret_access_key=seaweed.secret_access_key,
    )
    keys = Keyring({"key": bytes(range(32))})
    middleware: list[Middleware] = [Compression(), Encryption(keys)] if transformed else []
    async with Trove(driver, middleware=middleware) as store:
        files = store.bucket(f"files-{os.getpid()}-{int(transformed)}")
        await store.create_bucket(files.name, exist_ok=True)
        async with files.open_file("key", "wb") as file:
            for start in range(0, SIZE, 700_000):
                await file.write(BODY[start : start + 700_000])
        async with files.open_file("key") as reader:
            assert reader.size == SIZE
            for position in (0, SIZE - 1000, 5 * MiB, 5 * MiB + 1000, 7 * MiB):
                await reader.seek(position)
                assert await reader.read(1000) == BODY[position : position + 1000]
            await reader.seek(0)
            assert b"".join([piece async for piece in pieces_of(reader, 100_000)]) == BODY
            await files.put("key", b"replaced")
            await reader.seek(9 * MiB)
            with pytest.raises(ObjectChangedError):
                await reader.read(10)
        with pytest.raises(LookupError):
            async with files.open_file("key", "wb") as file:
                await file.write(BODY)
                raise LookupError
        assert await files.read("key") == b"replaced"
        with pytest.raises(ObjectExistsError):
            async with files.open_file("key", "xb") as file:
                await file.write(b"new")
