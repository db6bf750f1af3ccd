"""Permits of requests that transfer no body: one for each call of the driver, none for an abort."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from tests.fakes import CALLS, LARGE, Fake, assert_idle, prepare_calls, store_of
from trove_async import PoolTimeoutError, Timeout, UnavailableError
from trove_async._concurrency import OwnedTask, task_group
from trove_async.drivers import GCSDriver, S3Driver
from trove_async.layers import Mapped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trove_async import Trove
    from trove_async._resilience.calls import Calls
    from trove_async._resilience.driver import ResilientDriver
    from trove_async.events import Event

REQUESTS: dict[str, Callable[[Trove], Awaitable[object]]] = {
    "head": lambda store: store.head("bucket", "key"),
    "delete": lambda store: store.delete("bucket", "key"),
    "delete_many": lambda store: store.delete_many("bucket", ["key", "other"]),
    "list": lambda store: store.list("bucket").all(),
    "copy": lambda store: store.copy("bucket", "key", "bucket", "new"),
    "upload": lambda store: store.put("bucket", "new", LARGE),
    "create_bucket": lambda store: store.create_bucket("other"),
    "delete_bucket": lambda store: store.delete_bucket("empty"),
    "list_buckets": lambda store: store.list_buckets(),
}


def calls_of(store: Trove) -> Calls:
    return cast("ResilientDriver", store._core.backends["default"].driver).calls


async def hold_permit(store: Trove, fake: Fake) -> OwnedTask[object]:
    """Start a copy that hangs and so holds the only permit for other requests."""
    reached = fake.hang("copy")
    copy = OwnedTask(store.copy("bucket", "key", "bucket", "copy"))
    await reached.wait()
    del fake.before["copy"]
    return cast("OwnedTask[object]", copy)


@pytest.mark.parametrize("name", REQUESTS)
async def test_request_that_waits_too_long_for_a_permit_times_out(name: str) -> None:
    fake = Fake(max_connections=1)
    async with store_of(fake, timeout=Timeout(permit=0.02)) as store:
        await prepare_calls(store, fake)
        copy = await hold_permit(store, fake)
        with pytest.raises(
            PoolTimeoutError, match=r"connection for other requests became free .* limit is 1"
        ):
            await REQUESTS[name](store)
        await copy.aclose()
        await REQUESTS[name](store)
        assert_idle(store, fake)


@pytest.mark.parametrize("name", REQUESTS)
async def test_waiting_for_a_permit_does_not_count_as_a_late_response(name: str) -> None:
    fake = Fake(max_connections=1, embedded=False)
    timeout = Timeout(first_byte=0.05, idle=60, permit=60)  # a copy gets one more idle timeout
    async with store_of(fake, timeout=timeout) as store:
        await prepare_calls(store, fake)
        copy = await hold_permit(store, fake)
        waiting = OwnedTask(_call(REQUESTS[name], store))
        while not calls_of(store).request_permits.waiting:
            await asyncio.sleep(0)
        elapsed = asyncio.Event()
        asyncio.get_running_loop().call_later(3 * timeout.first_byte, elapsed.set)
        await elapsed.wait()
        assert not waiting.done
        await copy.aclose()
        await waiting.result()
        assert_idle(store, fake)


async def _call(call: Callable[[Trove], Awaitable[object]], store: Trove) -> None:
    await call(store)


async def test_reads_and_writes_do_not_wait_for_other_requests() -> None:
    fake = Fake(max_connections=1)
    async with store_of(fake) as store:
        await prepare_calls(store, fake)
        copy = await hold_permit(store, fake)
        assert await store.read("bucket", "key") == b"body"
        await store.put("bucket", "new", b"small")
        assert (await store.health())["default"].ok
        await copy.aclose()
        assert_idle(store, fake)


async def test_request_that_waits_for_a_permit_emits_an_event() -> None:
    fake = Fake(max_connections=1)
    async with store_of(fake) as store:
        await prepare_calls(store, fake)
        copy = await hold_permit(store, fake)
        events: list[Event] = []
        store.events.subscribe(events.append)
        head = OwnedTask(store.head("bucket", "key"))
        while not calls_of(store).request_permits.waiting:
            await asyncio.sleep(0)
        await copy.aclose()
        await head.result()
    waits = [(event.operation, event.bucket, event.key) for event in events if event.kind == "wait"]
    assert waits == [("head", "bucket", "key")]


@pytest.mark.parametrize("when", ["", ".done"], ids=["failed", "lost"])
@pytest.mark.parametrize("name", CALLS)
async def test_one_permit_is_enough_for_a_call_and_its_retry(name: str, when: str) -> None:
    step, call = CALLS[name]
    fake = Fake(max_connections=1, parallel_parts=1)
    async with store_of(fake) as store:
        await prepare_calls(store, fake)
        fake.fail(step + when)
        await call(store)
        assert_idle(store, fake)


async def test_one_permit_is_enough_for_concurrent_calls_through_a_layer() -> None:
    fake = Fake(max_connections=1)
    async with store_of(Mapped(fake, into="physical")) as store:

        async def work(number: int) -> None:
            key = str(number)
            await store.put("bucket", key, LARGE, if_none_match="*")
            await store.copy("bucket", key, "bucket", f"copy{key}")
            await store.move("bucket", f"copy{key}", "bucket", f"moved{key}")
            await store.delete_many("bucket", [key, f"moved{key}"])

        async with task_group() as group:
            for number in range(8):
                group.start_soon(work, number)
        assert await store.list("bucket").all() == []


async def test_abort_needs_no_permit() -> None:
    fake = Fake(max_connections=1)
    async with store_of(fake, timeout=Timeout(permit=60)) as store:
        await prepare_calls(store, fake)
        reached, release = asyncio.Event(), asyncio.Event()

        async def fail() -> None:
            reached.set()
            await release.wait()
            raise PermissionError("no")

        fake.before["send"] = fail
        put = OwnedTask(store.put("bucket", "new", LARGE))
        await reached.wait()
        copy = await hold_permit(store, fake)
        release.set()
        with pytest.raises(PermissionError):
            await put.result()
        assert fake.count("upload.exit") == 1
        await copy.aclose()
        assert_idle(store, fake)


async def test_request_cancelled_while_it_waits_holds_no_permit() -> None:
    fake = Fake(max_connections=1)
    async with store_of(fake) as store:
        await prepare_calls(store, fake)
        copy = await hold_permit(store, fake)
        head = OwnedTask(store.head("bucket", "key"))
        while not calls_of(store).request_permits.waiting:
            await asyncio.sleep(0)
        await head.aclose()
        await copy.aclose()
        assert_idle(store, fake)


async def test_single_deletes_after_a_lost_bulk_response_need_permits() -> None:
    fake = Fake(max_connections=1, settles_doubt=True)
    peak = 0

    async def record_peak() -> None:
        nonlocal peak
        peak = max(peak, fake.calls_under_way)

    async with store_of(fake) as store:
        await prepare_calls(store, fake)
        fake.before["delete"] = record_peak
        fake.fail("delete_many.done", UnavailableError("lost"))
        await store.delete_many("bucket", [str(number) for number in range(9)])
        assert fake.count("delete") == 9
        assert peak == 1
        assert_idle(store, fake)


def test_service_drivers_allow_one_other_request_per_connection() -> None:
    s3 = S3Driver(max_connections=3, region="us-east-1", access_key_id="a", secret_access_key="b")  # noqa: S106
    gcs = GCSDriver(max_connections=5, anonymous=True)
    assert (s3.capabilities.max_requests, gcs.capabilities.max_requests) == (3, 5)
