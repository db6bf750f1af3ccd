"""The wrapper of service drivers: retries, permits, timeouts and lost responses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fakes import CALLS, LARGE, Call, Fake, assert_idle, prepare_calls, store_of
from trove_async import (
    BucketExistsError,
    BucketNotFoundError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PermissionDeniedError,
    PoolTimeoutError,
    PreconditionFailedError,
    RetryPolicy,
    StorageFullError,
    TimedOutError,
    Timeout,
    TroveError,
    UnavailableError,
)
from trove_async._concurrency import OwnedTask
from trove_async.drivers import MemoryDriver
from trove_async.options import PutOptions

pytestmark = pytest.mark.idle_time


async def stream(body: bytes) -> Any:
    yield body


@pytest.fixture(params=CALLS)
def call(request: pytest.FixtureRequest) -> Call:
    return CALLS[request.param]


async def test_wrapped_driver_is_a_driver() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        wrapped = store._core.backends["default"].driver
        assert wrapped.name == "memory"
        assert wrapped.capabilities is fake.capabilities
        assert wrapped.place("a", "b") == fake.place("a", "b")
        await wrapped.open(None)  # type: ignore[arg-type]  # it does nothing
        assert (await wrapped.head_bucket("bucket")).name == "bucket"
        assert [bucket.name for bucket in await wrapped.list_buckets()] == ["bucket"]
        await wrapped.aclose()


async def test_copy_of_a_source_replaced_midway_raises() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        await store.put("bucket", "key", b"body")

        async def replace_source() -> None:
            del fake.before["copy"]
            await store.put("bucket", "key", b"other")

        fake.before["copy"] = replace_source
        with pytest.raises(ObjectChangedError):
            await store.copy("bucket", "key", "bucket", "copy")


# -- retries -----------------------------------------------------------------------------------------


async def test_temporary_failure_is_retried(call: Call) -> None:
    step, run = call
    fake = Fake(parallel_parts=1)
    async with store_of(fake) as store:
        await prepare_calls(store, fake)
        fake.fail(step, UnavailableError("one"), TimedOutError("two"))
        await run(store)
        assert fake.count(f"{step}.done") == fake.count(step) - 2
        assert_idle(store, fake)


async def test_repeated_failure_is_raised_after_the_last_attempt(call: Call) -> None:
    step, run = call
    fake = Fake(parallel_parts=1)
    async with store_of(fake, retry=RetryPolicy(attempts=3, base_delay=0)) as store:
        await prepare_calls(store, fake)
        fake.fail(step, *[UnavailableError(str(number)) for number in range(9)])
        with pytest.raises(UnavailableError, match="2"):
            await run(store)
        assert fake.count(step) == 3
        assert_idle(store, fake)


async def test_permanent_failure_is_not_retried(call: Call) -> None:
    step, run = call
    fake = Fake(parallel_parts=1)
    async with store_of(fake) as store:
        await prepare_calls(store, fake)
        fake.fail(step, PermissionDeniedError("no"))
        with pytest.raises(PermissionDeniedError) as caught:
            await run(store)
        assert fake.count(step) == 1
        assert caught.value.backend == "default"
        assert caught.value.bucket in {"bucket", "empty", "other"}
        operations = (
            "put",
            "read",
            "head",
            "delete",
            "list",
            "copy",
            "create_bucket",
            "delete_bucket",
        )
        assert caught.value.operation in operations
        assert_idle(store, fake)


async def test_error_has_operation_backend_bucket_and_key() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        with pytest.raises(ObjectNotFoundError) as caught:
            await store.head("bucket", "no")
        error = caught.value
        assert (error.operation, error.backend, error.bucket, error.key) == (
            "head",
            "default",
            "bucket",
            "no",
        )


async def test_ping_is_not_retried() -> None:
    class UnreachableDriver(Fake):
        async def ping(self) -> None:
            self.steps.append("ping")
            raise UnavailableError("no response")

    fake = UnreachableDriver()
    async with store_of(fake) as store:
        health = (await store.health())["default"]
        assert not health.ok
        assert isinstance(health.error, UnavailableError)
        assert fake.count("ping") == 1


async def test_retry_budget_limits_all_calls_of_a_driver() -> None:
    fake, other = Fake(), Fake()
    policy = RetryPolicy(attempts=5, base_delay=0, budget=3)
    async with store_of(fake, other, retry=policy) as store:
        await store.put("bucket", "b/key", b"body")
        fake.fail("head", *[UnavailableError("dead") for _ in range(100)])
        for _ in range(10):
            with pytest.raises(UnavailableError):
                await store.head("bucket", "key")
        assert fake.count("head") == 10 + 3
        other.fail("head")  # a different driver has a separate budget
        await store.head("bucket", "b/key")


async def test_permit_is_not_held_during_the_pause() -> None:
    fake = Fake(max_connections=1)
    paused = asyncio.Event()
    async with store_of(fake, retry=RetryPolicy(base_delay=1000, max_delay=1000)) as store:
        fake.fail("put", UnavailableError("busy", retry_after=1000))
        store.events.subscribe(lambda event: paused.set() if event.error else None)
        first = OwnedTask(store.put("bucket", "first", b"body"))
        await paused.wait()
        await store.put("bucket", "second", b"body")
        await first.aclose()
        assert_idle(store, fake)


async def test_permit_timeout_is_not_retried() -> None:
    fake = Fake(max_connections=1)
    async with store_of(fake, timeout=Timeout(permit=0.02)) as store:
        reached = fake.hang("put")
        first = OwnedTask(store.put("bucket", "first", b"body"))
        await reached.wait()
        with pytest.raises(PoolTimeoutError):
            await store.put("bucket", "second", b"body")
        assert fake.count("put") == 1
        await first.aclose()
        assert_idle(store, fake)


# -- lost responses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"body", LARGE], ids=["put", "commit"])
async def test_own_write_is_recognised_after_a_lost_response(body: bytes) -> None:
    fake = Fake()
    step = "put.done" if body == b"body" else "commit.done"
    async with store_of(fake) as store:
        fake.fail(step)
        created = await store.put("bucket", "key", body, if_none_match="*")
        assert created.size == len(body)
        fake.fail(step)
        replaced = await store.put("bucket", "key", body[::-1], if_match=created)
        assert replaced.etag != created.etag
        assert await store.read("bucket", "key") == body[::-1]


async def test_upload_missing_after_a_lost_response_was_committed() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        # S3 responds NoSuchUpload for an upload that has been committed.
        fake.fail("commit.done")

        async def report_missing_upload() -> None:
            if fake.count("commit") > 1:
                raise ObjectNotFoundError("no such upload")

        fake.before["commit"] = report_missing_upload
        info = await store.put("bucket", "key", LARGE)
        assert info.etag == (await store.head("bucket", "key")).etag


async def test_own_copy_is_recognised_after_a_lost_response() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        await store.put("bucket", "key", b"body")
        fake.fail("copy.done")
        copied = await store.copy("bucket", "key", "bucket", "copy", if_none_match="*")
        assert copied.key == "copy"
        # A copy onto itself: the retry finds that the source is not the version in options.source.
        fake.fail("copy.done")
        await store.copy("bucket", "key", "bucket", "key", metadata={"a": "b"})
        assert (await store.head("bucket", "key")).metadata == {"a": "b"}


@pytest.mark.parametrize("step", ["put", "copy"])
async def test_write_of_another_client_is_not_recognised_as_own(step: str) -> None:
    fake = Fake()
    async with store_of(fake) as store:
        await store.put("bucket", "source", b"body")

        async def put_by_another_client() -> None:
            del fake.before[step]
            await MemoryDriver.put(
                fake, "bucket", "key", [memoryview(b"other")], PutOptions(write_id="other's")
            )
            raise UnavailableError("this write was not stored")

        fake.before[step] = put_by_another_client
        with pytest.raises(ObjectExistsError):
            if step == "put":
                await store.put("bucket", "key", b"body", if_none_match="*")
            else:
                await store.copy("bucket", "source", "bucket", "key", if_none_match="*")
        assert await store.read("bucket", "key") == b"other"


async def test_rejected_first_attempt_is_not_treated_as_a_lost_response() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        await store.put("bucket", "key", b"body")
        heads = fake.count("head")
        with pytest.raises(ObjectExistsError):
            await store.put("bucket", "key", b"new", if_none_match="*")
        with pytest.raises(PreconditionFailedError):
            await store.delete("bucket", "key", if_match="another")
        with pytest.raises(BucketExistsError):
            await store.create_bucket("bucket")
        assert fake.count("head") == heads


async def test_other_failure_of_a_retry_after_a_lost_response_is_raised() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        fake.fail("put", UnavailableError("first"), StorageFullError("second"))
        with pytest.raises(StorageFullError):
            await store.put("bucket", "key", b"body")
        fake.fail("delete", UnavailableError("first"), PermissionDeniedError("second"))
        with pytest.raises(PermissionDeniedError):
            await store.delete("bucket", "key")
        fake.fail("create_bucket", UnavailableError("first"), PermissionDeniedError("second"))
        with pytest.raises(PermissionDeniedError):
            await store.create_bucket("other")


async def test_retried_put_into_a_deleted_bucket_raises() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        fake.fail("put", UnavailableError("first"), BucketNotFoundError("gone", bucket="bucket"))
        fake.fail("head", BucketNotFoundError("gone", bucket="bucket"))
        with pytest.raises(TroveError):
            await store.put("bucket", "key", b"body", if_none_match="*")


async def test_write_without_write_id_is_not_recognised() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        driver = store._core.backends["default"].driver
        await store.put("bucket", "key", b"body")
        fake.fail("put")
        options = PutOptions(if_none_match="*")
        with pytest.raises(ObjectExistsError):
            await driver.put("bucket", "key", [memoryview(b"new")], options)


async def test_retried_delete_of_a_deleted_object_succeeds() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        info = await store.put("bucket", "key", b"body")
        fake.fail("delete.done")
        await store.delete("bucket", "key", if_match=info)
        assert not await store.exists("bucket", "key")


async def test_retried_delete_of_a_replaced_version_raises() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        info = await store.put("bucket", "key", b"body")
        await store.put("bucket", "key", b"another")
        fake.fail("delete")
        with pytest.raises(PreconditionFailedError):
            await store.delete("bucket", "key", if_match=info)


async def test_retry_of_a_bucket_call_after_a_lost_response_succeeds() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        fake.fail("create_bucket.done")
        await store.create_bucket("other")
        fake.fail("delete_bucket.done")
        await store.delete_bucket("other")
        with pytest.raises(BucketNotFoundError):
            await store.delete_bucket("other")


async def test_retried_commit_creates_one_object() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        fake.fail("commit.done")
        await store.put("bucket", "key", stream(LARGE))
        assert fake.count("commit") == 2
        assert await store.read("bucket", "key") == LARGE


async def test_failed_abort_does_not_hide_the_original_error() -> None:
    fake = Fake()
    async with store_of(fake) as store:
        fake.fail("send", PermissionDeniedError("the reason"))
        fake.fail("upload.exit", UnavailableError("the abort"))
        with pytest.raises(PermissionDeniedError):
            await store.put("bucket", "key", LARGE)
        fake.fail("upload.exit", UnavailableError("after the commit"))
        await store.put("bucket", "key", LARGE)
        assert await store.read("bucket", "key") == LARGE
        assert_idle(store, fake)
