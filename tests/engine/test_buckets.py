"""Creating, deleting and listing buckets over several backends."""

from __future__ import annotations

import pytest

from tests.fakes import CallLog, fill, single_attempt_store
from trove_async import (
    BackendNotFoundError,
    BucketExistsError,
    BucketNotEmptyError,
    BucketNotFoundError,
    ObjectNotFoundError,
    PreconditionFailedError,
    TroveError,
    UnavailableError,
)
from trove_async.layers import Mapped
from trove_async.options import DeleteOptions

ROUTES = [("*.cold", "cold")]


# -- create ----------------------------------------------------------------------------------------


async def test_create_creates_the_bucket_on_the_default_backend_only() -> None:
    default, cold = CallLog(), CallLog()
    async with single_attempt_store(default, backends={"cold": cold}) as store:
        await store.create_bucket("data")
        assert "create_bucket" in default.calls
        assert "create_bucket" not in cold.calls
        with pytest.raises(BucketExistsError) as caught:
            await store.create_bucket("data")
        error = caught.value
        assert (error.operation, error.bucket, error.backend) == (
            "create_bucket",
            "data",
            "default",
        )
        await store.create_bucket("data", exist_ok=True)


async def test_create_on_named_backends() -> None:
    async with single_attempt_store(backends={"cold": CallLog(), "third": CallLog()}) as store:
        await store.create_bucket("one", backends=["cold", "third", "cold"])
        await store.create_bucket("two", backends="third")
        await store.create_bucket("three", backends="all")
        assert {info.name: list(info.backends) for info in await store.list_buckets()} == {
            "one": ["cold", "third"],
            "two": ["third"],
            "three": ["default", "cold", "third"],
        }


async def test_create_on_no_or_unknown_backends_creates_nothing() -> None:
    async with single_attempt_store(backends={"cold": CallLog()}) as store:
        with pytest.raises(BackendNotFoundError, match="there are 'default', 'cold'"):
            await store.create_bucket("data", backends=["cold", "nowhere"])
        with pytest.raises(ValueError, match="omit it"):
            await store.create_bucket("data", backends=[])
        assert await store.list_buckets() == []


async def test_create_that_fails_midway_names_the_backends_with_the_bucket() -> None:
    cold = CallLog()
    cold.fail("create_bucket", UnavailableError("broken"))
    async with single_attempt_store(backends={"cold": cold}) as store:
        with pytest.raises(UnavailableError, match=r"created on 'default'") as caught:
            await store.create_bucket("data", backends="all")
        assert caught.value.backend == "cold"


async def test_create_on_all_with_exist_ok_skips_existing_buckets() -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data")
    async with single_attempt_store(default, backends={"cold": cold}) as store:
        with pytest.raises(BucketExistsError):
            await store.create_bucket("data", backends="all")
        await store.create_bucket("data", backends="all", exist_ok=True)
        assert [info.backends for info in await store.list_buckets()] == [("default", "cold")]


async def test_bucket_shared_by_several_backends_is_created_and_deleted_once() -> None:
    driver = CallLog()
    layer = Mapped(driver, buckets={"data": "data"})
    async with single_attempt_store(driver, backends={"same": driver, "layer": layer}) as store:
        await store.create_bucket("data", backends="all")
        (info,) = await store.list_buckets()
        assert info.backends == ("default", "same", "layer")
        await store.delete_bucket("data")
        assert await store.list_buckets() == []


# -- created by the first put ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("create_missing", "private", "is_created"),
    [
        ("auto", True, True),
        ("auto", False, False),
        (True, True, True),
        (True, False, True),
        (False, True, False),
        (False, False, False),
    ],
)
@pytest.mark.parametrize("size", [0, 5, 10_000_000], ids=["empty", "small", "in parts"])
async def test_put_creates_a_bucket_that_the_default_has_if_allowed(
    *, create_missing: bool | str, private: bool, is_created: bool, size: int
) -> None:
    cold = CallLog(private_namespace=private)
    async with single_attempt_store(
        backends={"cold": cold}, routes=ROUTES, create_missing_buckets=create_missing
    ) as store:
        await store.create_bucket("data")
        if is_created:
            assert (await store.put("data", "a.cold", bytes(size))).backend == "cold"
            assert (await store.head("data", "a.cold")).size == size
            return
        with pytest.raises(BucketNotFoundError) as caught:
            await store.put("data", "a.cold", bytes(size))
        assert caught.value.backend == "cold"
        assert "create_bucket('data', backends=['cold'])" in str(caught.value)
        assert "create_missing_buckets=True" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "create_bucket" not in cold.calls
        await store.create_bucket("data", backends=["cold"])
        await store.put("data", "a.cold", bytes(size))


