"""The layer `Mapped`: the driver suite, translated names and errors."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, Self

import pytest

from trove_async import Trove
from trove_async.driver import AsyncDriver, Layer, ReadsInto
from trove_async.drivers import MemoryDriver
from trove_async.errors import (
    BucketExistsError,
    BucketNotEmptyError,
    BucketNotFoundError,
    ClosedError,
    ConfigError,
    InvalidNameError,
    NotSupportedError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PermissionDeniedError,
    TroveError,
    UnavailableError,
)
from trove_async.layers import Mapped
from trove_async.models import BucketInfo, DeleteResult, MiB, ObjectInfo, Prefix
from trove_async.options import (
    CopyOptions,
    DeleteOptions,
    GetOptions,
    ListOptions,
    Page,
    Part,
    PresignOptions,
    PutOptions,
)
from trove_async.testing import DriverSuite, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from trove_async.driver import Capabilities, DriverContext, DriverReader


class TestIntoOneBucket(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return Mapped(MemoryDriver(), into="everything", prefix="team/")


class TestIntoOneBucketWithoutPrefix(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return Mapped(MemoryDriver(), into="everything")


class TestRenamedBuckets(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        self.numbers = count()
        return Mapped(MemoryDriver(), buckets={f"b{n}": f"acme-b{9 - n}" for n in range(10)})

    def bucket_name(self) -> str:
        return f"b{next(self.numbers)}"


class TestNested(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        inner = Mapped(MemoryDriver(), into="everything")
        outer = Mapped(inner, buckets={"outer": "inner"})
        return Mapped(outer, into="outer", prefix="x")


async def put(driver: AsyncDriver, bucket: str, key: str, body: bytes = b"body") -> ObjectInfo:
    return await driver.put(bucket, key, [memoryview(body)] if body else [], PutOptions())


async def keys(driver: AsyncDriver, bucket: str) -> list[str]:
    page = await driver.list_page(bucket, ListOptions())
    return [entry.key for entry in page.entries]


class PublicCloud(MemoryDriver):
    """A memory driver with a global bucket namespace and without optional operations."""

    claims: dict[str, Any] = {  # noqa: RUF012 - constant
        "private_namespace": False,
        "put_if_none_match": False,
        "upload": False,
        "server_copy": False,
        "bulk_delete": 0,
    }

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, **self.claims)


def names_in_error(error: TroveError) -> tuple[str | None, str | None]:
    return error.bucket, error.key


async def test_object_is_stored_below_prefix_and_bucket() -> None:
    inner = MemoryDriver()
    async with opened(Mapped(inner, into="all", prefix="p")) as layer:
        await layer.create_bucket("data")
        info = await put(layer, "data", "a/b")
        assert names_in_info(info) == ("data", "a/b")
        assert await keys(inner, "all") == ["p/data/", "p/data/a/b"]
        assert layer.place("data", "a/b") == inner.place("all", "p/data/a/b")
        assert await keys(layer, "data") == ["a/b"]
        await layer.ping()
    assert isinstance(layer, Layer)
    assert layer.inner == (inner,)
    assert layer.name == "memory"


def names_in_info(info: ObjectInfo) -> tuple[str, str]:
    return info.bucket, info.key


async def test_renamed_bucket_maps_to_physical_bucket() -> None:
    inner = MemoryDriver()
    async with opened(Mapped(inner, buckets={"a": "b", "b": "a"})) as layer:
        await layer.create_bucket("a")
        await put(layer, "a", "key")
        assert await keys(inner, "b") == ["key"]
        assert [info.name for info in await layer.list_buckets()] == ["a"]
        await inner.create_bucket("unmapped")
        assert [info.name for info in await layer.list_buckets()] == ["a"]
        assert layer.capabilities == inner.capabilities
        assert layer.place("a", "key") == inner.place("b", "key")


async def test_unmapped_bucket_does_not_exist_and_cannot_be_created() -> None:
    inner = MemoryDriver()
    await inner.create_bucket("b")
    async with opened(Mapped(inner, buckets={"a": "b"})) as layer:
        for call in (
            layer.head("b", "key"),
            put(layer, "b", "key"),
            layer.delete_bucket("b"),
            layer.list_page("b", ListOptions()),
        ):
            with pytest.raises(BucketNotFoundError) as caught:
                await call
            assert caught.value.bucket == "b"
        with pytest.raises(InvalidNameError, match=r"Mapped\(buckets="):
            await layer.create_bucket("b")
        opening = layer.get("b", "key", GetOptions())
        with pytest.raises(BucketNotFoundError):
            await opening.__aenter__()
        assert layer.place("b", "key") not in {layer.place("a", "key"), inner.place("b", "key")}


async def test_bucket_marker_is_not_listed() -> None:
    inner = MemoryDriver()
    async with opened(Mapped(inner, into="all")) as layer:
        await layer.create_bucket("data")
        for options in (
            ListOptions(),
            ListOptions(limit=1),
            ListOptions(delimiter="/"),
            ListOptions(start_after=""),
        ):
            assert await layer.list_page("data", options) == Page(entries=[])
        assert (await layer.head_bucket("data")).created is not None
        await layer.delete_bucket("data")
        assert await keys(inner, "all") == []


async def test_listing_is_translated_both_ways() -> None:
    async with opened(Mapped(MemoryDriver(), into="all", prefix="p/")) as layer:
        for bucket in ("data", "data2", "dat"):
            await layer.create_bucket(bucket)
        for key in ("a", "b/1", "b/2", "c", "data/x"):
            await put(layer, "data", key)
        await put(layer, "data2", "z")
        first = await layer.list_page("data", ListOptions(delimiter="/", start_after="a", limit=2))
        assert [(entry.bucket, entry.key) for entry in first.entries] == [
            ("data", "b/"),
            ("data", "c"),
        ]
        assert isinstance(first.entries[0], Prefix)
        second = await layer.list_page(
            "data", ListOptions(delimiter="/", start_after="a", token=first.token)
        )
        assert [entry.key for entry in second.entries] == ["data/"]
        assert [info.name for info in await layer.list_buckets()] == ["dat", "data", "data2"]


async def test_many_buckets_are_listed_over_pages_in_name_order() -> None:
    class ShortPages(MemoryDriver):
        async def list_page(self, bucket: str, options: ListOptions) -> Page:
            return await super().list_page(bucket, replace(options, limit=min(options.limit, 2)))

    inner = ShortPages()
    async with opened(Mapped(inner, into="all", prefix="p/")) as layer:
        assert await layer.list_buckets() == []
        names = ["a", "a-b", "a.b", "b", "c"]
        for name in names:
            await layer.create_bucket(name)
        for foreign in ("p/object", "p//x", "q/x", f"p/{'n' * 300}/x"):
            await put(inner, "all", foreign)
        assert await layer.list_buckets() == [BucketInfo(name=name) for name in names]


async def test_existing_folder_is_a_bucket() -> None:
    inner = MemoryDriver()
    await inner.create_bucket("all")
    await put(inner, "all", "data/a/b")
    async with opened(Mapped(inner, into="all")) as layer:
        assert await layer.head_bucket("data") == BucketInfo(name="data")
        assert await keys(layer, "data") == ["a/b"]
        await put(layer, "data", "c")
        with pytest.raises(BucketExistsError):
            await layer.create_bucket("data")
        with pytest.raises(BucketNotEmptyError) as caught:
            await layer.delete_bucket("data")
        assert names_in_error(caught.value) == ("data", None)


async def test_put_into_missing_bucket_stores_nothing() -> None:
    inner = MemoryDriver()
    await inner.create_bucket("all")
    async with opened(Mapped(inner, into="all")) as layer:
        with pytest.raises(BucketNotFoundError) as caught:
            await put(layer, "data", "key")
        assert names_in_error(caught.value) == ("data", None)
        assert await keys(inner, "all") == []


async def test_deleted_bucket_is_missing_immediately() -> None:
    async with opened(Mapped(MemoryDriver(), into="all")) as layer:
        await layer.create_bucket("data")
        await put(layer, "data", "key")
        await layer.delete("data", "key", DeleteOptions())
        await layer.delete_bucket("data")
        with pytest.raises(BucketNotFoundError):
            await put(layer, "data", "key")
        with pytest.raises(BucketNotFoundError):
            await layer.delete_bucket("data")


async def test_put_during_delete_bucket_keeps_the_bucket() -> None:
    class RacingDriver(MemoryDriver):
        async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
            await put(self, "all", "data/late")
            await super().delete(bucket, key, options)

    async with opened(Mapped(RacingDriver(), into="all")) as layer:
        await layer.create_bucket("data")
        await layer.delete_bucket("data")
        assert await keys(layer, "data") == ["late"]


async def test_only_a_race_for_the_same_logical_bucket_raises_bucket_exists() -> None:
    class RacingDriver(MemoryDriver):
        async def create_bucket(self, bucket: str) -> None:
            await super().create_bucket(bucket)
            raise BucketExistsError("created concurrently", bucket=bucket)

        async def put(
            self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
        ) -> ObjectInfo:
            if key == "twice/" and bucket == "all":
                raise ObjectExistsError("created concurrently", bucket=bucket, key=key)
            return await super().put(bucket, key, views, options)

    async with opened(Mapped(RacingDriver(), into="all")) as layer:
        await layer.create_bucket("data")
        with pytest.raises(BucketExistsError) as caught:
            await layer.create_bucket("twice")
        assert names_in_error(caught.value) == ("twice", None)


async def test_physical_bucket_is_not_created_in_global_namespace() -> None:
    inner = PublicCloud()
    async with opened(Mapped(inner, into="all")) as layer:
        with pytest.raises(BucketNotFoundError, match=r"'all'.*create it first") as caught:
            await layer.create_bucket("data")
        assert caught.value.bucket == "data"
        with pytest.raises(BucketNotFoundError):
            await layer.list_buckets()
        await inner.create_bucket("all")
        await layer.create_bucket("data")
        await put(layer, "data", "key")
        assert layer.capabilities.private_namespace


async def test_operation_missing_in_inner_driver_is_not_supported() -> None:
    async with opened(Mapped(PublicCloud(), buckets={"a": "b"})) as layer:
        assert isinstance(layer, Mapped)
        await layer.create_bucket("a")
        source = await put(layer, "a", "key")
        with pytest.raises(NotSupportedError):
            layer.upload("a", "key", PutOptions())
        with pytest.raises(NotSupportedError):
            await layer.copy("a", "key", "a", "b", CopyOptions(source=source, put=PutOptions()))
        with pytest.raises(NotSupportedError):
            await layer.delete_many("a", ["key"])
        with pytest.raises(NotSupportedError):
            await layer.presign("GET", "a", "key", 60, PresignOptions())


async def test_presigned_url_names_the_physical_object() -> None:
    class SigningDriver(PublicCloud):
        claims = {"presign": True}  # noqa: RUF012 - constant

        async def presign(
            self, method: str, bucket: str, key: str, expires: float, options: PresignOptions
        ) -> str:
            return f"{method} {bucket}/{key} {expires} {options.content_type}"

    async with opened(Mapped(SigningDriver(), into="all", prefix="p")) as layer:
        assert isinstance(layer, Mapped)
        url = await layer.presign("PUT", "data", "key", 60, PresignOptions(content_type="a/b"))
        assert url == "PUT all/p/data/key 60 a/b"


class FailingDriver(MemoryDriver):
    """A memory driver: head and delete_many fail, and their errors have physical names."""

    def __init__(self, bucket: str | None = None, key: str | None = None) -> None:
        super().__init__()
        self.names_in_error = bucket, key

    async def head(self, bucket: str, key: str, _version_id: str | None = None) -> ObjectInfo:
        known_bucket, known_key = self.names_in_error
        raise UnavailableError("no", bucket=known_bucket or bucket, key=known_key or key)

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        error = PermissionDeniedError("no", bucket=bucket, key=keys[0])
        return [
            DeleteResult(key=keys[0], error=error),
            DeleteResult(key=keys[1], error=OSError()),
            DeleteResult(key=keys[2]),
        ]


@pytest.mark.parametrize(
    "make",
    [
        lambda inner: Mapped(inner, into="phys", prefix="p"),
        lambda inner: Mapped(inner, buckets={"data": "phys", "other": "data"}),
    ],
    ids=["into", "buckets"],
)
async def test_errors_carry_logical_names(
    make: Callable[[AsyncDriver], Mapped],
) -> None:
    async with opened(make(FailingDriver())) as layer:
        assert isinstance(layer, Mapped)
        await layer.create_bucket("data")
        with pytest.raises(UnavailableError) as caught:
            await layer.head("data", "a/b")
        assert names_in_error(caught.value) == ("data", "a/b")
        assert "phys" not in str(caught.value)
        assert any("phys" in note for note in caught.value.__notes__)
        results = await layer.delete_many("data", ["a", "b", "c"])
        assert [result.key for result in results] == ["a", "b", "c"]
        denied = results[0].error
        assert isinstance(denied, PermissionDeniedError)
        assert names_in_error(denied) == ("data", "a")
        assert [type(result.error) for result in results[1:]] == [OSError, type(None)]


async def test_copy_error_names_the_side_that_failed() -> None:
    async with opened(Mapped(MemoryDriver(), buckets={"a": "b", "b": "a"})) as layer:
        assert isinstance(layer, Mapped)
        for bucket in ("a", "b"):
            await layer.create_bucket(bucket)
        source = await put(layer, "a", "src")
        await put(layer, "a", "src")
        await put(layer, "b", "dst")
        with pytest.raises(ObjectChangedError) as changed:
            await layer.copy("a", "src", "b", "dst", CopyOptions(source=source, put=PutOptions()))
        assert names_in_error(changed.value) == ("a", "src")
        source = await layer.head("a", "src")
        with pytest.raises(ObjectExistsError) as exists:
            await layer.copy(
                "a",
                "src",
                "b",
                "dst",
                CopyOptions(source=source, put=PutOptions(if_none_match="*")),
            )
        assert names_in_error(exists.value) == ("b", "dst")


@pytest.mark.parametrize(("bucket", "key"), [("elsewhere", "data/k"), ("all", "k")])
async def test_error_about_other_object_keeps_its_names(bucket: str, key: str) -> None:
    async with opened(Mapped(FailingDriver(bucket, key), into="all")) as layer:
        await layer.create_bucket("data")
        with pytest.raises(UnavailableError) as caught:
            await layer.head("data", "object")
        assert names_in_error(caught.value) == (bucket, key)


async def test_error_without_bucket_keeps_the_logical_key() -> None:
    class ErrorsWithoutBucket(MemoryDriver):
        async def head(self, _bucket: str, key: str, _version_id: str | None = None) -> ObjectInfo:
            raise UnavailableError("no", key=key)

    async with opened(Mapped(ErrorsWithoutBucket(), into="all")) as layer:
        await layer.create_bucket("data")
        with pytest.raises(UnavailableError) as caught:
            await layer.head("data", "k")
        assert names_in_error(caught.value) == (None, "k")


async def test_missing_object_and_missing_bucket_are_distinguished() -> None:
    inner = MemoryDriver()
    await inner.create_bucket("all")
    async with opened(Mapped(inner, into="all")) as layer:
        await layer.create_bucket("data")
        for bucket, kind in (("data", ObjectNotFoundError), ("none", BucketNotFoundError)):
            with pytest.raises(kind) as caught:
                await layer.head(bucket, "key")
            assert isinstance(caught.value, TroveError)
            assert caught.value.bucket == bucket
            with pytest.raises(kind):
                async with layer.get(bucket, "key", GetOptions()):
                    pass


async def test_reader_and_upload_carry_logical_names() -> None:
    async with opened(Mapped(MemoryDriver(), into="all")) as layer:
        assert isinstance(layer, Mapped)
        await layer.create_bucket("data")
        async with layer.upload("data", "key", PutOptions()) as upload:
            part = Part(number=1, offset=0, size=4, last=True)
            await upload.send(part, [memoryview(b"body")])
            info = await upload.commit({})
        assert names_in_info(info) == ("data", "key")
        async with layer.get("data", "key", GetOptions()) as reader:
            assert names_in_info(reader.info) == ("data", "key")
            assert reader.range == (0, 4)
            assert isinstance(reader, ReadsInto)
            buffer = bytearray(2)
            assert await reader.readinto(memoryview(buffer)) == 2
            assert bytes(buffer) + await reader.read(9) == b"body"
        with pytest.raises(ClosedError) as caught:
            await reader.read(1)
        assert names_in_error(caught.value) == ("data", "key")


async def test_reader_without_readinto_stays_without_it() -> None:
    class PlainReader:
        def __init__(self, inner: AbstractAsyncContextManager[DriverReader]) -> None:
            self.inner = inner

        async def __aenter__(self) -> Self:
            reader = await self.inner.__aenter__()
            self.info, self.range, self.read = reader.info, reader.range, reader.read
            return self

        async def __aexit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            traceback: TracebackType | None,
        ) -> bool | None:
            return await self.inner.__aexit__(kind, error, traceback)

    class PlainReadsDriver(MemoryDriver):
        def get(
            self, bucket: str, key: str, options: GetOptions
        ) -> PlainReader:  # not the base class's type
            return PlainReader(super().get(bucket, key, options))

    async with opened(Mapped(PlainReadsDriver(), into="all")) as layer:
        await layer.create_bucket("data")
        await put(layer, "data", "key")
        async with layer.get("data", "key", GetOptions()) as reader:
            assert not isinstance(reader, ReadsInto)
            assert await reader.read(9) == b"body"


async def test_key_limit_is_reduced_by_prefix_and_bucket() -> None:
    inner = MemoryDriver()
    async with opened(Mapped(inner, into="all", prefix="pp")) as layer:
        longest = layer.capabilities.max_key_bytes
        assert longest == 1024 - len("pp/") - 222 - len("/")
        bucket = "b" * 222
        await layer.create_bucket(bucket)
        await put(layer, bucket, "k" * longest)
        assert max(len(key) for key in await keys(inner, "all")) == 1024


async def test_closed_layer_raises_and_can_be_reopened() -> None:
    layer = Mapped(MemoryDriver(), into="all")
    assert layer.capabilities.private_namespace
    with pytest.raises(ClosedError):
        await layer.list_buckets()
    async with opened(layer):
        await layer.create_bucket("data")
    with pytest.raises(ClosedError):
        await layer.list_buckets()
    async with opened(layer):
        await put(layer, "data", "key")


async def test_layer_calls_the_driver_that_attach_returns() -> None:
    wrapped, attached = MemoryDriver(), MemoryDriver()

    class ReplacingLayer(Mapped):
        async def open(self, context: DriverContext) -> None:
            async def attach(inner: AsyncDriver) -> AsyncDriver:
                assert inner is wrapped
                return attached

            await super().open(replace(context, attach=attach))

    async with opened(ReplacingLayer(wrapped, buckets={"a": "b"})) as layer:
        await layer.create_bucket("a")
        await put(layer, "a", "key")
        assert await keys(attached, "b") == ["key"]
        assert await wrapped.list_buckets() == []


async def test_more_buckets_than_fit_in_the_cache_are_usable() -> None:
    async with opened(Mapped(MemoryDriver(), into="all")) as layer:
        for number in range(1030):
            await layer.create_bucket(f"b{number}")
        for number in (0, 1029):
            await put(layer, f"b{number}", "key")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either"),
        ({"buckets": {}, "into": "x"}, "either"),
        ({"buckets": {"a": "b"}, "prefix": "p"}, "prefix requires into"),
        ({"buckets": {"a": "x", "b": "x"}}, "its own physical bucket"),
        ({"buckets": {"a/b": "x"}}, "'/'"),
        ({"buckets": {"a": ""}}, "empty"),
        ({"into": ""}, "empty"),
        ({"into": "x", "prefix": "a/../b"}, "segment"),
    ],
)
def test_invalid_settings_are_rejected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Mapped(MemoryDriver(), **settings)


def test_prefix_that_leaves_no_room_for_keys_is_rejected() -> None:
    layer = Mapped(MemoryDriver(), into="x", prefix="p" * 801)
    with pytest.raises(ConfigError, match="leave room"):
        _ = layer.capabilities


class PathDriver(MemoryDriver):
    """A memory driver that, like a file system, rejects keys that end in a slash."""

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        self._check(key)
        return await super().put(bucket, key, views, options)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        self._check(key)
        return await super().head(bucket, key, version_id)

    def _check(self, key: str) -> None:
        if key.endswith("/"):
            raise InvalidNameError("the service cannot hold this key", key=key)


async def test_bucket_marker_is_stored_apart_if_driver_rejects_folder_keys() -> None:
    inner = PathDriver()
    async with opened(Mapped(inner, into="all", prefix="p")) as layer:
        await layer.create_bucket("empty")
        assert await keys(inner, "all") == ["p/.trove/empty"]
        assert (await layer.head_bucket("empty")).created is not None
        await layer.put("empty", "k", [], PutOptions())
        await inner.put("all", "p/theirs/k", [], PutOptions())
        assert [info.name for info in await layer.list_buckets()] == ["empty", "theirs"]
        with pytest.raises(BucketExistsError):
            await layer.create_bucket("empty")
        with pytest.raises(BucketNotEmptyError):
            await layer.delete_bucket("empty")
        await layer.delete("empty", "k", DeleteOptions())
        assert [
            entry.key for entry in (await layer.list_page("empty", ListOptions())).entries
        ] == []
        await layer.delete_bucket("empty")
        assert [info.name for info in await layer.list_buckets()] == ["theirs"]
        with pytest.raises(BucketNotFoundError):
            await layer.delete_bucket("empty")
        with pytest.raises(InvalidNameError, match="reserved for markers"):
            await layer.create_bucket(".trove")


# -- errors about a logical bucket -----------------------------------------------------------------


@pytest.fixture
async def mapped_store() -> AsyncIterator[Trove]:
    # The same mapping as a URL with a bucket, such as `s3://acme`.
    async with Trove(
        Mapped(MemoryDriver(), into="acme"),
        backends={"cold": Mapped(MemoryDriver(), buckets={"data": "acme-cold"})},
    ) as store:
        yield store


@pytest.mark.parametrize("bucket", ["data", "acme"])
@pytest.mark.parametrize(
    "call",
    [
        lambda store, bucket: store.put(bucket, "key", b"body"),
        lambda store, bucket: store.put(bucket, "key", bytes(9 * MiB)),
        lambda store, bucket: store.read(bucket, "key"),
        lambda store, bucket: store.head(bucket, "key"),
        lambda store, bucket: store.delete(bucket, "key"),
        lambda store, bucket: store.delete_many(bucket, ["key"]),
        lambda store, bucket: store.list(bucket).all(),
        lambda store, bucket: store.copy(bucket, "key", bucket, "other"),
        lambda store, bucket: store.delete_bucket(bucket),
    ],
    ids=["put", "upload", "read", "head", "delete", "delete_many", "list", "copy", "delete_bucket"],
)
async def test_missing_bucket_error_names_physical_bucket(
    mapped_store: Trove, call: Callable[[Trove, str], Awaitable[object]], bucket: str
) -> None:
    await mapped_store.create_bucket("other")  # creates the physical bucket
    with pytest.raises(BucketNotFoundError) as caught:
        await call(mapped_store, bucket)
    assert "inside the physical bucket 'acme'" in str(caught.value)
    assert f"'{bucket}" in str(caught.value)


async def test_existing_bucket_error_names_physical_bucket(mapped_store: Trove) -> None:
    await mapped_store.create_bucket("data")
    with pytest.raises(BucketExistsError, match="inside the physical bucket 'acme'"):
        await mapped_store.create_bucket("data")


async def test_missing_physical_bucket_is_named() -> None:
    async with Trove(Mapped(PublicCloud(), into="acme")) as store:
        with pytest.raises(BucketNotFoundError, match="inside the physical bucket 'acme'"):
            await store.put("data", "key", b"body")
        with pytest.raises(BucketNotFoundError, match="'acme' that buckets are mapped into does"):
            await store.create_bucket("data")


async def test_missing_object_error_hides_physical_bucket(mapped_store: Trove) -> None:
    await mapped_store.create_bucket("data")
    with pytest.raises(ObjectNotFoundError) as caught:
        await mapped_store.head("data", "key")
    assert "acme" not in str(caught.value)
    assert caught.value.bucket == "data"


async def test_renamed_bucket_error_has_no_containing_bucket(mapped_store: Trove) -> None:
    with pytest.raises(BucketNotFoundError) as caught:
        await mapped_store.backend("cold").put("data", "key", b"body")
    assert caught.value.inside is None
