"""The driver suite and the store suite against a real Ceph Object Gateway: `make ceph-test`.

A test of behaviour in which the gateway deviates from S3 is expected to fail. The run fails if it
passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.drivers.s3.test_conformance import EnablesVersioning, driver_of
from tests.server_quirks import expect_failures
from trove_async import NotSupportedError, Trove, TroveError
from trove_async.models import MiB
from trove_async.testing import DriverSuite, StoreSuite, servers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from trove_async.drivers.s3 import S3Driver
    from trove_async.testing.servers import S3Server

pytestmark = [pytest.mark.ceph, pytest.mark.timeout(300)]


@pytest.fixture(scope="session")
def ceph() -> Iterator[S3Server]:
    """Run a cluster for all tests of this process. If it cannot be started, the tests fail."""
    with servers.ceph() as server:
        yield server


class TestCeph(EnablesVersioning, DriverSuite):
    @pytest.fixture
    def driver(self, ceph: S3Server) -> S3Driver:
        return driver_of(ceph)


SDK_CANNOT_PARSE_KEYS = {
    "test_odd_key_is_kept_unchanged": "Ceph writes references to characters that XML cannot contain, which the SDK cannot parse",
}


SDK_CANNOT_PARSE_LISTINGS = dict.fromkeys(
    (
        "test_listing_applies_prefix_delimiter_and_start_after",
        "test_listing_is_the_same_for_every_page_size",
    ),
    "Ceph writes characters that XML cannot contain in prefixes and tokens, which the SDK cannot parse",
)


@expect_failures(SDK_CANNOT_PARSE_LISTINGS)
@expect_failures(SDK_CANNOT_PARSE_KEYS, where=lambda case: case["key"] in {"bell\a", "\uffff"})
class TestCephThroughSdk(EnablesVersioning, DriverSuite):
    """The same driver with all requests sent through aiobotocore."""

    @pytest.fixture
    def driver(self, ceph: S3Server) -> S3Driver:
        return driver_of(ceph, data_plane="sdk")


class TestStoreOnCeph(StoreSuite):
    @pytest_asyncio.fixture
    async def store(  # type: ignore[override]  # a fixture: pytest passes its arguments
        self, ceph: S3Server
    ) -> AsyncIterator[Trove]:
        async with Trove(driver_of(ceph)) as store:
            yield store


@pytest.mark.parametrize("plane", ["lean", "sdk"])
async def test_object_that_would_not_be_encrypted_is_not_stored(
    ceph: S3Server, plane: Literal["lean", "sdk"]
) -> None:
    """Over plain http, the gateway rejects a put with encryption, and ignores the encryption of a copy."""
    bucket = f"encryption-{uuid4().hex[:20]}"
    async with Trove(driver_of(ceph)) as plain_store:
        await plain_store.create_bucket(bucket)
        await plain_store.put(bucket, "old", b"old")
    driver = driver_of(ceph, data_plane=plane, server_side_encryption="AES256")
    async with Trove(driver) as store:
        with pytest.raises(TroveError, match="InvalidRequest"):
            await store.put(bucket, "new", b"new")
        with pytest.raises(TroveError):
            await store.copy(bucket, "old", bucket, "new")
        assert [entry.key for entry in await store.list(bucket).all()] == ["old"]


async def test_conditions_are_refused_in_a_versioned_bucket(ceph: S3Server) -> None:
    """In a versioned bucket, the gateway ignores if_none_match, and if_match never matches."""
    bucket = f"conditions-{uuid4().hex[:20]}"
    driver = driver_of(ceph)
    async with Trove(driver) as store:
        await store.create_bucket(bucket)
        old = await store.put(bucket, "old", b"old", if_none_match="*")
        await driver.set_versioning(bucket, enabled=True)
        for body in (b"new", bytes(6 * MiB)):
            with pytest.raises(NotSupportedError):
                await store.put(bucket, "old", body, if_none_match="*")
            with pytest.raises(NotSupportedError):
                await store.put(bucket, "old", body, if_match=old)
        with pytest.raises(NotSupportedError):
            await store.copy(bucket, "old", bucket, "old", metadata={"a": "b"}, if_match=old)
        assert await store.read(bucket, "old") == b"old"
        assert [version.key async for version in store.list_versions(bucket)] == ["old"]