@pytest.mark.parametrize("create_missing", ["auto", True])
async def test_put_does_not_create_a_bucket_that_the_default_lacks(
    *, create_missing: bool | str
) -> None:
    default, cold = CallLog(), CallLog()
    async with single_attempt_store(
        default, backends={"cold": cold}, routes=ROUTES, create_missing_buckets=create_missing
    ) as store:
        for key in ("a.cold", "a"):
            with pytest.raises(BucketNotFoundError, match=r"store\.create_bucket\('data'\) first"):
                await store.put("data", key, b"")
        assert "create_bucket" not in default.calls + cold.calls
        await fill(cold, "data")
        assert (await store.put("data", "a.cold", b"")).backend == "cold"


async def test_put_succeeds_if_another_call_creates_the_bucket_first() -> None:
    cold = CallLog()

    async def create_first() -> None:
        cold.before.clear()
        await cold.create_bucket("data")

    cold.before["create_bucket"] = create_first
    async with single_attempt_store(backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data")
        await store.put("data", "a.cold", b"")
        assert await store.exists("data", "a.cold")


async def test_pinned_handle_creates_no_bucket() -> None:
    cold = CallLog()
    async with single_attempt_store(backends={"cold": cold}) as store:
        await store.create_bucket("data")
        with pytest.raises(BucketNotFoundError, match="first"):
            await store.backend("cold").put("data", "a", b"")
        assert "create_bucket" not in cold.calls


async def test_missing_bucket_that_cannot_be_created_keeps_the_advice_of_its_layer() -> None:
    advice = r"the bucket is not mapped: add it to Mapped\(buckets=\{'b': …\}\)"
    mapped = Mapped(CallLog(), buckets={"a": "phys-a"})
    async with single_attempt_store(mapped) as store:
        for call in (
            store.put("b", "key", b""),
            store.read("b", "key"),
            store.list("b").all(),
            store.create_bucket("b"),
        ):
            with pytest.raises(TroveError, match=advice):
                await call
    # A put creates no missing bucket on a backend that cannot have it.
    mapped = Mapped(CallLog(), buckets={"a": "phys-a"})
    async with single_attempt_store(
        backends={"cold": mapped}, routes=ROUTES, create_missing_buckets=True
    ) as store:
        await store.create_bucket("b")
        with pytest.raises(BucketNotFoundError, match=advice) as caught:
            await store.put("b", "a.cold", b"")
        assert caught.value.backend == "cold"


# -- objects of a bucket that their backend lacks ------------------------------------------------------


async def test_object_is_missing_if_only_its_backend_lacks_the_bucket() -> None:
    default, cold = CallLog(), CallLog()
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data")
        for call in (
            store.head("data", "a.cold"),
            store.read("data", "a.cold"),
            store.get_ranges("data", "a.cold", [(0, 1)]),
        ):
            with pytest.raises(ObjectNotFoundError) as caught:
                await call
            assert (caught.value.bucket, caught.value.key) == ("data", "a.cold")
            assert caught.value.backend == "cold"
        with pytest.raises(ObjectNotFoundError):
            async with store.get("data", "a.cold"):
                pass
        assert not await store.exists("data", "a.cold")
        await store.delete("data", "a.cold")
        with pytest.raises(PreconditionFailedError, match="the object does not exist"):
            await store.delete("data", "a.cold", if_match="etag")
        results = [result async for result in store.delete_many("data", ["a.cold", "b.cold"])]
        assert [(result.key, result.error) for result in results] == [
            ("a.cold", None), ("b.cold", None),
        ]  # fmt: skip


async def test_bucket_is_missing_if_all_backends_lack_it() -> None:
    async with single_attempt_store(backends={"cold": CallLog()}, routes=ROUTES) as store:
        for key in ("a", "a.cold"):
            with pytest.raises(BucketNotFoundError):
                await store.head("data", key)
            with pytest.raises(BucketNotFoundError):
                await store.exists("data", key)
            with pytest.raises(BucketNotFoundError):
                await store.delete("data", key)
            with pytest.raises(BucketNotFoundError):
                await store.delete_many("data", [key])


async def test_bucket_is_found_while_another_backend_is_down() -> None:
    default, cold, third = CallLog(), CallLog(), CallLog()
    await fill(third, "data")
    default.fail("head_bucket", UnavailableError("down"))
    async with single_attempt_store(
        default, backends={"cold": cold, "third": third}, routes=ROUTES
    ) as store:
        assert not await store.exists("data", "a.cold")
        with pytest.raises(UnavailableError, match="down"):
            await store.exists("other", "a.cold")


# -- delete ----------------------------------------------------------------------------------------


async def test_delete_checks_every_backend_before_it_deletes() -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data")
    await fill(cold, "data", "hidden")
    async with single_attempt_store(default, backends={"cold": cold}) as store:
        with pytest.raises(BucketNotEmptyError, match="contains 'hidden'; nothing") as caught:
            await store.delete_bucket("data")
        assert (caught.value.backend, caught.value.operation) == ("cold", "delete_bucket")
        assert "delete_bucket" not in default.calls
        await cold.delete("data", "hidden", DeleteOptions())
        await store.delete_bucket("data")
        assert await store.list_buckets() == []
        with pytest.raises(BucketNotFoundError, match="no backend has"):
            await store.delete_bucket("data")


async def test_delete_does_nothing_if_a_backend_is_down() -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data")
    cold.fail("list_page", UnavailableError("down"))
    async with single_attempt_store(default, backends={"cold": cold}) as store:
        with pytest.raises(UnavailableError):
            await store.delete_bucket("data")
        assert "delete_bucket" not in default.calls


async def test_delete_that_fails_midway_names_the_backends_where_it_succeeded() -> None:
    default, cold, third = CallLog(), CallLog(), CallLog()
    for driver in (default, cold, third):
        await fill(driver, "data")
    third.fail("delete_bucket", UnavailableError("broken"))
    async with single_attempt_store(default, backends={"cold": cold, "third": third}) as store:
        with pytest.raises(
            UnavailableError, match="already deleted on 'default', 'cold'"
        ) as caught:
            await store.delete_bucket("data")
        assert caught.value.backend == "third"
        assert [info.backends for info in await store.list_buckets()] == [("third",)]
        third.before.clear()
        await store.delete_bucket("data")


async def test_concurrently_deleted_bucket_counts_as_deleted() -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data")
    await fill(cold, "data")

    async def delete_first() -> None:
        cold.before.clear()
        await cold.delete_bucket("data")

    cold.before["delete_bucket"] = delete_first
    async with single_attempt_store(default, backends={"cold": cold}) as store:
        await store.delete_bucket("data")
        assert await store.list_buckets() == []


async def test_delete_on_a_pinned_handle_leaves_the_others() -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data", "kept")
    await fill(cold, "data")
    async with single_attempt_store(default, backends={"cold": cold}) as store:
        await store.backend("cold").delete_bucket("data")
        assert [info.backends for info in await store.list_buckets()] == [("default",)]
        assert await store.backend("cold").list_buckets() == []


# -- list ------------------------------------------------------------------------------------------


async def test_list_is_the_sorted_union() -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "b")
    await fill(default, "c")
    await fill(cold, "a")
    await fill(cold, "b")
    async with single_attempt_store(default, backends={"cold": cold}) as store:
        buckets = await store.list_buckets()
        assert [(info.name, info.backends) for info in buckets] == [
            ("a", ("cold",)), ("b", ("default", "cold")), ("c", ("default",)),
        ]  # fmt: skip
        assert all(info.created is not None for info in buckets)


async def test_list_raises_if_a_backend_fails() -> None:
    cold = CallLog()
    cold.fail("list_buckets", UnavailableError("down"))
    async with single_attempt_store(backends={"cold": cold}) as store:
        with pytest.raises(UnavailableError) as caught:
            await store.list_buckets()
        assert (caught.value.operation, caught.value.backend) == ("list_buckets", "cold")
