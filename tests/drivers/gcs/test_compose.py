"""Server-side composition of objects."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.drivers.gcs.in_memory_gcs import Cloud, RefusedError, Stored
from tests.drivers.gcs.in_memory_gcs_server import serving
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
async def in_cloud(cloud: Cloud) -> AsyncIterator[GCSDriver]:
    async with serving(cloud) as url, opened(driver := GCSDriver(endpoint_url=url)):
        await driver.create_bucket("bucket")
        yield driver


@pytest.mark.parametrize("count", [1, 2, 32])
async def test_compose_concatenates_its_sources(count: int) -> None:
    bodies = [content(1000 * number, str(number)) for number in range(count)]
    whole = b"".join(bodies)
    async with in_cloud(Cloud()) as driver:
        for number, body in enumerate(bodies):
            await write(driver, "bucket", f"part-{number}", body)
        options = PutOptions(
            content_type="text/plain",
            metadata={"of": "parts"},
            cache_control="no-store",
            storage_class="NEARLINE",
            size=len(whole),
            checksums={"crc32c": crc32c_of(whole)},
        )
        sources = [f"part-{number}" for number in range(count)]
        info = await driver.compose("bucket", sources, "dir/all", options)
        assert (info.bucket, info.key, info.size) == ("bucket", "dir/all", len(whole))
        assert dict(info.checksums) == {"crc32c": crc32c_of(whole)}
        assert (info.content_type, dict(info.metadata)) == ("text/plain", {"of": "parts"})
        assert (info.cache_control, info.storage_class) == ("no-store", "NEARLINE")
        assert await read(driver, "bucket", "dir/all") == whole
        assert await driver.head("bucket", "dir/all") == info
        assert await read(driver, "bucket", "part-0") == bodies[0]


async def test_object_can_be_composed_onto_itself() -> None:
    async with in_cloud(Cloud()) as driver:
        for key in ("log", "more"):
            await write(driver, "bucket", key, key.encode())
        await driver.compose("bucket", ["log", "more", "more"], "log")
        assert await read(driver, "bucket", "log") == b"logmoremore"


async def test_compose_honours_conditions() -> None:
    async with in_cloud(Cloud()) as driver:
        for key in ("a", "there"):
            await write(driver, "bucket", key, key.encode())
        with pytest.raises(ObjectExistsError):
            await driver.compose("bucket", ["a"], "there", PutOptions(if_none_match="*"))
        with pytest.raises(PreconditionFailedError):
            await driver.compose("bucket", ["a"], "there", PutOptions(if_match="1"))
        assert await read(driver, "bucket", "there") == b"there"
        now = await driver.head("bucket", "there")
        await driver.compose("bucket", ["a"], "there", PutOptions(if_match=now.etag))
        await driver.compose("bucket", ["a"], "new", PutOptions(if_none_match="*"))
        assert await read(driver, "bucket", "there") == await read(driver, "bucket", "new") == b"a"


async def test_invalid_compose_raises_and_creates_nothing() -> None:
    async with in_cloud(Cloud()) as driver:
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
        with pytest.raises(NotSupportedError):
            await driver.compose("bucket", ["a"], "all", PutOptions(tags={"a": "b"}))
        for promised in (PutOptions(size=2), PutOptions(checksums={"crc32c": crc32c_of(b"b")})):
            with pytest.raises(IntegrityError, match=r"must be .+ of the sources"):
                await driver.compose("bucket", ["a"], "all", promised)
        assert await keys(driver, "bucket") == ["a"]
    with pytest.raises(ClosedError):
        await driver.compose("bucket", ["a"], "all")


class Changing(Cloud):
    """A cloud where another client replaces or deletes a source just before a compose."""

    def __init__(self, *, gone: bool) -> None:
        super().__init__()
        self.gone = gone

    def compose(
        self, bucket: str, name: str, said: Mapping[str, Any], query: Mapping[str, str]
    ) -> Stored:
        if self.gone:
            self.delete(bucket, "b", {})
        else:
            self.insert(bucket, {"name": "b"}, b"other", {})
        return super().compose(bucket, name, said, query)


@pytest.mark.parametrize("gone", [False, True])
async def test_concurrently_changed_source_raises_and_creates_nothing(gone: bool) -> None:  # noqa: FBT001 - a parameter
    async with in_cloud(Changing(gone=gone)) as driver:
        for key in ("a", "b"):
            await write(driver, "bucket", key, key.encode())
        with pytest.raises(ObjectChangedError) as caught:
            await driver.compose("bucket", ["a", "b"], "all", PutOptions(if_none_match="*"))
        assert caught.value.key == "b"
        assert "all" not in await keys(driver, "bucket")


class Spoiling(Cloud):
    """A cloud that composes a body that differs from the sources."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body

    def compose(
        self, bucket: str, name: str, said: Mapping[str, Any], query: Mapping[str, str]
    ) -> Stored:
        made = super().compose(bucket, name, said, query)
        spoilt = self.buckets[bucket][name] = replace(made, body=self.body)
        return spoilt


@pytest.mark.parametrize("body", [b"aB", b"ab!"])
async def test_composed_object_that_differs_from_sources_is_removed(body: bytes) -> None:
    async with in_cloud(Spoiling(body)) as driver:
        for key in ("a", "b"):
            await write(driver, "bucket", key, key.encode())
        with pytest.raises(IntegrityError):
            await driver.compose("bucket", ["a", "b"], "all")
        assert await keys(driver, "bucket") == ["a", "b"]
        with pytest.raises(IntegrityError):
            await driver.compose("bucket", ["a", "b"], "a")
        assert await keys(driver, "bucket") == ["a", "b"]


class Bare(Stored):
    """An object whose resource has no CRC-32C."""

    def resource(self, bucket: str) -> dict[str, Any]:
        said = super().resource(bucket)
        del said["crc32c"]
        return said


class Unsummed(Spoiling):
    """A spoiling cloud that also omits the CRC-32C of one source."""

    def object(self, bucket: str, name: str, query: Mapping[str, str]) -> Stored:
        held = super().object(bucket, name, query)
        if name != "b":
            return held
        return Bare(held.name, held.body, held.generation, held.updated, held.said)


async def test_checksum_is_verified_only_if_every_source_has_one() -> None:
    async with in_cloud(Unsummed(b"aB")) as driver:
        for key in ("a", "b"):
            await write(driver, "bucket", key, key.encode())
        assert (await driver.compose("bucket", ["a", "b"], "all")).size == 2
        promised = PutOptions(checksums={"crc32c": crc32c_of(b"ab")})
        with pytest.raises(IntegrityError):
            await driver.compose("bucket", ["a", "b"], "all", promised)


def test_in_memory_cloud_rejects_wrong_number_of_sources() -> None:
    cloud = Cloud()
    cloud.create_bucket("bucket")
    for count in (0, 33):
        asked = {"sourceObjects": [{"name": "a"}] * count, "destination": {}}
        with pytest.raises(RefusedError):
            cloud.compose("bucket", "all", asked, {})


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
