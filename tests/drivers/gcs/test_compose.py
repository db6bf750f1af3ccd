"""Server-side composition of objects."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.drivers.gcs.in_memory_gcs import InMemoryGCS, RejectedError, StoredObject
from tests.drivers.gcs.in_memory_gcs_server import gcs_server
from trove_async.drivers.gcs import GCSDriver
from trove_async.errors import (
    BucketNotFoundError,
    ClosedError,
    IntegrityError,
    InvalidNameError,
    NotSupportedError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
)
from trove_async.options import PutOptions
from trove_async.testing import opened
from trove_async.testing._harness import content, crc32c_of, keys, read, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from trove_async.testing.servers import GCSServer


@asynccontextmanager
async def open_driver(service: InMemoryGCS) -> AsyncIterator[GCSDriver]:
    async with gcs_server(service) as url, opened(driver := GCSDriver(endpoint_url=url)):
        await driver.create_bucket("bucket")
        yield driver


@pytest.mark.parametrize("count", [1, 2, 32])
async def test_compose_concatenates_its_sources(count: int) -> None:
    bodies = [content(1000 * number, str(number)) for number in range(count)]
    expected = b"".join(bodies)
    async with open_driver(InMemoryGCS()) as driver:
        for number, body in enumerate(bodies):
            await write(driver, "bucket", f"part-{number}", body)
        options = PutOptions(
            content_type="text/plain",
            metadata={"made-of": "parts"},
            cache_control="no-store",
            storage_class="NEARLINE",
            size=len(expected),
            checksums={"crc32c": crc32c_of(expected)},
        )
        sources = [f"part-{number}" for number in range(count)]
        info = await driver.compose("bucket", sources, "dir/all", options)
        assert (info.bucket, info.key, info.size) == ("bucket", "dir/all", len(expected))
        assert dict(info.checksums) == {"crc32c": crc32c_of(expected)}
        assert (info.content_type, dict(info.metadata)) == ("text/plain", {"made-of": "parts"})
        assert (info.cache_control, info.storage_class) == ("no-store", "NEARLINE")
        assert await read(driver, "bucket", "dir/all") == expected
        assert await driver.head("bucket", "dir/all") == info
        assert await read(driver, "bucket", "part-0") == bodies[0]


async def test_object_can_be_composed_onto_itself() -> None:
    async with open_driver(InMemoryGCS()) as driver:
        for key in ("log", "more"):
            await write(driver, "bucket", key, key.encode())
        await driver.compose("bucket", ["log", "more", "more"], "log")
        assert await read(driver, "bucket", "log") == b"logmoremore"


async def test_compose_honours_conditions() -> None:
    async with open_driver(InMemoryGCS()) as driver:
        for key in ("a", "existing"):
            await write(driver, "bucket", key, key.encode())
        with pytest.raises(ObjectExistsError):
            await driver.compose("bucket", ["a"], "existing", PutOptions(if_none_match="*"))
        with pytest.raises(PreconditionFailedError):
            await driver.compose("bucket", ["a"], "existing", PutOptions(if_match="1"))
        assert await read(driver, "bucket", "existing") == b"existing"
        current = await driver.head("bucket", "existing")
        await driver.compose("bucket", ["a"], "existing", PutOptions(if_match=current.etag))
        await driver.compose("bucket", ["a"], "new", PutOptions(if_none_match="*"))
        assert (
            await read(driver, "bucket", "existing") == await read(driver, "bucket", "new") == b"a"
        )


async def test_invalid_compose_raises_and_creates_nothing() -> None:
    async with open_driver(InMemoryGCS()) as driver:
        await write(driver, "bucket", "a", b"a")
        for sources in ([], ["a"] * 33, "a"):
            with pytest.raises(ValueError, match="1 to 32"):
                await driver.compose("bucket", sources, "all")
        with pytest.raises(ObjectNotFoundError) as caught:
            await driver.compose("bucket", ["a", "none"], "all")
        assert caught.value.key == "none"
        with pytest.raises(BucketNotFoundError):
            await driver.compose("no-bucket", ["a"], "all")
        with pytest.raises(InvalidNameError):
            await driver.compose("bucket", ["a"], "line\nbreak")
        for unsupported in (PutOptions(tags={"a": "b"}), PutOptions(expires=datetime.now(UTC))):
            with pytest.raises(NotSupportedError, match="must not have tags or expires"):
                await driver.compose("bucket", ["a"], "all", unsupported)
        for options in (PutOptions(size=2), PutOptions(checksums={"crc32c": crc32c_of(b"b")})):
            with pytest.raises(IntegrityError, match=r"must be .+ of the sources"):
                await driver.compose("bucket", ["a"], "all", options)
        assert await keys(driver, "bucket") == ["a"]
    with pytest.raises(ClosedError):
        await driver.compose("bucket", ["a"], "all")


class ChangingGCS(InMemoryGCS):
    """A service on which another client replaces or deletes a source just before a compose."""

    def __init__(self, *, deletes: bool) -> None:
        super().__init__()
        self.deletes = deletes

    def compose(
        self, bucket: str, name: str, fields: Mapping[str, Any], query: Mapping[str, str]
    ) -> StoredObject:
        if self.deletes:
            self.delete(bucket, "b", {})
        else:
            self.insert(bucket, {"name": "b"}, b"other", {})
        return super().compose(bucket, name, fields, query)


@pytest.mark.parametrize("deletes", [False, True])
async def test_concurrently_changed_source_raises_and_creates_nothing(deletes: bool) -> None:  # noqa: FBT001 - a parameter
    async with open_driver(ChangingGCS(deletes=deletes)) as driver:
        for key in ("a", "b"):
            await write(driver, "bucket", key, key.encode())
        with pytest.raises(ObjectChangedError) as caught:
            await driver.compose("bucket", ["a", "b"], "all", PutOptions(if_none_match="*"))
        assert caught.value.key == "b"
        assert "all" not in await keys(driver, "bucket")


class CorruptingGCS(InMemoryGCS):
    """A service that stores a different body than the concatenated sources."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body

    def compose(
        self, bucket: str, name: str, fields: Mapping[str, Any], query: Mapping[str, str]
    ) -> StoredObject:
        composed = super().compose(bucket, name, fields, query)
        corrupted = self.buckets[bucket][name] = replace(composed, body=self.body)
        return corrupted


