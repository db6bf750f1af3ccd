"""Probes that determine how an unrecognised service stores unusual keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest

from tests.drivers.s3.scripted_transport import response
from tests.drivers.s3.test_conformance import driver_of
from trove_async import Trove
from trove_async.drivers.memory import MemoryDriver
from trove_async.drivers.s3 import _dialects
from trove_async.drivers.s3._credentials import Endpoint
from trove_async.drivers.s3._data_plane import UnconfirmedWriteError
from trove_async.drivers.s3._dialects import S3, UNRECOGNISED, Service
from trove_async.drivers.s3._key_probe import KeyProbe
from trove_async.drivers.s3._trials import Trials
from trove_async.drivers.s3._unusual_keys import Oddity, folded, is_usual, oddities_of, sample
from trove_async.errors import (
    InvalidNameError,
    ObjectNotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from trove_async.options import DeleteOptions, ListOptions, PutOptions, VersionPage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trove_async.drivers.s3._data_plane import DataPlane
    from trove_async.models import ObjectInfo
    from trove_async.testing.servers import S3Server

UNUSUAL = {
    Oddity.LEADING: "/a",
    Oddity.EMPTY: "d/a//b",
    Oddity.TRAILING: "d/a/",
    Oddity.BACKSLASH: "d/a\\b",
}


def unchanged(key: str) -> str:
    return key


def folding(*oddities: Oddity) -> Callable[[str], str]:
    """Return a function that removes these oddities from a key."""

    def stored_as(key: str) -> str:
        for oddity in oddities:
            key = folded(key, oddity)
        return key

    return stored_as


class FakeService:
    """A service that stores a key under ``stored_as(key)``.

    Attributes:
        written: The keys that were put.
        requests: The number of requests other than listings.
        put_error: The error that every put raises, or None if puts succeed.
        omits_etag: Whether the responses to puts lack an ETag.
    """

    def __init__(self, stored_as: Callable[[str], str] = unchanged) -> None:
        self.stored_as = stored_as
        self.memory = MemoryDriver()
        self.written: list[str] = []
        self.requests = 0
        self.put_error: Exception | None = None
        self.omits_etag = False

    async def put_object(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        self.requests += 1
        if self.put_error is not None:
            raise self.put_error
        self.written.append(key)
        stored = await self.memory.put(bucket, self.stored_as(key), views, options)
        if self.omits_etag:
            raise UnconfirmedWriteError(stored.located(key=key))
        return stored.located(key=key)

    async def head_object(self, bucket: str, key: str, _version_id: str | None) -> ObjectInfo:
        self.requests += 1
        return await self.memory.head(bucket, self.stored_as(key))

    async def list_versions(self, _bucket: str, _options: ListOptions) -> VersionPage:
        return VersionPage(entries=())  # as services without versioning do

    async def delete_object(self, bucket: str, key: str, _options: DeleteOptions) -> None:
        self.requests += 1
        await self.memory.delete(bucket, self.stored_as(key), DeleteOptions())


async def probe_of(fake: FakeService) -> KeyProbe:
    """Return a probe of a fake service with the bucket ``data``."""
    await fake.memory.create_bucket("data")
    service = Service("s3", Endpoint.from_url("http://h:9", "us-east-1"), cast("Any", None))
    service.dialect = UNRECOGNISED
    return KeyProbe(service, cast("DataPlane", fake), Trials())


async def remaining_keys(fake: FakeService) -> list[str]:
    return [entry.key for entry in (await fake.memory.list_page("data", ListOptions())).entries]


@pytest.mark.parametrize(("oddity", "key"), UNUSUAL.items())
async def test_service_that_keeps_unusual_keys_is_probed_once(oddity: Oddity, key: str) -> None:
    fake = FakeService()
    probe = await probe_of(fake)
    dialect = await probe.dialect_for_writing("data", key)
    assert dialect.unwritable_reason(key) is None
    assert dialect.keeps == {oddity}
    requests = fake.requests
    await probe.dialect_for_writing("data", key)
    await probe.dialect_for_reading("data", key)
    assert fake.requests == requests
    assert not await remaining_keys(fake)
    assert all(oddities_of(name) == [oddity] for name in fake.written)


@pytest.mark.parametrize("stored_as", [unchanged, folding(Oddity.EMPTY)])
async def test_probe_works_when_puts_return_no_etag(
    stored_as: Callable[[str], str],
) -> None:
    fake = FakeService(stored_as)
    fake.omits_etag = True
    probe = await probe_of(fake)
    dialect = await probe.dialect_for_writing("data", "a//b")
    assert (Oddity.EMPTY in dialect.keeps) == (stored_as is unchanged)
    assert not await remaining_keys(fake)


@pytest.mark.parametrize("exists", [True, False])
async def test_reading_a_key_with_several_oddities_writes_nothing(*, exists: bool) -> None:
    fake = FakeService()
    probe = await probe_of(fake)
    key = "/d//a\\b/"
    if exists:
        await fake.memory.put("data", key, [memoryview(b"body")], PutOptions())
    dialect = await probe.dialect_for_reading("data", key)
    assert dialect.keeps == ({*Oddity} - {Oddity.TRAILING} if exists else set())
    assert dialect.absent_reason(key) is None
    assert not fake.written


async def test_reading_detects_a_folded_oddity() -> None:
    fake = FakeService(folding(Oddity.EMPTY))
    probe = await probe_of(fake)
    await fake.memory.put("data", "/d/a", [memoryview(b"body")], PutOptions())
    dialect = await probe.dialect_for_reading("data", "/d//a")
    assert dialect.keeps == {Oddity.LEADING}
    assert dialect.folds == {Oddity.EMPTY}
    assert dialect.absent_reason("/d//a")
    assert await remaining_keys(fake) == ["/d/a"]


@pytest.mark.parametrize(("oddity", "key"), UNUSUAL.items())
async def test_folding_service_is_detected_without_changing_objects(
    oddity: Oddity, key: str
) -> None:
    fake = FakeService(folding(oddity))
    probe = await probe_of(fake)
    other = folded(key, oddity)
    await fake.memory.put("data", other, [memoryview(b"precious")], PutOptions())
    dialect = await probe.dialect_for_writing("data", key)
    assert dialect.unwritable_reason(key)
    assert await remaining_keys(fake) == [other]
    assert (await fake.memory.head("data", other)).size == 8


async def test_service_that_drops_bodies_of_keys_with_a_trailing_slash_is_detected() -> None:
    class BodyDroppingService(FakeService):
        async def put_object(
            self, bucket: str, key: str, _views: Sequence[memoryview], options: PutOptions
        ) -> ObjectInfo:
            return await super().put_object(bucket, key, [], options)

    fake = BodyDroppingService()
    probe = await probe_of(fake)
    assert (await probe.dialect_for_writing("data", "a/")).unwritable_reason("a/")
    assert not await remaining_keys(fake)


async def test_every_oddity_of_a_key_is_probed() -> None:
    fake = FakeService(folding(Oddity.EMPTY))
    dialect = await (await probe_of(fake)).dialect_for_writing("data", "/a//b\\c/")
    assert dialect.folds == {Oddity.EMPTY}
    assert dialect.keeps == {Oddity.LEADING, Oddity.TRAILING, Oddity.BACKSLASH}


async def test_unusual_key_is_not_refused_when_the_service_rejects_the_probe() -> None:
    fake = FakeService()
    fake.put_error = InvalidNameError("the service does not accept the name")
    dialect = await (await probe_of(fake)).dialect_for_writing("data", "a//b")
    assert dialect.unwritable_reason("a//b") is None


async def test_denied_probe_suggests_the_dialect() -> None:
    fake = FakeService()
    fake.put_error = PermissionDeniedError("the credentials do not permit this request")
    with pytest.raises(PermissionDeniedError, match=r"an empty segment.*dialect='s3'"):
        await (await probe_of(fake)).dialect_for_writing("data", "a//b")


@pytest.mark.parametrize("folds", [True, False])
async def test_reading_a_missing_key_writes_nothing(*, folds: bool) -> None:
    fake = FakeService(folding(Oddity.EMPTY) if folds else unchanged)
    await (await probe_of(fake)).dialect_for_reading("data", "a//b")
    assert not fake.written


async def test_reading_distinguishes_two_objects_from_one_object_under_two_keys() -> None:
    fake = FakeService()
    probe = await probe_of(fake)
    for key in ("a//b", "a/b"):
        await fake.memory.put("data", key, [memoryview(b"x")], PutOptions(write_id=key))
    dialect = await probe.dialect_for_reading("data", "a//b")
    assert dialect.keeps == {Oddity.EMPTY}
    assert not fake.written

    fake = FakeService(folding(Oddity.EMPTY))
    probe = await probe_of(fake)
    await fake.memory.put("data", "a/b", [memoryview(b"x")], PutOptions(write_id="w"))
    dialect = await probe.dialect_for_reading("data", "a//b")
    assert dialect.absent_reason("a//b")
    assert await remaining_keys(fake) == ["a/b"]


async def test_unusual_key_is_not_sent_before_the_service_is_recognised(
    scripted_driver: Any,
) -> None:
    _, opened_driver = scripted_driver(response(502), response(502), endpoint_url="http://h:9")
    async with opened_driver as driver:
        with pytest.raises(UnavailableError, match="dialect"):
            await driver.put("data", "a//b", [], PutOptions())


@pytest.mark.parametrize(
    ("key", "oddity", "expected"),
    [
        ("up/loads/a//b", Oddity.EMPTY, "up/loads/NAME//x"),
        ("a//b", Oddity.EMPTY, "NAME//x"),
        ("up/a\\b//c", Oddity.EMPTY, "up/NAME//x"),
        ("up/a\\b", Oddity.BACKSLASH, "up/NAME\\x"),
        ("up/a/", Oddity.TRAILING, "up/NAME/"),
        ("/up/a", Oddity.LEADING, "/NAME"),
        ("/up//a", Oddity.EMPTY, "NAME//x"),
    ],
)
def test_probe_key_is_near_the_key_and_has_only_one_oddity(
    key: str, oddity: Oddity, expected: str
) -> None:
    name = sample(key, oddity, "NAME")
    assert name == expected
    assert oddities_of(name) == [oddity]


def test_usual_keys_have_no_oddity() -> None:
    for key in ("a", "a/b", "a b/c", "é", "..a/b.", "%2F"):
        assert is_usual(key)
        assert not oddities_of(key)
        assert S3.unwritable_reason(key) is None


# -- real services ---------------------------------------------------------------------------------


@pytest.fixture
def unrecognised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable recognition, like a proxy that rewrites all headers."""
    monkeypatch.setattr(_dialects, "_RECOGNISED_BY", ())


