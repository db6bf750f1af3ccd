"""A handle on one bucket has the object methods of its store."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import CallLog, single_attempt_store
from tests.versioned_memory import VersionedMemory
from trove_async import Bucket, InvalidNameError, NotSupportedError, Trove

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = [
    "put", "get", "open_file", "read", "get_ranges", "head", "exists", "delete", "delete_many", "list",
    "list_versions", "misplaced", "copy", "move", "presign_get", "presign_put", "explain",
]  # fmt: skip
STORE_ONLY = {
    "from_config", "open", "aclose", "pool", "events", "backend", "backends", "bucket", "create_bucket",
    "delete_bucket", "list_buckets", "health", "lint_routes",
}  # fmt: skip


def test_bucket_has_every_object_method_of_the_store() -> None:
    public = {name for name in vars(Trove) if not name.startswith("_")}
    assert public == {*METHODS, *STORE_ONLY}
    assert {name for name in vars(Bucket) if not name.startswith("_")} == {*METHODS, "name"}


@pytest.mark.parametrize("name", METHODS)
def test_signature_is_that_of_the_store_without_its_bucket(name: str) -> None:
    bucket_method = inspect.signature(getattr(Bucket, name))
    store_method = inspect.signature(getattr(Trove, name))
    omitted = {"bucket", "src_bucket", "dst_bucket"}
    bucket_parameters, store_parameters = (
        [parameter for parameter in method.parameters.values() if parameter.name not in omitted]
        for method in (bucket_method, store_method)
    )
    assert bucket_parameters == store_parameters
    assert bucket_method.return_annotation == store_method.return_annotation
    assert ("dst_bucket" in bucket_method.parameters) is (name in {"copy", "move"})


async def test_bucket_reads_and_writes_the_objects_of_the_store() -> None:
    driver = VersionedMemory()
    driver.versioned_buckets.add("data")
    async with single_attempt_store(driver) as store:
        await store.create_bucket("data")
        data = store.bucket("data")
        info = await data.put("key", b"body", metadata={"a": "b"}, content_language="de")
        assert info == await store.head("data", "key") == await data.head("key")
        assert (info.metadata, info.content_language) == ({"a": "b"}, "de")
        async with data.get("key", range=(1, None)) as reader:
            assert await reader.read() == b"ody"
        assert await data.read("key", range=(0, 2)) == b"bo"
        assert await data.get_ranges("key", [(0, 1), (2, 4)]) == [b"b", b"dy"]
        assert await data.exists("key", version_id=info.version_id)
        assert not await data.exists("key", version_id="none")
        assert [entry.key for entry in await data.list(prefix="k").all()] == ["key"]
        assert [entry.key async for entry in data.list(delimiter="e")] == ["ke"]
        versions = await data.list_versions().all()
        assert [version.version_id for version in versions] == [info.version_id]
        assert await data.misplaced().all() == []
        assert (await data.explain("key")).backend == "default"
        with pytest.raises(NotSupportedError):
            await data.presign_get("key")
        with pytest.raises(NotSupportedError):
            await data.presign_put("key")
        await data.delete("key", if_match=info)
        await data.put("a", b"")
        await data.delete_many(["a", "b"])
        assert await data.list().all() == []


async def test_copy_and_move_within_the_bucket_or_to_another() -> None:
    async with single_attempt_store(CallLog()) as store:
        await store.create_bucket("data")
        await store.create_bucket("other")
        data, other = store.bucket("data"), store.bucket("other")
        await data.put("key", b"body")
        assert (await data.copy("key", "near")).bucket == "data"
        assert (await data.copy("key", "far", dst_bucket="other")).bucket == "other"
        moved = await data.move("near", "moved", dst_bucket=other, cache_control="no-store")
        assert (moved.bucket, moved.cache_control) == ("other", "no-store")
        assert [entry.key for entry in await data.list().all()] == ["key"]
        assert [entry.key for entry in await other.list().all()] == ["far", "moved"]


async def test_bucket_of_a_pinned_handle_is_pinned() -> None:
    cold = CallLog()
    async with single_attempt_store(CallLog(), backends={"cold": cold}) as store:
        await store.create_bucket("data", backends="all")
        await store.backend("cold").bucket("data").put("key", b"body")
        assert cold.stored_keys("data") == ["key"]
        assert not await store.bucket("data").exists("key")
        assert repr(store.backend("cold").bucket("data")) == (
            "<Bucket 'data' of <Trove of default, cold pinned to 'cold'>>"
        )


INVALID_NAMES: list[Callable[[Trove], Any]] = [
    lambda store: store.bucket(""),
    lambda store: store.bucket("a/b"),
    lambda store: store.backend("default").bucket(".."),
]


@pytest.mark.parametrize("create", INVALID_NAMES)
def test_invalid_name_is_rejected(create: Callable[[Trove], Any]) -> None:
    with pytest.raises(InvalidNameError):
        create(single_attempt_store(CallLog()))


def test_name_must_be_a_str() -> None:
    with pytest.raises(TypeError, match="int"):
        single_attempt_store(CallLog()).bucket(5)  # type: ignore[arg-type]  # tested at run time


async def test_handle_can_be_created_before_its_bucket_exists() -> None:
    store = single_attempt_store(CallLog())
    data = store.bucket("data")
    async with store:
        await store.create_bucket("data")
        await data.put("key", b"")
        assert await data.exists("key")
