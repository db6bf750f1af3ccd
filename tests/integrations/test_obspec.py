"""The adapters from buckets to obspec's protocols."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import obspec
import pytest
from obspec import exceptions

from trove_async import Trove, blocking
from trove_async.errors import ClosedError, ObjectNotFoundError, RangeError
from trove_async.integrations.obspec import AsyncObspecStore, ObspecStore

PROTOCOLS = [
    "Copy",
    "Delete",
    "Get",
    "GetRange",
    "GetRanges",
    "Head",
    "List",
    "ListWithDelimiter",
    "Put",
    "Rename",
]


@pytest.fixture
async def client() -> AsyncIterator[AsyncObspecStore]:
    async with Trove("mem://") as store:
        await store.create_bucket("bucket")
        yield AsyncObspecStore(store.bucket("bucket"))


@pytest.fixture
def blocking_client() -> Iterator[ObspecStore]:
    with blocking.Trove("mem://") as store:
        store.create_bucket("bucket")
        yield ObspecStore(store.bucket("bucket"))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_method_of_the_protocols_is_there(name: str) -> None:
    for protocol, adapter in (
        (getattr(obspec, name), ObspecStore),
        (getattr(obspec, f"{name}Async"), AsyncObspecStore),
    ):
        methods = [method for method in vars(protocol) if not method.startswith("_")]
        assert methods
        assert all(callable(getattr(adapter, method)) for method in methods)


async def test_get_returns_body_metadata_and_attributes(client: AsyncObspecStore) -> None:
    stored = await client.put_async(
        "dir/key", b"0123456789", attributes={"Content-Type": "text/x-test", "owner": "me"}
    )
    result = await client.get_async("dir/key")
    assert result.meta == await client.head_async("dir/key")
    assert (result.meta["path"], result.meta["size"]) == ("dir/key", 10)
    assert result.meta["e_tag"] == stored["e_tag"]
    assert result.attributes == {"Content-Type": "text/x-test", "owner": "me"}
    assert result.range == (0, 10)
    assert await result.buffer_async() == b"0123456789"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((2, 5), b"234"),
        ([2, 99], b"23456789"),
        ({"offset": 7}, b"789"),
        ({"suffix": 2}, b"89"),
    ],
)
async def test_get_honours_ranges(client: AsyncObspecStore, asked: Any, expected: bytes) -> None:
    await client.put_async("key", b"0123456789")
    result = await client.get_async("key", options={"range": asked})
    assert b"".join([chunk async for chunk in result]) == expected


async def test_get_honours_conditions_and_refuses_what_it_cannot(client: AsyncObspecStore) -> None:
    stored = await client.put_async("key", b"data")
    result = await client.get_async("key", options={"if_match": stored["e_tag"], "head": False})
    assert await result.buffer_async() == b"data"
    with pytest.raises(exceptions.NotModifiedError):
        await client.get_async("key", options={"if_none_match": stored["e_tag"]})
    with pytest.raises(exceptions.NotSupportedError, match="head"):
        await client.get_async("key", options={"head": True})


async def test_ranges_have_an_end_or_a_length(client: AsyncObspecStore) -> None:
    await client.put_async("key", b"0123456789")
    assert await client.get_range_async("key", start=1, end=3) == b"12"
    assert await client.get_range_async("key", start=1, length=3) == b"123"
    assert await client.get_ranges_async("key", starts=[0, 8], ends=[2, 9]) == [b"01", b"8"]
    assert await client.get_ranges_async("key", starts=[0, 8], lengths=[1, 2]) == [b"0", b"89"]
    with pytest.raises(ValueError, match="either the end or the length"):
        await client.get_range_async("key", start=1)
    with pytest.raises(ValueError, match="either the ends or the lengths"):
        await client.get_ranges_async("key", starts=[1], ends=[2], lengths=[1])


async def test_put_modes_create_and_update(client: AsyncObspecStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"file")
    first = await client.put_async("key", tmp_path / "file", mode="create", tags=None)
    with pytest.raises(exceptions.AlreadyExistsError):
        await client.put_async("key", b"", mode="create")
    await client.put_async(
        "key", iter([b"a", b"b"]), mode=obspec.UpdateVersion(e_tag=first["e_tag"])
    )
    with pytest.raises(exceptions.PreconditionError):
        await client.put_async("key", b"", mode=obspec.UpdateVersion(e_tag=first["e_tag"]))
    with pytest.raises(exceptions.NotSupportedError, match="e_tag"):
        await client.put_async("key", b"", mode=obspec.UpdateVersion(version="1"))
    with pytest.raises(ValueError, match="mode"):
        await client.put_async("key", b"", mode="append")  # type: ignore[arg-type]  # the error under test
    result = await client.get_async("key")
    await client.put_async("copy", result, mode="overwrite")
    with pytest.raises(ClosedError):
        await result.reader.read()
    assert await (await client.get_async("copy")).buffer_async() == b"ab"


async def test_listings_compare_whole_segments(client: AsyncObspecStore) -> None:
    for key in ("foo", "foo/a", "foo/b/c", "foo-bar/d"):
        await client.put_async(key, b"")
    listed = [meta["path"] async for page in client.list_async("foo") for meta in page]
    assert listed == ["foo/a", "foo/b/c"]
    after = [meta["path"] async for page in client.list_async(offset="foo-bar/d") for meta in page]
    assert after == ["foo/a", "foo/b/c"]
    separated = await client.list_with_delimiter_async("foo/")
    assert separated["common_prefixes"] == ["foo/b"]
    assert [meta["path"] for meta in separated["objects"]] == ["foo/a"]


async def test_copy_rename_and_delete(client: AsyncObspecStore) -> None:
    await client.put_async("a", b"data")
    await client.copy_async("a", "b")
    with pytest.raises(exceptions.AlreadyExistsError):
        await client.copy_async("a", "b", overwrite=False)
    with pytest.raises(exceptions.AlreadyExistsError):
        await client.rename_async("a", "b", overwrite=False)
    await client.rename_async("a", "c", overwrite=False)
    assert [meta["path"] async for page in client.list_async() for meta in page] == ["b", "c"]
    await client.delete_async("b")
    await client.delete_async(["c", "missing"])
    assert [page async for page in client.list_async()] == []


async def test_errors_have_the_names_that_obspec_gives(client: AsyncObspecStore) -> None:
    with pytest.raises(exceptions.NotFoundError) as caught:
        await client.head_async("missing")
    assert isinstance(caught.value.__cause__, ObjectNotFoundError)
    assert isinstance(exceptions.map_exception(caught.value), exceptions.NotFoundError)
    with pytest.raises(exceptions.InvalidPathError):
        await client.put_async("a/../b", b"")
    async with Trove("mem://") as store:
        with pytest.raises(exceptions.NotFoundError):
            await anext(AsyncObspecStore(store.bucket("missing")).list_async())


def test_blocking_errors_have_the_names_that_obspec_gives(blocking_client: ObspecStore) -> None:
    with pytest.raises(exceptions.NotFoundError):
        blocking_client.get("missing")
    blocking_client.put("key", b"")
    with pytest.raises(exceptions.AlreadyExistsError):
        blocking_client.put("key", b"", mode="create")


async def test_error_without_a_name_in_obspec_is_the_stores_own(client: AsyncObspecStore) -> None:
    await client.put_async("key", b"data")
    with pytest.raises(RangeError):
        await client.get_range_async("key", start=9, length=1)


def test_blocking_methods(blocking_client: ObspecStore) -> None:
    client = blocking_client
    stored = client.put("dir/a", b"0123456789", attributes={"Cache-Control": "no-store"})
    result = client.get("dir/a", options={"range": {"suffix": 4}})
    assert result.attributes["Cache-Control"] == "no-store"
    assert result.range == (6, 10)
    assert result.meta == client.head("dir/a")
    assert result.meta["e_tag"] == stored["e_tag"]
    assert result.buffer() == b"6789"
    assert b"".join(client.get("dir/a")) == b"0123456789"
    assert client.get_range("dir/a", start=1, length=2) == b"12"
    assert client.get_ranges("dir/a", starts=[0, 9], ends=[1, 10]) == [b"0", b"9"]
    result = client.get("dir/a")
    client.put("b", result)
    with pytest.raises(ClosedError):
        result.reader.read()
    client.copy("b", "c")
    client.rename("c", "d", overwrite=False)
    assert [meta["path"] for page in client.list() for meta in page] == ["b", "d", "dir/a"]
    assert client.list_with_delimiter()["common_prefixes"] == ["dir"]
    client.delete(["b", "d"])
    client.delete("dir/a")
    assert list(client.list()) == []