@pytest.mark.usefixtures("unrecognised")
async def test_unrecognised_seaweedfs_loses_no_object_to_unusual_keys(seaweed: S3Server) -> None:
    bucket = f"probing-{uuid4().hex[:20]}"
    async with Trove(driver_of(seaweed)) as store:
        await store.create_bucket(bucket)
        await store.put(bucket, "a/b", b"first")
        for key in ("a//b", "/a/b", "a\\b", "a/b/"):
            with pytest.raises(InvalidNameError, match="does not keep"):
                await store.put(bucket, key, b"SECOND")
            with pytest.raises(InvalidNameError, match="does not keep"):
                await store.move(bucket, "a/b", bucket, key)
            with pytest.raises(ObjectNotFoundError):
                await store.read(bucket, key)
            await store.delete(bucket, key)
        async for result in store.delete_many(bucket, ["a//b", "/a/b"]):
            assert result.error is None
        assert await store.read(bucket, "a/b") == b"first"
        assert [entry.key for entry in await store.list(bucket).all()] == ["a/b"]


@pytest.mark.usefixtures("unrecognised")
async def test_unrecognised_seaweedfs_does_not_return_an_object_for_another_key(
    seaweed: S3Server,
) -> None:
    bucket = f"probing-{uuid4().hex[:20]}"
    async with Trove(driver_of(seaweed)) as store:
        await store.create_bucket(bucket)
        await store.put(bucket, "a/b", b"first")
        with pytest.raises(ObjectNotFoundError):
            await store.head(bucket, "a//b")
        with pytest.raises(ObjectNotFoundError):
            await store.copy(bucket, "/a/b", bucket, "c")
        await store.delete(bucket, "a\\b")
        assert await store.read(bucket, "a/b") == b"first"


