"""The driver and store suites against servers with the Cloud Storage API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from tests.drivers.gcs.in_memory_gcs import InMemoryGCS
from tests.drivers.gcs.in_memory_gcs_server import gcs_server
from tests.fault_proxy import FaultProxy
from tests.server_quirks import expect_failures
from trove_async import Trove
from trove_async.drivers.gcs import GCSDriver
from trove_async.testing import DriverRanges, DriverSuite, StoreSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from trove_async.driver import AsyncDriver
    from trove_async.testing.servers import GCSServer

REJECTED_KEYS = frozenset({"new\nline", "carriage\rreturn"})


class VersionedBuckets:
    """Lets the suite enable versioning of a bucket."""

    async def keep_versions(self, backend: AsyncDriver, bucket: str) -> None:
        assert isinstance(backend, GCSDriver)
        await backend.set_versioning(bucket, enabled=True)


class TestInMemoryGCS(VersionedBuckets, DriverSuite):
    """The in-memory service with its default settings."""

    refused_keys = REJECTED_KEYS

    @pytest_asyncio.fixture
    async def driver(self) -> AsyncIterator[GCSDriver]:  # type: ignore[override]  # yields from a server
        async with gcs_server(InMemoryGCS()) as url:
            yield GCSDriver(endpoint_url=url)


class TestInMemoryGCSWithoutXML(VersionedBuckets, DriverSuite):
    """A server without the XML API, such as an emulator under a host name it is not configured for."""

    refused_keys = REJECTED_KEYS

    @pytest_asyncio.fixture
    async def driver(self) -> AsyncIterator[GCSDriver]:  # type: ignore[override]  # yields from a server
        service = InMemoryGCS()
        service.has_xml_api = False
        async with gcs_server(service) as url:
            yield GCSDriver(endpoint_url=url)


class TestInMemoryGCSWithManyRequests(VersionedBuckets, DriverSuite):
    """A server that persists 256 KiB of an upload, and copies 100 KiB in a rewrite, per request."""

    refused_keys = REJECTED_KEYS

    @pytest_asyncio.fixture
    async def driver(self) -> AsyncIterator[GCSDriver]:  # type: ignore[override]  # yields from a server
        service = InMemoryGCS()
        service.max_persisted = 256 * 1024
        service.max_rewritten = 100 * 1024
        async with gcs_server(service) as url:
            yield GCSDriver(endpoint_url=url)


EMULATOR_IGNORES = {
    "test_commit_if_none_match_keeps_existing_object": "it ignores conditions of resumable uploads",
    "test_commit_if_match_replaces_only_the_matching_object": "it ignores conditions of resumable uploads",
    "test_racing_commits_have_one_winner": "it ignores conditions of resumable uploads",
    "test_copy_of_replaced_source_changes_nothing": "it ignores conditions of rewrites",
    "test_copy_if_none_match_keeps_existing_object": "it ignores conditions of rewrites",
    "test_copy_if_match_replaces_only_the_matching_object": "it ignores conditions of rewrites",
    "test_delete_if_match_requires_the_matching_object": "it ignores conditions of deletions",
}
EMULATOR_FAILS_WITH_LIMIT_1 = dict.fromkeys(
    (
        "test_versions_are_the_same_for_every_page_size",
        "test_version_listing_applies_prefix",
        "test_version_listing_applies_start_after",
        "test_versions_can_be_deleted_while_listing",
    ),
    "its pages start at a name, so a name with more versions than fit on a page is repeated forever",
)
EMULATOR_FAILS_WITH_LIMITS_BELOW_1000 = dict.fromkeys(
    (
        "test_versions_of_one_key_can_be_deleted_while_listing",
        "test_start_after_excludes_all_versions_of_its_key",
    ),
    "its pages start at a name, so a name with more versions than fit on a page is repeated forever",
)
EMULATOR_KEEPS_VERSIONS = dict.fromkeys(
    (
        "test_delete_of_a_version_keeps_the_others",
        "test_bucket_whose_versions_are_all_deleted_is_empty",
    ),
    "it does not delete noncurrent versions permanently",
)
EMULATOR_OTHERS = {
    "test_listing_applies_prefix_delimiter_and_start_after": "it uses only the first character of a delimiter",
    "test_part_can_be_sent_again_after_cancelled_send": "a status request creates the object from an incomplete body",
}


@expect_failures(
    {
        "test_body_that_does_not_match_its_checksum_is_refused": "it does not verify checksums of puts"
    },
    where=lambda case: (
        case["operation"] == "put"
    ),  # the driver itself verifies the checksum of an upload
)
@expect_failures({**EMULATOR_IGNORES, **EMULATOR_OTHERS, **EMULATOR_KEEPS_VERSIONS})
@expect_failures(EMULATOR_FAILS_WITH_LIMIT_1, where=lambda case: case["limit"] == 1)
@expect_failures(EMULATOR_FAILS_WITH_LIMITS_BELOW_1000, where=lambda case: case["limit"] < 1000)
class TestEmulator(VersionedBuckets, DriverSuite):
    """fake-gcs-server."""

    refused_keys = REJECTED_KEYS

    @pytest_asyncio.fixture
    async def driver(  # type: ignore[override]  # as above
        self, fake_gcs: GCSServer, request: pytest.FixtureRequest
    ) -> AsyncIterator[GCSDriver]:
        url, project = fake_gcs.endpoint_url, fake_gcs.project
        if not hasattr(DriverRanges, request.function.__name__):
            yield GCSDriver(endpoint_url=url, project=project)
            return
        # The emulator silently closes a connection after a range that selects nothing. The next
        # request on that connection may fail, and the suite does not retry. The proxy opens a new
        # connection for each request.
        async with FaultProxy(url) as proxy:
            yield GCSDriver(endpoint_url=proxy.endpoint_url, project=project)


class TestStoreOnInMemoryGCS(StoreSuite):
    refused_keys = REJECTED_KEYS

    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        async with gcs_server(InMemoryGCS()) as url, Trove(GCSDriver(endpoint_url=url)) as store:
            yield store


STORE_ON_EMULATOR_FAILS = {
    "test_listing_applies_its_options": "it uses only the first character of a delimiter",
    "test_copy_if_none_match_never_replaces_an_object": "it ignores conditions of rewrites",
    "test_copy_if_match_replaces_only_the_matching_object": "it ignores conditions of rewrites",
    "test_delete_if_match_removes_only_the_matching_object": "it ignores conditions of deletions",
}
STORE_ON_EMULATOR_FAILS_IN_PARTS = {
    "test_if_none_match_never_replaces_an_object": "it ignores conditions of resumable uploads",
    "test_if_match_replaces_only_the_matching_object": "it ignores conditions of resumable uploads",
}
STORE_ON_EMULATOR_SOMETIMES_FAILS = {
    "test_concurrent_if_none_match_puts_have_one_winner": "it ignores conditions of resumable uploads",
}


@expect_failures(STORE_ON_EMULATOR_FAILS)
@expect_failures(STORE_ON_EMULATOR_FAILS_IN_PARTS)
@expect_failures(STORE_ON_EMULATOR_SOMETIMES_FAILS, always=False)
class TestStoreOnEmulator(StoreSuite):
    refused_keys = REJECTED_KEYS

    @pytest_asyncio.fixture
    async def store(  # type: ignore[override]  # depends on a server fixture
        self, fake_gcs: GCSServer
    ) -> AsyncIterator[Trove]:
        async with Trove(GCSDriver(endpoint_url=fake_gcs.endpoint_url)) as store:
            yield store