@pytest.mark.parametrize("body", [b"aB", b"ab!"])
async def test_corrupt_composed_object_is_deleted_unless_it_replaced_a_source(body: bytes) -> None:
    async with open_driver(CorruptingGCS(body)) as driver:
        for key in ("a", "b"):
            await write(driver, "bucket", key, key.encode())
        with pytest.raises(IntegrityError):
            await driver.compose("bucket", ["a", "b"], "all")
        assert await keys(driver, "bucket") == ["a", "b"]
        with pytest.raises(IntegrityError):
            await driver.compose("bucket", ["a", "b"], "a")
        assert await keys(driver, "bucket") == ["a", "b"]


class ObjectWithoutChecksum(StoredObject):
    """An object whose resource has no CRC-32C."""

    def resource(self, bucket: str) -> dict[str, Any]:
        fields = super().resource(bucket)
        del fields["crc32c"]
        return fields


class CorruptingGCSWithoutChecksum(CorruptingGCS):
    """A corrupting service that has no CRC-32C of the object `b`."""

    def object(self, bucket: str, name: str, query: Mapping[str, str]) -> StoredObject:
        stored = super().object(bucket, name, query)
        if name != "b":
            return stored
        return ObjectWithoutChecksum(
            stored.name, stored.body, stored.generation, stored.updated, stored.fields
        )


async def test_checksum_in_options_is_verified_if_a_source_has_none() -> None:
    async with open_driver(CorruptingGCSWithoutChecksum(b"aB")) as driver:
        for key in ("a", "b"):
            await write(driver, "bucket", key, key.encode())
        assert (await driver.compose("bucket", ["a", "b"], "all")).size == 2
        options = PutOptions(checksums={"crc32c": crc32c_of(b"ab")})
        with pytest.raises(IntegrityError):
            await driver.compose("bucket", ["a", "b"], "all", options)


def test_in_memory_service_rejects_wrong_number_of_sources() -> None:
    service = InMemoryGCS()
    service.create_bucket("bucket")
    for count in (0, 33):
        document = {"sourceObjects": [{"name": "a"}] * count, "destination": {}}
        with pytest.raises(RejectedError):
            service.compose("bucket", "all", document, {})


async def test_emulator_composes(fake_gcs: GCSServer) -> None:
    async with opened(driver := GCSDriver(endpoint_url=fake_gcs.endpoint_url)):
        await driver.create_bucket("composed")
        for key in ("a", "b"):
            await write(driver, "composed", key, key.encode() * 1000)
        options = PutOptions(content_type="text/plain", metadata={"of": "two"})
        info = await driver.compose("composed", ["a", "b", "a"], "all", options)
        assert (info.size, info.content_type, dict(info.metadata)) == (
            3000,
            "text/plain",
            {"of": "two"},
        )
        body = await read(driver, "composed", "all")
        assert body == b"a" * 1000 + b"b" * 1000 + b"a" * 1000
