"""Pages of versions, of a service whose markers do not outlive the versions that they name."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.drivers.s3.scripted_transport import response
from trove_async.errors import BackendError
from trove_async.models import VersionInfo
from trove_async.options import ListOptions, VersionPage
from trove_async.paging import whole_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

REQUEST_ID = "tx00000ffa230ec63ef0236-006b0b3f1b-1012-default"


def version(key: str, number: int) -> VersionInfo:
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


class Gateway:
    """Versions as Ceph 16.2 lists them.

    It starts with the key that it is to start after, and behind a version that is gone it skips the
    rest of the key.
    """

    def __init__(self, *keys: tuple[str, int], most: int = 1000) -> None:
        self.versions = [version(key, at) for key, count in keys for at in range(count, 0, -1)]
        self.most = most
        self.asked: list[ListOptions] = []

    async def list_versions(self, _bucket: str, options: ListOptions) -> VersionPage:
        self.asked.append(options)
        key, version_id = json.loads(options.token or json.dumps([options.start_after, None]))
        left = [one for one in self.versions if one.key.startswith(options.prefix)]
        if key is not None:
            left = [one for one in left if one.key >= key]
        if version_id is not None:
            of_key = [one.version_id for one in left if one.key == key]
            if version_id in of_key:
                left = left[of_key.index(version_id) + 1 :]
            else:
                left = [one for one in left if one.key > key]
        limit = min(options.limit, self.most)
        page = left[:limit]
        more = len(left) > limit
        token = json.dumps([page[-1].key, page[-1].version_id]) if more else None
        return VersionPage(entries=page, token=token)


async def pages(driver: Any, gateway: Gateway, limit: int, *, delete: bool) -> list[VersionInfo]:
    told: list[VersionInfo] = []
    options = ListOptions(limit=limit)
    while True:
        page = await driver.version_page("data", options)
        told += page.entries
        if delete:
            gone = {(one.key, one.version_id) for one in page.entries}
            gateway.versions = [
                one for one in gateway.versions if (one.key, one.version_id) not in gone
            ]
        if page.token is None:
            return told
        options = ListOptions(limit=limit, token=page.token)


def scripted_gateway(scripted_driver: Any) -> Any:
    introduction = response(403, b"", {"x-amz-request-id": REQUEST_ID})
    return scripted_driver(introduction, endpoint_url="http://h:9")[1]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("most", [1, 2, 3, 1000])
@pytest.mark.parametrize("delete", [True, False])
async def test_no_version_is_skipped_while_they_are_deleted(
    scripted_driver: Any, limit: int, most: int, *, delete: bool
) -> None:
    gateway = Gateway(("a", 1), ("b", 5), ("c", 2), ("d", 1), most=most)
    there = list(gateway.versions)
    async with scripted_gateway(scripted_driver) as driver:
        driver._open.list_versions = gateway.list_versions
        assert await pages(driver, gateway, limit, delete=delete) == there


@pytest.mark.parametrize("limit", [1, 2, 1000])
async def test_key_that_versions_start_after_is_left_out(scripted_driver: Any, limit: int) -> None:
    gateway = Gateway(("a", 3), ("b", 2), most=2)
    async with scripted_gateway(scripted_driver) as driver:
        driver._open.list_versions = gateway.list_versions
        page = await driver.version_page("data", ListOptions(start_after="a", limit=limit))
        assert [(one.key, one.version_id) for one in page.entries] == [("b", "2"), ("b", "1")]
        page = await driver.version_page("data", ListOptions(start_after="b", limit=limit))
        assert (list(page.entries), page.token) == ([], None)


async def test_key_is_left_out_where_markers_outlive_their_versions(scripted_driver: Any) -> None:
    gateway = Gateway(("a", 3), ("b", 1))
    _, named = scripted_driver(endpoint_url="http://h:9", dialect="s3")
    async with named as driver:
        driver._open.list_versions = gateway.list_versions
        for limit in (1, 2, 1000):
            told: list[VersionInfo] = []
            options = ListOptions(start_after="a", limit=limit)
            while True:
                page = await driver.version_page("data", options)
                told += page.entries
                if page.token is None:
                    break
                options = ListOptions(start_after="a", limit=limit, token=page.token)
            assert [one.key for one in told] == ["b"]


async def test_page_of_one_key_that_never_ends_is_given_up(scripted_driver: Any) -> None:
    gateway = Gateway(("a", 3))

    async def endless(_bucket: str, _options: ListOptions) -> VersionPage:
        return VersionPage(entries=gateway.versions, token="again")

    async with scripted_gateway(scripted_driver) as driver:
        driver._open.list_versions = endless
        with pytest.raises(BackendError, match="again and again"):
            await driver.version_page("data", ListOptions())


@pytest.mark.parametrize(
    ("keys", "limit", "ended", "page", "following"),
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
def test_page_ends_where_a_key_does(
    keys: Sequence[str], limit: int, *, ended: bool, page: str, following: str | None
) -> None:
    told = [version(key, -at) for at, key in enumerate(keys)]
    cut, begins = whole_keys(told, limit, ended=ended)
    assert ("".join(one.key for one in cut), begins) == (page, following)
