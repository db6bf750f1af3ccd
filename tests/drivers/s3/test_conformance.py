"""The contract, and what users are promised, against real servers.

Where a server is laxer or stranger than S3 is, the test is to fail, and the reason says why: one
that the server comes to pass is told of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.server_quirks import expect_failures
from trove_async import Trove
from trove_async.drivers.local import LocalDriver
from trove_async.drivers.s3 import S3Driver
from trove_async.testing import (
    DriverSuite,
    StoreBodies,
    StoreCancellation,
    StoreCopies,
    StoreReading,
    StoreSuite,
)
from trove_async.testing.driver.odd_keys import ODD_KEYS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trove_async.driver import AsyncDriver
    from trove_async.testing.servers import S3Server


def driver_of(server: S3Server, **settings: Any) -> S3Driver:
    given: dict[str, Any] = {
        "region": server.region,
        "endpoint_url": server.endpoint_url,
        "access_key_id": server.access_key_id,
        "secret_access_key": server.secret_access_key,
    }
    return S3Driver(**given, **settings)


MOTO_SPEAKS_NO_XML = {
    "test_odd_key_is_kept_unchanged": "moto has no page for a line break",
}


class KeepsVersions:
    """How the suite is told what makes a bucket of S3 keep versions."""

    async def keep_versions(self, backend: AsyncDriver, bucket: str) -> None:
        assert isinstance(backend, S3Driver)
        await backend.set_versioning(bucket, enabled=True)


MOTO_SOMETIMES = {
    "test_concurrent_puts_of_one_key_leave_one_whole_body": "moto's threads trip over one another",
    # It tells them after all versions, and within a second there is no telling where they belong.
    "test_delete_marker_keeps_its_position": "moto tells no order of markers and versions",
    "test_versions_are_the_same_for_every_page_size": "moto tells no order of markers and versions",
}
MOTO_IGNORES = {
    "test_copy_of_replaced_source_changes_nothing": "moto looks at no copy's conditions",
    "test_listing_applies_prefix_delimiter_and_start_after": "moto echoes a prefix that XML cannot carry",
    "test_odd_keys_do_not_collide": "moto has no page for a key with a line break",
    "test_versions_can_be_deleted_while_listing": "moto skips a version behind a key that is gone",
    "test_versions_of_one_key_can_be_deleted_while_listing": (
        "moto skips a version behind a key that is gone"
    ),
}


@expect_failures(MOTO_SPEAKS_NO_XML, where=lambda case: case["key"] == "new\nline")
@expect_failures(MOTO_SOMETIMES, always=False)
@expect_failures(MOTO_IGNORES)
class TestMoto(KeepsVersions, DriverSuite):
    """It compares no checksums, and so stands for the services that know none."""

    @pytest.fixture
    def driver(self, moto_server: S3Server) -> S3Driver:
        return driver_of(moto_server, checksums=False)


SEAWEED_REFUSES = frozenset(
    key
    for key in ODD_KEYS
    if key.startswith("/")
    or key.endswith("/")
    or "//" in key
    or "\\" in key
    or max(map(len, key.encode().split(b"/"))) > 255
)
SEAWEED_MANGLES = {
    "test_key_of_max_key_bytes_is_kept": "SeaweedFS takes no segment of more than 255 bytes",
    "test_version_keys_that_xml_cannot_encode_are_unchanged": (
        "SeaweedFS encodes no key in a listing of versions"
    ),
    "test_if_match_in_missing_bucket_raises_bucket_not_found": (
        "SeaweedFS looks for the object before it looks for the bucket"
    ),
}


@expect_failures(SEAWEED_MANGLES)
class TestSeaweed(KeepsVersions, DriverSuite):
    refused_keys = SEAWEED_REFUSES

    @pytest.fixture
    def driver(self, seaweed: S3Server) -> S3Driver:
        return driver_of(seaweed)


@expect_failures(SEAWEED_MANGLES)
class TestSeaweedBySdk(KeepsVersions, DriverSuite):
    """The same driver, with everything sent through aiobotocore."""

    refused_keys = SEAWEED_REFUSES

    @pytest.fixture
    def driver(self, seaweed: S3Server) -> S3Driver:
        return driver_of(seaweed, data_plane="sdk")


MOTO_IGNORES_IN_STORES = {
    "test_odd_keys_do_not_collide": "moto has no page for a key with a line break",
}
MOTO_SOMETIMES_IN_STORES = dict.fromkeys(
    (
        "test_cancelled_put_leaves_old_or_new_object",
        "test_cancelled_copy_leaves_old_or_new_object",
        "test_cancelled_move_loses_nothing",
    ),
    "moto may store a body that its client broke off",
) | {"test_concurrent_if_none_match_puts_have_one_winner": "moto's threads trip over one another"}


@expect_failures(MOTO_IGNORES_IN_STORES)
@expect_failures(MOTO_SOMETIMES_IN_STORES, always=False)
class TestStoreOnMoto(StoreSuite):
    @pytest_asyncio.fixture
    async def store(  # type: ignore[override]  # a fixture: pytest fills in what it asks for
        self, moto_server: S3Server
    ) -> AsyncIterator[Trove]:
        async with Trove(driver_of(moto_server, checksums=False)) as store:
            yield store


SEAWEED_MANGLES_IN_STORES = {
    "test_key_of_max_key_bytes_is_kept_and_a_longer_one_refused": (
        "SeaweedFS takes no segment of more than 255 bytes"
    ),
}


@expect_failures(SEAWEED_MANGLES_IN_STORES)
class TestStoreOnSeaweed(StoreSuite):
    refused_keys = SEAWEED_REFUSES

    @pytest_asyncio.fixture
    async def store(  # type: ignore[override]  # a fixture: pytest fills in what it asks for
        self, seaweed: S3Server
    ) -> AsyncIterator[Trove]:
        async with Trove(driver_of(seaweed)) as store:
            yield store


class TestRoutedStore(StoreBodies, StoreReading, StoreCopies, StoreCancellation):
    """The cold tier behind a local one: all that these tests write is cold, and unsigned but its head."""

    @pytest_asyncio.fixture
    async def store(  # type: ignore[override]  # a fixture: pytest fills in what it asks for
        self, seaweed: S3Server, tmp_path: Path
    ) -> AsyncIterator[Trove]:
        async with Trove(
            LocalDriver(tmp_path, fsync=False),
            backends={"cold": driver_of(seaweed, payload_signing=False)},
            route_functions=[lambda _bucket, _key: "cold"],
        ) as store:
            yield store
