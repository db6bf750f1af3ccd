"""Pages of versions from Ceph, where a marker becomes invalid when its version is deleted."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.drivers.s3.scripted_transport import response
from trove_async.errors import BackendError
from trove_async.models import VersionInfo
from trove_async.options import ListOptions, VersionPage
from trove_async.paging import split_at_key

if TYPE_CHECKING:
    from collections.abc import Sequence

REQUEST_ID = "tx00000ffa230ec63ef0236-006b0b3f1b-1012-default"


def make_version(key: str, number: int) -> VersionInfo:
    return VersionInfo(
        bucket="data",
        key=key,
        version_id=str(number),
        size=1,
        etag="e",
        last_modified=datetime(2025, 1, 1, tzinfo=UTC),
        latest=False,
        backend="test",
    )


class CephGateway:
    """Lists versions as Ceph 16.2 does.

    A listing includes the key of `start_after`. If the version that the marker names has been
    deleted, the listing skips the remaining versions of that key.
    """

    def __init__(self, *keys: tuple[str, int], max_page_size: int = 1000) -> None:
        self.versions = [
            make_version(key, number) for key, count in keys for number in range(count, 0, -1)
        ]
        self.max_page_size = max_page_size
        self.requests: list[ListOptions] = []

    async def list_versions(self, _bucket: str, options: ListOptions) -> VersionPage:
        self.requests.append(options)
        key, version_id = json.loads(options.token or json.dumps([options.start_after, None]))
        remaining = [version for version in self.versions if version.key.startswith(options.prefix)]
        if key is not None:
            remaining = [version for version in remaining if version.key >= key]
        if version_id is not None:
            version_ids = [version.version_id for version in remaining if version.key == key]
            if version_id in version_ids:
                remaining = remaining[version_ids.index(version_id) + 1 :]
            else:
                remaining = [version for version in remaining if version.key > key]
        limit = min(options.limit, self.max_page_size)
        page = remaining[:limit]
        is_truncated = len(remaining) > limit
        token = json.dumps([page[-1].key, page[-1].version_id]) if is_truncated else None
        return VersionPage(entries=page, token=token)


async def list_all(
    driver: Any, gateway: CephGateway, limit: int, *, delete: bool
) -> list[VersionInfo]:
    """List all versions in pages. With `delete`, delete each page before requesting the next."""
    listed: list[VersionInfo] = []
    options = ListOptions(limit=limit)
    while True:
        page = await driver.version_page("data", options)
        listed += page.entries
        if delete:
            deleted = {(entry.key, entry.version_id) for entry in page.entries}
            gateway.versions = [
                entry for entry in gateway.versions if (entry.key, entry.version_id) not in deleted
            ]
        if page.token is None:
            return listed
        options = ListOptions(limit=limit, token=page.token)


def opened_ceph_driver(scripted_driver: Any) -> Any:
    recognition_response = response(403, b"", {"x-amz-request-id": REQUEST_ID})
    return scripted_driver(recognition_response, endpoint_url="http://h:9")[1]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("max_page_size", [1, 2, 3, 1000])
@pytest.mark.parametrize("delete", [True, False])
async def test_no_version_is_skipped_while_versions_are_deleted(
    scripted_driver: Any, limit: int, max_page_size: int, *, delete: bool
) -> None:
    gateway = CephGateway(("a", 1), ("b", 5), ("c", 2), ("d", 1), max_page_size=max_page_size)
    expected = list(gateway.versions)
    async with opened_ceph_driver(scripted_driver) as driver:
        driver._plane.list_versions = gateway.list_versions
        assert await list_all(driver, gateway, limit, delete=delete) == expected


@pytest.mark.parametrize("limit", [1, 2, 1000])
async def test_start_after_key_is_excluded(scripted_driver: Any, limit: int) -> None:
    gateway = CephGateway(("a", 3), ("b", 2), max_page_size=2)
    async with opened_ceph_driver(scripted_driver) as driver:
        driver._plane.list_versions = gateway.list_versions
        page = await driver.version_page("data", ListOptions(start_after="a", limit=limit))
        assert [(entry.key, entry.version_id) for entry in page.entries] == [("b", "2"), ("b", "1")]
        page = await driver.version_page("data", ListOptions(start_after="b", limit=limit))
        assert (list(page.entries), page.token) == ([], None)


async def test_start_after_key_is_excluded_on_services_with_stable_markers(
    scripted_driver: Any,
) -> None:
    gateway = CephGateway(("a", 3), ("b", 1))
    _, opened_driver = scripted_driver(endpoint_url="http://h:9", dialect="s3")
    async with opened_driver as driver:
        driver._plane.list_versions = gateway.list_versions
        for limit in (1, 2, 1000):
            listed: list[VersionInfo] = []
            options = ListOptions(start_after="a", limit=limit)
            while True:
                page = await driver.version_page("data", options)
                listed += page.entries
                if page.token is None:
                    break
                options = ListOptions(start_after="a", limit=limit, token=page.token)
            assert [entry.key for entry in listed] == ["b"]


async def test_endless_page_of_one_key_raises(scripted_driver: Any) -> None:
    gateway = CephGateway(("a", 3))

    async def repeat_page(_bucket: str, _options: ListOptions) -> VersionPage:
        return VersionPage(entries=gateway.versions, token="again")

    async with opened_ceph_driver(scripted_driver) as driver:
        driver._plane.list_versions = repeat_page
        with pytest.raises(BackendError, match="same page again"):
            await driver.version_page("data", ListOptions())


@pytest.mark.parametrize(
    ("keys", "limit", "ended", "page", "next_key"),
    [
        ("", 1, True, "", None),
        ("a", 1, True, "a", None),
        ("aab", 1, False, "aa", "b"),
        ("aab", 2, False, "aa", "b"),
        ("abb", 2, False, "a", "b"),
        ("abb", 2, True, "a", "b"),
        ("abb", 3, True, "abb", None),
        ("abb", 3, False, "a", "b"),
        ("aaa", 2, True, "aaa", None),
        ("abcc", 3, True, "ab", "c"),
    ],
)
def test_page_ends_between_keys(
    keys: Sequence[str], limit: int, *, ended: bool, page: str, next_key: str | None
) -> None:
    listed = [make_version(key, -number) for number, key in enumerate(keys)]
    page_versions, next_page_key = split_at_key(listed, limit, ended=ended)
    assert ("".join(entry.key for entry in page_versions), next_page_key) == (page, next_key)