async def test_directory_object_is_read_and_deleted(seaweed: S3Server) -> None:
    bucket = f"probing-{uuid4().hex[:20]}"
    driver = driver_of(seaweed)
    async with Trove(driver) as store:
        await store.create_bucket(bucket)
        await store.put(bucket, "dir/file", b"x")
        with pytest.raises(ObjectNotFoundError):
            await store.head(bucket, "dir/")  # a directory, not an object
        client = await driver.client
        await client.put_object(Bucket=bucket, Key="dir/")
        assert [entry.key for entry in await store.list(bucket).all()] == ["dir/", "dir/file"]
        assert (await store.head(bucket, "dir/")).size == 0
        assert await store.read(bucket, "dir/") == b""
        await store.delete(bucket, "dir/")
        assert [entry.key for entry in await store.list(bucket).all()] == ["dir/file"]


async def test_moto_keeps_unusual_keys_and_no_probe_object(moto_server: S3Server) -> None:
    bucket = f"probing-{uuid4().hex[:20]}"
    keys = ["a//b", "/a/b", "a\\b", "a/b/", "a/b"]
    async with Trove(driver_of(moto_server)) as store:
        await store.create_bucket(bucket)
        for key in keys:
            await store.put(bucket, key, key.encode())
        for key in keys:
            assert await store.read(bucket, key) == key.encode()
        assert [entry.key for entry in await store.list(bucket).all()] == sorted(keys)


@pytest.mark.parametrize("key", ["a/../b", "a/./b", "../b", "a/.."])
async def test_key_with_a_dot_segment_is_read_and_deleted(moto_server: S3Server, key: str) -> None:
    bucket = f"probing-{uuid4().hex[:20]}"
    driver = driver_of(moto_server)
    async with Trove(driver) as store:
        await store.create_bucket(bucket)
        await store.put(bucket, "b", b"other")
        await driver.put(bucket, key, [memoryview(b"dots")], PutOptions())  # as another tool would
        assert {entry.key for entry in await store.list(bucket).all()} == {key, "b"}
        assert await store.read(bucket, key) == b"dots"
        assert (await store.head(bucket, key)).size == 4
        await store.copy(bucket, key, bucket, "copy")
        assert await store.read(bucket, "copy") == b"dots"
        await store.delete(bucket, key)
        assert [entry.key for entry in await store.list(bucket).all()] == ["b", "copy"]
