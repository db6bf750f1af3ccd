"""`delete_many`: routing, order of results, failures, and how the keys are read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.fakes import CallLog, fill, single_attempt_store
from trove_async import (
    BackendError,
    BodyConsumedError,
    BucketNotFoundError,
    ClosedError,
    InvalidNameError,
    UnavailableError,
)
from trove_async.models import DeleteResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

ROUTES = [("*.cold", "cold")]
KEYS = ["a", "b.cold", "c", "d.cold"]


@pytest.mark.parametrize("bulk", [0, 1, 3, 1000])
async def test_every_key_is_deleted_where_it_is_routed_and_reported_in_order(bulk: int) -> None:
    default, cold = CallLog(bulk_delete=bulk), CallLog()
    await fill(default, "data", "a", "c", "kept", "b.cold")
    await fill(cold, "data", "b.cold", "d.cold", "a")
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        results = [result async for result in store.delete_many("data", [*KEYS, "missing", "a"])]
    assert results == [DeleteResult(key=key) for key in [*KEYS, "missing", "a"]]
    assert default.stored_keys("data") == ["b.cold", "kept"]
    assert cold.stored_keys("data") == ["a"]
    assert default.calls.count("delete") == (3 if bulk == 0 else 0)  # "a" only once
    assert "head_bucket" not in default.calls


async def test_keys_may_be_an_endless_async_iterable() -> None:
    default = CallLog()
    await fill(default, "data", "0", "1500")
    closed = False

    async def endless() -> AsyncIterator[str]:
        nonlocal closed
        number = 0
        try:
            while True:
                yield str(number)
                number += 1
        finally:
            closed = True

    async with single_attempt_store(default) as store:
        deletion = aiter(store.delete_many("data", endless()))
        async for result in deletion:
            if result.key == "1500":
                break
        await deletion.aclose()
    assert closed
    assert default.stored_keys("data") == []
    assert default.calls.count("delete_many") == 2


async def test_keys_are_read_a_thousand_at_a_time() -> None:
    count = 0

    def keys() -> Iterator[str]:
        nonlocal count
        for number in range(2500):
            count += 1
            yield str(number)

    default = CallLog()
    await fill(default, "data")
    async with single_attempt_store(default) as store:
        deletion = aiter(store.delete_many("data", keys()))
        await anext(deletion)
        assert count == 1000
        assert len([result async for result in deletion]) == 2499


async def test_single_deletions_have_limited_concurrency() -> None:
    default = CallLog(bulk_delete=0)
    await fill(default, "data")
    running = peak = 0

    async def wait() -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0)
        running -= 1

    default.before["delete"] = wait
    async with single_attempt_store(default) as store:
        await store.delete_many("data", map(str, range(100)))
    assert default.calls.count("delete") == 100
    assert 4 < peak <= 16


class PartlyFailingDriver(CallLog):
    """Fails to delete keys that contain ``x``, and reports no result for keys that contain ``?``."""

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        results = await super().delete_many(bucket, [key for key in keys if "x" not in key])
        return [
            *(result for result in results if "?" not in result.key),
            *(
                DeleteResult(key=key, error=UnavailableError("locked"))
                for key in keys
                if "x" in key
            ),
        ]


async def test_failures_are_reported_per_key_and_other_keys_are_deleted() -> None:
    default = PartlyFailingDriver()
    await fill(default, "data", "a", "x")
    async with single_attempt_store(default) as store:
        results = {
            result.key: result.error
            async for result in store.delete_many("data", ["a", "x", "?", "??", "../b", "c"])
        }
        assert results["a"] is results["c"] is None
        locked = results["x"]
        assert isinstance(locked, UnavailableError)
        assert (locked.operation, locked.backend, locked.bucket, locked.key) == (
            "delete_many", "default", "data", "x",
        )  # fmt: skip
        for key in ("?", "??"):
            unreported = results[key]
            assert isinstance(unreported, BackendError)
            assert "reported no result" in str(unreported)
            assert unreported.key == key
        assert isinstance(results["../b"], InvalidNameError)
        with pytest.raises(UnavailableError, match="locked"):
            await store.delete_many("data", ["a", "x"])
        with pytest.raises(ExceptionGroup) as caught:
            await store.delete_many("data", ["x", "a", "xx"])
        assert [str(error)[:6] for error in caught.value.exceptions] == ["locked"] * 2
    assert default.stored_keys("data") == ["x"]


@pytest.mark.parametrize("bulk", [0, 1000])
async def test_failing_backend_fails_only_its_own_keys(bulk: int) -> None:
    default, cold = CallLog(), CallLog(bulk_delete=bulk)
    await fill(default, "data", "a", "c")
    await fill(cold, "data", "b.cold")
    cold.fail("delete_many" if bulk else "delete", UnavailableError("down"))
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        results = [result async for result in store.delete_many("data", KEYS)]
        assert [result.error is None for result in results] == [True, False, True, False]
        with pytest.raises(UnavailableError, match="down"):
            await store.delete_many("data", KEYS)


async def test_missing_bucket_is_reported_for_every_key() -> None:
    for bulk in (0, 1000):
        async with single_attempt_store(CallLog(bulk_delete=bulk)) as store:
            results = [result async for result in store.delete_many("nowhere", ["a", "b"])]
            assert all(isinstance(result.error, BucketNotFoundError) for result in results)
            assert await store.delete_many("nowhere", []) is None  # type: ignore[func-returns-value]  # the None is tested


async def test_route_function_error_is_raised_and_nothing_is_deleted() -> None:
    default = CallLog()
    await fill(default, "data", "a", "b")

    def route(_bucket: str, key: str) -> str:
        if key == "b":
            raise LookupError(key)
        return ""

    async with single_attempt_store(default, route_functions=[route]) as store:
        with pytest.raises(LookupError):
            await store.delete_many("data", ["a", "b"])
    assert default.stored_keys("data") == ["a", "b"]


async def test_deletion_cannot_be_started_twice() -> None:
    default = CallLog()
    await fill(default, "data", "a")
    async with single_attempt_store(default) as store:
        deletion = store.delete_many("data", ["a"])
        await deletion
        with pytest.raises(BodyConsumedError, match="call delete_many again"):
            await deletion
        with pytest.raises(BodyConsumedError):
            aiter(deletion)


async def test_deletion_that_was_never_started_warns() -> None:
    async with single_attempt_store() as store:
        with pytest.warns(ResourceWarning, match="nothing was deleted: await it"):
            store.delete_many("data", ["a"])


@pytest.mark.parametrize("keys", ["key", b"key", None, 5])
async def test_invalid_keys_argument_is_rejected(keys: object) -> None:
    async with single_attempt_store() as store:
        with pytest.raises(TypeError, match="iterable of keys"):
            store.delete_many("data", keys)  # type: ignore[arg-type]  # tested at run time
        with pytest.raises(TypeError, match="a key must be a str"):
            await store.delete_many("data", [5])  # type: ignore[list-item]  # tested at run time


async def test_deletion_raises_if_its_store_is_closed() -> None:
    default = CallLog()
    await fill(default, "data")
    async with single_attempt_store(default) as store:
        deletion = aiter(store.delete_many("data", map(str, range(1500))))
        await anext(deletion)
    with pytest.raises(ClosedError):
        async for _ in deletion:
            pass
